"""Fetching public datasets: what there is, Kaggle's API, safe archives, and the steps from a name to a folder."""
