"""What a run found: the final choice, its figures, its card, its tasks."""
