"""Benchmarks of the evaluation of populations."""
