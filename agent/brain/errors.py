"""What can go wrong between a prompt and a legal tool call."""
