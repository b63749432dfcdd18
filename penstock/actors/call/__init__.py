"""One provider call: the integration, its attempts, and the gates, limits, breakers and budgets it passes."""
