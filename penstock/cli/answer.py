"""Printing the answer of one stream, and how it ended."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Final

import msgspec

from penstock.actors.stream.statistics import StreamStatistics
from penstock.cli.failures import code_of, explain
from penstock.cli.terminal import Output, make_console, say, visible, write_error
from penstock.errors import CallTimeout
from penstock.events import (
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TerminalEvent,
    TokenEvent,
    to_dict,
)
from penstock.inspection import StreamInfo
from penstock.stream import Stream
from penstock.system import System

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["AnswerPrinter", "milliseconds", "print_statistics", "print_stream_statistics"]

_LOOK: Final = 0.25  # seconds between two checks that standard output still has a reader


class AnswerPrinter:
    """Prints one stream: text, or events as JSON, to standard output; reasoning and messages to standard error.

    Args:
        stream: the stream to print.
        output: where its text goes.
        look: returns the stream's state, to explain a long silence.
        as_json: print every event as a line of JSON instead of the text.
        reasoning: print the model's reasoning.
        is_watched: whether standard error is a terminal, so that a retry is worth a message.
        notes: messages that other threads want said, oldest first.
    """

    def __init__(
        self,
        stream: Stream,
        output: Output,
        *,
        look: Callable[[], StreamInfo],
        as_json: bool,
        reasoning: bool,
        is_watched: bool,
        notes: deque[str] | None = None,
    ) -> None:
        self._stream = stream
        self._output = output
        self._look = look
        self._as_json = as_json
        self._reasoning = reasoning
        self._is_watched = is_watched
        self._notes: deque[str] = deque() if notes is None else notes
        self._retries = 0
        self._text_came = False
        self._begun = time.monotonic()
        self._aside = False  # in the middle of a line on standard error

    def print(self) -> TerminalEvent:
        """Print until the stream ends; return its terminal event.

        Raises:
            OSError: standard output cannot be written.
        """
        with self._stream.events() as events:
            while True:
                try:
                    event = events.next(_LOOK)
                    while self._notes:
                        self._say(self._notes.popleft())
                except CallTimeout:
                    while self._notes:
                        self._say(self._notes.popleft())
                    self._output.check()
                    self._explain_silence()
                    continue
                self._print(event)
                if isinstance(event, StreamCompleted | StreamFailed | StreamCancelled):
                    self._end_lines()
                    return event

    def conclude(self, end: TerminalEvent, provider: str, interrupted: int | None) -> int:
        """Say how the stream ended, unless it simply completed; return the exit code.

        Args:
            end: the stream's terminal event.
            provider: the provider's name, if the event has none.
            interrupted: the signal that ended it, if one did.
        """
        seconds = time.monotonic() - self._begun
        tokens = self._stream.statistics().tokens_delivered
        came = f"{tokens} token{'s' * (tokens != 1)} had come in {seconds:.1f} s"
        if isinstance(end, StreamCompleted):
            for call in end.tool_calls:
                self._say(f"the model asks for {call.name}({call.arguments_raw})")
            if end.refusal:
                self._say("the model refused")
            elif end.finish_reason not in ("stop", "tool_calls"):
                self._say(f"the model stopped before it was done: {end.raw_finish_reason or end.finish_reason}")
            return 0
        if isinstance(end, StreamFailed):
            self._say(explain(end.error, end.provider or provider) + (f"; {came}" if tokens else ""))
            return code_of(end.error, text_came=self._text_came or bool(end.partial))
        self._say(f"cancelled; {came if tokens else f'nothing had come in {seconds:.1f} s'}")
        return 1 if interrupted is None else 128 + interrupted

    @cached_property
    def _errors(self) -> Console:
        return make_console(stderr=True)

    def _say(self, text: str) -> None:
        self._end_aside()
        self._output.make_room()
        say(text)

    def _explain_silence(self) -> None:
        info = self._look()
        if self._is_watched and info.source == "retry_wait" and info.attempts > self._retries:
            self._retries = info.attempts
            self._say(f"attempt {info.attempts} failed; trying again")

    def _print(self, event: Event) -> None:
        self._text_came = self._text_came or (isinstance(event, TokenEvent) and event.kind == "text")
        if self._as_json:
            self._output.write_json(to_dict(event))
        elif isinstance(event, StreamReset):
            self._say("the answer broke off and begins again; disregard the text above")
        elif isinstance(event, TokenEvent):
            if event.kind == "text":
                if self._aside and self._output.is_terminal:
                    self._end_aside()
                self._output.write(event.text)
            elif event.kind == "refusal" or self._reasoning:
                self._print_aside(event)

    def _print_aside(self, event: TokenEvent) -> None:
        self._output.end_line()
        with contextlib.suppress(OSError, ValueError):
            style = "dim" if event.kind == "reasoning" else None
            self._errors.print(visible(event.text), style=style, end="", soft_wrap=True)
        self._aside = True

    def _end_aside(self) -> None:
        if self._aside:
            write_error("\n")
        self._aside = False

    def _end_lines(self) -> None:
        self._end_aside()
        self._output.end_line()


def print_statistics(system: System, stream: Stream, end: TerminalEvent) -> None:
    """Print a table of what the stream of a call has counted to standard error."""
    seen = stream.statistics()
    rows: dict[str, object] = {
        "stream": stream.stream_id,
        "model": end.model or "unknown",
        "end": type(end).__name__,
        "requests": system.get_stream_info(stream.stream_id).attempts,
        **_rows(seen),
    }
    if isinstance(end, StreamCompleted):
        rows["finish reason"] = end.finish_reason
    if end.usage is not None:
        counts = msgspec.structs.asdict(end.usage)
        rows["usage"] = ", ".join(f"{counts[each]} {each}" for each in counts if counts[each] is not None)
    _print_table(rows)


def print_stream_statistics(stream: Stream) -> None:
    """Print a table of what a stream without a call has counted to standard error."""
    seen = stream.statistics()
    _print_table({**_rows(seen), "bytes": seen.bytes, "seconds": f"{seen.total_time_s:.1f}"})


def _rows(seen: StreamStatistics) -> dict[str, object]:
    return {
        "tokens": seen.tokens_delivered,
        "batches": seen.batches_flushed,
        "first token": milliseconds(seen.time_to_first_token_s),
        "tokens/s": f"{seen.tokens_per_second:.1f}",
        "between tokens, p50": milliseconds(seen.inter_token_p50_s),
        "between tokens, p99": milliseconds(seen.inter_token_p99_s),
        "back-pressure": seen.backpressure_events,
    }


def _print_table(rows: dict[str, object]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, visible(str(value)))
    with contextlib.suppress(OSError, ValueError):
        make_console(stderr=True).print(table)


def milliseconds(seconds: float | None) -> str:
    """Write a time in milliseconds.

    >>> milliseconds(0.0123), milliseconds(1.5), milliseconds(None)
    ('12.3 ms', '1500 ms', '-')
    """
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
