"""How often Python's garbage collector looks for circles, in an application with many streams."""

from __future__ import annotations

import gc
from typing import Final

from penstock.config.checks import check_number

__all__ = ["tune_gc"]

_OFTEN: Final = 50_000


def tune_gc(threshold: int = _OFTEN) -> None:
    """Have the garbage collector run less often, and never look at what is loaded now.

    Penstock does not need the collector: what it makes is freed by reference counts. But each look of the collector
    takes time in proportion to the objects that exist, some 30 a stream. With thousands of open streams, most of the
    time that opening one takes is spent there, and so are the longest pauses between tokens.

    Call it once, when the application has loaded its modules and read its settings, and before it forks workers: what
    exists then is taken out of the collector's sight (`gc.freeze`), and the young generation is looked at after every
    ``threshold`` objects (Python's own default is 700, or 2,000 in newer versions). It changes the whole process.

    Do not call it if other code of the process makes many circles of large objects and relies on the collector to
    free them soon: they stay longer. Memory then grows by up to ``threshold`` such objects before they are freed.
    Circles that exist at the call are collected first; those that become garbage later, and existed then, are not.

    Args:
        threshold: objects, 700 … 10,000,000.

    Raises:
        OptionError: ``threshold`` is not allowed.
    """
    check_number("threshold", threshold, 700, 10_000_000, whole=True)
    gc.collect()
    gc.freeze()
    _, *others = gc.get_threshold()
    gc.set_threshold(threshold, *others)
