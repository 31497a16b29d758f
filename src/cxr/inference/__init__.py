"""A bundle becomes a predictor. Knows nothing of training or of Hydra."""
