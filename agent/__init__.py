"""Who decides: the graph, its state, the brains, the legal calls, the run directory and the trace."""
