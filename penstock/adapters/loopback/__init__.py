"""The `adapters.loopback` room of Penstock."""
