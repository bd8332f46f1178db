"""Populations: selection and the end of a generation."""
