"""AutoML: classical models and small CNNs searched on the same folds within a time budget, and mixtures of them."""
