"""The command line; `main` is what the command ``penstock`` runs."""

from penstock.cli.commands import main

__all__ = ["main"]
