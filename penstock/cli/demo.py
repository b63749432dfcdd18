"""What ``penstock run`` shows: six streams at once from a real HTTP server, a retry, a crash, and an agent with tools.

Everything is real but the model: the embedded provider's bytes go through sockets as HTTP and SSE. What is promised at
the end is checked, not only said.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.adapters.loopback.faults import Status
from penstock.adapters.loopback.ledger import ReceivedRequest
from penstock.adapters.loopback.script import Answer, Replies, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.agent import Agent
from penstock.config.options import StreamOptions
from penstock.config.presets import CHAT, CHAT_DEFAULTS, DOCUMENT, REALTIME
from penstock.config.settings import Settings
from penstock.events import Event, StreamCancelled, StreamCompleted, StreamFailed, TokenEvent, ToolResult
from penstock.inspection import StreamInfo, SystemStatistics, Tree
from penstock.stream import Stream
from penstock.system import System

__all__ = ["milliseconds", "run"]

_LONGEST = 15.0  # seconds; then the demo gives up and says so
_LOOK = 0.1
_LINE_EVERY = 1.0  # seconds between two lines where there is no terminal
_TREE_AT = 2.0
_CRASH_AT = 3  # the event at which one subscriber raises
_RETRY_AFTER = 0.5
_TOOLS = 2

_TEXT = (
    "High above the valley the lake waits behind its dam. A gate opens, and water enters the penstock: a steel pipe as "
    "wide as a room, steep as a stair. No drop asks how the turbine fares, and no turbine asks how high the lake "
    "stands; the gate between them decides. When a turbine trips, its gate closes and the others run on. "
)


class _Subscriber:
    """A callback that collects what it is told; it runs in a process of its own."""

    def __init__(self) -> None:
        self.text = ""
        self.end: Event | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, TokenEvent):
            self.text += event.text
        elif isinstance(event, StreamCompleted | StreamFailed | StreamCancelled):
            self.end = event


class _Clumsy:
    """A callback with a bug."""

    def __init__(self) -> None:
        self.events = 0
        self.crashes = 0

    def __call__(self, event: Event) -> None:
        self.events += 1
        if self.events == _CRASH_AT:
            self.crashes += 1
            raise ZeroDivisionError("on purpose")


class _BusyOnce:
    """A reply: 503 for the first request, the answer for the next. It notes when they came."""

    def __init__(self, answer: Answer) -> None:
        self.times: list[float] = []
        self._answer = answer

    def __call__(self, request: ReceivedRequest) -> Answer | Status:
        self.times.append(time.monotonic())
        return Status(503, retry_after=_RETRY_AFTER) if len(self.times) == 1 else self._answer


class _Operator:
    """An agent that looks up two lakes at once, one of which cannot be reached, and answers all the same."""

    TEXT = "The upper lake stands at 1,742 m. Of the lower one I was not told."

    def __init__(self) -> None:
        self.go_on = threading.Event()  # until then its tools are busy, for whoever looks at the tree
        self.results: list[str] = []
        self.end: Event | None = None
        self.agent: Agent | None = None

    def reply(self, request: ReceivedRequest) -> Answer:
        """What its model says: two calls, and an answer once there are results."""
        if request.tool_result is not None:
            return _answer(len(self.TEXT.split()), 40).replace(text=self.TEXT)
        calls = [ScriptedCall("lake_level", f'{{"lake": "{lake}"}}') for lake in ("upper", "lower")]
        return Answer("", tool_calls=tuple(calls))

    def lake_level(self, lake: str) -> str:
        """How high a lake stands."""
        self.go_on.wait(_LONGEST)
        if lake == "lower":
            raise ConnectionError("on purpose")
        return "1,742 m"

    def ask(self, system: System, url: str, number: int) -> None:
        """Start the agent, and put the question to it."""
        tools = [self.lake_level]
        self.agent = system.agent("operator", model="operator", tools=tools, provider="loopback", base_url=url)
        self.agent.stream_chat("How high do the lakes stand?", self, stream_id=f"{number}-operator")

    def __call__(self, event: Event) -> None:
        if isinstance(event, ToolResult):
            self.results.append(event.status)
        elif isinstance(event, StreamCompleted | StreamFailed | StreamCancelled):
            self.end = event

    @property
    def has_answered(self) -> bool:
        """Whether it was given both results, the failed one too, and the answer."""
        end = self.end
        return isinstance(end, StreamCompleted) and end.text == self.TEXT and self.results == ["ok", "error"]


@dataclass
class _Show:
    """One stream of the demo."""

    name: str
    preset: str
    options: StreamOptions
    answer: Answer
    subscriber: _Subscriber = field(default_factory=_Subscriber)
    stream: Stream | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its subscriber was given everything that the provider sent, and its end."""
        return isinstance(self.subscriber.end, StreamCompleted) and self.subscriber.text == self.answer.full_text


def _answer(tokens: int, pace: float | None, **more: float) -> Answer:
    return Answer(_TEXT, repeat=tokens, tokens_per_second=pace, **more)  # type: ignore[arg-type]


def _shows() -> list[_Show]:
    return [
        _Show("reader", "chat", CHAT, _answer(120, 40)),
        _Show("voice", "realtime", REALTIME, _answer(160, 27)),
        _Show("retried", "-", CHAT_DEFAULTS, _answer(120, 25)),
        _Show("report", "document", DOCUMENT, _answer(480, 80)),
        _Show("late", "-", CHAT_DEFAULTS, _answer(150, 35, first_token_delay=1.5)),
        _Show("flood", "document", DOCUMENT, _answer(600, None)),
    ]


class _Demo:
    def __init__(self, console: Console) -> None:
        self.console = console
        self.shows = _shows()
        self.busy_once = _BusyOnce(self.shows[2].answer)
        self.clumsy = _Clumsy()
        self.operator = _Operator()
        self.tree: Tree | None = None
        self.seen: set[str] = set()
        self.begun = time.monotonic()
        replies: dict[str, Replies] = {show.name: show.answer for show in self.shows}
        replies |= {"retried": self.busy_once, "operator": self.operator.reply}
        self.provider = LoopbackProvider(Script(models=replies))

    # --- its course ----------------------------------------------------------------------------------------------

    def play(self, system: System, stopped: Callable[[], bool]) -> bool:
        """Stream until all streams have ended; False if it was stopped or took too long."""
        try:
            return self._play(system, stopped)
        finally:
            self.operator.go_on.set()

    def _play(self, system: System, stopped: Callable[[], bool]) -> bool:
        self._open(system)
        over = threading.Event()  # nobody sets it: it is slept on
        with self._progress(system) as draw:
            while not stopped() and time.monotonic() - self.begun < _LONGEST:
                draw(False)
                self._notice(system)
                if self.tree is None and time.monotonic() - self.begun >= _TREE_AT:
                    self.tree = system.tree()
                    self._print("", "The supervision tree at this moment:", "", *str(self.tree).splitlines(), "")
                    self.operator.go_on.set()
                if self.operator.end is not None and all(show.subscriber.end is not None for show in self.shows):
                    draw(True)
                    return True
                over.wait(_LOOK)
        return False

    def _open(self, system: System) -> None:
        url = self.provider.base_url
        self._print(f"{len(self.shows)} streams and an agent's answer from {url}: real HTTP and SSE.", "")
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
        voice.subscribe(self.clumsy)
        self.operator.ask(system, url, len(self.shows) + 1)

    # --- while it runs -------------------------------------------------------------------------------------------

    def _notice(self, system: System) -> None:
        """Say once that something has gone wrong as it should, when it can be seen from outside."""
        for number, (_show, info) in enumerate(self._infos(system), 1):
            if info.source == "retry_wait" or info.attempts > 1:
                self._say_once("retry", f"stream {number}: the provider answered 503; the request is tried again.")
        voice = self.shows[1].stream
        assert voice is not None
        if self.clumsy.crashes and not voice.is_over and system.get_stream_info(voice.stream_id).subscriber_count == 1:
            self._say_once("crash", "stream 2: a subscriber crashed and is out; the other one goes on.")
        if "error" in self.operator.results:
            self._say_once("tool", "the agent: one of its two tools failed; the model is told, and answers.")

    def _say_once(self, what: str, text: str) -> None:
        if what not in self.seen:
            self.seen.add(what)
            self._print(f"{self._clock()}  {text}")

    def _clock(self) -> str:
        return f"{time.monotonic() - self.begun:4.1f} s"

    @contextmanager
    def _progress(self, system: System) -> Iterator[Callable[[bool], None]]:
        """Give a function that shows how far everything is: a live table, or a line now and then and at the last."""
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            with Live(console=self.console, auto_refresh=False) as live:
                yield lambda _last: live.update(self._table(system), refresh=True)
            return
        due = self.begun

        def line(last: bool) -> None:
            nonlocal due
            if last or time.monotonic() >= due:
                due += _LINE_EVERY
                self._print(self._line(system))

        yield line

    def _line(self, system: System) -> str:
        states = [
            f"{info.stream_id} {_state(info)} {info.statistics.tokens_delivered}" for _, info in self._infos(system)
        ]
        return f"{self._clock()}  " + " · ".join(states)

    def _table(self, system: System) -> Group:
        table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
        for head in ("stream", "preset", "state"):
            table.add_column(head, no_wrap=True)
        for head in ("try", "tokens", "tok/s", "first"):
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("text", ratio=1, no_wrap=True, overflow="crop")
        room = max(8, self.console.width - 66)
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
                Text(show.subscriber.text[-room:], style="dim"),
            )
        return Group(table, Text(self._clock(), style="dim"))

    def _infos(self, system: System) -> Iterator[tuple[_Show, StreamInfo]]:
        for show in self.shows:
            assert show.stream is not None
            yield show, system.get_stream_info(show.stream.stream_id)

    # --- what is said at the end -------------------------------------------------------------------------------------

    def print_statistics(self, system: System) -> None:
        """Each stream's numbers, and those of all together."""
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
        self._print("", "Statistics (p50, p99: between two tokens; waits: how often the provider had to):", "")
        self.console.print(table)
        self._print("", _in_words(system.statistics(), self.provider.statistics().requests))

    def check(self) -> list[tuple[bool, str]]:
        """What was promised, whether it was kept, in plain words."""
        shows, times = self.shows, self.busy_once.times
        whole = sum(show.is_whole for show in shows)
        tokens = sum(show.answer.token_count for show in shows)
        retried, voice = shows[2], shows[1]
        wait = f"{times[1] - times[0]:.1f} s" if len(times) > 1 else "never"
        assert voice.stream is not None
        crashed = "crash" in self.seen and self.clumsy.crashes == 1 and self.clumsy.events == _CRASH_AT
        names = [] if self.tree is None else str(self.tree).split()
        return [
            (
                "retry" in self.seen and len(times) == 2 and retried.is_whole,
                f"stream 3: provider answered 503, retried after {wait} (attempt 2), completed.",
            ),
            (
                crashed and voice.is_whole and voice.stream.statistics().errors == 0,
                "stream 2: one of its two subscribers crashed; the stream and the other subscriber did not notice "
                f"({voice.stream.statistics().tokens_delivered} of "
                f"{voice.answer.token_count} tokens).",
            ),
            (
                whole == len(shows),
                f"{whole} of {len(shows)} subscribers got every one of their {tokens} tokens in order, and one end.",
            ),
            (
                all(show.stream is not None and f"stream/{show.stream.stream_id}" in names for show in shows),
                f"all {len(shows)} streams were in the supervision tree.",
            ),
            (
                self.operator.has_answered and sum(name.startswith("tool/") for name in names) == _TOOLS,
                "the agent ran two tools at once, one of which raised; it told the model, and answered.",
            ),
        ]

    def _print(self, *lines: str) -> None:
        for line in lines:
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)


_COLORS = {
    "completed": "green",
    "failed": "red",
    "cancelled": "red",
    "retry_wait": "yellow",
    "rate_limited": "cyan",
}


def _state(info: StreamInfo) -> str:
    """The stream's state, or its provider request's as long as nothing has come."""
    if info.state == "idle" and info.source is not None and not info.statistics.tokens_processed:
        return info.source
    return "completed" if info.state == "ended" and info.source == "done" else info.state


def _in_words(all_of_it: SystemStatistics, requests: int) -> str:
    pool = all_of_it.dispatcher
    return (
        f"Together: {all_of_it.streams_completed} of {all_of_it.streams_created} streams completed, "
        f"{all_of_it.tokens} tokens, {requests} requests, {pool.messages} messages among "
        f"{all_of_it.processes_started} actors on {pool.workers} threads, {all_of_it.dead_letters} dead letters."
    )


def run(stopped: Callable[[], bool]) -> bool:
    """Play the demo on standard output, until it ends or ``stopped()``; False if a promise was not kept.

    Raises:
        OSError: standard output is no good.
    """
    terminal = sys.stdout.isatty()
    console = Console(force_terminal=terminal, no_color=None if terminal else True, highlight=False)
    demo = _Demo(console)
    demo.provider.start()
    try:
        system = System(Settings())  # the defaults: whatever the user has set is not to change what is shown
        with system:
            finished = demo.play(system, stopped)
            if not stopped():
                demo.print_statistics(system)
            leaked = system.stop()
    finally:
        demo.provider.stop()
    if stopped():
        console.print("\nInterrupted: all streams were cancelled, their connections closed.")
        return False
    checks = [
        *demo.check(),
        (not leaked, "everything was stopped, and no thread is left."),
        (finished, f"all this took {time.monotonic() - demo.begun:.1f} s."),
    ]
    console.print("\nWhat you saw:\n")
    table = Table.grid(padding=(0, 1))
    for kept, words in checks:
        mark = "✓" if kept else "✗ NOT AS PROMISED:"
        if terminal:
            table.add_row(" ", mark, words)
        else:
            console.print(f"  {mark} {words}", soft_wrap=True)
    if terminal:
        console.print(table)
    return all(kept for kept, _ in checks)


def milliseconds(seconds: float | None) -> str:
    """A time as one reads it.

    >>> milliseconds(0.0123), milliseconds(1.5), milliseconds(None)
    ('12.3 ms', '1500 ms', '-')
    """
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
