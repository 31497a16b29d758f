"""What is in a dataset: one page and one JSON file for whoever owns the images. Never part of a run folder."""
