"""A table of predictions becomes metrics and figures. Knows nothing of torch."""
