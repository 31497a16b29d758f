"""A bundle behind HTTP: predictions, explanations and the model's facts, for strangers' images. Linux only."""
