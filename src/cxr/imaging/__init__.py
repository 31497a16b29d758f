"""Files to pixels, and pixels to what a net takes. Knows nothing of torch, tables or cohorts."""
