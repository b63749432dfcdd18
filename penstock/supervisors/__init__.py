"""Supervision in general: child specifications and the supervisors that start, restart and end processes."""
