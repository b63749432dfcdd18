"""The command ``run``, a demonstration: six streams at once over real HTTP, a retry, a crash, an agent with tools.

Only the model is scripted: the embedded provider's bytes go through sockets as HTTP and SSE. Every claim that is
printed at the end is checked.
"""

from __future__ import annotations

import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.adapters.loopback.script import Replies, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.cli.answer import milliseconds
from penstock.cli.asking import bypass_proxies
from penstock.cli.demo_script import CRASH_AT, LONGEST_S, BusyOnce, Crasher, Operator, Show, make_shows
from penstock.cli.interrupts import Interrupts
from penstock.cli.terminal import make_console
from penstock.config.logs import configure_logging
from penstock.config.settings import Settings
from penstock.events import StreamCompleted
from penstock.inspection import StreamInfo, SystemStatistics, Tree
from penstock.system import System

__all__ = ["run_demo"]

_SHOW_CURSOR = b"\x1b[?25h"  # the live table hides it
_LOOK_S = 0.1  # between two updates
_LINE_S = 1.0  # between two lines of progress, without a terminal
_TREE_AT_S = 2.0
_TOOLS = 2
_FIRST_WORDS = 8
_WIDTH = 79  # of prose, without a terminal


class _Page:
    """Prints lines, broken between words where they are too long."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.is_live = console.is_terminal and not console.is_dumb_terminal  # a table can be drawn again and again
        self._width = console.width if console.is_terminal else _WIDTH
        self._begun = time.monotonic()
        self._said: set[str] = set()

    @property
    def seconds(self) -> float:
        """How long the demo has run."""
        return time.monotonic() - self._begun

    @property
    def clock(self) -> str:
        """How long the demo has run, as text."""
        return f"{self.seconds:4.1f} s"

    def print(self, *lines: str, indent: int = 0) -> None:
        """Print each line; what follows a break is indented."""
        wrapped = [
            textwrap.wrap(
                line, self._width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
            )
            for line in lines
        ]
        self.console.print("\n".join("\n".join(pieces) for pieces in wrapped), soft_wrap=True)

    def print_legend(self, meanings: Mapping[str, str]) -> None:
        """Explain the words of a table."""
        for name, meaning in meanings.items():
            self.print(f"  {name:<9} {meaning}", indent=12)

    def report(self, text: str) -> None:
        """Print a line with the time."""
        self.print(f"{self.clock}  {text}", indent=8)

    def report_once(self, what: str, text: str) -> None:
        """Print ``text`` with the time, unless ``what`` has been reported before."""
        if not self.has_reported(what):
            self._said.add(what)
            self.report(text)

    def has_reported(self, what: str) -> bool:
        """Whether ``what`` has been reported."""
        return what in self._said


class _Demo:
    def __init__(self, page: _Page) -> None:
        self.page = page
        self.shows = make_shows()
        self.busy_once = BusyOnce(self.shows[2].answer)
        self.crasher = Crasher()
        self.operator = Operator()
        self.tree: Tree | None = None
        replies: dict[str, Replies] = {show.name: show.answer for show in self.shows}
        replies |= {"retried": self.busy_once, "operator": self.operator.reply}
        self.provider = LoopbackProvider(Script(models=replies))

    # --- the run -------------------------------------------------------------------------------------------------

    def play(self, system: System, stopped: Callable[[], bool]) -> bool:
        """Run until all streams have ended. Returns False if it was stopped, or took too long."""
        try:
            return self._play(system, stopped)
        finally:
            self.operator.go_on.set()

    def _play(self, system: System, stopped: Callable[[], bool]) -> bool:
        self._open(system)
        pause = threading.Event()  # never set
        with self._progress(system) as draw:
            while not stopped() and self.page.seconds < LONGEST_S:
                draw(False)
                self._report(system)
                if self.tree is None and self.page.seconds >= _TREE_AT_S:
                    self.tree = system.tree()
                    self.page.print("", "The supervision tree at this moment:", "", *str(self.tree).splitlines(), "")
                    self.operator.go_on.set()
                if self.operator.end is not None and all(show.subscriber.end is not None for show in self.shows):
                    draw(True)
                    self._report(system)
                    return True
                pause.wait(_LOOK_S)
        return False

    def _open(self, system: System) -> None:
        url = self.provider.base_url
        self.page.print(
            f"{len(self.shows)} streams and an agent, answered by a real HTTP server in this process at {url}.", ""
        )
        if self.page.is_live:
            self.page.print_legend(_LIVE_LEGEND)
            self.page.print("")
        for number, show in enumerate(self.shows, 1):
            show.stream = system.chat(
                show.name,
                [{"role": "user", "content": "Tell me about penstocks."}],
                options=show.options,
                provider="loopback",
                base_url=url,
                stream_id=f"{number}-{show.name}",
            )
            show.stream.subscribe(show.subscriber)
        voice = self.shows[1].stream
        assert voice is not None
        voice.subscribe(self.crasher)
        self.operator.ask(system, url, len(self.shows) + 1)

    # --- while it runs -------------------------------------------------------------------------------------------

    def _report(self, system: System) -> None:
        """Print each thing that happens once, when it can be seen from outside."""
        for number, (show, info) in enumerate(self._infos(system), 1):
            if info.source == "retry_wait" or info.attempts > 1:
                self.page.report_once(
                    "retry", f"stream {number}: the provider answered 503; the request is tried again."
                )
            words = show.subscriber.text.split()
            if not self.page.is_live and len(words) > _FIRST_WORDS:
                self.page.report_once(show.name, f"stream {number} begins: {' '.join(words[:_FIRST_WORDS])} …")
        voice = self.shows[1].stream
        assert voice is not None
        if self.crasher.crashes and not voice.is_over and system.get_stream_info(voice.stream_id).subscriber_count == 1:
            self.page.report_once("crash", "stream 2: a subscriber crashed and was removed; the other one goes on.")
        if "error" in self.operator.results:
            self.page.report_once(
                "tool", "the agent: one of its two tools failed; the model gets the error, and answers."
            )
        if isinstance(self.operator.end, StreamCompleted):
            self.page.report_once(
                "answer", f"the agent was asked: {self.operator.QUESTION} It answered: {self.operator.end.text}"
            )

    @contextmanager
    def _progress(self, system: System) -> Iterator[Callable[[bool], None]]:
        """Yield a function that shows the progress: in a live table, or in a line each second and a last one."""
        if self.page.is_live:
            with Live(console=self.page.console, auto_refresh=False) as live:
                yield lambda _last: live.update(self._table(system), refresh=True)
            return
        due, shown = 0.0, ""

        def line(last: bool) -> None:
            nonlocal due, shown
            if (last or self.page.seconds >= due) and (text := self._line(system)) != shown:
                due, shown = self.page.seconds + _LINE_S, text
                self.page.report(text)

        yield line

    def _line(self, system: System) -> str:
        counts = [(info.stream_id, info.statistics.tokens_delivered, _state(info)) for _, info in self._infos(system)]
        return "tokens: " + " · ".join(f"{name} {tokens or f'({state})'}" for name, tokens, state in counts)

    def _table(self, system: System) -> Group:
        table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
        for head in ("stream", "preset", "state"):
            table.add_column(head, no_wrap=True)
        for head in ("try", "tokens", "tok/s", "first"):
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("text", ratio=1, no_wrap=True, overflow="crop")
        room = max(8, self.page.console.width - 66)
        for show, info in self._infos(system):
            seen = info.statistics
            state = _state(info)
            table.add_row(
                f"{info.stream_id}",
                show.preset,
                Text(state, style=_COLORS.get(state, "")),
                Text(str(info.attempts), style="yellow" if info.attempts > 1 else ""),
                str(seen.tokens_delivered),
                f"{seen.tokens_per_second:.0f}" if seen.batches_flushed > 1 else "-",
                milliseconds(seen.time_to_first_token_s),
                Text(_tail(show.subscriber.text, room), style="dim"),
            )
        return Group(table, Text(self.page.clock, style="dim"))

    def _infos(self, system: System) -> Iterator[tuple[Show, StreamInfo]]:
        for show in self.shows:
            assert show.stream is not None
            yield show, system.get_stream_info(show.stream.stream_id)

    # --- the end -------------------------------------------------------------------------------------------------

    def print_statistics(self, system: System) -> None:
        """Print the statistics of each stream, and of the system."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("stream", no_wrap=True)
        for head in ("tokens", "batches", "first", "tok/s", "p50", "p99", "waits", "state"):
            table.add_column(head, justify="right", no_wrap=True)
        for _show, info in self._infos(system):
            seen = info.statistics
            table.add_row(
                info.stream_id,
                str(seen.tokens_delivered),
                str(seen.batches_flushed),
                milliseconds(seen.time_to_first_token_s),
                f"{seen.tokens_per_second:.1f}",
                milliseconds(seen.inter_token_p50_s),
                milliseconds(seen.inter_token_p99_s),
                str(seen.backpressure_events),
                _state(info),
            )
        self.page.print("", "Statistics:", "")
        self.page.console.print(table)
        self.page.print("")
        self.page.print_legend(_STATISTICS_LEGEND)
        self.page.print("", _summary(system.statistics(), self.provider.statistics().requests))

    def check(self) -> list[tuple[bool, str]]:
        """List what the demo claims, each with whether it is true."""
        shows, times = self.shows, self.busy_once.times
        whole = sum(show.is_whole for show in shows)
        tokens = sum(show.answer.token_count for show in shows)
        retried, voice = shows[2], shows[1]
        wait = f"{times[1] - times[0]:.1f} s" if len(times) > 1 else "never"
        assert voice.stream is not None
        crashed = self.page.has_reported("crash") and self.crasher.crashes == 1 and self.crasher.events == CRASH_AT
        names = [] if self.tree is None else str(self.tree).split()
        return [
            (
                self.page.has_reported("retry") and len(times) == 2 and retried.is_whole,
                f"stream 3: the provider answered 503; tried again after {wait} (attempt 2), completed.",
            ),
            (
                crashed and voice.is_whole and voice.stream.statistics().errors == 0,
                "stream 2: one of its two subscribers crashed; the stream and the other subscriber were not affected "
                f"({voice.stream.statistics().tokens_delivered} of {voice.answer.token_count} tokens).",
            ),
            (
                whole == len(shows),
                f"{whole} of {len(shows)} subscribers got all of their {tokens} tokens in order, and one end each.",
            ),
            (
                all(show.stream is not None and f"stream/{show.stream.stream_id}" in names for show in shows),
                f"all {len(shows)} streams were in the supervision tree.",
            ),
            (
                self.operator.has_answered and sum(name.startswith("tool/") for name in names) == _TOOLS,
                "the agent ran two tools at once; one raised, its model got the error, and the agent answered.",
            ),
        ]


_LIVE_LEGEND: Final = {
    "preset": "how a stream is paced and batched; none: as the provider sends",
    "state": "rate_limited: it holds tokens back to keep its preset's pace",
    "try": "the number of the request, 1 for the first",
    "first": "time to the first token",
}
_STATISTICS_LEGEND: Final = {
    "batches": "events with one or more tokens",
    "first": "time to the first token",
    "p50, p99": "time between two tokens: median and 99th percentile",
    "waits": "how often the provider waited because the stream's buffer was full",
}
_COLORS: Final = {
    "completed": "green",
    "failed": "red",
    "cancelled": "red",
    "retry_wait": "yellow",
    "rate_limited": "cyan",
}


def _state(info: StreamInfo) -> str:
    """Return the stream's state; until a token has come, that of its provider request."""
    if info.state == "idle" and info.source is not None and not info.statistics.tokens_processed:
        return info.source
    return "completed" if info.state == "ended" and info.source == "done" else info.state


def _tail(text: str, room: int) -> str:
    """Return the last whole words of ``text`` that fit into ``room`` columns.

    >>> _tail("High above the valley", 12)
    'the valley'
    """
    return text if len(text) <= room else text[-room:].partition(" ")[2]


def _summary(seen: SystemStatistics, requests: int) -> str:
    pool = seen.dispatcher
    return (
        f"Together: {seen.streams_completed} of {seen.streams_created} streams completed, {seen.tokens} tokens, "
        f"{requests} requests, {pool.messages} messages among {seen.processes_started} actors on {pool.workers} "
        f"threads, {seen.dead_letters} dead letters."
    )


def run_demo() -> int:
    """Run the command; return the exit code.

    Raises:
        OSError: standard output cannot be written.
    """
    bypass_proxies()
    configure_logging("critical")  # the demo reports its crash itself
    if sys.stdout is None:
        raise OSError(9, "is closed")
    terminal = sys.stdout.isatty()
    page = _Page(make_console(force_terminal=terminal))
    with Interrupts(parting=_SHOW_CURSOR if page.is_live else b"") as interrupts:
        kept = _play(page, lambda: interrupts.signal is not None)
        if interrupts.signal is not None:
            return 128 + interrupts.signal
        return 0 if kept else 1


def _play(page: _Page, stopped: Callable[[], bool]) -> bool:
    """Run the demo until it ends or ``stopped()``; return whether every claim is true."""
    demo = _Demo(page)
    demo.provider.start()
    try:
        system = System(Settings())  # the defaults: the user's settings must not change what is shown
        with system:
            finished = demo.play(system, stopped)
            if not stopped():
                demo.print_statistics(system)
            leaked = system.stop()
    finally:
        demo.provider.stop()
    if stopped():
        page.print("", "Interrupted: all streams were cancelled, and their connections closed.")
        return False
    checks = [
        *demo.check(),
        (not leaked, "everything was stopped, and no thread is left."),
        (finished, f"all this took {page.seconds:.1f} s."),
    ]
    page.print("", "What you saw:", "")
    for kept, words in checks:
        page.print(f"  {'✓' if kept else '✗ NOT AS PROMISED:'} {words}", indent=4)
    return all(kept for kept, _ in checks)
