"""HTTP with requests: one thread for each call."""
