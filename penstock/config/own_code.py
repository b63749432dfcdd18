"""Tells Penstock's own code, which may run in threads that must not block, from that of the application."""

from __future__ import annotations

from functools import partial

__all__ = ["is_own"]


def is_own(thing: object) -> bool:
    """Whether a function, or the class of an object, is Penstock's, so that it neither blocks nor computes for long.

    >>> from penstock.config.tokenizers import fixed, words
    >>> [is_own(one) for one in (None, words, fixed(4), str.split)]
    [True, True, True, False]
    """
    if thing is None:
        return True
    if isinstance(thing, partial):
        thing = thing.func
    module = getattr(thing, "__module__", None)  # of the class, if it is an object
    return isinstance(module, str) and module.partition(".")[0] == "penstock"
