"""The process's limit of file descriptors: each call under way takes one."""

from __future__ import annotations

import sys

__all__ = ["descriptor_limit"]


def descriptor_limit() -> int | None:
    """The number of file descriptors that this process may have open (``RLIMIT_NOFILE``).

    None: there is no limit, or the platform has no such limit (Windows).
    """
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
