"""What all providers share: endpoints, messages, parameters, errors, rate limits and the base of the decoders."""
