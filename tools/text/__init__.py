"""Where text comes from: named sources with disjoint parts for calibration, fitness and reporting."""
