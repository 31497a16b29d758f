"""Intervals, tests and comparisons, from arrays of targets and probabilities. Knows nothing of files or pages."""
