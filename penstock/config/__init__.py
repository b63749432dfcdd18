"""The `config` room of Penstock."""
