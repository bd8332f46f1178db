"""Comparisons: several arms at equal cost, on one model and one set of measurements."""
