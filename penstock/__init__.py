"""Penstock: LLM token streams as supervised actors."""
