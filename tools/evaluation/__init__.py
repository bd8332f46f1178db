"""Evaluation: dense targets, fitness and the population walk."""
