"""The search itself: the graph of the paper's Algorithm 1, its state, its turns and its operators."""
