"""Benchmarks of Penstock, side by side with comparable libraries in one run; see `python -m benchmarks --help`."""
