"""Penstock's own version."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

__all__ = ["__version__"]


def _find_version() -> str:
    """Return the version in ``pyproject.toml`` where this is a source checkout, else that of the installed package.

    The metadata of an editable installation are as old as the installation.
    """
    try:
        with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file)["project"]
        if project["name"] == "penstock":
            return str(project["version"])
    except (OSError, ValueError, KeyError):
        pass
    try:
        return importlib.metadata.version("penstock")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


__version__ = _find_version()
"""The version of Penstock, such as ``0.1.0``."""
