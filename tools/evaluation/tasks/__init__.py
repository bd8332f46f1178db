"""The `tasks` fidelity: seven zero-shot tasks through lm-eval, the dearest and the one that others compare by."""
