"""The states and moves of `penstock.actors.stream.actor.TokenStream`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.actors.runtime.statetable import END, START, Move, State, StateTable

__all__ = ["TOKEN_STREAM"]

_FLOWING: Final = ("idle", "buffering", "streaming")
_AWAKE: Final = (*_FLOWING, "rate_limited", "error")
_ALWAYS: Final = ("pushed", "overdue", "Complete", "Fail", "Flush")
_EMITS: Final[dict[str, tuple[str, ...]]] = {
    "idle": _ALWAYS,
    "buffering": (*_ALWAYS, "flush timeout"),
    "streaming": (*_ALWAYS, "flush timeout", "released"),
    "rate_limited": ("Flush", "state timeout"),
    "error": ("Flush", "state timeout"),
}
"""The events on which a state looks whether a batch may go out."""
_ALL_IS_OUT: Final = "the source has ended and all is out, or `max_errors` deliveries failed"


def _emitting(sources: tuple[str, ...], target: str, when: str, *also: str) -> Iterator[Move]:
    for source in sources:
        yield Move((source,), (target,), when, on=(*_EMITS[source], *also))


TOKEN_STREAM: Final = StateTable(
    "token stream",
    (
        State("idle", "the buffer is empty, and no timer runs"),
        State("buffering", "less than a batch is buffered, and none of it for longer than `flush_interval`"),
        State("streaming", "batches go out"),
        State("rate_limited", "the rate limit leaves no room for the next batch"),
        State("error", "a batch could not be delivered; it is in the buffer again"),
        State("paused", "`pause()` was called; nothing goes out"),
    ),
    (
        Move((START,), ("idle",), "opened", on=("start",)),
        Move((START,), ("paused",), "restarted after a crash while paused", on=("start",)),
        Move((START,), ("error",), "restarted after a failed delivery (`auto_restart`)", on=("start",)),
        Move((START,), (END,), "restarted after its terminal event", on=("start",)),
        *_emitting(("idle",), "buffering", "less than a batch arrives", "Reset"),
        *_emitting(("buffering", "idle"), "streaming", "a batch is full, or `flush_interval` is over", "Reset"),
        Move(("streaming",), ("idle",), "empty for `flush_interval`", on=("flush timeout",)),
        *_emitting((*_FLOWING, "error"), "rate_limited", "`rate_limit` reached"),
        Move(("rate_limited",), ("streaming",), "room for a batch", on=("state timeout",)),
        *_emitting((*_FLOWING, "rate_limited"), "error", "delivery failed"),
        Move(("error",), ("streaming",), "`error_recovery_delay` is over", on=("state timeout",)),
        Move(
            ("rate_limited", "error"),
            ("streaming",),
            "flushed, reset, or options changed",
            on=("Flush", "Reset", "SetOptions"),
        ),
        Move(_AWAKE, ("paused",), "`pause()`", on=("Pause",)),
        Move(("paused",), (*_FLOWING, "error"), "`resume()`", on=("Resume",)),
        Move((*_AWAKE, "paused"), (END,), "`stop()` or `cancel()`", on=("StopStream", "Cancel")),
        *_emitting(_AWAKE, END, _ALL_IS_OUT, "Reset"),
        Move(("paused",), (END,), _ALL_IS_OUT, on=("Flush",)),
    ),
    end="ended",
)
