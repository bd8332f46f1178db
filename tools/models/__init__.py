"""Where models come from and which families are understood."""
