"""What a model is worth, from its tables of predictions: numbers, documents, and one page that stands alone."""
