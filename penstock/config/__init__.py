"""Settings and options: what they are, what is allowed, and where they are read from; prices; the log."""
