"""The states and moves of one provider call: of its integration, and of the circuit breaker that it passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.actors.runtime.statetable import END, START, Move, State, StateTable

__all__ = ["BREAKER", "INTEGRATION"]

_BEFORE_THE_ANSWER: Final = ("queued", "connecting", "waiting")
_AT_WORK: Final = (*_BEFORE_THE_ANSWER, "streaming")
_FAILED: Final = ("Ended", "state timeout", "grace timeout", "total timeout")


def _failing(sources: tuple[str, ...], targets: tuple[str, ...], when: str) -> Iterator[Move]:
    for source in sources:
        yield Move((source,), targets, when, on=_FAILED)


INTEGRATION: Final = StateTable(
    "provider call",
    (
        State("limited", "it waits for its turn: limits of the endpoint, or an open circuit breaker"),
        State("queued", "no reader has taken the request yet"),
        State("connecting", "the connection is made and the request is sent"),
        State("waiting", "the request is sent, and no delta has come yet"),
        State("streaming", "deltas come"),
        State("retry_wait", "the attempt has failed; the next one waits for its delay, with no thread and no socket"),
    ),
    (
        Move((START,), ("limited", "queued"), "started", on=("start",)),
        Move((START,), ("retry_wait",), "restarted after a crash", on=("start",)),
        Move((START,), (END,), "restarted when nothing is left to do, or no retry is left", on=("start",)),
        Move(("limited",), ("queued",), "its turn", on=("_Turn", "state timeout")),
        Move(
            ("limited",), ("queued",), "no turn within `queue_timeout`, and a fallback is free", on=("queue timeout",)
        ),
        Move(("queued",), ("connecting",), "a reader takes it", on=("Connecting",)),
        Move(("connecting", "queued"), ("waiting",), "the request is sent", on=("Waiting",)),
        Move(("waiting",), ("streaming",), "the first delta", on=("FirstDelta", "state timeout")),
        Move(("connecting", "queued"), ("streaming",), "the first delta", on=("FirstDelta",)),
        *_failing(_AT_WORK, ("retry_wait",), "failed, may be retried"),
        Move(("retry_wait",), ("limited", "queued"), "the delay is over", on=("state timeout", "_ResetAnswered")),
        *_failing(_BEFORE_THE_ANSWER, ("limited", "queued"), "failed for good; a fallback is asked"),
        *_failing(_AT_WORK, (END,), "the answer is complete, or has failed for good"),
        Move(
            ("limited",),
            (END,),
            "refused, or out of time",
            on=("_Turn", "queue timeout", "state timeout", "total timeout"),
        ),
        Move(
            ("retry_wait",),
            (END,),
            "refused, or out of time",
            on=("_ResetAnswered", "state timeout", "total timeout"),
        ),
        Move(("limited", "retry_wait", *_AT_WORK), (END,), "cancelled", on=("Cancel",)),
    ),
    end="done",
)

BREAKER: Final = StateTable(
    "circuit breaker",
    (
        State("closed", "every request may pass"),
        State("open", "no request may pass for `cooldown` seconds"),
        State("half_open", "one request at a time may try"),
    ),
    (
        Move((START,), ("closed",), "created", on=("start",)),
        Move(("closed",), ("open",), "too many failures in a row", on=("failed",)),
        Move(("open",), ("half_open",), "`cooldown` is over", on=("time",)),
        Move(("half_open",), ("closed",), "the trial succeeds", on=("succeeded",)),
        Move(("half_open",), ("open",), "the trial fails", on=("failed",)),
    ),
)
