"""The providers, one folder each, with what they share and the catalogue that finds them by name."""
