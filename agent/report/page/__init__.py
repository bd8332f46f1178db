"""The page of a run, as one file or live; everything on it comes from one document of JSON."""
