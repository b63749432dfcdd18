"""The dashboard: what its pages are told while they are open. See ``docs/dashboard.md``."""
