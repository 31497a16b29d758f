"""What listens to a training run."""
