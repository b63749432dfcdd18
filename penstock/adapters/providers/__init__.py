"""The `adapters.providers` room of Penstock."""
