"""Projections: a stream's events as frames of a protocol. Pure; one protocol a module."""
