"""The load of ``penstock serve --demo``: streams, agents with tools, a provider that fails now and then; no end."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pydantic import SecretStr

from penstock.adapters.loopback.faults import ErrorFrame, Status
from penstock.adapters.loopback.ledger import ReceivedRequest
from penstock.adapters.loopback.script import Answer, Cycle, Replies, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.agent import Agent
from penstock.cli.demo_script import SENTENCES
from penstock.config.dashboard import DashboardOptions
from penstock.config.options import RequestOptions
from penstock.config.presets import CHAT, CHAT_DEFAULTS, DOCUMENT
from penstock.config.settings import ProviderOptions, Settings
from penstock.errors import PenstockError
from penstock.events import Event
from penstock.stream import Stream
from penstock.system import System

__all__ = ["demo_settings", "running_load"]

_STREAMS: Final = 12  # at once
_AGENTS: Final = 2
_LOOK_S: Final = 0.7  # between two looks at what has ended
_TURNS: Final = 5  # of an agent, before another one takes its place
_PAUSES: Final = 0.1  # the part of the looks at which a stream is paused
_PAUSED_FOR: Final = 8  # looks
_KEY: Final = "sk-demo-loopback"  # of the embedded provider
_MODELS: Final = ("demo-chat", "demo-thinks", "demo-report", "demo-chat", "demo-paced", "demo-thinks", "demo-fails")
_PROVIDERS: Final = {"demo-thinks": "anthropic", "demo-fails": "gemini"}
_QUESTION: Final = "How does the water get from the lake to the wheels?"


@contextmanager
def demo_settings(settings: Settings) -> Iterator[Settings]:
    """The settings with the embedded provider, scripted, in place of three; it serves until the block ends."""
    with LoopbackProvider(Script(Answer(SENTENCES[0], pace=0.05), models=_models())) as provider:
        bases = {"openai": provider.base_url, "anthropic": provider.url, "gemini": provider.url}
        models = {"openai": "demo-chat", "anthropic": "demo-thinks", "gemini": "demo-fails"}
        key = SecretStr(_KEY)
        made = {name: ProviderOptions(base_url=url, api_key=key, model=models[name]) for name, url in bases.items()}
        yield dataclasses.replace(
            settings,
            providers={**settings.providers, **made},
            request=RequestOptions(max_retries=1, retry_base_delay=0.5),
            dashboard=DashboardOptions(show_text=True),
        )


def _models() -> dict[str, Replies]:
    said = _answer(0, 90, 12.0)
    return {
        "demo-chat": Cycle((said, _answer(1, 140, 25.0, delay=0.6), _answer(2, 40, 8.0))),
        "demo-thinks": _answer(3, 160, 20.0, reasoning=f"The question is where the water goes. {SENTENCES[3]}"),
        "demo-report": _answer(4, 1_500, 60.0, delay=1.2),
        "demo-paced": _answer(5, 200, None),
        "demo-fails": Cycle((said, said.replace(faults=(ErrorFrame(25),)), said, Status(503), Status(503), said)),
        "demo-operator": _operate,
    }


def _answer(first: int, tokens: int, pace: float | None, *, delay: float = 0.0, reasoning: str = "") -> Answer:
    text = "".join(f"{sentence} " for sentence in (*SENTENCES[first:], *SENTENCES[:first]))
    return Answer(text, repeat=tokens, tokens_per_second=pace, first_token_delay=delay, reasoning=reasoning)


def _operate(request: ReceivedRequest) -> Answer:
    """What the agents' model says: two calls, and an answer once it has their results."""
    if request.tool_result is not None:
        return _answer(2, 50, 15.0)
    calls = [ScriptedCall("lake_level", f'{{"lake": "{lake}"}}') for lake in ("upper", "lower")]
    return Answer("Let me look at both lakes. ", tokens_per_second=10, tool_calls=tuple(calls))


@contextmanager
def running_load(system: System) -> Iterator[None]:
    """Keep streams and agents running in a thread, until the block ends; then end them."""
    load = _Load(system)
    thread = threading.Thread(target=load.run, name="demo-load")
    thread.start()
    try:
        yield
    finally:
        load.ends.set()
        thread.join()


class _Load:
    """Opens another stream for each that has ended. The same seed gives the same load, as far as times allow."""

    def __init__(self, system: System) -> None:
        self.ends = threading.Event()
        self._system = system
        self._random = random.Random(1)  # noqa: S311
        self._models = itertools.cycle(_MODELS)
        self._streams: list[Stream] = []
        self._paused: list[tuple[Stream, int]] = []  # and how many looks are left
        self._agents: list[_Operator] = []

    def run(self) -> None:
        """Look again and again, until `ends` is set."""
        while not self.ends.is_set():
            with contextlib.suppress(PenstockError):  # the system drains, or a stream has just ended
                self._look()
            self.ends.wait(_LOOK_S)
        for stream in self._streams:
            with contextlib.suppress(PenstockError):
                stream.cancel("the demo ends")
        for operator in self._agents:
            operator.stop()

    def _look(self) -> None:
        self._streams = [stream for stream in self._streams if not stream.is_over]
        if len(self._streams) < _STREAMS:
            self._streams.append(self._open(next(self._models)))
        elif self._random.random() < _PAUSES:
            stream = self._random.choice(self._streams)
            stream.pause()
            self._paused.append((stream, _PAUSED_FOR))
        self._paused = [(stream, left - 1) for stream, left in self._paused if self._stays(stream, left)]
        if len(self._agents) < _AGENTS:
            self._agents.append(_Operator(self._system))
        for operator in self._agents:
            operator.look()

    def _open(self, model: str) -> Stream:
        options = {"demo-report": DOCUMENT, "demo-paced": CHAT_DEFAULTS.replace(rate_limit=12)}.get(model, CHAT)
        stream = self._system.chat(
            model, _QUESTION, provider=_PROVIDERS.get(model, "openai"), options=options, on_orphan="continue"
        )
        for _ in range(self._random.choice((0, 1, 1, 2))):
            stream.subscribe(_read)
        return stream

    @staticmethod
    def _stays(stream: Stream, left: int) -> bool:
        """Whether a stream stays paused; resumes it if not."""
        if left > 0 and not stream.is_over:
            return True
        if not stream.is_over:
            stream.resume()
        return False


class _Operator:
    """An agent that is asked again whenever it has answered."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._agent: Agent | None = None
        self._answer: Stream | None = None
        self._turns = 0

    def look(self) -> None:
        """Ask, if the answer before has ended; every few turns another agent."""
        if self._answer is not None and not self._answer.is_over:
            return
        if self._agent is None or self._turns == _TURNS:
            self.stop()
            tools: list[Callable[..., str]] = [lake_level]
            self._agent = self._system.agent(model="demo-operator", provider="openai", tools=tools)
            self._turns = 0
        self._turns += 1
        self._answer = self._agent.stream_chat("How high do the lakes stand?", _read)

    def stop(self) -> None:
        """End the agent."""
        if self._agent is not None:
            with contextlib.suppress(PenstockError):
                self._agent.stop()


def lake_level(lake: str) -> str:
    """Look up how high a lake stands."""
    threading.Event().wait(random.uniform(0.5, 3.0))  # noqa: S311 # a gauge that takes its time
    if lake == "lower" and random.random() < 0.3:  # noqa: S311
        raise ConnectionError("the gauge does not answer")
    return "1,742 m"


def _read(event: Event) -> None:
    """A subscriber that is as fast as can be."""
