"""The `actors.runtime` room of Penstock."""
