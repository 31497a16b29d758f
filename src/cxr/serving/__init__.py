"""A predictor behind HTTP, for people who are not at this machine. Never imports training. Linux only."""
