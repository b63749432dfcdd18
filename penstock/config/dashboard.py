"""Options of the gateway's dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.config.checks import Options

__all__ = ["DashboardOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardOptions(Options):
    """What the dashboard shows.

    Attributes:
        show_text: whether the page of a stream shows its text as it comes, to keys with the scope ``admin``. It may be
            personal data.

    >>> DashboardOptions(show_text="yes")
    Traceback (most recent call last):
    penstock.errors.OptionError: show_text: got 'yes', allowed: True | False
    """

    show_text: bool = False
