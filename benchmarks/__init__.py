"""Ratios measured side by side in one run, with both sides' figures and the machine."""
