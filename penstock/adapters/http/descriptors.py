"""The process's limit of file descriptors: each call under way takes one."""

from __future__ import annotations

import sys
from typing import Final

from penstock.config.logs import get_logger

__all__ = ["descriptor_limit", "note_descriptor"]

_FEW_LEFT: Final = 0.8
"""The share of the limit at which the log says so."""

_warned: Final[set[int]] = set()
"""The limits for which it has: the limit is the process's, and so is this."""


def descriptor_limit() -> int | None:
    """The number of file descriptors that this process may have open (``RLIMIT_NOFILE``).

    None: there is no limit, or the platform has no such limit (Windows).
    """
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def note_descriptor(fd: int) -> None:
    """Log a warning, once for each limit, if the number of a new descriptor is 80 % of the limit or more.

    The operating system gives the lowest free number, so all numbers below are in use.
    """
    limit = descriptor_limit()
    if limit is None or fd < limit * _FEW_LEFT or limit in _warned:
        return
    _warned.add(limit)
    get_logger().warning(
        "few_file_descriptors_left",
        in_use=fd + 1,
        limit=limit,
        advice="raise the limit (ulimit -n): each request under way takes one, and without one it fails",
    )
