"""Models without convolutions that learn from a table of features. Knows nothing of images, folds or searches."""
