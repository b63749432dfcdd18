"""The fastest of several streams: `race`. `penstock.toolbox.hedge` stands on the same rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from penstock.config.checks import check_choice
from penstock.config.options import OnOrphan, StreamOptions
from penstock.config.presets import SAFE
from penstock.errors import OptionError, RaceError
from penstock.events import SideEvent, StreamCompleted, StreamReset, TerminalEvent, TokenEvent
from penstock.stream import Stream
from penstock.system import System
from penstock.toolbox.attempts import Attempts, Factory, Maker, Try, is_content, is_fleeting, open_first
from penstock.toolbox.stage import Hold, Release, Steps, Unhold, failed

__all__ = ["By", "Contest", "race"]

By: TypeAlias = Literal["content", "completion"]
_KEPT: Final = 10_000  # tokens of each attempt with by="completion", unless the options say otherwise


def race(
    *factories: Factory,
    by: By = "content",
    system: System | None = None,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_orphan: OnOrphan = "cancel",
) -> Stream:
    """Open a stream of the fastest of several streams. The calls of the others are closed as soon as it is known.

    A stream that fails never wins, and one that completes without any content only if no other can. If two have content
    at the same time, the one whose factory stands first wins. Once there is a winner the stream ends as that does:
    ``usage`` is the winner's, and ``spent`` of `Stream.statistics` that of all. If all fail, it fails with `RaceError`.

    Args:
        *factories: each returns a new stream, and is called once, at the start. A stream that a factory has raised
            instead of made counts as failed.
        by: ``"content"``: the first one with a token of any kind, a tool event or a picture wins. ``"completion"``: the
            first one that completes wins, and is then shown from its beginning; one that was cut at its length limit
            wins only if no other completes. Each keeps up to ``max_buffer_size`` tokens (here 10,000 by default), and
            waits when it has them, except that one of those that still run may always go on.
        system: None is that of the first factory's stream, which is then made in the caller's thread.
        stream_id: as for `System.open_stream`; so for the next three.
        options: None lets at most 100 tokens wait, and no token waits for a batch.
        metadata: is part of every event; None takes that of the first stream where there is no ``system``.
        on_orphan: by default the stream is cancelled when its last subscriber leaves.

    Raises:
        OptionError: an argument is not allowed, or there is no factory.
        StreamExists, SystemStopped: as for `System.open_stream`.
        Exception: what the first factory raised, where there is no ``system``.
    """
    if not factories:
        raise OptionError("factories", factories, "at least one function that returns a new Stream")
    check_choice("by", by, ("content", "completion"))
    makers = [Maker(factory, number, may_retry=True) for number, factory in enumerate(factories, 1)]
    if options is None and by == "completion":
        options = SAFE.replace(max_buffer_size=_KEPT)
    most = None if options is None else options.max_buffer_size
    stage = Race(makers) if by == "content" else RaceToEnd(makers, most)
    return open_first(
        stage, makers, system, stream_id=stream_id, options=options, metadata=metadata, on_orphan=on_orphan
    )


class Contest(Attempts):
    """Attempts of which one wins; the others are let go of."""

    def __init__(self) -> None:
        super().__init__()
        self.winner: Try | None = None

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """See `Stage.feed`."""
        attempt = self.attempt_at(place)
        if attempt is None:
            return (Release(place),)
        if attempt is self.winner:
            return (event,)
        return () if self.winner is not None else self.fed(attempt, event)

    def reset(self, reset: StreamReset, place: int = 0) -> Steps:
        """See `Stage.reset`. Of what has not been shown, nothing is told."""
        attempt = self.attempt_at(place)
        if attempt is None:
            return (Release(place),)
        if attempt is self.winner:
            return (reset,)
        attempt.events.clear()
        attempt.has_content, attempt.size = False, 0
        return ()

    def end(self, terminal: TerminalEvent, place: int = 0) -> Steps:
        """See `Stage.end`."""
        attempt = self.attempt_at(place)
        if attempt is None:
            return
        attempt.ended(terminal)
        if attempt is self.winner:
            yield terminal
        elif self.winner is None:
            yield from self.ended(attempt)

    def fed(self, attempt: Try, event: TokenEvent | SideEvent) -> Steps:
        """There is an event, and no winner yet."""
        raise NotImplementedError

    def ended(self, attempt: Try) -> Steps:
        """An attempt has ended, or could not be made, and there is no winner yet."""
        raise NotImplementedError

    def wins(self, attempt: Try) -> Steps:
        """Let an attempt win: let go of the others, and show what it has so far, up to its end if it has ended."""
        self.winner = attempt
        self.deadline = None
        yield from self.release_all_but(attempt)
        events, attempt.events = attempt.events, []
        yield from events
        if attempt.terminal is not None:
            yield attempt.terminal

    def keep(self, attempt: Try, event: TokenEvent | SideEvent) -> None:
        """Keep an event until the attempt wins."""
        if not is_fleeting(event):
            attempt.events.append(event)

    def running(self) -> list[Try]:
        """The attempts that may still win."""
        return [attempt for attempt in self.attempts if not attempt.has_ended]

    def completed(self) -> list[Try]:
        """The attempts that have completed."""
        return [attempt for attempt in self.attempts if attempt.has_completed]


class Race(Contest):
    """See `race`: by content."""

    kind = "race"

    def __init__(self, makers: Sequence[Maker]) -> None:
        super().__init__()
        self._makers = makers

    def begin(self) -> Steps:
        """See `Stage.begin`."""
        for maker in self._makers:
            yield from self.make(maker)
        if not self.running():
            yield from self.conclude()

    def fed(self, attempt: Try, event: TokenEvent | SideEvent) -> Steps:
        """See `Contest.fed`. Until nothing else waits to be read, an earlier attempt may have content too."""
        self.keep(attempt, event)
        if not is_content(event):
            return ()
        if attempt.has_content or attempt is self.running()[0]:
            attempt.has_content = True
            return self.decide()
        attempt.has_content = True
        self.deadline = self.now
        return ()

    def overdue(self) -> Steps:
        """See `Stage.overdue`."""
        self.deadline = None
        return self.decide()

    def decide(self) -> Steps:
        """Let the first attempt that has content win, if there is one."""
        found = next((one for one in self.attempts if one.has_content and one.error is None), None)
        return () if found is None else self.wins(found)

    def ended(self, attempt: Try) -> Steps:
        """See `Contest.ended`."""
        if attempt.has_content and attempt.has_completed:
            return self.decide()
        if attempt.error is not None:
            attempt.events.clear()
        return () if self.running() else self.conclude()

    def conclude(self) -> Steps:
        """End, as all attempts have."""
        candidates = self.completed()
        if candidates:
            return self.wins(next((one for one in candidates if one.has_content), candidates[0]))
        return (failed(RaceError(self.stream_id, [one.error for one in self.attempts if one.error is not None])),)


class RaceToEnd(Race):
    """See `race`: by completion.

    Args:
        makers: of the attempts.
        most: how many tokens and other events each attempt keeps before it waits; None: any number.
    """

    def __init__(self, makers: Sequence[Maker], most: int | None) -> None:
        super().__init__(makers)
        self._most = most
        self._leader: Try | None = None  # the one that goes on although it keeps enough

    def fed(self, attempt: Try, event: TokenEvent | SideEvent) -> Steps:
        """See `Contest.fed`."""
        self.keep(attempt, event)
        attempt.size += len(event.tokens) if isinstance(event, TokenEvent) else 1
        if self._most is None or attempt.size < self._most or attempt.is_full:
            return ()
        attempt.is_full = True
        assert attempt.place is not None
        return (Hold(attempt.place), *self._lead())

    def reset(self, reset: StreamReset, place: int = 0) -> Steps:
        """See `Stage.reset`."""
        steps = super().reset(reset, place)
        attempt = self.attempt_at(place)
        if attempt is not None and attempt is not self.winner:
            attempt.is_full = False
            if attempt is self._leader:
                self._leader = None
        return steps

    def ended(self, attempt: Try) -> Steps:
        """See `Contest.ended`."""
        if isinstance(attempt.terminal, StreamCompleted) and attempt.terminal.finish_reason != "length":
            return self.wins(attempt)
        if attempt.error is not None:
            attempt.events.clear()
        return self._lead() if self.running() else self.conclude()

    def _lead(self) -> Steps:
        """Let one go on if all that run are full: no other could complete."""
        running = self.running()
        if (self._leader in running) or not all(one.is_full for one in running):
            return ()
        self._leader = max(running, key=lambda one: (one.size, -one.number))
        assert self._leader.place is not None
        return (Unhold(self._leader.place),)
