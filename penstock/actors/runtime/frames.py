"""What an exception that is kept holds on to: the frames that it has come through, and those that had called them."""

from __future__ import annotations

import inspect
from types import FrameType

__all__ = ["clear_own_frames"]

_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def clear_own_frames(errors: list[BaseException]) -> None:
    """Forget the local variables of Penstock's own frames that have returned, and the errors; empties the list.

    These variables have the process and its message, through which the error is reached again: a circle that would wait
    for the garbage collector. Those of foreign code stay, and so does the traceback. Generators and coroutines are left
    alone: to clear one that is suspended would close it.
    """
    seen: set[FrameType] = set()
    while errors:
        place = errors.pop().__traceback__
        while place is not None:
            _clear(place.tb_frame, seen)
            place = place.tb_next


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
