"""Which reader a call gets: by the setting, by how many run, and never the loop for code of the application."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

import penstock
from penstock.adapters.http.choosing import ChoosingReader, make_reader
from penstock.adapters.http.loop_reader import LoopReader
from penstock.adapters.http.threads import HttpReader
from penstock.adapters.loopback.faults import DelayFirstByte, StallAfter
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.config.options import RequestOptions
from penstock.config.settings import RuntimeOptions, Settings
from penstock.config.tokenizers import words
from penstock.errors import IncompleteStream
from penstock.ports import Delta, ReaderSink
from penstock.testing import eventually
from tests.integration.plain_calls import OPTIONS, PlainProvider, RecordingSink, post
from tests.integration.raw_server import PATIENCE, Peer, RawServer

LOOP = "penstock-reader-loop"


class Quick(RecordingSink):
    may_block = False


class Blocking(RecordingSink):
    may_block = True


@pytest.fixture
def waiting() -> Iterator[str]:
    """The URL of a server that answers nothing until the test is over."""
    over = threading.Event()

    def serve(peer: Peer) -> None:
        peer.read_request()
        assert over.wait(PATIENCE)

    with RawServer(serve) as server:
        yield server.url
        over.set()


def start(reader: ChoosingReader, url: str, sink: ReaderSink) -> Any:
    return reader.start(PlainProvider(), post(url), OPTIONS, sink)


def test_auto_gives_few_calls_a_thread_each_and_further_ones_to_the_loop(waiting: str) -> None:
    threads, loop = HttpReader(8), LoopReader(4)
    reader = ChoosingReader(threads, loop, 2)
    sinks = [Quick() for _ in range(5)]
    for sink in sinks:
        start(reader, waiting, sink)
    for sink in sinks:
        assert sink.is_waiting.wait(PATIENCE)
    assert (threads.statistics()["active"], loop.statistics()["active"]) == (2, 3)
    assert {name for sink in sinks[2:] for name in sink.threads} == {LOOP}
    assert reader.statistics()["active"] == 5
    assert reader.statistics()["started"] == 5
    assert reader.close(PATIENCE) == 0
    assert all(sink.wait_ended() is not None for sink in sinks)
    assert reader.statistics()["threads"] == 0


def test_closing_cancels_the_calls_of_threads_though_an_opener_of_the_loop_is_stuck(
    waiting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ChoosingReader(HttpReader(8), LoopReader(4), 1)
    looking, let_go = threading.Event(), threading.Event()

    def stuck(*_: Any) -> Any:
        looking.set()
        assert let_go.wait(PATIENCE)
        raise socket.gaierror

    sink = Quick()
    start(reader, waiting, sink)
    assert sink.is_waiting.wait(PATIENCE)
    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    start(reader, waiting, Quick())
    assert looking.wait(PATIENCE)
    left: list[int] = []
    closer = threading.Thread(target=lambda: left.append(reader.close(PATIENCE)))
    closer.start()
    assert isinstance(sink.wait_ended(), IncompleteStream)
    assert closer.is_alive()  # it waits for the opener
    let_go.set()
    closer.join(PATIENCE)
    assert left == [0]


def test_a_sink_that_may_block_or_does_not_say_has_a_thread(waiting: str) -> None:
    threads, loop = HttpReader(8), LoopReader(4)
    reader = ChoosingReader(threads, loop, 0)
    sinks = [Blocking(), RecordingSink(), Quick()]
    for sink in sinks:
        start(reader, waiting, sink)
    for sink in sinks:
        assert sink.is_waiting.wait(PATIENCE)
    assert (threads.statistics()["active"], loop.statistics()["active"]) == (2, 1)
    assert sinks[2].threads == {LOOP}
    assert reader.close(PATIENCE) == 0


@pytest.mark.parametrize(("kind", "few"), [("threads", None), ("loop", 0), ("auto", 64)])
def test_the_setting_chooses(kind: Any, few: int | None) -> None:
    reader = make_reader(RuntimeOptions(reader=kind))
    assert isinstance(reader, HttpReader if few is None else ChoosingReader)
    if isinstance(reader, ChoosingReader):
        assert reader._few == few
    assert reader.close(PATIENCE) == 0


def test_auto_uses_the_loop_when_there_are_fewer_threads_than_it_would_take() -> None:
    reader = make_reader(RuntimeOptions(reader="auto", reader_threads=3))
    assert isinstance(reader, ChoosingReader)
    assert reader._few == 3
    reader.close(PATIENCE)


def test_another_reader_is_no_setting() -> None:
    with pytest.raises(
        penstock.OptionError, match=r"reader: got 'epoll', allowed: 'auto' \| 'threads' \| 'loop'|reader"
    ):
        RuntimeOptions(reader="epoll")  # type: ignore[arg-type]


# --- code of the application -----------------------------------------------------------------------------------------


@pytest.fixture
def system(provider: LoopbackProvider) -> Iterator[penstock.System]:
    with penstock.System(Settings(runtime=RuntimeOptions(reader="loop"))) as system:
        yield system


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider(Script(answer=Answer("one two three"))) as provider:
        yield provider


def ask(system: penstock.System, provider: LoopbackProvider, **more: Any) -> penstock.Stream:
    return system.chat("m", "x", **({"provider": "openai", "base_url": provider.base_url, "api_key": "k"} | more))


def test_an_ordinary_call_is_read_by_the_loop(
    system: penstock.System, provider: LoopbackProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = noting_threads(monkeypatch)
    assert ask(system, provider).result(PATIENCE).text == "one two three"
    split = penstock.StreamOptions(tokenizer=words, rate_limit=None)
    assert ask(system, provider, options=split).result(PATIENCE).text == "one two three"
    assert names == {LOOP}


def noting_threads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the threads in which chat completions are decoded."""
    names: set[str] = set()
    feed = ChatDecoder.feed

    def noting(self: ChatDecoder, chunk: bytes) -> list[Delta]:
        names.add(threading.current_thread().name)
        return feed(self, chunk)

    monkeypatch.setattr(ChatDecoder, "feed", noting)
    return names


def test_a_tokenizer_of_the_application_never_runs_in_the_loop(
    system: penstock.System, provider: LoopbackProvider
) -> None:
    names: set[str] = set()

    def split(text: str) -> list[str]:
        names.add(threading.current_thread().name)
        return text.split(" ")

    options = penstock.StreamOptions(tokenizer=split, rate_limit=None)
    assert ask(system, provider, options=options).result(PATIENCE).text == "onetwothree"
    assert names
    assert LOOP not in names


def test_a_tokenizer_that_is_set_while_the_loop_reads_does_not_run_in_it(
    system: penstock.System, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: set[str] = set()
    is_set = threading.Event()

    def split(text: str) -> list[str]:
        names.add(threading.current_thread().name)
        return text.split(" ")

    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for part in ("one two", " three", " four"):
            peer.send(f'data: {{"choices": [{{"index": 0, "delta": {{"content": "{part}"}}}}]}}\n\n'.encode())
            assert is_set.wait(PATIENCE)
        peer.send(b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')

    decoding = noting_threads(monkeypatch)
    with RawServer(serve) as server:
        options = penstock.StreamOptions(batch_size=1, rate_limit=None)
        stream = system.chat("m", "x", provider="openai", base_url=server.url, api_key="k", options=options)
        assert eventually(lambda: stream.text == "one two")
        stream.set_options(tokenizer=split)
        is_set.set()
        assert stream.result(PATIENCE).text == "one twothreefour"
    assert decoding == {LOOP}
    assert names
    assert LOOP not in names


class OwnProvider(OpenAiChat):
    """A provider that an application has derived from Penstock's."""

    names: set[str] = set()  # noqa: RUF012

    def decoder(self, options: RequestOptions) -> ChatDecoder:
        self.names.add(threading.current_thread().name)
        return super().decoder(options)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> penstock.ProviderError:
        self.names.add(threading.current_thread().name)
        return super().error(status, headers, body)


def test_a_provider_of_the_application_never_runs_in_the_loop(
    system: penstock.System, provider: LoopbackProvider
) -> None:
    own = OwnProvider(penstock.ports.Secret("k"), provider.base_url)
    assert system.chat("m", "x", provider=own).result(PATIENCE).text == "one two three"
    assert OwnProvider.names
    assert LOOP not in OwnProvider.names


def test_a_journal_and_subscribed_functions_never_run_in_the_loop(provider: LoopbackProvider) -> None:
    names: set[str] = set()
    journalled: list[str] = []

    class Noting:
        """A journal that keeps nothing."""

        def append(self, event: penstock.Event) -> None:
            journalled.append(threading.current_thread().name)

    def told(event: object) -> None:
        names.add(threading.current_thread().name)

    with penstock.System(Settings(runtime=RuntimeOptions(reader="loop")), journal=Noting()) as system:
        stream = ask(system, provider)
        stream.subscribe(told)
        assert stream.result(PATIENCE).text == "one two three"
        assert system.statistics().reader["started"] == 1
        eventually(lambda: names)
    assert journalled
    assert LOOP not in {*names, *journalled}


# --- the system's end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [DelayFirstByte(None), StallAfter(1)])
def test_stopping_a_system_ends_its_loop_its_openers_and_its_calls(fault: Any) -> None:
    script = Script(answer=Answer("one two three", faults=(fault,)))
    with ExitStack() as held:
        provider = held.enter_context(LoopbackProvider(script))
        system = penstock.System(Settings(runtime=RuntimeOptions(reader="loop"))).start()
        streams = [ask(system, provider) for _ in range(5)]
        provider.wait_for(lambda counts: counts.faults_injected == 5)
        assert system.statistics().reader["active"] == 5
        assert system.stop() == 0
        assert all(stream.is_over for stream in streams)
        provider.wait_for(lambda counts: counts.active_responses == 0)
        eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("penstock")])


def test_two_hundred_calls_at_once_run_with_few_threads() -> None:
    script = Script(answer=Answer("one two three", faults=(DelayFirstByte(None),)))
    with LoopbackProvider(script, max_connections=500) as provider:
        runtime = RuntimeOptions(reader="loop")
        with penstock.System(Settings(runtime=runtime)) as system:
            streams = [ask(system, provider) for _ in range(200)]
            provider.wait_for(lambda counts: counts.faults_injected == 200, 30)
            seen: Mapping[str, int] = system.statistics().reader
            assert seen["active"] == 200
            assert seen["threads"] <= 33
            for stream in streams:
                stream.cancel()
            ended: Sequence[bool] = [eventually(lambda one=stream: one.is_over) for stream in streams]  # type: ignore[misc]
            assert all(ended)
            eventually(lambda: system.statistics().reader["active"] == 0)
