"""Export: a smaller checkpoint, its card and its verification."""
