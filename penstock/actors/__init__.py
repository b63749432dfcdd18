"""The `actors` room of Penstock."""
