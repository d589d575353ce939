"""Files of weights: their format, names and import."""
