"""Incremental parsers of streaming formats: server-sent events and newline-delimited JSON."""
