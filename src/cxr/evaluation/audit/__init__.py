"""How much of the label can be had without the disease: the shortcut audit. Knows nothing of torch or of files."""
