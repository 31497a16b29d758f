"""Plans made of many runs: sweeps and queues."""
