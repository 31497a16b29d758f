"""Tables of samples, splits, decoded images, batches. Knows nothing of Lightning or nets."""
