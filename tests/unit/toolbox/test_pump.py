"""Derived streams: order, borders, backpressure, letting go, ends. In virtual time, under many schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

import pytest

import penstock
from penstock import StreamCancelled, StreamCompleted, StreamFailed, StreamReset, TokenEvent
from penstock.testing import Collector, SimulatedSystem, check_log, kill
from penstock.toolbox.pump import derive
from penstock.toolbox.stage import (
    AtOnce,
    Await,
    Open,
    Output,
    Release,
    Run,
    Stage,
    Steps,
    Until,
    Wait,
    completed,
    failed,
    with_tokens,
)

Feed = Callable[[Any, int], Steps]


class Made(Stage):
    """A stage of functions."""

    kind = "made"

    def __init__(self, feed: Feed | None = None, **others: Any) -> None:
        if feed is not None:
            self.feed = feed  # type: ignore[method-assign,assignment]
        for name, function in others.items():
            setattr(self, name, function)


def opened(system: SimulatedSystem, name: str = "parent", **more: Any) -> penstock.Stream:
    return system.open_stream(name, penstock.SAFE, on_orphan="cancel", **more)


def upper(event: Any, place: int = 0) -> Steps:
    return [with_tokens(event, [token.upper() for token in event.tokens])]


def texts(events: list[Any]) -> list[tuple[str, ...]]:
    return [event.tokens for event in events if isinstance(event, TokenEvent)]


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_the_borders_and_the_order_of_events_are_kept(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        parent = opened(system)
        child = derive(Made(upper), [parent])
        collector = Collector(child)
        for tokens in (["x", "y"], ["z"], [], ["a", "b", "c"]):
            parent.process_tokens(tokens)
            system.settle()
        parent.stop()
        assert collector.wait_for_terminal().text == "XYZABC"
        assert texts(collector.events) == [("X", "Y"), ("Z",), ("A", "B", "C")]
        check_log(child)


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_the_parent_waits_for_a_reader_of_the_child_that_does_not_read(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        parent = system.open_stream("parent", penstock.SAFE.replace(batch_size=1))
        child = derive(Made(), [parent], options=penstock.SAFE.replace(max_buffer_size=5, batch_size=5))
        reader = child.events(slow="block", window=1)
        with pytest.raises(penstock.BufferFull) as full:
            parent.process_tokens(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"] * 1000, timeout=0.5)
        accepted = full.value.accepted
        assert accepted <= 100 + 2 * 5 + 2 * 8  # both buffers, and the events that may wait between them
        events: list[Any] = [reader.next() for _ in range(accepted // 2)]
        parent.stop()
        events += list(reader)
        told = "".join(event.text for event in events if isinstance(event, TokenEvent))
        assert told == ("0123456789" * 1000)[:accepted]


@pytest.mark.parametrize("how", ["completes", "fails", "is cancelled"])
@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_the_child_ends_as_its_parent_did(seed: int, how: str) -> None:
    with SimulatedSystem(seed) as system:
        parent = opened(system)
        child = derive(Made(upper), [parent])
        collector = Collector(child)
        parent.process_token("a")
        error = penstock.ProtocolError("no")
        error.__cause__ = ValueError("why")
        usage = penstock.Usage(output_tokens=7)
        like = completed("length", usage=usage, cost=penstock.Cost(amount=0.5), model="m", provider="p")
        match how:
            case "completes":
                parent.sink().end(like=like)
            case "fails":
                parent.sink().end(error, like=like)
            case _:
                parent.cancel("why")
        end = collector.wait_for_terminal()
        match how, end:
            case "completes", StreamCompleted():
                assert end.finish_reason == "length"
            case "fails", StreamFailed(error=penstock.ProtocolError() as raised):
                assert raised.__cause__ is error.__cause__
                assert raised is not error
                assert (raised.partial, error.partial) == ("A", "a")
            case "is cancelled", StreamCancelled(reason="why"):
                return
            case _:
                pytest.fail(repr(end))
        assert end.text == "A"
        assert (end.usage, end.cost, end.model, end.provider) == (usage, like.cost, "m", "p")


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_the_parent_is_let_go_of_before_the_end_is_told(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        parent = opened(system)

        def take(event: Any, place: int) -> Steps:
            return [with_tokens(event, event.tokens[:1]), completed("taken")]

        child = derive(Made(take), [parent])
        found: list[bool] = []

        def look(event: Any) -> None:
            if isinstance(event, StreamCompleted):
                found.append(any(one.is_active for one in parent._record.hub.subscriptions))

        child.subscribe(look)
        parent.process_tokens(["a", "b"])
        end = child.result()
        assert (end.text, end.finish_reason) == ("a", "taken")
        system.settle()
        assert found == [False]
        assert parent.is_over  # nobody else reads it


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_another_reader_keeps_the_parent_going(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        parent = opened(system)
        other = Collector(parent)
        child = derive(Made(lambda event, place: [completed("taken")]), [parent])
        parent.process_token("a")
        child.result()
        parent.process_token("b")
        parent.stop()
        assert other.wait_for_terminal().text == "ab"


@pytest.mark.parametrize("how", ["cancel", "orphan", "pump", "stream"])
@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_however_the_child_ends_the_parent_is_let_go_of_and_the_end_is_told_once(seed: int, how: str) -> None:
    with SimulatedSystem(seed) as system:
        parent = opened(system)
        child = derive(Made(), [parent])
        collector = Collector(child)
        parent.process_token("a")
        for _ in range(seed):
            system.simulation.dispatcher.step_at_random()
        match how:
            case "cancel":
                child.cancel("enough")
            case "orphan":
                collector.subscription.unsubscribe()
            case "pump":
                pump = next(ref for ref in system.runtime.processes() if ref.label.startswith("made/"))
                kill(system, pump)
            case "stream":
                kill(system, child)
        child._record.over.get(timeout=5)
        system.settle()
        assert parent.is_over
        terminal = child._record.log.terminal
        if how in ("pump", "stream"):
            assert isinstance(terminal, StreamFailed)
            assert isinstance(terminal.error, penstock.StreamCrashed)
        else:
            assert isinstance(terminal, StreamCancelled)
        check_log(child)
        collector.check()


@pytest.mark.parametrize("where", ["begin", "feed", "reset", "end", "overdue", "expired", "later"])
@pytest.mark.seeds(4)
def test_a_stage_that_raises_fails_the_stream_with_what_came_before(seed: int, where: str) -> None:
    problem = ValueError("secret")

    def fail(*_: Any) -> Any:
        raise problem

    def later(event: Any, place: int) -> Iterator[Output]:
        yield event
        raise problem

    with SimulatedSystem(seed) as system:
        parent = opened(system)
        stage = Made(later) if where == "later" else Made(**{where: fail})
        if where in ("overdue", "expired"):
            setattr(stage, "deadline" if where == "overdue" else "expires", system.runtime.clock.monotonic() + 1)
        child = derive(stage, [parent])
        collector = Collector(child)
        parent.process_token("a")
        system.settle()
        if where == "reset":
            parent.reset("again")
        elif where == "end":
            parent.stop()
        end = collector.wait_for_terminal()
        assert isinstance(end, StreamFailed)
        assert isinstance(end.error, penstock.TransformError)
        assert end.error.__cause__ is problem
        assert (end.error.stage, str(end.error)) == (
            "made",
            f"stream {child.stream_id!r}: the function of made failed: ValueError",
        )
        assert end.partial == ("" if where in ("begin", "feed") else "a")
        system.settle()
        assert parent.is_over


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_a_reset_is_passed_on_in_order_and_resets_the_stage(seed: int) -> None:
    resets: list[str] = []

    def reset(event: StreamReset, place: int) -> Steps:
        resets.append(event.reason)
        return [event]

    with SimulatedSystem(seed) as system:
        parent = opened(system)
        child = derive(Made(upper, reset=reset), [parent])
        collector = Collector(child)
        parent.process_tokens(["a", "b"])
        system.settle()
        parent.reset("again")
        parent.process_token("c")
        parent.stop()
        assert collector.wait_for_terminal().text == "C"
        assert resets == ["again"]
        assert [type(event).__name__ for event in collector.events] == [
            "TokenEvent",
            "StreamReset",
            "TokenEvent",
            "StreamCompleted",
        ]


def test_a_parent_that_is_folded_comes_as_what_its_snapshot_stands_for() -> None:
    with SimulatedSystem() as system:
        parent = system.open_stream("parent", penstock.SAFE.replace(retain_bytes=0))
        sink = parent.sink()
        sink.push_now([("think", "reasoning")], lambda: None)
        parent.process_tokens(["a", "b"])
        parent.process_token("c")
        call = penstock.ToolCall(id="c", name="f", arguments={}, arguments_raw="{}")
        sink.push_event(penstock.ToolCallCompleted(index=0, call=call))
        system.settle()
        assert parent._record.log.first_seq > 1
        child = derive(Made(), [parent])
        collector = Collector(child)
        parent.process_token("d")
        parent.stop()
        end = collector.wait_for_terminal()
        assert (end.text, end.reasoning) == ("abcd", "think")
        assert not any(isinstance(event, penstock.StreamSnapshot) for event in collector.events)
        assert sum(isinstance(event, penstock.ToolCallCompleted) for event in collector.events) == 1


def test_places_in_a_text_that_changes_are_left_out() -> None:
    def say(stage: Stage) -> tuple[list[Any], Any]:
        with SimulatedSystem() as system:
            parent = opened(system)
            child = derive(stage, [parent])
            collector = Collector(child)
            parent.process_token("abc")
            parent.sink().push_event(penstock.Citation(kind="url", url="u", start=0, end=3))
            parent.sink().push_event(penstock.Logprobs(tokens=(penstock.TokenLogprob(token="abc", logprob=-1.0),)))
            parent.stop()
            end = collector.wait_for_terminal()
            return collector.events[:-1], end

    kept, end = say(Made())
    assert [(event.start, event.end) for event in kept if isinstance(event, penstock.Citation)] == [(0, 3)]
    assert len(end.logprobs) == 1
    changed, end = say(Made(keeps_text=False))
    assert [(event.start, event.end) for event in changed if isinstance(event, penstock.Citation)] == [(None, None)]
    assert end.logprobs == ()


# --- what a stage may ask for --------------------------------------------------------------------------------------


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_a_wait_holds_what_comes_after_it_and_the_parent(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stage = Made()

        def slowly(event: Any, place: int) -> Steps:
            return [with_tokens(event, event.tokens[:1]), Wait(stage.now + 2), with_tokens(event, event.tokens[1:])]

        stage.feed = slowly  # type: ignore[method-assign,assignment]
        parent = opened(system)
        child = derive(stage, [parent])
        parent.process_tokens(["a", "b"])
        parent.process_tokens(["c"])
        system.settle()
        assert child.text == "a"
        system.advance(1.9)
        assert child.text == "a"
        system.advance(0.2)
        assert child.text.startswith("ab")
        parent.stop()
        child.result()
        assert child.text == "abc"


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_a_blocking_function_and_a_further_parent_are_answered(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        first, second = opened(system, "first"), opened(system, "second")
        fed: list[tuple[str, int]] = []

        def begin() -> Generator[Output, Any, None]:
            got = yield Run(lambda: "ran")
            place = yield Open(lambda: second)
            assert (got, place) == ("ran", 1)
            try:
                yield Run(partial(int, "x"))
            except ValueError:
                yield Release(0)

        def feed(event: Any, place: int) -> Steps:
            fed.append((event.text, place))
            return [event]

        child = derive(Made(feed, begin=begin), [first], window=1)
        first.process_token("a")
        second.process_token("b")
        second.stop()
        assert child.result().text == "b"
        assert fed == [("b", 1)]
        system.settle()
        assert first.is_over


def test_a_coroutine_runs_on_the_loop_of_the_caller() -> None:
    with SimulatedSystem(3) as system:

        async def main() -> str:
            loop = asyncio.get_running_loop()

            async def shout(text: str) -> str:
                assert asyncio.get_running_loop() is loop
                await asyncio.sleep(1)
                return text.upper()

            def feed(event: Any, place: int) -> Generator[Output, Any, None]:
                yield with_tokens(event, [(yield Await(shout(event.text)))])

            parent = opened(system)
            child = derive(Made(feed), [parent])
            parent.process_token("a")
            parent._record.intake.push("b")
            parent.sink().end()
            return (await child.aresult()).text

        assert system.run(main()) == "AB"


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_what_is_overdue_is_given_while_the_stage_waits_for_an_answer(seed: int) -> None:
    listeners: list[Callable[[], None]] = []
    stage = Made()

    def feed(event: Any, place: int) -> Iterator[Output]:
        stage.deadline = stage.now + 1
        yield Until(listeners.append)
        yield event

    def overdue() -> Iterator[Output]:
        stage.deadline = None
        yield TokenEvent("", 0, ("late",), "late", "text", 0.0, {})

    stage.feed, stage.overdue = feed, overdue  # type: ignore[method-assign,assignment]
    with SimulatedSystem(seed) as system:
        parent = opened(system)
        child = derive(stage, [parent])
        parent.process_token("a")
        system.settle()
        assert child.text == ""
        system.advance(1.1)
        assert child.text == "late"
        listeners.pop()()
        system.settle()
        assert child.text == "latea"


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.seeds(6)
def test_an_end_at_once_does_not_wait_for_a_pause(seed: int, at_once: bool) -> None:
    with SimulatedSystem(seed) as system:
        stage = Made()
        stage.expires = system.runtime.clock.monotonic() + 5
        error = failed(penstock.StreamTimeout("s", "total", 5))
        stage.expired = lambda: AtOnce(error) if at_once else error  # type: ignore[method-assign]
        parent = opened(system)
        child = derive(stage, [parent])
        child.pause()
        parent.process_token("a")
        system.advance(6)
        system.settle()
        assert parent.is_over
        assert child.is_over is at_once
        if not at_once:
            child.resume()
        with pytest.raises(penstock.StreamTimeout) as raised:
            child.result()
        assert raised.value.partial == "a"


@pytest.mark.seeds(6)
def test_a_stage_hears_that_there_is_room_again_and_is_closed_once(seed: int) -> None:
    heard: list[str] = []

    def close() -> Callable[[], object]:
        heard.append("closed")
        return lambda: heard.append("rest")

    with SimulatedSystem(seed) as system:
        stage = Made(resumed=lambda: heard.append("room"), close=close)
        parent = opened(system)
        child = derive(stage, [parent], options=penstock.SAFE.replace(max_buffer_size=2, batch_size=2))
        child.pause()
        parent.process_tokens(["a", "b", "c"])
        system.settle()
        assert heard == []
        child.resume()
        system.settle()
        assert "room" in heard
        parent.stop()
        assert child.result().text == "abc"
        system.settle()
        assert heard[-2:] == ["closed", "rest"]
        assert heard.count("closed") == 1


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_parents_that_wait_have_their_turns_one_event_each(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        first, second, third = (opened(system, name) for name in "abc")
        child = derive(Made(), [first, second, third], options=penstock.SAFE.replace(max_buffer_size=1, batch_size=1))
        child.pause()
        for one in (first, second, third):
            for number in range(4):
                one.process_token(f"{one.stream_id}{number} ")
                system.settle()
        reader = child.events()
        child.resume()
        order = [reader.next().text[0] for _ in range(12)]  # type: ignore[union-attr]
        for place in range(2, 11, 3):  # after those that were in the buffer and in hand
            assert set(order[place : place + 3]) == (set("abc") if place < 8 else set("abc") & set(order[place:])), (
                order
            )


def test_what_a_derived_stream_is_made_of_is_shown() -> None:
    with SimulatedSystem() as system:
        first, second = opened(system, "one"), opened(system, "two", metadata={"user": 1})
        child = derive(Made(), [first, second], system=system, stream_id="child")
        info = system.get_stream_info("child")
        assert (info.kind, info.parents) == ("made", ("one", "two"))
        assert "stream/child  (TokenStream, idle, made of one, two)" in str(system.tree())
        assert system.get_stream_info("one").kind is None
        assert child.options == penstock.SAFE
        assert dict(derive(Made(), [second]).metadata) == {"user": 1}
        with pytest.raises(penstock.OptionError):
            derive(Made(), ["no stream"])  # type: ignore[list-item]
        with pytest.raises(penstock.OptionError):
            derive(Made(), [])


def test_a_derived_stream_takes_no_thread_and_hands_everything_over() -> None:
    """With real threads."""
    import threading

    with penstock.System() as system:
        parent = system.open_stream(None, penstock.SAFE)
        child = parent
        before = threading.active_count()
        for _ in range(20):
            child = derive(Made(), [child])
        assert threading.active_count() <= before + 4

        def produce() -> None:
            parent.process_tokens(["ab"] * 5_000)
            parent.stop()

        producer = threading.Thread(target=produce)
        producer.start()
        assert child.result(30).text == "ab" * 5_000
        producer.join()
