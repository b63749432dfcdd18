"""What all providers have in common: endpoints, messages, errors, rate limits, decoding."""
