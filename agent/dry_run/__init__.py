"""What a run would cost, and what its brain would read first."""
