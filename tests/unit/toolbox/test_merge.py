"""`merge`: the rules 24 to 32 of the combinators."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import penstock
from penstock.events import OriginEnded, StreamCompleted, StreamReset, TokenEvent
from penstock.ports import UsageDelta
from penstock.testing import HANG, Collector, ScriptedProvider, SimulatedSystem, kill
from penstock.toolbox.merge import Merge
from penstock.toolbox.stage import completed
from tests.unit.toolbox.common import BUSY, ask, pushed, read, shape

pytestmark = pytest.mark.seeds(4)


def test_rule_24_events_of_named_inputs_come_with_their_origin_and_each_end_is_told(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        a, b = ask(system, "A1", 0.2, "A2"), ask(system, 0.1, "B1", 0.3, "B2")
        collector = read(system.merge({"a": a, "b": b}))
        assert shape(collector) == [
            *("A1(a)", "B1(b)", "A2(a)", "OriginEnded(a)", "B2(b)", "OriginEnded(b)", "StreamCompleted")
        ]
        end = collector.terminal
        assert isinstance(end, StreamCompleted)
        assert end.texts == {"a": "A1A2", "b": "B1B2"}
        outcomes = [event.outcome for event in collector.events if isinstance(event, OriginEnded)]
        assert [outcome.text for outcome in outcomes] == ["A1A2", "B1B2"]


def test_rule_24_without_names_the_ids_are_the_origins(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        merged = penstock.merge(ask(system, "A", stream_id="one"), ask(system, "B", stream_id="two"))
        assert merged.result().texts == {"one": "A", "two": "B"}
        assert system.get_stream_info(merged.stream_id).parents == ("one", "two")


def test_rule_25_inputs_that_wait_take_turns_of_one_event(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        fast = pushed(system, *(f"f{number}" for number in range(60)))
        slow, third = pushed(system, "s0", "s1", "s2", "s3"), pushed(system, "t0", "t1", "t2", "t3")
        system.settle()
        merged = system.merge({"fast": fast, "slow": slow, "third": third})
        collector = Collector(merged)
        system.settle()
        order = [str(event.origin) for event in collector.events if isinstance(event, TokenEvent)]
        assert sorted(order[:12]) == ["fast"] * 4 + ["slow"] * 4 + ["third"] * 4
        for start in range(0, 12, 3):
            assert len(set(order[start : start + 3])) == 3
        slow.process_token("later")
        system.settle()
        assert collector.text.endswith("later")
        merged.cancel()


def test_rule_26_collect_lets_the_others_go_on_and_tells_all_errors_and_results(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        a, b = ask(system, "A1", 0.4, "A2"), ask(system, 0.1, "B1", 0.1, BUSY)
        collector = read(system.merge({"a": a, "b": b}))
        assert shape(collector)[-4:] == ["OriginEnded(b)", "A2(a)", "OriginEnded(a)", "StreamFailed"]
        end = collector.terminal
        assert isinstance(end, penstock.StreamFailed)
        error = end.error
        assert isinstance(error, penstock.MergeError)
        assert list(error.results) == ["a", "b"]
        assert isinstance(error.results["a"], StreamCompleted)
        assert error.errors.keys() == {"b"}
        assert error.errors["b"].status == 503  # type: ignore[attr-defined]
        assert (error.stream_id, error.retryable, end.texts) == (end.stream_id, True, {"a": "A1A2", "b": "B1"})


def test_rule_27_fail_ends_with_the_first_error_and_cancels_the_others(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        a, b = ask(system, "A1", HANG), ask(system, 0.1, "B1", 0.1, BUSY)
        collector = read(system.merge({"a": a, "b": b}, on_error="fail"))
        assert shape(collector) == ["A1(a)", "B1(b)", "OriginEnded(b)", "StreamFailed(b)"]
        end = collector.terminal
        assert isinstance(end, penstock.StreamFailed)
        assert isinstance(end.error, penstock.ApiError)
        assert end.partial == "A1B1"
        system.settle()
        assert a.is_over
        assert system.scripted.open == 0


@pytest.mark.parametrize("on_error", ["collect", "fail"])
def test_rule_28_a_cancelled_input_counts_as_failed(seed: int, on_error: Any) -> None:
    with SimulatedSystem(seed) as system:
        a, b = ask(system, "A1", 0.1, "A2"), ask(system, "B1", HANG)
        merged = system.merge({"a": a, "b": b}, on_error=on_error)
        system.settle()
        b.cancel("enough")
        with pytest.raises(penstock.MergeError if on_error == "collect" else penstock.StreamCancelledError) as caught:
            merged.result(10)
        error = caught.value.errors["b"] if isinstance(caught.value, penstock.MergeError) else caught.value
        assert isinstance(error, penstock.StreamCancelledError)
        assert error.reason == "enough"


def test_rule_29_usage_is_summed_and_a_cost_that_is_not_known_makes_the_sum_unknown(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        used = [UsageDelta(penstock.Usage(input_tokens=3, output_tokens=2, total_tokens=5))]
        end = system.merge({"a": ask(system, "A", used), "b": ask(system, "B", used)}).result()
        assert end.usage is not None
        assert (end.usage.input_tokens, end.usage.total_tokens) == (6, 10)
        assert end.cost is None
        assert end.costs == {"a": None, "b": None}


def _ended(**facts: Any) -> StreamCompleted:
    return msgspec.structs.replace(completed(), **facts)


def test_rule_29_costs_are_told_by_origin() -> None:
    known = penstock.Cost(amount=0.5)
    for other, total in ((penstock.Cost(amount=0.25), 0.75), (None, None)):
        stage = Merge(["a", "b"])
        list(stage.end(_ended(cost=known), 0))
        end = list(stage.end(_ended(cost=other), 1))[-1]
        assert isinstance(end, StreamCompleted)
        assert end.costs == {"a": known, "b": other}
        assert (end.cost.amount if end.cost is not None else None) == total


def test_rule_30_a_reset_voids_the_text_of_its_origin_only_for_late_readers_too(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        a, b = pushed(system, "void "), pushed(system, "kept ")
        early = Collector(system.merge({"a": a, "b": b}))
        merged = system.merge({"a": a, "b": b}, options=penstock.SAFE.replace(retain_bytes=0))
        system.settle()
        a.reset("again")
        a.process_token("good ")
        system.settle()
        assert [event.origin for event in early.events if isinstance(event, StreamReset)] == ["a"]
        late = Collector(merged)
        system.settle()
        snapshot = late.events[0]
        assert isinstance(snapshot, penstock.StreamSnapshot)
        texts = {part.origin: snapshot.text[part.start : part.end] for part in snapshot.parts}
        assert texts == {"a": "good ", "b": "kept "}
        a.stop()
        b.stop()
        assert merged.result().texts == {"b": "kept ", "a": "good "}


def test_rule_31_while_the_reader_is_slow_all_inputs_wait(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        words = [penstock.ports.TextDelta(f"{number} ") for number in range(400)]
        providers = [ScriptedProvider([[word] for word in words]) for _ in range(2)]
        a, b = (ask(system, provider) for provider in providers)
        merged = system.merge({"a": a, "b": b}, window=4)
        reader = merged.events(slow="block", window=2)
        system.advance(5)
        assert not merged.is_over
        for stream in (a, b):
            assert stream.statistics().tokens_delivered <= 120
        assert sum(1 for _ in reader) == 2 * 400 + 3
        assert merged.result().texts["a"] == "".join(word.text for word in words)


def test_rule_31_a_merged_stream_that_is_cancelled_lets_go_of_all_inputs(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        inputs = [ask(system, "A", HANG) for _ in range(5)]
        merged = system.merge(*inputs)
        system.settle()
        merged.cancel("enough")
        system.settle()
        assert all(stream.is_over for stream in inputs)
        assert system.scripted.open == 0


def test_rule_32_without_an_input_it_completes(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        assert system.merge().result(1).text == ""
        assert system.merge({}).result(1).finish_reason == "stop"
        with pytest.raises(penstock.OptionError, match="system"):
            penstock.merge()


def test_rule_32_one_input_is_as_it_is_with_its_origin(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        collector = read(system.merge({"a": ask(system, "A1", "A2")}))
        end = collector.terminal
        assert isinstance(end, StreamCompleted)
        assert (end.text, end.model, end.provider, end.finish_reason) == ("A1A2", "m", "scripted", "stop")
        assert all(event.origin == "a" for event in collector.events[:-1])


def test_rule_32_the_same_stream_twice_needs_two_names(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = pushed(system, "x")
        with pytest.raises(penstock.OptionError, match="each stream once"):
            system.merge(stream, stream)
        merged = system.merge({"left": stream, "right": stream})
        system.settle()
        stream.stop()
        assert merged.result().texts == {"left": "x", "right": "x"}


@pytest.mark.parametrize("wrong", [("text",), ({1: None},), ({"": None},), ({"a": "text"},)])
def test_what_is_no_stream_is_refused_before_anything_is_read(wrong: Any) -> None:
    with SimulatedSystem() as system, pytest.raises(penstock.OptionError, match="streams"):
        system.merge(*wrong)


@pytest.mark.parametrize("wrong", [{"on_error": "ignore"}, {"window": 0}])
def test_wrong_options_are_refused(wrong: Any) -> None:
    with SimulatedSystem() as system, pytest.raises(penstock.OptionError):
        system.merge(pushed(system, "x"), **wrong)


def test_origins_of_a_merged_input_are_told_with_the_path(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        x, y, z = (pushed(system, text) for text in ("x", "y", "z"))
        inner = system.merge({"x": x, "y": y})
        outer = system.merge({"in": inner, "z": z})
        collector = Collector(outer)
        system.settle()
        x.reset("again")
        x.process_token("X")
        system.settle()
        assert [event.origin for event in collector.events if isinstance(event, StreamReset)] == ["in/x"]
        inner.reset("all of it")
        system.settle()
        resets = [event.origin for event in collector.events if isinstance(event, StreamReset)]
        assert sorted(str(name) for name in resets[1:]) == ["in", "in/x", "in/y"]
        for stream in (x, y, z):
            stream.process_token("!")
            stream.stop()
        assert outer.result().texts == {"z": "z!", "in/x": "!", "in/y": "!"}
        collector.wait_for_terminal()
        ended = [event.origin for event in collector.events if isinstance(event, OriginEnded)]
        assert sorted(str(name) for name in ended) == ["in", "in/x", "in/y", "z"]


def test_the_calls_of_all_inputs_are_in_the_end() -> None:
    stage = Merge(["a", "b"])
    call = penstock.ToolCall(id="1", name="f", arguments={})
    list(stage.end(_ended(tool_calls=(call,), finish_reason="tool_calls", model="m"), 0))
    end = list(stage.end(_ended(tool_calls=(call,), finish_reason="tool_calls", model="n"), 1))[-1]
    assert isinstance(end, StreamCompleted)
    assert (len(end.tool_calls), end.finish_reason, end.model) == (2, "tool_calls", None)


def test_a_merge_whose_process_is_killed_fails_and_lets_go_of_its_inputs(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        a = ask(system, "A", HANG)
        merged = system.merge({"a": a})
        system.settle()
        kill(system, f"merge/{merged.stream_id}")
        with pytest.raises(penstock.StreamCrashed):
            merged.result(1)
        system.settle()
        assert a.is_over
