"""What has ended is gone at once: no circle waits for the garbage collector, and no waiting thread has the last one."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, Literal

import pytest
from pydantic import BaseModel

import penstock
from penstock import sources
from penstock.actors.call.attempt import Attempt
from penstock.actors.call.gate import Ticket
from penstock.actors.call.record import CallRecord
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.stream.record import StreamRecord
from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.http.exchange import RequestExchange
from penstock.adapters.http.handle import RequestHandle
from penstock.adapters.loopback.faults import DelayFirstByte, ResetAfter, StallAfter, Status
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.shared.decoder import BodyDecoder
from penstock.adapters.sources.http import HttpSource
from penstock.config.options import RequestOptions
from penstock.config.secret import Secret
from penstock.ports import Delta
from penstock.testing import eventually
from penstock.toolbox.feeding import _Queue
from penstock.toolbox.stage import Stage

PATIENCE: Final = 20.0
OPTIONS: Final = penstock.StreamOptions(rate_limit=None, keep_finished=0.0)
REQUEST: Final = penstock.RequestOptions(max_retries=1, retry_base_delay=0.01, retry_max_delay=0.02)
KINDS: Final = (
    *(StreamRecord, CallRecord, Process, ProcessRef, Attempt, Ticket),
    *(RequestExchange, RequestHandle, BodyDecoder, HttpSource, Stage, _Queue),
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


def see_it_over(stream: penstock.Stream) -> None:
    eventually(lambda: stream.is_over, PATIENCE, "the end")


def over_http(url: str, model: str, extract: Callable[[SseEvent], Any] | None = None) -> HttpSource:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": True})
    return sources.sse(f"{url}/v1/chat/completions", extract, "POST", body=body, headers={"Authorization": "Bearer sk"})


@pytest.mark.parametrize("model", ["whole", "reset", "refused", "stalled"])
@pytest.mark.parametrize("reader", ["loop", "threads"])
@pytest.mark.usefixtures("no_collector")
def test_nor_does_anything_of_a_stream_from_an_http_source(reader: Literal["loop", "threads"], model: str) -> None:
    settings = penstock.Settings(runtime=penstock.RuntimeOptions(reader=reader))
    with LoopbackProvider(SCRIPT) as provider, penstock.System(settings) as system:
        before = alive()
        for _ in range(2):
            stream = system.stream_from(over_http(provider.url, model), options=OPTIONS)
            if model == "stalled":
                assert next(iter(stream.events()), None) is not None
                stream.cancel("enough")
            see_it_over(stream)
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


# --- what an exception has come through ----------------------------------------------------------------------------

CALLING: Final = Answer(text="", tool_calls=(ScriptedCall("fail", "{}"),))
LIMITS: Final = penstock.AgentOptions(tool_timeout=PATIENCE)


def see_it_fail(stream: penstock.Stream, kind: type[penstock.PenstockError]) -> None:
    with pytest.raises(kind):
        stream.result(PATIENCE)


def some() -> Iterator[str]:
    yield "One"
    raise ValueError("x")


async def some_async() -> AsyncIterator[str]:
    yield "One"
    raise ValueError("x")


def fail(value: object = "") -> Any:
    raise ValueError("x")


async def fail_async(value: object = "") -> Any:
    raise ValueError("x")


def a_source(system: penstock.System, url: str) -> None:
    see_it_fail(system.stream_from(some(), options=OPTIONS), penstock.SourceError)


def an_async_source(system: penstock.System, url: str) -> None:
    see_it_fail(system.stream_from(some_async, options=OPTIONS), penstock.SourceError)


def a_source_that_cannot_be_opened(system: penstock.System, url: str) -> None:
    see_it_fail(system.stream_from(fail, options=OPTIONS), penstock.SourceError)


def the_function_of_an_http_source(system: penstock.System, url: str) -> None:
    see_it_fail(system.stream_from(over_http(url, "whole", fail), options=OPTIONS), penstock.SourceError)


def chat(system: penstock.System, url: str, **more: Any) -> penstock.Stream:
    more = {"provider": "openai-chat", "api_key": "sk", "base_url": url + "/v1"} | more
    return system.chat("m", "Hello", options=OPTIONS, **more)


class Refusing(ChatDecoder):
    def feed(self, chunk: bytes) -> list[Delta]:
        raise ValueError("x")


class RefusingChat(OpenAiChat):
    def decoder(self, options: RequestOptions) -> ChatDecoder:
        return Refusing(options.max_event_bytes)


def a_decoder(system: penstock.System, url: str) -> None:
    provider = RefusingChat(Secret("sk"), url + "/v1")
    see_it_fail(system.chat("m", "Hello", provider=provider, options=OPTIONS), penstock.ProviderError)


def a_subscriber(system: penstock.System, url: str) -> None:
    stream = chat(system, url)
    stream.subscribe(fail)
    see_it_over(stream)


def an_async_subscriber(system: penstock.System, url: str) -> None:
    stream = chat(system, url)
    stream.subscribe(fail_async)
    see_it_over(stream)


def a_transform(system: penstock.System, url: str) -> None:
    see_it_fail(chat(system, url).map(fail, options=OPTIONS), penstock.TransformError)


def an_async_transform(system: penstock.System, url: str) -> None:
    see_it_fail(chat(system, url).map(fail_async, options=OPTIONS), penstock.TransformError)


class Point(BaseModel):
    x: int


def a_result_that_is_not_valid(system: penstock.System, url: str) -> None:
    with pytest.raises(penstock.OutputInvalid):
        penstock.structured(chat(system, url), Point).result(PATIENCE)


def a_tool(system: penstock.System, url: str, tool: Callable[..., Any] = fail) -> None:
    with (
        LoopbackProvider(Script([CALLING, WHOLE])) as provider,
        system.agent(
            model="m",
            base_url=provider.base_url,
            api_key="sk",
            tools=[penstock.tool(name="fail")(tool)],
            agent_options=LIMITS,
            options=OPTIONS,
        ) as agent,
    ):
        stream = agent.stream_chat("go")
        assert [event.status for event in stream.events() if isinstance(event, penstock.ToolResult)] == ["error"]
        assert stream.result(PATIENCE).text == "One two three"


def an_async_tool(system: penstock.System, url: str) -> None:
    a_tool(system, url, fail_async)


@pytest.mark.parametrize(
    "fails",
    [
        a_source,
        an_async_source,
        a_source_that_cannot_be_opened,
        the_function_of_an_http_source,
        a_decoder,
        a_subscriber,
        an_async_subscriber,
        a_transform,
        an_async_transform,
        a_result_that_is_not_valid,
        a_tool,
        an_async_tool,
    ],
)
@pytest.mark.usefixtures("no_collector")
def test_when_something_of_the_users_raises_nothing_of_the_stream_waits_for_the_collector(
    fails: Callable[[penstock.System, str], None],
) -> None:
    with LoopbackProvider(SCRIPT) as provider, penstock.System() as system:
        before = alive()
        for _ in range(2):
            fails(system, provider.url)
        nothing_is_left(system, before)


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("reader", ["loop", "threads"])
@pytest.mark.usefixtures("no_collector")
def test_nor_does_it_when_a_stream_crashes_in_the_thread_that_reads(
    reader: Literal["loop", "threads"], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("delivery", "direct"):
        monkeypatch.setattr(f"penstock.actors.stream.{module}.TokenEvent", None)
    settings = penstock.Settings(runtime=penstock.RuntimeOptions(reader=reader))
    options = OPTIONS.replace(batch_size=batch_size)
    with LoopbackProvider(SCRIPT) as provider, penstock.System(settings) as system:
        before = alive()
        for _ in range(2):
            stream = system.chat("whole", "Hello", provider="loopback", base_url=provider.base_url, options=options)
            see_it_fail(stream, penstock.StreamCrashed)
            del stream
        nothing_is_left(system, before)


class FullDisk:
    """A journal that takes nothing."""

    def append(self, event: penstock.Event) -> None:
        raise OSError("full")


@pytest.mark.parametrize("auto_restart", [False, True])
@pytest.mark.usefixtures("no_collector")
def test_nor_does_it_when_its_journal_fails(auto_restart: bool) -> None:
    options = OPTIONS.replace(max_errors=1, auto_restart=auto_restart)
    with penstock.System() as system:
        before = alive()
        for _ in range(2):
            stream = system.open_stream(options=options, journal=FullDisk())
            stream.process_token("One")
            see_it_over(stream)
            del stream
        nothing_is_left(system, before)
