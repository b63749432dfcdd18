"""Requests: the bodies of each protocol as calls of a model. Pure; one protocol a module."""
