"""Self-Pruner: the packages of this repository under one name, so that an installed one shares no name with others."""
