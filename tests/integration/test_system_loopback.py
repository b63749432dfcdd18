"""A whole system against a real HTTP server: every way in which an answer can go, and every moment to leave."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import (
    DelayFirstByte,
    ErrorFrame,
    HangUp,
    HoldOpen,
    HugeEvent,
    InvalidUtf8,
    MalformedJson,
    NotAStream,
    ResetAfter,
    StallAfter,
    Status,
    TruncateAfter,
)
from penstock.adapters.loopback.script import Answer, Replies, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.settings import RuntimeOptions
from penstock.config.tokenizers import find_tokenizer
from penstock.testing import Collector, eventually

KEY = "sk-very-secret-key-0123456789"
WORDS = tuple(f"{n} " for n in range(20))
TEXT = "".join(WORDS)
ANSWER = Answer(tokens=WORDS)
FAST = penstock.StreamOptions(batch_size=4, flush_interval=0.02, rate_limit=None)
NO_RETRY = penstock.RequestOptions(max_retries=0)
USER = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def system() -> Iterator[penstock.System]:
    system = penstock.System(penstock.Settings()).start()
    yield system
    assert system.stop() == 0


def serve(replies: Replies) -> LoopbackProvider:
    return LoopbackProvider(Script(replies, answer=ANSWER))


def ask(system: penstock.System, provider: LoopbackProvider, **arguments: Any) -> penstock.Stream:
    arguments.setdefault("options", FAST)
    arguments.setdefault("request_options", NO_RETRY)
    return system.chat("m", USER, provider="loopback", base_url=provider.base_url, **arguments)


# --- it works --------------------------------------------------------------------------------------------------------


def test_the_example_of_the_plan_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(ANSWER) as provider:
        settings = penstock.Settings.load(provider={"base_url": provider.base_url, "api_key": KEY})
        with penstock.System(settings) as system:
            stream = system.chat("gpt-4.1-mini", [{"role": "user", "content": "Hello"}], options=penstock.CHAT)
            for event in stream:
                match event:
                    case penstock.TokenEvent(text=text):
                        print(text, end="", flush=True)
                    case penstock.StreamCompleted(usage=usage):
                        print("\n", usage)
                    case penstock.StreamFailed(error=error):
                        raise error
            print(stream.statistics())
            print(system.tree())
        assert provider.requests[0].last_user_text == "Hello"
        shown = capsys.readouterr().out
        assert shown.startswith(TEXT)
        assert "output_tokens=20" in shown
        assert "system  (Supervisor, running)" in shown
        assert KEY not in shown


def test_responses_stream_as_chat_does(system: penstock.System) -> None:
    with serve(ANSWER) as provider:
        stream = system.respond("Hello", "m", provider="loopback", base_url=provider.base_url)
        assert stream.result(timeout=10).text == TEXT
        assert provider.requests[0].path == "/v1/responses"


@pytest.mark.parametrize("framing", ["chunked", "close", "length", "gzip"])
@pytest.mark.parametrize("split", [None, "bytes", 7])
def test_however_the_body_comes_the_text_is_whole(system: penstock.System, framing: Any, split: Any) -> None:
    text = "Grüße an die 3.14 – 😀 und  zwei Leerzeichen"
    with serve(Answer(text, framing=framing, split=split)) as provider:
        assert ask(system, provider).result(timeout=10).text == text


def test_usage_that_follows_the_finish_is_in_the_end(system: penstock.System) -> None:
    with serve(ANSWER) as provider:
        completed = ask(system, provider).result(timeout=10)
        assert completed.usage is not None
        assert (completed.finish_reason, completed.usage.output_tokens) == ("stop", 20)


def test_metadata_comes_back_in_every_event(system: penstock.System) -> None:
    with serve(ANSWER) as provider:
        events = list(ask(system, provider, metadata={"user_id": 7}))
        assert {event.metadata["user_id"] for event in events} == {7}


def test_a_tokenizer_splits_what_comes(system: penstock.System) -> None:
    with serve(Answer(tokens=("Hello wor", "ld, again"))) as provider:
        stream = ask(system, provider, options=FAST.replace(batch_size=1, tokenizer=find_tokenizer("characters")))
        events = [event for event in stream if isinstance(event, penstock.TokenEvent)]
        assert "".join(token for event in events for token in event.tokens) == "Hello world, again"
        assert stream.statistics().tokens_delivered == len("Hello world, again")


def test_a_rate_limit_slows_the_stream_and_loses_nothing(system: penstock.System) -> None:
    with serve(ANSWER) as provider:
        stream = ask(system, provider, options=FAST.replace(rate_limit=100.0))
        collector = Collector(stream)
        collector.wait_for_terminal(20)
        times = [event.timestamp for event in collector.events]
        assert times[-1] - times[0] >= (20 - 4) / 100 * 0.9  # the first batch is what the bucket holds
        assert collector.text == TEXT


def test_an_id_can_be_used_again_as_soon_as_the_stream_has_ended(system: penstock.System) -> None:
    with serve(ANSWER) as provider:
        for _ in range(30):
            assert ask(system, provider, stream_id="again").result(timeout=10).text == TEXT
        assert len(provider.requests) == 30


def test_a_hundred_streams_at_once(system: penstock.System) -> None:
    with serve(ANSWER.replace(pace=0.005)) as provider:
        streams = [ask(system, provider) for _ in range(100)]
        collectors = [Collector(stream) for stream in streams]
        assert len(system.get_active_streams()) <= 100
        assert system.statistics().streams_created == 100
        assert len(str(system.tree()).splitlines()) > 6
        for collector in collectors:
            collector.wait_for_terminal(30)
            assert collector.text == TEXT
            collector.check()


def test_many_systems_in_one_process_share_nothing() -> None:
    def run(number: int) -> str:
        with penstock.System(penstock.Settings()) as system:
            return ask(system, provider, stream_id="same").result(timeout=10).text

    with serve(ANSWER) as provider, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(run, range(16))) == {TEXT}


def test_asyncio_code_reads_without_blocking_its_loop(system: penstock.System) -> None:
    async def read(stream: penstock.Stream) -> str:
        return "".join([event.text async for event in stream if isinstance(event, penstock.TokenEvent)])

    async def main() -> list[str]:
        streams = [ask(system, provider) for _ in range(10)]
        texts = await asyncio.gather(*map(read, streams))
        results = await asyncio.gather(*(stream.aresult() for stream in streams))
        assert {result.text for result in results} == {TEXT}
        return texts

    with serve(ANSWER.replace(pace=0.002)) as provider:
        assert asyncio.run(main()) == [TEXT] * 10


def test_a_task_that_is_cancelled_lets_go_of_the_provider(system: penstock.System) -> None:
    async def main() -> None:
        started = asyncio.Event()

        async def read() -> None:
            async for _ in ask(system, provider):
                started.set()

        task = asyncio.create_task(read())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serve(StallAfter(5)) as provider:
        asyncio.run(main())
        provider.wait_for(lambda counts: counts.client_disconnects == 1)


# --- what goes wrong -------------------------------------------------------------------------------------------------

FAILURES: list[tuple[Any, type[penstock.ProviderError], str]] = [
    (Status(401), penstock.AuthenticationError, ""),
    (Status(404), penstock.ApiError, ""),
    (Status(429), penstock.RateLimited, ""),
    (Status(500), penstock.ApiError, ""),
    (HangUp(), penstock.ProviderError, ""),
    (HangUp(reset=True), penstock.ProviderError, ""),
    (NotAStream(), penstock.ProtocolError, ""),
    (ResetAfter(5), penstock.IncompleteStream, "".join(WORDS[:5])),
    (TruncateAfter(5), penstock.IncompleteStream, "".join(WORDS[:5])),
    (TruncateAfter(5, clean=True), penstock.IncompleteStream, "".join(WORDS[:5])),
    (ErrorFrame(5), penstock.ApiError, "".join(WORDS[:5])),
    (ErrorFrame(5, then_done=False), penstock.ApiError, "".join(WORDS[:5])),
    (HugeEvent(8_388_608, after=5), penstock.ProtocolError, "".join(WORDS[:5])),
]


@pytest.mark.parametrize(("fault", "error", "partial"), FAILURES, ids=lambda value: str(value)[:30])
def test_a_failure_is_one_terminal_event_typed_and_with_what_came_before(
    system: penstock.System, fault: Any, error: type[penstock.ProviderError], partial: str
) -> None:
    with serve(fault) as provider:
        stream = ask(system, provider)
        collector = Collector(stream)
        end = collector.wait_for_terminal(20)
        collector.check()
        assert isinstance(end, penstock.StreamFailed)
        assert isinstance(end.error, error)
        assert end.partial == end.error.partial == collector.text == partial
        with pytest.raises(error):
            stream.result()


@pytest.mark.parametrize("fault", [MalformedJson(5), InvalidUtf8(5)], ids=str)
def test_an_event_that_is_not_understood_is_skipped_or_mended(system: penstock.System, fault: Any) -> None:
    with serve(fault) as provider:
        text = ask(system, provider).result(timeout=10).text
        assert text.startswith("".join(WORDS[:5]))
        assert text.endswith("".join(WORDS[5:]))


def test_an_end_marker_is_the_end_even_if_the_body_never_closes(system: penstock.System) -> None:
    with serve(HoldOpen()) as provider:
        assert ask(system, provider).result(timeout=10).text == TEXT
        provider.wait_for(lambda counts: counts.active_connections == 0)


def test_a_finish_without_an_end_marker_is_complete(system: penstock.System) -> None:
    with serve(ANSWER.replace(done_marker=False)) as provider:
        assert ask(system, provider).result(timeout=10).text == TEXT


def test_a_finish_without_an_end_marker_in_a_body_that_never_closes_is_complete(system: penstock.System) -> None:
    with serve(ANSWER.replace(done_marker=False, faults=(HoldOpen(),))) as provider:
        options = NO_RETRY.replace(finish_grace=0.1)
        assert ask(system, provider, request_options=options).result(timeout=10).text == TEXT
        provider.wait_for(lambda counts: counts.client_disconnects == 1)


def test_a_failure_before_the_first_delta_is_tried_again(system: penstock.System) -> None:
    with serve([Status(503), HangUp(), Status(429, retry_after=0), ANSWER]) as provider:
        options = penstock.RequestOptions(max_retries=3, retry_base_delay=0.01)
        stream = ask(system, provider, request_options=options)
        assert stream.result(timeout=20).text == TEXT
        assert len(provider.requests) == system.get_stream_info(stream.stream_id).attempts == 4


def test_retry_after_is_honoured(system: penstock.System) -> None:
    with serve([Status(429, retry_after=1), ANSWER]) as provider:
        stream = ask(system, provider, request_options=penstock.RequestOptions(retry_base_delay=0))
        stream.result(timeout=20)
        assert stream.statistics().time_to_first_token_s is not None
        assert stream.statistics().time_to_first_token_s >= 1.0  # type: ignore[operator]


def test_a_failure_after_the_first_delta_is_not_tried_again(system: penstock.System) -> None:
    with serve([ResetAfter(3), ANSWER]) as provider:
        with pytest.raises(penstock.IncompleteStream):
            ask(system, provider, request_options=penstock.RequestOptions()).result(timeout=20)
        assert len(provider.requests) == 1


def test_nobody_listens_there(system: penstock.System) -> None:
    with serve(ANSWER) as provider:
        url = provider.base_url
    with pytest.raises(penstock.ConnectError):
        system.chat("m", USER, provider="loopback", base_url=url, request_options=NO_RETRY).result(timeout=10)


# --- the four clocks -------------------------------------------------------------------------------------------------


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A port that accepts no connection: its queue of connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        full = [socket.socket() for _ in range(4)]
        for one in full:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        for one in full:
            one.close()


def test_the_connect_clock_ends_a_connection_that_does_not_come(system: penstock.System, black_hole: str) -> None:
    options = NO_RETRY.replace(connect_timeout=0.1)
    with pytest.raises(penstock.ProviderTimeout) as caught:
        system.chat("m", USER, provider="loopback", base_url=black_hole, request_options=options).result(timeout=10)
    assert caught.value.which == "connect"


CLOCKS: list[tuple[Any, dict[str, float], str]] = [
    (DelayFirstByte(None), {"first_token_timeout": 0.1}, "first_token"),
    (StallAfter(0), {"first_token_timeout": 0.1}, "first_token"),
    (StallAfter(5), {"idle_timeout": 0.1}, "idle"),
    (ANSWER.replace(pace=0.3), {"total_timeout": 1.0}, "total"),
    (DelayFirstByte(None), {"total_timeout": 1.0}, "total"),
    (ANSWER.replace(comments=1, pace=0.02, first_token_delay=30), {"first_token_timeout": 0.2}, "first_token"),
]


@pytest.mark.parametrize(("reply", "options", "which"), CLOCKS)
def test_each_clock_ends_the_stream_and_closes_the_connection(
    system: penstock.System, reply: Any, options: dict[str, float], which: str
) -> None:
    with serve(reply) as provider:
        stream = ask(system, provider, request_options=NO_RETRY.replace(**options))
        with pytest.raises(penstock.ProviderTimeout) as caught:
            stream.result(timeout=10)
        assert caught.value.which == which
        assert caught.value.partial == stream.text
        provider.wait_for(lambda counts: counts.client_disconnects == 1)


# --- leaving ---------------------------------------------------------------------------------------------------------

HELD = penstock.StreamOptions(max_buffer_size=4, batch_size=4, rate_limit=None)


def headers(system: penstock.System, provider: LoopbackProvider) -> penstock.Stream:
    stream = ask(system, provider)
    provider.wait_for_requests(1)
    return stream


def streaming(system: penstock.System, provider: LoopbackProvider) -> penstock.Stream:
    stream = ask(system, provider)
    eventually(lambda: stream.statistics().tokens_delivered)
    return stream


def held(system: penstock.System, provider: LoopbackProvider) -> penstock.Stream:
    stream = ask(system, provider, options=HELD)
    stream.pause()
    eventually(lambda: stream.statistics().backpressure_events)
    return stream


PHASES: dict[str, tuple[Any, Callable[[penstock.System, LoopbackProvider], penstock.Stream]]] = {
    "waiting for headers": (DelayFirstByte(None), headers),
    "blocked in a read": (StallAfter(5), streaming),
    "blocked on credit": (ANSWER.replace(repeat=100_000), held),
}


def cancel(system: penstock.System, stream: penstock.Stream) -> None:
    stream.cancel("enough")


def stop(system: penstock.System, stream: penstock.Stream) -> None:
    stream.stop()


def abandon(system: penstock.System, stream: penstock.Stream) -> None:
    events = stream.events()
    del events


def stop_all(system: penstock.System, stream: penstock.Stream) -> None:
    assert system.stop() == 0


@pytest.mark.parametrize("leave", [cancel, stop, abandon, stop_all])
@pytest.mark.parametrize("phase", PHASES)
def test_whoever_leaves_in_whatever_phase_the_server_sees_the_connection_closed(
    system: penstock.System, phase: str, leave: Callable[[penstock.System, penstock.Stream], None]
) -> None:
    reply, reach = PHASES[phase]
    with serve(reply) as provider:
        stream = reach(system, provider)
        leave(system, stream)
        provider.wait_for(lambda counts: counts.client_disconnects == 1)
        eventually(lambda: stream.is_over)
        if leave is not stop_all:
            eventually(lambda: system.statistics().reader["active"] == 0)
            assert isinstance(list(stream)[-1], (penstock.StreamCancelled, penstock.StreamCompleted))


@pytest.mark.parametrize("leave", [cancel, stop, abandon, stop_all])
def test_a_stream_can_be_left_while_it_is_connecting(
    system: penstock.System, black_hole: str, leave: Callable[[penstock.System, penstock.Stream], None]
) -> None:
    stream = system.chat("m", USER, provider="loopback", base_url=black_hole)
    eventually(lambda: system.get_stream_info(stream.stream_id).source == "connecting")
    leave(system, stream)
    eventually(lambda: stream.is_over)
    if leave is not stop_all:
        eventually(lambda: system.statistics().reader["active"] == 0)


@pytest.mark.parametrize("leave", [cancel, stop, abandon, stop_all])
def test_a_stream_can_be_left_between_two_attempts(
    system: penstock.System, leave: Callable[[penstock.System, penstock.Stream], None]
) -> None:
    with serve(Status(429, retry_after=30)) as provider:
        stream = ask(system, provider, request_options=penstock.RequestOptions())
        eventually(lambda: system.get_stream_info(stream.stream_id).source == "retry_wait")
        assert system.statistics().reader["active"] == 0  # no thread is held meanwhile
        leave(system, stream)
        eventually(lambda: stream.is_over)
        assert len(provider.requests) == 1


@pytest.mark.parametrize("leave", [cancel, stop, abandon, stop_all])
def test_a_stream_can_be_left_while_it_is_queued(leave: Callable[[penstock.System, penstock.Stream], None]) -> None:
    settings = penstock.Settings(runtime=RuntimeOptions(reader="threads", reader_threads=1))
    with serve(StallAfter(5)) as provider, penstock.System(settings) as system:
        first = streaming(system, provider)
        second = ask(system, provider)
        assert system.get_stream_info(second.stream_id).source == "queued"
        leave(system, second)
        eventually(lambda: second.is_over)
        assert len(provider.requests) == 1
        first.cancel()


def test_a_paused_stream_stops_reading_from_the_provider_and_goes_on(system: penstock.System) -> None:
    long = ANSWER.replace(repeat=200_000)
    with serve(long) as provider:
        stream = ask(system, provider, options=HELD.replace(batch_size=4, max_buffer_size=50))
        collector = Collector(stream)
        eventually(lambda: collector.events)
        stream.pause()
        sent = -1

        def stands_still() -> bool:
            nonlocal sent
            before, sent = sent, provider.statistics().bytes_sent
            threading.Event().wait(0.1)
            return before == sent == provider.statistics().bytes_sent

        eventually(stands_still, 20)
        assert provider.statistics().active_responses == 1
        assert stream.statistics().buffer_size <= 50
        stream.resume()
        eventually(lambda: provider.statistics().bytes_sent > sent)
        stream.cancel()


# --- the system ------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    settings = penstock.Settings.load(provider={"api_key": KEY}, chat=FAST.replace(debug=True))
    shown: list[str] = []
    replies: list[Answer | Status] = [ANSWER, Status(401, message=f"bad key {KEY}")]
    with caplog.at_level(logging.DEBUG), serve(replies) as provider, penstock.System(settings) as system:
        for api_key in (None, KEY):
            stream = system.chat("m", USER, base_url=provider.base_url, api_key=api_key, request_options=NO_RETRY)
            shown += [repr(list(stream)), repr(stream), repr(stream.statistics()), str(system.tree())]
            shown += [repr(system.get_stream_info(stream.stream_id)), repr(system.statistics()), repr(system.settings)]
            shown += [repr(penstock.to_dict(event)) for event in stream]
            shown += [repr(stream._record.feed), repr(vars(stream._record.feed))]
    assert KEY not in "".join(shown) + caplog.text + repr(provider.requests)


def test_statistics_and_the_tree_are_live_while_a_stream_runs(system: penstock.System) -> None:
    with serve(StallAfter(5)) as provider:
        stream = ask(system, provider, stream_id="talk")
        eventually(lambda: stream.statistics().tokens_delivered == 5)
        statistics = system.statistics()
        assert (statistics.streams_active, statistics.reader["active"]) == (1, 1)
        assert (statistics.tokens, system.get_stream_info("talk").source) == (5, "streaming")
        assert "source/talk  (Integration, streaming)" in str(system.tree())
        stream.cancel()


def test_a_normal_life_is_silent_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    settings = penstock.Settings()
    answer = ANSWER.replace(pace=0.005)
    with caplog.at_level(logging.WARNING), serve(answer) as provider, penstock.System(settings) as system:
        streams = [ask(system, provider) for _ in range(10)]
        for stream in streams[:4]:
            stream.result(timeout=10)
        streams[5].cancel()
        streams[6].stop()
        for _ in streams[7]:
            break
        penstock.chain(system, streams[8], lambda event: event.tokens)
        system.open_stream().process_token("x")
        streams[9].subscribe(lambda event: None)
    assert caplog.text == ""


def test_stopping_lets_a_producer_go_that_waits_for_room() -> None:
    with penstock.System(penstock.Settings()) as system:
        stream = system.open_stream(options=penstock.StreamOptions(max_buffer_size=1, batch_size=1))
        stream.pause()

        def push() -> str:
            try:
                while True:
                    stream.process_token("x", timeout=30)
            except penstock.StreamClosed:
                return "closed"

        with ThreadPoolExecutor(1) as pool:
            pushing = pool.submit(push)
            eventually(lambda: stream.statistics().backpressure_events)
            assert system.stop() == 0
            assert pushing.result(10) == "closed"


def test_stopping_counts_the_thread_of_a_callback_that_is_stuck() -> None:
    free = threading.Event()
    entered = threading.Event()

    def stuck(event: Any) -> None:
        entered.set()
        free.wait(30)

    system = penstock.System(penstock.Settings()).start()
    stream = system.open_stream(options=FAST)
    stream.subscribe(stuck)
    stream.process_tokens(["a"] * 4)
    entered.wait(10)
    assert system.stop(timeout=2) == 1
    assert stream.is_over
    free.set()


def test_a_reader_that_is_stuck_in_foreign_code_is_given_up_and_counted() -> None:
    free, entered = threading.Event(), threading.Event()

    def stuck(text: str) -> list[str]:
        entered.set()
        free.wait(30)
        return [text]

    with serve(StallAfter(5)) as provider:
        system = penstock.System(penstock.Settings()).start()
        stream = ask(system, provider, options=FAST.replace(tokenizer=stuck))
        assert entered.wait(10)
        stream.cancel()
        assert stream.is_over  # it does not wait for the reader
        provider.wait_for(lambda counts: counts.client_disconnects == 1)  # nor does the provider
        assert system.stop(timeout=2) == 1
        assert stream.text == ""
        free.set()


def test_a_callback_may_stop_the_system() -> None:
    system = penstock.System(penstock.Settings()).start()
    stream = system.open_stream(options=FAST)
    stopped = threading.Event()

    def stop(event: Any) -> None:
        if not stopped.is_set():
            system.stop()
            stopped.set()

    stream.subscribe(stop)
    stream.process_tokens(["a"] * 4)
    assert stopped.wait(10)
    assert stream.is_over
    assert system.stop() == 0


def test_stopping_twice_from_many_threads_or_before_it_was_started_is_harmless() -> None:
    system = penstock.System(penstock.Settings()).start()
    streams = [system.open_stream() for _ in range(20)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: system.stop(), range(8))) == [0] * 8
    assert all(stream.is_over for stream in streams)
    assert system.stop() == 0
    never = penstock.System(penstock.Settings())
    assert never.stop() == 0
    for stopped in (system, never):
        with pytest.raises(penstock.SystemStopped):
            stopped.open_stream()


def test_streams_that_are_opened_while_the_system_stops_end_or_are_refused() -> None:
    for _ in range(10):
        system = penstock.System(penstock.Settings()).start()
        opened: list[penstock.Stream] = []

        def open_many(system: penstock.System = system, opened: list[penstock.Stream] = opened) -> None:
            try:
                while True:
                    opened.append(system.open_stream())
            except penstock.SystemStopped:
                return

        threads = [threading.Thread(target=open_many) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda opened=opened: len(opened) > 20)  # type: ignore[misc]
        assert system.stop() == 0
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert [stream for stream in opened if not stream.is_over] == []


def test_an_interpreter_that_ends_without_stopping_the_system_ends_silently() -> None:
    code = (
        "import penstock\n"
        "system = penstock.System(penstock.Settings()).start()\n"
        "stream = system.chat('fault-stall', 'Hello', provider='loopback')\n"
        "next(stream.events())\n"
        "system.open_stream().process_token('x')\n"
        "print('done')\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
