"""`Stream.take`: rules 8 to 14 of the combinators."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import penstock
from penstock.errors import OptionError
from penstock.events import StreamReset
from penstock.testing import HANG, ScriptedProvider, SimulatedSystem
from penstock.toolbox.stage import Output
from penstock.toolbox.taking import Take
from tests.unit.toolbox.single import feed_all, shown, system, text_of, token, tokens_of

__all__ = ["system"]

END = penstock.StreamCompleted(stream_id="", seq=0, text="")


def taking(tokens: int | None = None, characters: int | None = None, kinds: Any = None) -> Take:
    return Take(tokens, characters, None, kinds, lambda: None)


def prefix(limit: int, *pieces: str) -> str:
    """What `take(characters=limit)` makes of a text in pieces."""
    stage = taking(characters=limit)
    given: list[Output] = []
    for piece in pieces:
        given += stage.feed(token(piece))
        if isinstance(given[-1] if given else None, penstock.StreamCompleted):
            return text_of(given)
    return text_of([*given, *stage.end(END)])


def test_rule_8_an_event_is_cut(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    taken = parent.take(tokens=2)
    parent.process_tokens(["a", "b", "c"])
    assert taken.result(1).finish_reason == "taken"
    assert tokens_of(taken) == [["a", "b"], "taken"]


def test_rule_9_characters_never_end_inside_a_cluster(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    none, whole = parent.take(characters=1), parent.take(characters=2)
    parent.process_token("e\u0301x")
    assert none.result(1).text == ""
    assert whole.result(1).text == "e\u0301"
    assert none.result(1).finish_reason == whole.result(1).finish_reason == "taken"


@pytest.mark.parametrize(
    "text",
    [
        "e\u0301x",
        "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7!",  # two flags
        "a\U0001f468\u200d\U0001f469\u200d\U0001f467b",  # a family
        "line\r\nnext",
        "क्षत्रिय",
        "a" * 70 + "e\u0301\u0302" + "b" * 70,
    ],
)
def test_every_cutting_of_a_text_gives_the_same_beginning(text: str) -> None:
    for limit in range(len(text) + 2):
        wanted = prefix(limit, text) if limit else ""
        assert len(wanted) <= limit
        if not limit:
            continue
        assert prefix(limit, *text) == wanted
        for cut in range(1, len(text)):
            assert prefix(limit, text[:cut], text[cut:]) == wanted, (limit, cut)


def test_rule_10_it_never_overshoots_and_may_be_short() -> None:
    for limit, size in itertools.product(range(1, 12), range(1, 5)):
        text = "ab e\u0301 c\r\nd"
        taken = prefix(limit, *[text[start : start + size] for start in range(0, len(text), size)])
        assert text.startswith(taken)
        assert limit - 1 <= len(taken) <= limit or len(taken) == len(text)


def test_rule_11_another_reader_of_the_parent_goes_on(system: SimulatedSystem) -> None:
    provider = ScriptedProvider(["a ", 1.0, "b ", 1.0, "c"])
    parent = system.chat("m", "Hello", provider=provider)
    other, taken = parent.map(str), parent.take(tokens=1)
    assert taken.result(10).text == "a "
    assert not parent.is_over
    assert other.result(10).text == "a b c"
    assert other.result(10).finish_reason == "stop"


def test_rule_11_without_another_reader_the_providers_call_is_closed(system: SimulatedSystem) -> None:
    provider = ScriptedProvider(["a ", "b ", HANG])
    parent = system.chat("m", "Hello", provider=provider)
    taken = parent.take(tokens=1)
    assert taken.result(10).text == "a "
    system.settle()
    assert parent.is_over
    assert system.scripted.open == 0
    assert taken.result(1).usage is not None  # an estimate, as nothing was reported
    assert taken.result(1).usage == parent.statistics().usage or taken.result(1).usage.output_tokens  # type: ignore[union-attr]


def test_rule_12_a_parent_that_ends_first_keeps_its_reason(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    streams = [parent.take(tokens=9), parent.take(characters=9), parent.take(seconds=9)]
    failing = system.open_stream("f", penstock.SAFE)
    failed = failing.take(characters=9)
    parent.process_token("abc")
    parent.stop()
    failing.process_token("abc")
    failing.sink().end(penstock.ProviderError("broken"))
    for stream in streams:
        assert stream.result(1).finish_reason == "stop"
        assert stream.result(1).text == "abc"
    with pytest.raises(penstock.ProviderError) as caught:
        failed.result(1)
    assert caught.value.partial == "abc"


@pytest.mark.parametrize("limit", [{"tokens": 0}, {"characters": 0}, {"seconds": 0}], ids=str)
def test_rule_13_nothing_at_all_completes_at_once_and_closes_the_call(system: SimulatedSystem, limit: Any) -> None:
    provider = ScriptedProvider(["a", HANG])
    parent = system.chat("m", "Hello", provider=provider)
    taken = parent.take(**limit)
    end = taken.result(1)
    assert (end.text, end.finish_reason, end.seq) == ("", "taken", 1)
    system.settle()
    assert parent.is_over
    assert system.scripted.open == 0


def test_rule_14_after_a_reset_counting_begins_again(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    by_token, by_character = parent.take(tokens=3), parent.take(characters=3)
    parent.process_tokens(["a", "b"])
    system.settle()
    parent.reset("again")
    parent.process_tokens(["c", "d", "e", "f"])
    for stream in (by_token, by_character):
        assert stream.result(1).text == "cde"
        assert "StreamReset" in tokens_of(stream)


def test_rule_14_a_reset_of_one_origin_gives_back_what_it_had_taken() -> None:
    for stage in (taking(tokens=3), taking(characters=3)):
        feed_all(stage, token("a", origin="a"), token("b", origin="b"))
        list(stage.reset(StreamReset("p", 1, "again", 0.0, {}, origin="a")))
        given = feed_all(stage, token("c", "d", "e", origin="a"))
        assert text_of(given).endswith("cd")
        assert shown(given)[-1] == "taken"


def test_seconds_are_counted_from_the_opening_even_if_nothing_comes(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    taken = parent.take(seconds=2)
    parent.process_token("a")
    system.advance(1.9)
    assert not taken.is_over
    system.advance(0.2)
    end = taken.result(0)
    assert (end.text, end.finish_reason) == ("a", "taken")


def test_of_several_limits_the_first_that_is_reached_counts() -> None:
    assert shown(feed_all(taking(tokens=2, characters=9), token("ab", "cd", "ef"))) == [["ab", "cd"], "taken"]
    assert shown(feed_all(taking(tokens=9, characters=3), token("ab", "cd", "ef"))) == [["ab", "c"], "taken"]


def test_only_the_wanted_kinds_count() -> None:
    stage = taking(tokens=1, kinds="text")
    assert shown(feed_all(stage, token("hm", "so", kind="reasoning"), token("a", "b"))) == [
        ["hm", "so"],
        ["a"],
        "taken",
    ]
    assert shown(feed_all(taking(tokens=1), token("hm", kind="reasoning"))) == [["hm"], "taken"]


def test_a_held_character_goes_before_what_follows_in_another_place() -> None:
    call = penstock.ToolCallStarted(id="1", name="f", index=0)
    assert shown(feed_all(taking(characters=9), token("ab"), call)) == [["a"], ["b"], "ToolCallStarted"]
    assert shown(feed_all(taking(characters=2), token("ab"), call)) == [["a"], ["b"], "taken"]
    given = feed_all(taking(characters=9), token("ab"), token("cd", kind="reasoning"))
    assert [(one.text, one.kind) for one in given if isinstance(one, penstock.TokenEvent)][:2] == [
        ("a", "text"),
        ("b", "text"),
    ]


def test_far_from_the_limit_no_character_is_held() -> None:
    assert shown(feed_all(taking(characters=1000), token("ab", "cd"))) == [["ab", "cd"]]


def test_a_call_that_was_not_complete_has_no_arguments() -> None:
    stage = taking(tokens=1)
    done = penstock.ToolCall(id="1", name="f", arguments={}, arguments_raw="{}")
    for event in (
        penstock.ToolCallStarted(id="1", name="f", index=0),
        penstock.ToolCallCompleted(index=0, call=done),
        penstock.ToolCallStarted(id="2", name="g", index=1),
        penstock.ToolCallDelta(index=1, text='{"x'),
    ):
        list(stage.feed(event))
    end = list(stage.feed(token("a")))[-1]
    assert isinstance(end, penstock.StreamCompleted)
    assert end.tool_calls == (done, penstock.ToolCall(id="2", name="g", arguments=None, arguments_raw='{"x'))


@pytest.mark.parametrize(
    "limits", [{}, {"tokens": -1}, {"tokens": 1.5}, {"characters": "3"}, {"seconds": float("nan")}], ids=str
)
def test_limits_that_are_not_allowed_are_refused(system: SimulatedSystem, limits: Any) -> None:
    with pytest.raises(OptionError, match=next(iter(limits), "tokens")):
        system.open_stream("p").take(**limits)
