"""Ends many streams of a system: `System.cancel_all` and `System.drain`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from penstock.actors.stream.messages import Cancel
from penstock.config.checks import check_number
from penstock.errors import CallTimeout, OptionError
from penstock.events import TerminalEvent
from penstock.services import Services
from penstock.stream import Stream
from penstock.toolbox.waiting import Completions

__all__ = ["cancel_all", "drain"]


def cancel_all(
    services: Services, reason: str | None, where: Callable[[Stream], object] | None, timeout: float | None = None
) -> list[str]:
    """See `System.cancel_all`."""
    check_number("timeout", timeout, 0, 86_400, optional=True)
    if where is not None and not callable(where):
        raise OptionError("where", type(where), "a function of a Stream, or None")
    chosen = [stream for stream in _running(services) if where is None or where(stream)]
    cancelled = [stream for stream in chosen if stream._record.propose(Cancel(reason))]
    _wait_for(chosen, services.call_timeout if timeout is None else timeout)
    return [stream.stream_id for stream in cancelled]


def drain(services: Services, timeout: float, reason: str | None) -> dict[str, TerminalEvent | None]:
    """See `System.drain`."""
    check_number("timeout", timeout, 0, 86_400)
    services.is_draining = True
    clock, table = services.runtime.clock, services.streams
    deadline, created = clock.monotonic() + timeout, table.created
    known = {stream._record.serial: stream for stream in _running(services)}
    while running := _running(services):  # again: attempts are opened, and streams whose opening had begun
        left = deadline - clock.monotonic()
        if left <= 0 or not _wait_for(running, left):
            break
    left_over = _running(services)
    for stream in left_over:
        stream._record.propose(Cancel(reason))
    _wait_for(left_over, services.call_timeout)
    later = (record for record in table.all() if record.serial > created)
    known.update((record.serial, Stream(record, services.call_timeout)) for record in later)
    return {known[serial].stream_id: known[serial]._record.log.terminal for serial in sorted(known)}


def _running(services: Services) -> list[Stream]:
    """The streams that run here and have not ended, oldest first."""
    return [
        Stream(record, services.call_timeout)
        for record in services.streams.all()
        if not record.is_over and record.remote is None
    ]


def _wait_for(streams: list[Stream], timeout: float) -> bool:
    """Wait until all have ended; returns whether they have."""
    with contextlib.suppress(CallTimeout):
        for _ in Completions(streams, timeout):
            pass
        return True
    return False
