"""A stream that is made anew when it fails: `with_retry`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.config.checks import check_choice, check_number
from penstock.config.options import OnOrphan, StreamOptions
from penstock.errors import PenstockError
from penstock.events import SideEvent, StreamFailed, StreamReset, TerminalEvent, TokenEvent
from penstock.stream import Stream
from penstock.system import System
from penstock.toolbox.attempts import Attempts, Factory, Maker, Try, chained, is_content, is_fleeting, open_first
from penstock.toolbox.stage import Release, Steps, Wait, failed

__all__ = ["RestartAfter", "with_retry"]

RestartAfter: TypeAlias = Literal["reset", "never"]
_LONGEST_RETRY_AFTER: Final = 60.0  # seconds; the default of `RequestOptions.retry_after_limit`


def with_retry(
    factory: Factory,
    *,
    retries: int = 3,
    base_delay: float = 2.0,
    max_delay: float = 30.0,
    restart: RestartAfter = "reset",
    system: System | None = None,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_orphan: OnOrphan = "cancel",
) -> Stream:
    """Open a stream of the first of several attempts, made one after the other, that does not fail.

    Another attempt follows an error that may pass (``retryable``), never a cancellation. The wait is random, from 0 to
    ``base_delay``, which doubles with each retry; or what the provider asks (``Retry-After``), if that is at most 60 s
    or ``max_delay``, and else there is no retry. Before any content the reader notices nothing; after it, a
    `StreamReset` is sent first. The attempts' own retries are off: three retries are three. ``attempts`` and ``spent``
    of `Stream.statistics` count all of them; ``usage`` is that of the last one. After the last retry the stream fails
    with the last error; its causes are those before.

    Args:
        factory: returns a new stream each time. If it takes one argument, it gets the attempt's number, from 1.
        retries: attempts after the first, 0 … 100.
        base_delay: seconds, 0 … 3600.
        max_delay: the longest random wait in seconds, 0 … 3600.
        restart: after content, ``"reset"`` voids it and begins anew; with ``"never"`` the stream fails, with what came
            as ``partial``.
        system: None is that of the first stream, which is then made in the caller's thread.
        stream_id: as for `System.open_stream`; so for the next three.
        options: None lets at most 100 tokens wait, and no token waits for a batch.
        metadata: is part of every event; None takes that of the first stream where there is no ``system``.
        on_orphan: by default the stream is cancelled when its last subscriber leaves.

    Raises:
        OptionError: an argument is not allowed.
        StreamExists, SystemStopped: as for `System.open_stream`.
        Exception: what the factory raised at the first attempt, where there is no ``system``.
    """
    check_number("retries", retries, 0, 100, whole=True)
    check_number("base_delay", base_delay, 0, 3600)
    check_number("max_delay", max_delay, 0, 3600)
    check_choice("restart", restart, ("reset", "never"))
    makers = [Maker(factory, number, may_retry=False) for number in range(1, retries + 2)]
    stage = Retrying(makers, base_delay, max_delay, restart)
    return open_first(
        stage, makers, system, stream_id=stream_id, options=options, metadata=metadata, on_orphan=on_orphan
    )


class Retrying(Attempts):
    """See `with_retry`."""

    kind = "with_retry"

    def __init__(self, makers: list[Maker], base_delay: float, max_delay: float, restart: RestartAfter) -> None:
        super().__init__()
        self._makers = makers
        self._base_delay = base_delay
        self._max_delay = max_delay
        self._restart = restart
        self._has_content = False
        self._held: list[TokenEvent | SideEvent] = []  # before content

    def begin(self) -> Steps:
        """See `Stage.begin`."""
        return self._try()

    def _try(self) -> Steps:
        """Make the next attempt; if that fails, the one after it, and so on."""
        while True:
            attempt = yield from self.make(self._makers[len(self.attempts)])
            if attempt.error is None:
                return
            if not (yield from self._wait_after(attempt)):
                return

    def _current(self, place: int) -> Try | None:
        attempt = self.attempt_at(place)
        return attempt if attempt is not None and attempt is self.attempts[-1] else None

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """See `Stage.feed`."""
        if self._current(place) is None:
            return (Release(place),)
        if self._has_content or is_fleeting(event):
            return (event,)
        if not is_content(event):
            self._held.append(event)
            return ()
        self._has_content = True
        held, self._held = self._held, []
        return (*held, event)

    def reset(self, reset: StreamReset, place: int = 0) -> Steps:
        """See `Stage.reset`."""
        if self._current(place) is None:
            return (Release(place),)
        self._held.clear()
        had_content, self._has_content = self._has_content, False
        return (reset,) if had_content else ()

    def end(self, terminal: TerminalEvent, place: int = 0) -> Steps:
        """See `Stage.end`."""
        attempt = self._current(place)
        if attempt is None:
            return
        attempt.ended(terminal)
        if not isinstance(terminal, StreamFailed):
            yield from self._held
            yield terminal
        elif (yield from self._wait_after(attempt)):
            yield from self._try()

    def _wait_after(self, attempt: Try) -> Any:
        """After a failure, wait for the next attempt, or end; returns whether there is a next one."""
        error = attempt.error
        assert error is not None
        delay = self._delay(error)
        if delay is None:
            yield from self._held
            yield self._end_of(attempt)
            return False
        self._held.clear()
        if self._has_content:
            self._has_content = False
            yield StreamReset("", 0, type(error).__name__, 0.0, {})
        yield Wait(self.now + delay)
        return True

    def _delay(self, error: PenstockError) -> float | None:
        """Seconds until the next attempt; None if there is none."""
        count = len(self.attempts)
        if not getattr(error, "retryable", False) or count == len(self._makers):
            return None
        if self._has_content and self._restart == "never":
            return None
        wanted = getattr(error, "retry_after", None)
        if isinstance(wanted, (int, float)) and wanted > 0:
            return float(wanted) if wanted <= max(self._max_delay, _LONGEST_RETRY_AFTER) else None
        return self.random.uniform(0.0, min(self._max_delay, self._base_delay * 2.0 ** (count - 1)))

    def _end_of(self, attempt: Try) -> StreamFailed:
        error = chained([one.error for one in self.attempts if one.error is not None])
        terminal = attempt.terminal
        return msgspec.structs.replace(terminal, error=error) if isinstance(terminal, StreamFailed) else failed(error)
