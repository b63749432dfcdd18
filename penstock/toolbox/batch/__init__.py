"""Many prompts, a bounded number of calls at once: prompts · results · schedule · reading · running."""
