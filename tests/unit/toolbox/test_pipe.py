"""`pipe`, and combinators in a row: rules 58 and 59."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.errors import OptionError
from penstock.testing import HANG, Collector, ScriptedProvider, SimulatedSystem
from tests.unit.toolbox.single import system, tokens_of

__all__ = ["system"]


def test_stages_are_applied_from_left_to_right(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    cut_first = penstock.pipe(parent, lambda one: one.take(tokens=2), lambda one: one.filter(lambda text: text != "b"))
    filtered_first = penstock.pipe(
        parent, lambda one: one.filter(lambda text: text != "b"), lambda one: one.take(tokens=2)
    )
    parent.process_tokens(["a", "b", "c"])
    assert (cut_first.result(1).text, filtered_first.result(1).text) == ("a", "ac")
    assert penstock.pipe(parent) is parent


def test_rule_58_a_copy_before_a_cut_has_what_the_provider_sent_and_one_after_it_what_was_taken(
    system: SimulatedSystem, tmp_path: Path
) -> None:
    provider = ScriptedProvider([["a ", "b ", "c "][number] for number in range(3)])
    parent = system.chat("m", "Hello", provider=provider, options=penstock.SAFE)
    other = Collector(parent)
    before = parent.tee(tmp_path / "sent.txt")
    reader = Collector(before)  # keeps the copy going when the cut has what it wants
    cut = before.take(tokens=2)
    after = cut.tee(tmp_path / "taken.txt")
    assert after.result(10).finish_reason == "taken"
    assert (tmp_path / "taken.txt").read_text() == "a b "
    before.result(10)
    assert (tmp_path / "sent.txt").read_text() == "a b c "
    for collector in (reader, other):
        assert isinstance(collector.wait_for_terminal(), penstock.StreamCompleted)


def test_rule_58_a_copy_whose_reader_has_enough_has_at_least_what_it_read(
    system: SimulatedSystem, tmp_path: Path
) -> None:
    provider = ScriptedProvider(["a ", 1.0, "b ", 1.0, "c ", HANG])
    parent = system.chat("m", "Hello", provider=provider)
    taken = parent.tee(tmp_path / "x.txt").take(tokens=2)
    assert taken.result(10).text == "a b "
    system.settle()
    assert (tmp_path / "x.txt.partial").read_text() == "a b "
    assert parent.is_over


def test_rule_58_a_limit_of_time_counts_the_throttle_before_it_only(system: SimulatedSystem) -> None:
    provider = ScriptedProvider([f"{number} " for number in range(20)])
    parent = system.chat("m", "Hello", provider=provider)
    slow_then_limit = penstock.pipe(
        parent, lambda one: one.throttle(2), lambda one: one.with_timeout(idle=1), lambda one: one.take(tokens=5)
    )
    assert slow_then_limit.result(20).text == "0 1 2 3 4 "


@pytest.mark.parametrize(
    "made",
    [
        lambda one: one.take(tokens=1),
        lambda one: one.map(lambda unit: 1 / 0),
        lambda one: one.with_timeout(total=1),
        lambda one: one.with_timeout(idle=1),
    ],
    ids=["take", "map", "total", "idle"],
)
def test_rule_59_the_parent_is_let_go_of_before_the_end_is_told(system: SimulatedSystem, made: Any) -> None:
    parent = system.open_stream("p", penstock.SAFE, on_orphan="continue")
    stream = made(parent)
    subscribers: list[int] = []

    def look(event: Any) -> None:
        if isinstance(event, (penstock.StreamCompleted, penstock.StreamFailed)):
            subscribers.append(parent.statistics().subscribers)

    stream.subscribe(look)
    assert parent.statistics().subscribers == 1
    parent.process_token("a")
    system.advance(2)
    assert subscribers == [0]


def test_rule_59_no_token_more_is_asked_for_once_the_end_is_told(system: SimulatedSystem) -> None:
    provider = ScriptedProvider(["a ", 0.01, "b ", 0.01, "c ", 0.01, HANG])
    parent = system.chat("m", "Hello", provider=provider, options=penstock.SAFE)
    taken = penstock.pipe(parent, lambda one: one.map(str.upper), lambda one: one.take(tokens=1))
    assert taken.result(10).text == "A "
    before = parent._record.log.last_seq
    system.advance(1)
    assert parent.is_over
    assert parent.text in ("a ", "a b ")
    assert parent._record.log.last_seq <= before + 1  # its terminal event
    assert tokens_of(taken) == [["A "], "taken"]


def test_a_stage_that_cannot_be_made_lets_go_of_those_before_it(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    made: list[penstock.Stream] = []

    def loud(stream: penstock.Stream) -> penstock.Stream:
        made.append(stream.map(str.upper))
        return made[-1]

    def broken(stream: penstock.Stream) -> penstock.Stream:
        raise LookupError

    with pytest.raises(LookupError):
        penstock.pipe(parent, loud, loud, broken)
    with pytest.raises(OptionError, match="a function that returns a Stream"):
        penstock.pipe(parent, loud, lambda stream: stream.text)  # type: ignore[arg-type, return-value]
    with pytest.raises(OptionError, match="stages"):
        penstock.pipe(parent, loud, "upper")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="stream"):
        penstock.pipe("p", loud)  # type: ignore[arg-type]
    system.settle()
    assert len(made) == 3
    assert all(stream.is_over for stream in made)
    assert not parent.is_over
    assert parent.statistics().subscribers == 0


def test_the_tree_says_what_each_stream_is_made_of(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    parent.map(str.upper, stream_id="loud").take(3, stream_id="short").throttle(5, stream_id="slow")
    tree = str(system.tree())
    for words in ("map of p", "take of loud", "throttle of short"):
        assert words in tree
