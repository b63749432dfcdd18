"""Ollama: requests and the decoder of its NDJSON stream."""
