"""Serves a stream to one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from penstock.errors import StreamCancelledError
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.exchange import Left
from penstock.gateway.problems import Problem, RequestRefused, problem_of
from penstock.gateway.projector import Projector
from penstock.gateway.protocols import STREAM_HEADERS
from penstock.gateway.reader import SseReader
from penstock.gateway.resume import GAP_HEADER, ResumePoint, gone, start_of

__all__ = ["early_problem", "serve_events", "serve_from", "serve_new", "wait_for_end"]


async def serve_events(call: HttpCall, channel: Channel, point: ResumePoint, variant: Mapping[str, str]) -> None:
    """Serve a stream from a cursor on, in the protocol of the call.

    Raises:
        RequestRefused: with a strict cursor, events after it are no longer kept one by one (410).
        Left: the client has gone.
    """
    exchange, gateway = call.exchange, call.gateway
    await exchange.body(0)
    projector = channel.projector(call.protocol, variant, gateway.ticker, gateway.options)
    await projector.catch_up()
    start = start_of(point, projector, channel.epoch)
    if point.seq:
        gateway.tally.resumed(start.resumption)
    if start.is_at_end:
        await exchange.respond(204, b"")  # the only answer after which an EventSource does not connect again
        return
    headers: list[tuple[str, str]] = []
    if start.is_gap:
        if point.is_strict:
            raise RequestRefused(gone(channel.record.log.first_seq))
        headers.append(GAP_HEADER)
    await _serve(call, channel, projector, start.place, headers, start.prelude, hold=0.0)


async def serve_from(call: HttpCall, channel: Channel, projector: Projector, place: int) -> None:
    """Serve a stream from a frame on.

    Raises:
        Left: the client has gone.
    """
    await _serve(call, channel, projector, place, [], b"", hold=0.0)


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
    if call.exchange.method == "HEAD":
        await call.exchange.start(200, [*STREAM_HEADERS, *call.protocol.headers, *headers])
        await call.exchange.end()
        return
    with _place(call, channel):
        reader = SseReader(projector, call.exchange, place)
        reader.key = call.key
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
            if not reader.is_own_end():
                raise
            raise Left from None  # by us: the client does not read
        finally:
            gateway.readers.discard(reader)
            gateway.tally.reader_gone(call.protocol.name, reader.outcome)
            await reader.close()


async def wait_for_end(call: HttpCall, channel: Channel) -> StreamCompleted:
    """Wait for a stream's end, as one of its readers. If it has dropped tokens, the response's headers will say so.

    Raises:
        Left: the client has gone; the stream's ``on_orphan`` applies.
        RequestRefused: the stream failed or was cancelled, or its events cannot be read in the call's protocol (500).
    """
    gateway = call.gateway
    with _place(call, channel):
        projector = channel.projector(call.protocol, {}, gateway.ticker, gateway.options)
        reader = SseReader(projector, call.exchange, 0)
        reader.key = call.key
        gateway.readers.add(reader)
        try:
            held = gateway.ticker.loop.time()
            await reader.until_over()
            call.waited = gateway.ticker.loop.time() - held
            if reader.has_left:
                raise Left
            if reader.must_end is not None:
                raise RequestRefused(reader.must_end)
        except asyncio.CancelledError:
            if not reader.is_own_end():
                raise
            raise Left from None  # by us: the time to drain is over
        finally:
            gateway.readers.discard(reader)
            gateway.tally.reader_gone(call.protocol.name, reader.outcome)
            await reader.close()
    terminal = projector.terminal
    if lost := projector.shelf.projection.lost:
        call.exchange.extra_headers.append(("x-penstock-dropped", str(lost)))
    if isinstance(terminal, StreamCompleted):
        return terminal
    raise RequestRefused(terminal_problem(projector) or projector.problem)


@contextmanager
def _place(call: HttpCall, channel: Channel) -> Iterator[None]:
    """Take the place of a reader; if there is none, the stream's ``on_orphan`` applies."""
    try:
        call.gateway.admit_reader()
    except RequestRefused:
        channel.abandon_unread()
        raise
    with call.gateway.place():
        yield


def early_problem(projector: Projector) -> Problem | None:
    """Why a stream has failed, or cannot be shown in the protocol, if nothing came before."""
    if projector.error is not None and not projector.shelf.end:
        return projector.problem
    return terminal_problem(projector) if projector.first is projector.terminal else None


def terminal_problem(projector: Projector) -> Problem | None:
    """Why a stream has not completed; None: it has, or it still runs."""
    match projector.terminal:
        case StreamFailed(error=error):
            return problem_of(error)
        case StreamCancelled(stream_id=stream_id, reason=reason):
            return problem_of(StreamCancelledError(stream_id, reason))
    return None
