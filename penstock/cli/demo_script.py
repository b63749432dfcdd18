"""What the demo's streams say, and what reads them: scripted answers, callbacks, an agent with tools."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Final

from penstock.adapters.loopback.faults import Status
from penstock.adapters.loopback.ledger import ReceivedRequest
from penstock.adapters.loopback.script import Answer, ScriptedCall
from penstock.agent import Agent
from penstock.config.options import StreamOptions
from penstock.config.presets import CHAT, CHAT_DEFAULTS, DOCUMENT, REALTIME
from penstock.events import Event, StreamCancelled, StreamCompleted, StreamFailed, TokenEvent, ToolResult
from penstock.stream import Stream
from penstock.system import System

__all__ = [
    "CRASH_AT",
    "LONGEST_S",
    "SENTENCES",
    "BusyOnce",
    "Crasher",
    "Operator",
    "Show",
    "TextCollector",
    "make_shows",
]

LONGEST_S: Final = 15.0  # then the demo stops, and says that it took too long
CRASH_AT: Final = 3  # the event at which one subscriber raises
_RETRY_AFTER_S: Final = 0.5
SENTENCES: Final = (
    "High above the valley the lake waits behind its dam.",
    "A gate opens, and water enters the penstock: a steel pipe as wide as a room, steep as a stair.",
    "No drop asks how the turbine fares, and no turbine asks how high the lake stands.",
    "The gate between them decides how much of the lake goes down.",
    "When a turbine trips, its gate closes and the others run on.",
    "Far below, the water leaves the wheels and finds the river again.",
)


class TextCollector:
    """A callback that collects a stream's text. Each runs in a process of its own."""

    def __init__(self) -> None:
        self.text = ""
        self.end: Event | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, TokenEvent):
            self.text += event.text
        elif isinstance(event, StreamCompleted | StreamFailed | StreamCancelled):
            self.end = event


class Crasher:
    """A callback with a bug."""

    def __init__(self) -> None:
        self.events = 0
        self.crashes = 0

    def __call__(self, event: Event) -> None:
        self.events += 1
        if self.events == CRASH_AT:
            self.crashes += 1
            raise ZeroDivisionError("on purpose")


class BusyOnce:
    """A scripted reply: 503 to the first request, the answer to the next. Keeps the times of the requests."""

    def __init__(self, answer: Answer) -> None:
        self.times: list[float] = []
        self._answer = answer

    def __call__(self, request: ReceivedRequest) -> Answer | Status:
        self.times.append(time.monotonic())
        return Status(503, retry_after=_RETRY_AFTER_S) if len(self.times) == 1 else self._answer


class Operator:
    """An agent that looks up the levels of two lakes at once. One lookup fails, and the agent answers all the same."""

    QUESTION = "How high do the lakes stand?"
    TEXT = "The upper lake stands at 1,742 m. The level of the lower one is unknown."

    def __init__(self) -> None:
        self.go_on = threading.Event()  # the tools wait for it, so that the tree shows them running
        self.results: list[str] = []
        self.end: Event | None = None
        self.agent: Agent | None = None

    def reply(self, request: ReceivedRequest) -> Answer:
        """Return what its model says: two tool calls, and the answer once it has the results."""
        if request.tool_result is not None:
            return Answer(self.TEXT, tokens_per_second=40)
        calls = [ScriptedCall("lake_level", f'{{"lake": "{lake}"}}') for lake in ("upper", "lower")]
        return Answer("", tool_calls=tuple(calls))

    def lake_level(self, lake: str) -> str:
        """Look up how high a lake stands."""
        self.go_on.wait(LONGEST_S)
        if lake == "lower":
            raise ConnectionError("on purpose")
        return "1,742 m"

    def ask(self, system: System, url: str, number: int) -> None:
        """Start the agent and ask it."""
        tools = [self.lake_level]
        self.agent = system.agent("operator", model="operator", tools=tools, provider="loopback", base_url=url)
        self.agent.stream_chat(self.QUESTION, self, stream_id=f"{number}-operator")

    def __call__(self, event: Event) -> None:
        if isinstance(event, ToolResult):
            self.results.append(event.status)
        elif isinstance(event, StreamCompleted | StreamFailed | StreamCancelled):
            self.end = event

    @property
    def has_answered(self) -> bool:
        """Whether both tools returned a result, one of them an error, and the answer is complete."""
        end = self.end
        return isinstance(end, StreamCompleted) and end.text == self.TEXT and self.results == ["ok", "error"]


@dataclass
class Show:
    """One stream of the demo."""

    name: str
    preset: str
    options: StreamOptions
    answer: Answer
    subscriber: TextCollector = field(default_factory=TextCollector)
    stream: Stream | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its subscriber received all that the provider sent, and the end."""
        return isinstance(self.subscriber.end, StreamCompleted) and self.subscriber.text == self.answer.full_text


def _answer(first: int, tokens: int, pace: float | None, *, delay: float = 0.0) -> Answer:
    """Make an answer of ``tokens`` tokens that begins with the sentence number ``first``."""
    text = "".join(f"{sentence} " for sentence in (*SENTENCES[first:], *SENTENCES[:first]))
    return Answer(text, repeat=tokens, tokens_per_second=pace, first_token_delay=delay)


def make_shows() -> list[Show]:
    return [
        Show("reader", "chat", CHAT, _answer(0, 120, 40)),
        Show("voice", "realtime", REALTIME, _answer(1, 160, 27)),
        Show("retried", "none", CHAT_DEFAULTS, _answer(2, 120, 25)),
        Show("report", "document", DOCUMENT, _answer(3, 480, 80)),
        Show("late", "none", CHAT_DEFAULTS, _answer(4, 150, 35, delay=1.5)),
        Show("flood", "document", DOCUMENT, _answer(5, 600, None)),
    ]
