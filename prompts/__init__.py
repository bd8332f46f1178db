"""What the brain reads: one folder a prompt set."""
