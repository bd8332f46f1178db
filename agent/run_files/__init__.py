"""What a run writes down, and what is believed of it later."""
