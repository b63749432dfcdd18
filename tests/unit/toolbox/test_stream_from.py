"""Streams from sources: iterables, generators, bytes, deltas, texts; their pace, their ends, their closing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import penstock
from penstock import SourceError, StreamFailed, TokenEvent, ports, sources
from penstock.testing import Collector, SimulatedSystem, check_log, eventually
from penstock.toolbox.stage import completed

TEXT = "Dr. No agrees.  Really?\r\nन्याय। 是的。e\u0301"


def texts(stream: penstock.Stream) -> list[str]:
    return [token for event in stream if isinstance(event, TokenEvent) for token in event.tokens]


def generator() -> Iterator[str]:
    yield "a"
    yield "b"


class Twice:
    """An iterable that is no iterator."""

    def __iter__(self) -> Iterator[str]:
        return iter(("a", "b"))


@pytest.mark.parametrize(
    "source",
    [["a", "b"], ("a", "b"), iter(["a", "b"]), generator(), generator, Twice(), [b"a", b"b"], lambda: ["a", "b"]],
    ids=["list", "tuple", "iterator", "generator", "function", "iterable", "bytes", "lambda"],
)
@pytest.mark.seeds(4)
def test_what_can_be_iterated_is_a_source(seed: int, source: Any) -> None:
    if isinstance(source, Iterator):
        source = iter(["a", "b"]) if seed else source
    with SimulatedSystem(seed) as system:
        stream = system.stream_from(source)
        collector = Collector(stream)
        end = stream.result()
        collector.wait_for_terminal()
        assert (end.text, end.finish_reason) == ("ab", "stop")
        assert [token for event in collector.events[:-1] for token in getattr(event, "tokens", ())] == ["a", "b"]
        check_log(stream)


def test_a_text_and_a_stream_are_sources_too() -> None:
    with SimulatedSystem() as system:
        assert system.stream_from("Hello, world").result().text == "Hello, world"
        parent = system.open_stream("parent", penstock.SAFE)
        parent.process_tokens(["a", "b"])
        copy = system.stream_from(parent)
        assert system.get_stream_info(copy.stream_id).parents == ("parent",)
        parent.stop()
        assert copy.result().text == "ab"


@pytest.mark.parametrize("source", [None, 3, object(), str, penstock.SAFE])
def test_anything_else_is_refused(source: Any) -> None:
    with SimulatedSystem() as system, pytest.raises(penstock.OptionError, match=r"^source: got "):
        system.stream_from(source)


def test_a_function_that_returns_no_iterable_fails_the_stream() -> None:
    with SimulatedSystem() as system, pytest.raises(SourceError) as raised:
        system.stream_from(lambda: 3).result()
    assert isinstance(raised.value.__cause__, penstock.OptionError)


def test_an_item_of_another_type_fails_the_stream() -> None:
    with SimulatedSystem() as system, pytest.raises(SourceError) as raised:
        system.stream_from(["a", 3]).result()
    assert isinstance(raised.value.__cause__, penstock.OptionError)
    assert raised.value.partial == "a"


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(3), StopIteration(), penstock.CircuitOpen("h", 2)])
@pytest.mark.seeds(4)
def test_a_source_that_raises_fails_the_stream_and_keeps_what_it_gave(seed: int, error: BaseException) -> None:
    class Failing:
        def __init__(self) -> None:
            self.count = 0

        def __iter__(self) -> Failing:
            return self

        def __next__(self) -> str:
            self.count += 1
            if self.count < 12:
                return "a"
            raise error

    with SimulatedSystem(seed) as system:
        stream = system.stream_from(Failing())
        if isinstance(error, StopIteration):
            assert stream.result().text == "a" * 11
            return
        with pytest.raises(SourceError) as raised:
            stream.result()
        assert raised.value.__cause__ is error
        assert raised.value.partial == "a" * 11
        assert "secret" not in str(raised.value)
        assert raised.value.retryable is isinstance(error, penstock.CircuitOpen)
        assert isinstance(stream._record.log.terminal, StreamFailed)


@settings(max_examples=40)
@given(data=st.binary(max_size=30) | st.text(max_size=12).map(str.encode), places=st.lists(st.integers(0, 40)))
@example(data="e\u0301是🇫🇷".encode(), places=[1, 2, 3, 4, 5, 6, 7, 8, 9])
@example(data="\ufffd".encode(), places=[1, 2])
@example(data=b"\xff" + "\ufffd".encode() * 2 + b"\xe6", places=[2, 3, 5, 6])
def test_bytes_are_decoded_however_they_are_cut(data: bytes, places: list[int]) -> None:
    borders = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    pieces = [data[start:end] for start, end in pairwise(borders)]
    with SimulatedSystem() as system:
        stream = system.stream_from(pieces)
        text = stream.result().text
        assert text == data.decode(errors="replace")
        assert stream.statistics().replaced == text.count("\ufffd") - data.count("\ufffd".encode())


@pytest.mark.parametrize("by", ["word", "sentence", "line", "character", 1, 5])
@settings(max_examples=20)
@given(text=st.text(max_size=60), places=st.lists(st.integers(0, 100), max_size=8))
@example(text=TEXT, places=[3, 4, 17, 23, 24, 28])
def test_every_cutting_of_a_text_gives_the_same_text(by: Any, text: str, places: list[int]) -> None:
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    pieces = [text[start:end] for start, end in pairwise(borders)]
    with SimulatedSystem() as system:
        whole = texts(system.stream_from(sources.text(text, by=by)))
        assert "".join(whole) == text
        cut = texts(system.stream_from(pieces, by=by))
        assert "".join(cut) == text
        if all(len(unit) <= 64 for unit in whole):
            assert cut == whole


# --- pace ----------------------------------------------------------------------------------------------------------


def test_a_text_keeps_its_delay_and_says_how_far_it_is() -> None:
    with SimulatedSystem() as system:
        stream = system.stream_from(sources.text("one two three", delay=0.5))
        told: list[tuple[str, int | None]] = []
        for _ in range(3):
            system.settle()
            told.append((stream.text, stream.statistics().position))
            system.advance(0.5)
        assert told == [("one ", 4), ("one two ", 8), ("one two three", 13)]
        statistics = stream.statistics()
        assert (statistics.total, statistics.progress) == (13, 1.0)
        assert stream.is_over


def test_a_text_waits_while_its_stream_is_paused() -> None:
    with SimulatedSystem() as system:
        stream = system.stream_from(
            sources.text("abcdefgh", by=1), options=penstock.SAFE.replace(max_buffer_size=2, batch_size=1)
        )
        stream.pause()
        system.advance(5)
        assert (stream.statistics().position or 0) <= 8
        text = stream.text
        assert text != "abcdefgh"
        system.advance(5)
        assert stream.text == text
        stream.resume()
        assert stream.result().text == "abcdefgh"


def test_a_source_is_read_at_once_but_not_far_ahead_of_its_stream() -> None:
    count = 0

    def numbers() -> Iterator[str]:
        nonlocal count
        while True:
            count += 1
            yield "a"

    with SimulatedSystem() as system:
        stream = system.stream_from(numbers)
        reader = stream.events(slow="block", window=1)
        system.settle()
        assert 100 <= count < 100 + 3 * 100 + 10
        held = count
        system.advance(10)
        assert count == held
        reader.close()
        system.settle()
        assert stream.is_over


def test_the_last_unit_is_given_when_the_next_piece_does_not_come() -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "pass"
        await asyncio.sleep(0.05)
        yield "word is"
        await asyncio.sleep(3)
        yield "n't"

    with SimulatedSystem(5) as system:

        async def main() -> list[tuple[float, list[str]]]:
            stream = system.stream_from(pieces, by="word", flush_interval=0.2)
            told = [event async for event in stream if isinstance(event, TokenEvent)]
            return [(round(event.timestamp - told[0].timestamp, 2), list(event.tokens)) for event in told]

        assert system.run(main()) == [(0.0, ["password "]), (0.2, ["is"]), (3.0, ["n't"])]


def test_a_blocking_source_gives_its_last_unit_in_time_too() -> None:
    go_on = threading.Event()

    def pieces() -> Iterator[str]:
        yield "one tw"
        go_on.wait(20)
        yield "o"

    with penstock.System() as system:
        stream = system.stream_from(pieces, by="word", flush_interval=0.01)
        eventually(lambda: stream.text == "one tw")
        go_on.set()
        assert stream.result(10).text == "one two"


# --- deltas and events ---------------------------------------------------------------------------------------------


def test_deltas_say_all_that_an_answer_may_have() -> None:
    usage = penstock.Usage(output_tokens=3)
    items = [
        ports.ReasoningDelta("hmm"),
        ports.TextDelta("a"),
        "b",
        ports.ToolCallFragment(index=0, id="c", name="f", arguments="{"),
        ports.ToolCallFragment(index=0, arguments="}"),
        ports.CitationDelta(penstock.Citation(kind="url", url="u", start=0, end=2)),
        ports.MetadataDelta({"response_id": "r"}),
        ports.KeepAlive(),
        ports.UsageDelta(usage),
        ports.FinishDelta("length", "max_tokens"),
        penstock.Progress(message="half", position=1, total=2),
    ]
    with SimulatedSystem() as system:
        stream = system.stream_from(items)
        collector = Collector(stream)
        end = stream.result()
        collector.wait_for_terminal()
        assert (end.text, end.reasoning, end.finish_reason, end.usage) == ("ab", "hmm", "length", usage)
        assert [call.arguments for call in end.tool_calls] == [{}]
        assert [one.url for one in end.citations] == ["u"]
        assert end.provider_metadata == {"response_id": "r"}
        kinds = [type(event).__name__ for event in collector.events]
        assert kinds.index("ToolCallStarted") > kinds.index("TokenEvent")
        assert {"ToolCallCompleted", "Progress", "Citation"} <= set(kinds)


def test_a_source_may_void_annotate_and_end_its_stream() -> None:
    with SimulatedSystem() as system:
        items = ["wrong", ports.Void("no"), ports.Annotate({"custom": 1}), "right", completed("length")]
        stream = system.stream_from(items, metadata={"user": 2})
        collector = Collector(stream)
        end = stream.result()
        collector.wait_for_terminal()
        assert (end.text, end.finish_reason) == ("right", "length")
        assert dict(end.metadata) == {"user": 2, "custom": 1}
        assert any(isinstance(event, penstock.StreamReset) for event in collector.events)
        failed = system.stream_from(["a", ports.ErrorDelta(penstock.ProtocolError("no"))])
        with pytest.raises(penstock.ProtocolError) as raised:
            failed.result()
        assert raised.value.partial == "a"


# --- async sources -------------------------------------------------------------------------------------------------


def test_an_async_source_runs_in_one_task_on_the_loop_it_was_made_on() -> None:
    seen: set[tuple[Any, Any]] = set()

    async def pieces() -> AsyncIterator[str]:
        for number in range(40):
            seen.add((asyncio.get_running_loop(), asyncio.current_task()))
            yield str(number % 10)

    with SimulatedSystem(2) as system:

        async def main() -> None:
            stream = system.stream_from(pieces())
            assert (await stream.aresult()).text == "0123456789" * 4
            assert {loop for loop, _ in seen} == {asyncio.get_running_loop()}
            assert len(seen) == 1

        system.run(main())


def test_an_async_source_runs_on_the_systems_loop_elsewhere_and_is_cancelled_and_closed() -> None:
    closed = threading.Event()
    names: list[str] = []

    async def pieces() -> AsyncIterator[str]:
        names.append(threading.current_thread().name)
        try:
            yield "a"
            await asyncio.sleep(60)
        finally:
            closed.set()

    with penstock.System() as system:
        stream = system.stream_from(pieces)
        eventually(lambda: stream.text == "a")
        stream.cancel()
        assert closed.wait(5)
        assert names == ["penstock-loop"]
        assert system.statistics().leaked_sources == 0


@pytest.mark.seeds(4)
def test_an_async_source_that_raises_fails_the_stream(seed: int) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "a"
        raise ValueError("secret")

    with SimulatedSystem(seed) as system:

        async def main() -> None:
            with pytest.raises(SourceError) as raised:
                await system.stream_from(pieces()).aresult()
            assert isinstance(raised.value.__cause__, ValueError)
            assert raised.value.partial == "a"

        system.run(main())


# --- the end of the stream -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "orphan"])
def test_a_source_that_waits_for_room_is_closed_when_its_stream_ends(how: str) -> None:
    closed = threading.Event()

    def pieces() -> Iterator[str]:
        try:
            while True:
                yield "a"
        finally:
            closed.set()

    with penstock.System() as system:
        stream = system.stream_from(pieces)
        reader = stream.events(slow="block", window=1)
        eventually(lambda: stream.statistics().buffer_size == 100)
        if how == "cancel":
            stream.cancel()
        else:
            reader.close()
        assert closed.wait(5)
        eventually(lambda: stream.is_over)


def test_a_source_that_is_being_read_is_closed_by_the_thread_that_reads_it_and_else_counted() -> None:
    go_on, reads, closed = threading.Event(), threading.Event(), threading.Event()
    where: list[int] = []

    class Slow:
        def __iter__(self) -> Slow:
            return self

        def __next__(self) -> str:
            where.append(threading.get_ident())
            reads.set()
            go_on.wait(30)
            return "a"

        def close(self) -> None:
            where.append(threading.get_ident())
            closed.set()

    with penstock.System() as system:
        stream = system.stream_from(Slow())
        assert reads.wait(5)
        stream.cancel()
        eventually(lambda: system.statistics().leaked_sources == 1, timeout=10)
        assert not closed.is_set()
        go_on.set()
        assert closed.wait(5)
        assert where[0] == where[-1]


def test_a_thousand_blocking_sources_take_a_bounded_number_of_threads() -> None:
    go_on = threading.Event()

    def pieces() -> Iterator[str]:
        go_on.wait(30)
        yield "a"

    few = penstock.Settings(runtime=penstock.RuntimeOptions(max_spares=16))
    with penstock.System(few) as system:
        before = threading.active_count()
        streams = [system.stream_from(pieces) for _ in range(200)]
        assert threading.active_count() <= before + 16 + 2
        go_on.set()
        assert all(stream.result(20).text == "a" for stream in streams)


def test_a_system_that_stops_ends_its_sources() -> None:
    closed = threading.Event()

    def pieces() -> Iterator[str]:
        try:
            while True:
                yield "a"
        finally:
            closed.set()

    with penstock.System() as system:
        stream = system.stream_from(pieces)
        reader = stream.events(slow="block", window=1)
        eventually(lambda: stream.statistics().buffer_size == 100)
    assert stream.is_over
    reader.close()
    assert closed.wait(5)
