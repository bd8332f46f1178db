"""What a run is made from: model, texts, devices, latency table, brain."""
