"""What an exception that is kept holds on to: the frames that it has come through, and those that had called them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FrameType

__all__ = ["clear_own_frames", "forget_tracebacks"]

_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def clear_own_frames(errors: list[BaseException]) -> None:
    """Forget the local variables of Penstock's own frames that have returned, and the errors; empties the list.

    These variables have the process and its message, through which the error is reached again: a circle that would wait
    for the garbage collector. Those of foreign code stay, and so does the traceback. Generators and coroutines are left
    alone: to clear one that is suspended would close it. The same for the causes and contexts of the errors.
    """
    seen: set[FrameType] = set()
    for error in _with_causes(errors):
        place = error.__traceback__
        while place is not None:
            _clear(place.tb_frame, seen)
            place = place.tb_next


def forget_tracebacks(error: BaseException) -> None:
    """Take the traceback from an error, its causes and its contexts.

    For one that others will keep, raised in a thread that is not the dispatcher's: its frames keep those that had
    called them, which may run for long and cannot be cleared then.
    """
    for one in _with_causes([error]):
        one.__traceback__ = None


def _with_causes(errors: list[BaseException]) -> Iterator[BaseException]:
    seen: set[int] = set()
    while errors:
        error = errors.pop()
        if id(error) not in seen:
            seen.add(id(error))
            yield error
            errors += (one for one in (error.__cause__, error.__context__) if one is not None)


def _clear(frame: FrameType | None, seen: set[FrameType]) -> None:
    """Clear a frame and those that had called it, which it keeps."""
    while frame is not None and frame not in seen:
        seen.add(frame)
        if _is_own(frame):
            try:
                frame.clear()
            except RuntimeError:  # it still runs, and so do its callers
                return
        frame = frame.f_back


def _is_own(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith("penstock.") and not frame.f_code.co_flags & _SUSPENDABLE
