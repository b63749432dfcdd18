"""Marks of the judges' tests."""

from __future__ import annotations

from typing import Final

import pytest

__all__ = ["thorough"]

thorough: Final = pytest.mark.thorough
"""Only run by ``make judges`` and ``make whole``: takes seconds, or starts a browser."""
