"""The `actors.flow` room of Penstock."""
