"""Plain `nn.Module`s and their weights. Knows nothing of Lightning, Hydra or datasets."""
