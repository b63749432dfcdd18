"""Where a reader of a stream begins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.events import StreamSnapshot
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.projections.frames import Projection, encode, sse
from penstock.gateway.projector import Projector
from penstock.telemetry.gateway import ReaderResumption

__all__ = ["GAP_HEADER", "Beginning", "ResumePoint", "gone", "start_of", "told_epoch"]

GAP_HEADER: Final = ("x-penstock-gap", "1")
"""Of a response that does not go on exactly after its cursor."""

_CURSOR: Final = re.compile(r"(?:([0-9a-f]{8})-)?([0-9]{1,18})")


class ResumePoint(msgspec.Struct, frozen=True):
    """Where a reader goes on. ``seq`` None: with what comes from now on. ``epoch`` "" if it does not say."""

    seq: int | None = 0
    epoch: str = ""
    is_strict: bool = False

    @classmethod
    def of(cls, headers: Mapping[str, str], query: Mapping[str, str]) -> ResumePoint:
        """Read ``Last-Event-ID``, else ``after``: ``latest``, a number, or an epoch and a number.

        Raises:
            RequestRefused: it is none of these, or ``strict`` is neither 0 nor 1.
        """
        text = headers.get("last-event-id") or query.get("after", "0")
        strict = query.get("strict", "0")
        if strict not in ("0", "1"):
            raise RequestRefused.bad_request("strict must be 0 or 1.", "strict")
        is_strict = strict == "1"
        if text == "latest":
            return cls(None, "", is_strict)
        found = _CURSOR.fullmatch(text.strip())
        if found is None:
            raise RequestRefused.bad_request("after must be a number, an id of an event, or latest.", "after")
        return cls(int(found[2]), found[1] or "", is_strict)


class Beginning(msgspec.Struct, frozen=True):
    """How a reader begins.

    Attributes:
        place: the first frame it gets.
        prelude: what it gets before that.
        is_gap: it does not go on exactly after its cursor.
        resumption: how it goes on after its cursor, if it has one.
        is_at_end: its cursor is the end of an ended stream: there is nothing to read, and never will be.
    """

    place: int
    prelude: bytes = b""
    is_gap: bool = False
    is_at_end: bool = False
    resumption: ReaderResumption = "exact"


def start_of(point: ResumePoint, projector: Projector, epoch: str) -> Beginning:
    """Where a reader with that cursor begins."""
    projector.pump()
    shelf = projector.shelf
    projection = shelf.projection
    place = shelf.end if point.seq is None else shelf.after_seq(point.seq)
    # A cursor beyond a stored log: the store has lost what was read, and other events get these numbers.
    is_ahead = projector.record.head is not None and (point.seq or 0) > projector.record.log.last_seq
    is_other = (bool(point.epoch) and point.epoch != epoch) or is_ahead
    if point.seq != 0 and not is_other and projector.is_over and place == shelf.end:
        return Beginning(place, is_at_end=True)
    first = projector.first
    is_gap = is_other or (bool(point.seq) and isinstance(first, StreamSnapshot) and (point.seq or 0) < first.seq)
    resumption: ReaderResumption = "gap" if is_other else "snapshot" if is_gap else "exact"
    if projection.rejoin == "start" or is_other:
        place = 0
    elif projection.rejoin == "prelude" and point.seq != 0:
        prelude = b"".join([frame.data for frame in projection.prelude()])
        return Beginning(shelf.end, prelude, is_gap, resumption=resumption)
    return Beginning(place, told_epoch(projection, epoch) if is_other else b"", is_gap, resumption=resumption)


def told_epoch(projection: Projection, epoch: str) -> bytes:
    """What a reader with a cursor of another epoch gets first: which one this is, in the native protocol."""
    return sse(encode({"reason": "epoch", "epoch": epoch}), event="gap") if projection.name == "native" else b""


def gone(first_seq: int) -> Problem:
    """What a strict reader gets if its events are no longer kept one by one, or are of another epoch (410)."""
    message = "The events after this cursor are no longer kept."
    return Problem(status=410, type="gone", code="gone", message=message, first_seq=first_seq)
