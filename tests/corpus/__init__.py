"""Recorded provider streams, and what derives parts of their side files."""
