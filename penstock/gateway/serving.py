"""Serves a stream to one connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.errors import StreamCancelledError
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed, StreamSnapshot
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.exchange import Left
from penstock.gateway.problems import Problem, RequestRefused, problem_of
from penstock.gateway.projections.frames import Frame, encode, sse
from penstock.gateway.projector import Projector
from penstock.gateway.protocols import STREAM_HEADERS
from penstock.gateway.reader import SseReader

__all__ = ["ResumePoint", "serve_events", "serve_new", "wait_for_end"]

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
            RequestRefused: it is none of these.
        """
        text = headers.get("last-event-id") or query.get("after", "0")
        is_strict = query.get("strict", "0") not in ("", "0", "false")
        if text == "latest":
            return cls(None, "", is_strict)
        found = _CURSOR.fullmatch(text.strip())
        if found is None:
            raise RequestRefused.bad_request("after must be a number, an id of an event, or latest.", "after")
        return cls(int(found[2]), found[1] or "", is_strict)


async def serve_events(call: HttpCall, channel: Channel, cursor: ResumePoint, variant: Mapping[str, str]) -> None:
    """Serve a stream from a cursor on, in the protocol of the call.

    Raises:
        RequestRefused: with a strict cursor, events after it are no longer kept one by one (410).
        Left: the client has gone.
    """
    exchange, gateway = call.exchange, call.gateway
    await exchange.body(0)
    projector = channel.projector(call.protocol, variant, gateway.ticker, gateway.options)
    projector.pump()
    projection = projector.shelf.projection
    prelude = b""
    headers: list[tuple[str, str]] = []
    place = projector.shelf.end if cursor.seq is None else projector.shelf.after_seq(cursor.seq)
    is_other = bool(cursor.epoch) and cursor.epoch != channel.epoch
    if cursor.seq and not is_other and projector.is_over and place == projector.shelf.end:
        await exchange.respond(204, b"")  # the only answer after which an EventSource does not connect again
        return
    if projection.rejoin == "start" or is_other:
        place = 0
    elif projection.rejoin == "prelude" and cursor.seq != 0:
        prelude, place = _shown(projection.prelude()), projector.shelf.end
    if is_other or _is_gap(projector, cursor):
        if cursor.is_strict:
            raise RequestRefused(_gone(channel))
        headers.append(("x-penstock-gap", "1"))
        if is_other and projection.name == "native":
            prelude = sse(encode({"reason": "epoch", "epoch": channel.epoch}), event="gap")
    await _serve(call, channel, projector, place, headers, prelude, hold=0.0)


async def serve_new(call: HttpCall, channel: Channel, variant: Mapping[str, str]) -> None:
    """Serve a stream that the call has opened, from its first event on.

    An error that comes before the first event becomes a response with its status.
    """
    gateway = call.gateway
    projector = channel.projector(call.protocol, variant, gateway.ticker, gateway.options)
    await _serve(call, channel, projector, 0, [], b"", hold=gateway.options.first_byte_hold)


async def _serve(
    call: HttpCall,
    channel: Channel,
    projector: Projector,
    place: int,
    headers: list[tuple[str, str]],
    prelude: bytes,
    *,
    hold: float,
) -> None:
    gateway = call.gateway
    gateway.admit_reader()
    reader = SseReader(projector, call.exchange, place)
    gateway.readers.add(reader)
    try:
        held = gateway.ticker.loop.time()
        await reader.begin(hold)
        call.waited = gateway.ticker.loop.time() - held
        if reader.has_left:
            raise Left
        if reader.must_end is not None:
            raise RequestRefused(reader.must_end)
        if hold and (problem := early_problem(projector)) is not None:
            raise RequestRefused(problem)
        about = [*STREAM_HEADERS, *call.protocol.headers, *headers, *call.timing(channel.stream_id)]
        await reader.run(about, prelude)
    except asyncio.CancelledError:
        if not reader.is_abandoned:
            raise
        raise Left from None  # by us: the client does not read
    finally:
        gateway.readers.discard(reader)
        await reader.close()


async def wait_for_end(call: HttpCall, channel: Channel) -> StreamCompleted:
    """Wait for a stream's end, as one of its readers.

    Raises:
        Left: the client has gone; the stream's ``on_orphan`` applies.
        PenstockError: the stream failed or was cancelled.
    """
    gateway = call.gateway
    gateway.admit_reader()
    projector = channel.projector(call.protocol, {}, gateway.ticker, gateway.options)
    reader = SseReader(projector, call.exchange, 0)
    gateway.readers.add(reader)
    try:
        await reader.until_over()
        if reader.has_left:
            raise Left
        if reader.must_end is not None:
            raise RequestRefused(reader.must_end)
    finally:
        gateway.readers.discard(reader)
        await reader.close()
    terminal = projector.terminal
    if isinstance(terminal, StreamCompleted):
        return terminal
    problem = terminal_problem(projector)
    assert problem is not None
    raise RequestRefused(problem)


def early_problem(projector: Projector) -> Problem | None:
    """Why a stream has failed, if nothing came before."""
    return terminal_problem(projector) if projector.first is projector.terminal else None


def terminal_problem(projector: Projector) -> Problem | None:
    """Why a stream has not completed; None: it has, or it still runs."""
    match projector.terminal:
        case StreamFailed(error=error):
            return problem_of(error)
        case StreamCancelled(stream_id=stream_id, reason=reason):
            return problem_of(StreamCancelledError(stream_id, reason))
    return None


def _is_gap(projector: Projector, cursor: ResumePoint) -> bool:
    """Whether what follows the cursor is no longer known one by one: the first frame is a later snapshot."""
    first = projector.first
    return bool(cursor.seq) and isinstance(first, StreamSnapshot) and cursor.seq is not None and cursor.seq < first.seq


def _gone(channel: Channel) -> Problem:
    return Problem(
        status=410,
        type="gone",
        code="gone",
        message=f"The events after this cursor are no longer kept. The first one is {channel.record.log.first_seq}.",
    )


def _shown(frames: list[Frame]) -> bytes:
    return b"".join([frame.data for frame in frames])
