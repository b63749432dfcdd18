"""What has ended is gone at once: no circle waits for the garbage collector, and no waiting thread has the last one."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, Literal

import pytest

import penstock
from penstock.actors.call.attempt import Attempt
from penstock.actors.call.gate import Ticket
from penstock.actors.call.record import CallRecord
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.stream.record import StreamRecord
from penstock.adapters.http.exchange import RequestExchange
from penstock.adapters.http.handle import RequestHandle
from penstock.adapters.loopback.faults import DelayFirstByte, ResetAfter, StallAfter, Status
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.shared.decoder import BodyDecoder
from penstock.adapters.sources.http import HttpSource
from penstock.testing import eventually

PATIENCE: Final = 20.0
OPTIONS: Final = penstock.StreamOptions(rate_limit=None, keep_finished=0.0)
REQUEST: Final = penstock.RequestOptions(max_retries=1, retry_base_delay=0.01, retry_max_delay=0.02)
KINDS: Final = (
    *(StreamRecord, CallRecord, Process, ProcessRef, Attempt, Ticket),
    *(RequestExchange, RequestHandle, BodyDecoder, HttpSource),
)
WHOLE: Final = Answer(tokens=("One ", "two ", "three"))
SCRIPT: Final = Script(
    models={
        "whole": WHOLE,
        "reset": WHOLE.replace(faults=(ResetAfter(1),)),
        "stalled": WHOLE.replace(faults=(StallAfter(1),)),
        "silent": WHOLE.replace(faults=(DelayFirstByte(None),)),
        "refused": Status(503),
    }
)


def alive() -> Counter[str]:
    """How many there are of what a stream is made of, by type; also of what only the collector would find."""
    return Counter(type(one).__name__ for one in gc.get_objects() if issubclass(type(one), KINDS))


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def end(system: penstock.System, model: str, base_url: str) -> None:
    """Make a call and see it end; if its provider is silent, by cancelling it."""
    seen: list[Any] = []
    stream = system.chat(
        model, "Hello", provider="loopback", base_url=base_url, options=OPTIONS, request_options=REQUEST
    )
    stream.subscribe(seen.append)
    if model == "stalled":
        eventually(lambda: any(isinstance(event, penstock.TokenEvent) for event in seen), PATIENCE, "a token")
    if model in ("stalled", "silent"):
        stream.cancel("enough")
    eventually(lambda: stream.is_over, PATIENCE, "the end")


def nothing_is_left(system: penstock.System, before: Counter[str]) -> None:
    eventually(lambda: not system._table.all(), PATIENCE, "every record forgotten")
    eventually(lambda: not alive() - before, PATIENCE, "nothing of it left")


@pytest.mark.parametrize("model", ["whole", "reset", "refused", "stalled", "silent"])
@pytest.mark.parametrize("reader", ["loop", "threads"])
@pytest.mark.usefixtures("no_collector")
def test_of_a_call_that_has_ended_nothing_waits_for_the_collector(
    reader: Literal["loop", "threads"], model: str
) -> None:
    settings = penstock.Settings(runtime=penstock.RuntimeOptions(reader=reader))
    with LoopbackProvider(SCRIPT) as provider, penstock.System(settings) as system:
        before = alive()
        for _ in range(2):
            end(system, model, provider.base_url)
        nothing_is_left(system, before)


@pytest.mark.parametrize("dialect", ["openai-responses", "anthropic", "gemini", "ollama"])
@pytest.mark.usefixtures("no_collector")
def test_nor_does_anything_of_a_call_in_another_dialect(dialect: str) -> None:
    with LoopbackProvider(SCRIPT) as provider, penstock.System() as system:
        before = alive()
        for _ in range(2):
            url = provider.base_url if dialect == "openai-responses" else provider.url
            stream = system.chat("whole", "Hello", provider=dialect, api_key="sk", base_url=url, options=OPTIONS)
            assert stream.result(PATIENCE).text == "One two three"
            del stream
        nothing_is_left(system, before)


@pytest.mark.usefixtures("no_collector")
def test_of_a_stream_that_was_pushed_to_nothing_waits_for_the_collector() -> None:
    with penstock.System() as system:
        before = alive()
        for _ in range(2):
            stream = system.open_stream(options=OPTIONS)
            stream.subscribe(lambda event: None)
            stream.process_token("One")
            stream.stop()
            del stream
        nothing_is_left(system, before)
