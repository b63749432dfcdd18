"""The `adapters` room of Penstock."""
