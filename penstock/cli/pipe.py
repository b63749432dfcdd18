"""The command ``pipe``: standard input to standard output, through a stream that cuts, batches and paces it."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, cast

from penstock.cli.answer import print_stream_statistics
from penstock.cli.asking import ModelChoice
from penstock.cli.failures import CommandLineError, check_known, explain
from penstock.cli.interrupts import Interrupts
from penstock.cli.terminal import Output, say
from penstock.config.checks import check_number
from penstock.config.durations import parse_duration
from penstock.config.options import StreamOptions
from penstock.config.presets import PRESETS, SAFE
from penstock.config.units import Unit
from penstock.errors import CallTimeout
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed, TerminalEvent, TokenEvent
from penstock.stream import Stream
from penstock.system import System

__all__ = ["PROFILES", "Pipe"]

PROFILES: Final = {name: preset for name, preset in PRESETS.items() if preset.rate_limit is not None}
"""The presets that have a pace, by name."""

_LOOK: Final = 0.1  # seconds between two looks at what else may have happened
_PIECE: Final = 65_536
_FLUSH: Final = 0.1  # seconds
_PACINGS: Final = ("fixed", "adaptive")
_UNITS: Final = ("word", "sentence", "line", "character")


class _Pace(NamedTuple):
    """A rate, None without one; the longest wait for the rest of a unit; the options of the last stream."""

    rate: float | None
    flush: float
    options: StreamOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipe:
    """One run of the command; the fields are its options, see ``penstock pipe --help``."""

    by: str | None
    pacing: str
    max_lag: str | None
    rate: float | None
    per: str
    batch: int | None
    flush: str | None
    stats: bool
    choice: ModelChoice

    def run(self) -> int:
        """Copy until standard input ends; return the exit code.

        Raises:
            PenstockError: an option is wrong, or the system does not start.
            OSError: standard output cannot be written.
        """
        pace = self._pace()
        unit = self._unit(pace)
        if sys.stdin is None:
            raise CommandLineError("standard input is closed")
        settings = self.choice.load_settings()
        output, stopping = Output(), threading.Event()
        with Interrupts() as interrupts, System(settings) as system:
            if pace.rate is None:
                last = stream = system.stream_from(
                    _read(stopping), by=unit, options=pace.options, flush_interval=pace.flush
                )
            else:
                stream = system.stream_from(_read(stopping), by=unit, flush_interval=pace.flush)
                per = cast(Literal["token", "character"], self.per)
                last = stream.throttle(pace.rate, per=per, options=pace.options)
            interrupts.watch(lambda: last.cancel("interrupted"))
            try:
                end = _write(last, output)
            finally:
                stopping.set()
            if self.stats:
                print_stream_statistics(last)
            if replaced := stream.statistics().replaced:
                say(f"{replaced} byte sequences of the input are not UTF-8; each was replaced by U+FFFD")
        return _conclude(end, interrupts.signal)

    def _unit(self, pace: _Pace) -> Unit | None:
        if self.by is None:
            return None if pace.rate is None or self.per == "character" else "word"
        if self.by.isdecimal():
            check_number("--tokenizer", int(self.by), 1, 10_000, whole=True)
            return int(self.by)
        check_known("tokenizer", self.by, _UNITS)
        return cast(Unit, self.by)

    def _pace(self) -> _Pace:
        """The pace that ``--pacing`` names, with what the other options say in its place."""
        check_known("unit", self.per, ("token", "character"))
        check_known("pacing", self.pacing, (*_PACINGS, *PROFILES))
        check_number("--rate", self.rate, 0.001, 1e9, optional=True)
        check_number("--batch", self.batch, 1, 100_000, whole=True, optional=True)
        flush = None if self.flush is None else parse_duration(self.flush, field="--flush")
        check_number("--flush", flush, 0.001, 3600, optional=True)
        if self.pacing == "adaptive":
            return self._adaptive(_FLUSH if flush is None else flush)
        if self.max_lag is not None:
            raise CommandLineError("--max-lag is for --pacing adaptive")
        profile = PROFILES.get(self.pacing)
        rate, batch = self.rate, self.batch or 1
        if profile is not None:
            rate = profile.rate_limit if rate is None else rate
            batch = profile.largest_batch if self.batch is None else batch
            flush = profile.flush_interval if flush is None else flush
        flush = _FLUSH if flush is None else flush
        options = SAFE.replace(
            max_buffer_size=max(1000, batch), batch_size=batch if batch > 1 else 1000,
            flush_interval=flush if batch > 1 else 0,
        )  # fmt: skip
        return _Pace(rate, flush, options)

    def _adaptive(self, flush: float) -> _Pace:
        if self.rate is not None or self.batch is not None:
            raise CommandLineError("--pacing adaptive finds the pace itself, without --rate and --batch")
        lag = 1.0 if self.max_lag is None else parse_duration(self.max_lag, field="--max-lag")
        check_number("--max-lag", lag, 0.1, 60)
        options = SAFE.replace(max_buffer_size=1000, batch_size=1000, pacing="adaptive", max_lag=lag)
        return _Pace(None, flush, options)


def _read(stopping: threading.Event) -> Iterator[bytes]:
    """Yield what has come on standard input, as soon as it comes, until its end or until ``stopping`` is set."""
    descriptor = sys.stdin.fileno()
    if sys.platform == "win32":
        while not stopping.is_set() and (piece := os.read(descriptor, _PIECE)):
            yield piece
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while not stopping.is_set():
        if not poll.poll(_LOOK * 1000):
            continue
        piece = os.read(descriptor, _PIECE)
        if not piece:
            return
        yield piece


def _write(stream: Stream, output: Output) -> TerminalEvent:
    """Write the stream's text until it ends; return its terminal event.

    Raises:
        OSError: standard output cannot be written, or its reader is gone.
    """
    with stream.events(slow="block") as events:
        while True:
            try:
                event = events.next(_LOOK)
            except CallTimeout:
                output.check()
                continue
            if isinstance(event, TokenEvent):
                output.write(event.text)
            elif isinstance(event, StreamCompleted | StreamFailed | StreamCancelled):
                return event


def _conclude(end: TerminalEvent, interrupted: int | None) -> int:
    if isinstance(end, StreamFailed):
        cause = end.error.__cause__
        say(f"standard input: {cause.strerror}" if isinstance(cause, OSError) else explain(end.error))
        return 2 if isinstance(cause, OSError) else 1
    if isinstance(end, StreamCancelled):
        return 1 if interrupted is None else 128 + interrupted
    return 0
