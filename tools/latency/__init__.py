"""Latency: paired timings of a candidate against the dense model."""
