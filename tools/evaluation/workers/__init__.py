"""Population walks by several processes, on the GPUs or cores of one machine or of a Ray cluster."""
