"""Which small faults the tests of a module notice."""
