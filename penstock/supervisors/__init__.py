"""The `supervisors` room of Penstock."""
