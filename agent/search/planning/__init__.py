"""Planning: what the brain decides for a whole generation, and how the tools follow it."""
