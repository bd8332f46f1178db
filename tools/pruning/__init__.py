"""Pruning: calibration, importance, the elastic model, the budget and compensation."""
