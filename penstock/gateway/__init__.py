"""Serves streams over HTTP and WebSockets, in every protocol that front ends speak."""
