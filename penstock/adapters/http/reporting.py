"""Reports exceptions that must not end a thread of a reader."""

from __future__ import annotations

import sys
import threading

__all__ = ["report_failure"]


def report_failure() -> None:
    """Report the exception at hand as that of the present thread, by `threading.excepthook`."""
    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
