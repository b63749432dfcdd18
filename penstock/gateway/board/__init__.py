"""The dashboard: what is sent to its pages while they are open. See ``docs/dashboard.md``."""
