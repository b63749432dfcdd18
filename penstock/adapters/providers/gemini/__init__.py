"""Gemini: requests and the decoder of its stream."""
