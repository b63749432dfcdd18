"""Several prompts at once: ``chat --mode concurrent`` and ``chat --mode aggregate``."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from penstock.cli.failures import code_of, explain
from penstock.cli.progress import duration
from penstock.cli.terminal import Output, make_console, say, visible
from penstock.errors import CallTimeout, PenstockError
from penstock.events import (
    Event,
    OriginEnded,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TerminalEvent,
    TokenEvent,
    to_dict,
)
from penstock.stream import Stream

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Bars", "ManyAnswers", "label_of"]

_LOOK: Final = 0.25
_DRAW_EVERY: Final = 0.1
_LONGEST_LABEL: Final = 32


def label_of(origin: str) -> str:
    """Return the heading of an answer.

    >>> label_of("2")
    '[Stream 2]'
    """
    return f"[Stream {origin}]"


class Bars:
    """A bar for each stream on standard error, if that is a terminal, while the ``with`` block runs.

    Args:
        streams: by origin.
        prompts: the question of each, shown beside its bar.
        is_shown: whether there is room: nothing else writes to the terminal meanwhile.
    """

    def __init__(self, streams: Mapping[str, Stream], prompts: Sequence[str], *, is_shown: bool) -> None:
        self._streams = streams
        self._prompts = prompts
        self._is_shown = is_shown and sys.stderr is not None and sys.stderr.isatty()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._done = threading.Event()
        self._lock = threading.Lock()  # the bars are not drawn while text is written
        self._thread = threading.Thread(target=self._run, name="penstock-progress", daemon=True)

    def __enter__(self) -> Self:
        if self._is_shown:
            self._show()
            self._thread.start()
        return self

    def _show(self) -> None:
        """Draw bars. New ones each time: a bar that is started again would erase what was written meanwhile."""
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        console = make_console(stderr=True)
        width = max(8, min(_LONGEST_LABEL, console.width - 52))
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[facts]}"),
            console=console,
            transient=True,
        )
        for number, origin in enumerate(self._streams):
            text = " ".join(visible(self._prompts[number]).split())
            text = f"{text[: width - 1]}…" if len(text) > width else text
            self._tasks[origin] = self._bars.add_task(f"{origin} {text}", total=None, facts="")
        self._draw()
        self._bars.start()

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bars away while the block writes to the same terminal."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
            try:
                yield
            finally:
                if self._bars is not None and not self._done.is_set():
                    self._show()

    def _run(self) -> None:
        while not self._done.wait(_DRAW_EVERY):
            with self._lock, contextlib.suppress(OSError, ValueError):
                self._draw()

    def _draw(self) -> None:
        assert self._bars is not None
        for origin, stream in self._streams.items():
            seen = stream.statistics()
            share = seen.progress
            known: dict[str, Any] = {} if share is None else {"completed": share * 100, "total": 100}
            if stream.is_over:
                known = {"completed": 100, "total": 100}
            percent = "" if share is None else f"{share:4.0%} "
            facts = f"{percent}{seen.tokens_delivered:5,} tokens {seen.tokens_per_second:4.0f}/s"
            self._bars.update(self._tasks[origin], facts=facts, **known)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._bars is not None:
            self._thread.join()
            with contextlib.suppress(OSError, ValueError):
                self._bars.stop()


class ManyAnswers:
    """Prints a stream that is merged from several.

    Args:
        merged: the stream, with the origins ``"1"``, ``"2"`` …
        streams: its inputs.
        output: where the text goes.
        as_json: print every event as a line of JSON instead.
        at_once: print text as it comes, headed where the origin changes; else each answer when it is whole, in order.
    """

    def __init__(
        self, merged: Stream, streams: Mapping[str, Stream], output: Output, *, as_json: bool, at_once: bool
    ) -> None:
        self._merged = merged
        self._streams = streams
        self._output = output
        self._as_json = as_json
        self._at_once = at_once
        self._last: str | None = None
        self._pieces: dict[str, list[str]] = {origin: [] for origin in streams}
        self._outcomes: dict[str, TerminalEvent] = {}
        self._to_print = list(streams)  # in order

    def print(self, bars: Bars) -> TerminalEvent:
        """Print until the stream ends; return its terminal event.

        Raises:
            OSError: standard output cannot be written.
        """
        with self._merged.events() as events:
            while True:
                try:
                    event = events.next(_LOOK)
                except CallTimeout:
                    self._output.check()
                    continue
                if self._as_json:
                    self._output.write_json(to_dict(event))
                else:
                    self._take(event, bars)
                if isinstance(event, OriginEnded) and event.origin is not None:
                    self._outcomes[event.origin] = event.outcome
                    if not self._at_once and not self._as_json:
                        self._print_whole(bars)
                elif isinstance(event, StreamCompleted | StreamFailed | StreamCancelled):
                    if self._output.line_open:
                        self._output.write("\n")
                    return event

    def _take(self, event: Event, bars: Bars) -> None:
        if isinstance(event, TokenEvent) and event.kind == "text" and event.origin is not None:
            if not self._at_once:
                self._pieces[event.origin].append(event.text)
                return
            if event.origin != self._last:
                if self._output.line_open:
                    self._output.write("\n")
                self._output.write(f"{label_of(event.origin)} ")
                self._last = event.origin
                self._output.write(event.text.removeprefix(" ") or " ")
                return
            self._output.write(event.text)
        elif isinstance(event, StreamReset) and event.origin is not None:
            self._pieces[event.origin].clear()
            if self._at_once:
                self._say(bars, f"{label_of(event.origin)} broke off and begins again; disregard its text above")

    def _print_whole(self, bars: Bars) -> None:
        """Print the answers that are whole, up to the first one that is not."""
        while self._to_print and self._to_print[0] in self._outcomes:
            origin = self._to_print.pop(0)
            text = "".join(self._pieces.pop(origin))
            with bars.hidden():
                blank = "\n" if self._last is not None else ""
                self._output.write(f"{blank}{label_of(origin)}\n{text}{'' if text.endswith(chr(10)) else chr(10)}")
            self._last = origin

    def _say(self, bars: Bars, text: str) -> None:
        with bars.hidden():
            self._output.make_room()
            say(text)

    def conclude(self, end: TerminalEvent, provider: str, interrupted: int | None, seconds: float) -> int:
        """Say how the streams ended; return the exit code."""
        errors: list[PenstockError] = []
        tokens = sum(stream.statistics().tokens_delivered for stream in self._streams.values())
        for origin, outcome in self._outcomes.items():
            if isinstance(outcome, StreamFailed):
                errors.append(outcome.error)
                say(f"{label_of(origin)} {explain(outcome.error, outcome.provider or provider)}")
        completed = sum(isinstance(outcome, StreamCompleted) for outcome in self._outcomes.values())
        parts = [f"{completed} of {len(self._streams)} completed"]
        parts.append(f"{tokens:,} tokens in {duration(seconds)}, {tokens / max(seconds, 1e-9):,.0f} tokens/s")
        say("; ".join(parts))
        if interrupted is not None and not isinstance(end, StreamCompleted):
            return 128 + interrupted
        if isinstance(end, StreamFailed) and not errors:
            say(explain(end.error, provider))
            return code_of(end.error, text_came=bool(end.partial))
        if errors:
            return 4 if completed else code_of(errors[0], text_came=bool(end.text))
        return 0 if isinstance(end, StreamCompleted) else 1
