"""Brains: what chooses the next tool call."""
