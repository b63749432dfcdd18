"""`Stream.map`, `filter` and `flat_map`: rules 1 to 7 of the combinators."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import penstock
from penstock.errors import OptionError, TransformError
from penstock.events import Citation, StreamReset
from penstock.testing import ScriptedProvider, SimulatedSystem
from penstock.toolbox.mapping import Map
from tests.unit.toolbox.single import feed_all, shown, system, text_of, token, tokens_of

__all__ = ["system"]


def push(system: SimulatedSystem, stream: penstock.Stream, *events: list[str]) -> None:
    """Push tokens that become one event for each list."""
    for tokens in events:
        stream.process_tokens(tokens)
        system.settle()


def test_rule_1_one_unit_is_one_call_and_the_borders_of_events_stay(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    loud = parent.map(str.upper)
    push(system, parent, ["x", "y"], ["z"])
    parent.stop()
    assert loud.result(1).text == "XYZ"
    assert tokens_of(loud) == [["X", "Y"], ["Z"], "stop"]


@pytest.mark.parametrize(("unit", "text"), [("token", "my password"), ("event", "my password"), ("word", "my *** ")])
def test_rule_2_only_whole_words_are_seen_whole(system: SimulatedSystem, unit: Any, text: str) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    redacted = parent.map(lambda one: "*** " if "password" in one else one, unit=unit)
    push(system, parent, ["my ", "pass"], ["word"])
    parent.stop()
    assert redacted.result(1).text == text


def test_rule_2_a_word_is_held_until_a_blank_the_end_or_the_flush_interval(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    held, timely = parent.map(str.upper, unit="word"), parent.map(str.upper, unit="word", flush_interval=0.5)
    push(system, parent, ["a pass"])
    assert held.text == timely.text == "A "
    system.advance(0.4)
    push(system, parent, ["w"])
    system.advance(0.05)
    assert timely.text == "A "
    system.advance(0.1)  # it has waited since it began
    assert (held.text, timely.text) == ("A ", "A PASSW")
    push(system, parent, ["ord", " b"])
    assert (held.text, timely.text) == ("A PASSWORD ", "A PASSWORD ")
    parent.stop()
    assert held.result(1).text == timely.result(1).text == "A PASSWORD B"


def test_rule_3_an_event_that_is_emptied_is_not_sent(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    kept, dropped = parent.filter(lambda one: one != "c"), parent.map(lambda one: "" if one == "c" else one)
    push(system, parent, ["a", "b"], ["c"])
    parent.stop()
    for stream in (kept, dropped):
        stream.result(1)
        assert tokens_of(stream) == [["a", "b"], "stop"]
        assert [event.seq for event in stream.events()] == [1, 2]


def test_rule_4_other_events_keep_their_place_and_an_open_unit_goes_before_them() -> None:
    stage = Map(str.upper, "word")
    call = penstock.ToolCallStarted(id="1", name="f", index=0)
    given = [
        *feed_all(stage, token("wor"), call, token("ld")),
        *stage.end(penstock.StreamCompleted(stream_id="", seq=0, text="")),
    ]
    assert shown(given) == [["WOR"], "ToolCallStarted", ["LD"], "stop"]


def test_rule_4_other_kinds_pass_after_the_open_unit() -> None:
    stage = Map(str.upper, "word")
    assert shown(feed_all(stage, token("wor"), token("hm", kind="reasoning"), token("ld "))) == [["WOR"], ["hm"]]
    assert shown(feed_all(Map(str.upper, kinds={"reasoning"}), token("a"), token("b", kind="reasoning"))) == [
        ["a"],
        ["B"],
    ]


def test_a_report_of_progress_does_not_end_a_word() -> None:
    stage = Map(str.upper, "word")
    assert shown(feed_all(stage, token("wor"), penstock.Progress(position=1), token("ld "), token("x"))) == [
        "Progress",
        ["WORLD "],
    ]


def test_words_of_two_origins_do_not_mix_and_another_part_ends_a_word() -> None:
    stage = Map(str.upper, "word")
    given = feed_all(
        stage,
        token("wa", origin="a"),
        token("bo", origin="b"),
        token("ter x", origin="a"),
        token("at ", origin="b"),
        token("y", origin="b"),
        token("z", origin="a", part=1),
    )
    made = [(one.text, one.origin) for one in given if isinstance(one, penstock.TokenEvent)]
    assert made == [("WATER ", "a"), ("BOAT ", "b"), ("X", "a")]
    ended = penstock.OriginEnded(origin="b", outcome=penstock.StreamCompleted(stream_id="", seq=0, text=""))
    assert shown(stage.feed(ended)) == [["Y"], "OriginEnded"]


def test_rule_5_what_was_made_before_an_error_is_sent_and_the_parent_is_let_go_of(system: SimulatedSystem) -> None:
    provider = ScriptedProvider(["a ", "b ", "c ", 100.0, "d"])
    parent = system.chat("m", "Hello", provider=provider, options=penstock.SAFE)

    def fail(unit: str) -> str:
        if unit == "c ":
            raise LookupError("no c")
        return unit.upper()

    stream = parent.map(fail)
    with pytest.raises(TransformError, match="the function of map failed: LookupError") as caught:
        stream.result(10)
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.partial == "A B "
    system.settle()
    assert parent.is_over  # it was the only reader
    assert system.scripted.open == 0


def test_rule_5_what_was_made_of_the_same_event_before_the_error_is_given_first() -> None:
    steps = iter(Map(lambda one: str(1 // int(one))).feed(token("1", "1", "0")))
    assert shown([next(steps)]) == [["1", "1"]]
    with pytest.raises(ZeroDivisionError):
        next(steps)


def test_rule_6_a_reset_forgets_the_open_unit_and_is_passed_on(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    words = parent.map(str.upper, unit="word", flush_interval=1)
    push(system, parent, ["old wor"])
    parent.reset("again")
    push(system, parent, ["new"])
    parent.stop()
    assert words.result(1).text == "NEW"
    assert tokens_of(words) == [["OLD "], "StreamReset", ["NEW"], "stop"]


def test_rule_6_a_reset_of_one_origin_forgets_only_its_unit() -> None:
    stage = Map(str.upper, "word")
    feed_all(stage, token("a", origin="a"), token("b", origin="b"))
    list(stage.reset(StreamReset("p", 1, "again", 0.0, {}, origin="a")))
    end = penstock.StreamCompleted(stream_id="", seq=0, text="")
    assert shown(stage.end(end)) == [["B"], "stop"]


def test_rule_7_an_async_function_is_called_once_at_a_time_and_in_order(system: SimulatedSystem) -> None:
    running = most = 0

    async def translate(unit: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.5 if unit == "a" else 0.1)
        running -= 1
        return unit.upper()

    async def keep(unit: str) -> bool:
        await asyncio.sleep(0.1)
        return unit != "B"

    async def main() -> tuple[str, str]:
        parent = system.open_stream("p", penstock.SAFE)
        loud = parent.map(translate)
        kept = loud.filter(keep)
        parent.process_tokens(["a", "b", "c"])
        parent.stop()
        return (await loud.aresult(10)).text, (await kept.aresult(10)).text

    assert system.run(main()) == ("ABC", "AC")
    assert most == 1


def test_an_async_function_that_raises_or_is_cancelled_fails_the_stream(system: SimulatedSystem) -> None:
    async def broken(unit: str) -> str:
        raise LookupError(unit)

    async def cancelled(unit: str) -> str:
        raise asyncio.CancelledError

    async def main() -> None:
        parent = system.open_stream("p", penstock.SAFE)
        streams = [parent.map(broken), parent.map(cancelled)]
        parent.process_token("a")
        for stream in streams:
            with pytest.raises(TransformError):
                await stream.aresult(10)

    system.run(main())


def test_a_function_that_returns_an_awaitable_is_not_taken_for_true(system: SimulatedSystem) -> None:
    async def no(unit: str) -> bool:
        return False

    async def main() -> str:
        parent = system.open_stream("p", penstock.SAFE)
        none = parent.filter(lambda unit: no(unit))
        parent.process_token("a")
        parent.stop()
        return (await none.aresult(10)).text

    assert system.run(main()) == ""


def test_flat_map_takes_none_one_or_several_texts(system: SimulatedSystem) -> None:
    async def letters(unit: str) -> AsyncIterator[str]:
        for letter in unit:
            yield letter

    async def main() -> list[list[object]]:
        parent = system.open_stream("p", penstock.SAFE)
        streams = [
            parent.flat_map(lambda unit: [unit, "", unit]),
            parent.flat_map(lambda unit: unit if unit == "cd" else ()),
            parent.flat_map(lambda unit: (letter for letter in unit)),
            parent.flat_map(letters),
        ]
        parent.process_tokens(["ab", "cd"])
        parent.stop()
        for stream in streams:
            await stream.aresult(10)
        return [tokens_of(stream) for stream in streams]

    assert system.run(main()) == [
        [["ab", "ab", "cd", "cd"], "stop"],
        [["cd"], "stop"],
        [["a", "b", "c", "d"], "stop"],
        [["a", "b", "c", "d"], "stop"],
    ]


def test_flat_map_takes_from_an_endless_generator_only_while_there_is_room(system: SimulatedSystem) -> None:
    made = 0

    def forever(unit: str) -> Iterator[str]:
        nonlocal made
        while True:
            made += 1
            yield unit

    parent = system.open_stream("p", penstock.SAFE)
    events = (stream := parent.flat_map(forever)).events(slow="block", window=1)
    parent.process_token("a")
    system.advance(1)
    assert made < 500
    assert events.next(timeout=1).tokens == ("a",) * 100  # type: ignore[union-attr]
    stream.cancel()
    events.close()
    system.settle()
    assert stream.is_over


def test_every_cutting_of_a_text_gives_the_same_words() -> None:
    text = "Dr. No's 3.5 cafés, e\u0301t\u0301e  \u4e2d\u6587 and नमस्ते!\n"
    end = penstock.StreamCompleted(stream_id="", seq=0, text="")
    for first, second in itertools.combinations(range(1, len(text)), 2):
        stage = Map(lambda one: f"[{one}]", "word")
        pieces = [text[:first], text[first:second], text[second:]]
        made = text_of([*feed_all(stage, *map(token, pieces)), *stage.end(end)])
        assert made == text_of([*feed_all(whole := Map(lambda one: f"[{one}]", "word"), token(text)), *whole.end(end)])


def test_a_result_that_is_no_text_fails_the_stream_without_its_content(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    streams = [parent.map(lambda unit: None), parent.flat_map(lambda unit: None), parent.flat_map(lambda unit: [1])]  # type: ignore[arg-type, return-value, list-item]
    parent.process_token("secret")
    for stream in streams:
        with pytest.raises(TransformError) as caught:
            stream.result(1)
        assert "secret" not in str(caught.value)
        assert isinstance(caught.value.__cause__, TypeError)


def test_the_function_runs_in_a_copy_of_the_callers_context(system: SimulatedSystem) -> None:
    name = contextvars.ContextVar("name", default="nobody")
    name.set("Ada")
    parent = system.open_stream("p", penstock.SAFE)
    stream = parent.map(lambda unit: f"{unit} {name.get()}")
    name.set("Grace")
    parent.process_token("Hello")
    parent.stop()
    assert stream.result(1).text == "Hello Ada"


def test_citations_lose_their_place_in_a_text_that_changes(system: SimulatedSystem) -> None:
    parent = system.open_stream("p", penstock.SAFE)
    stream = parent.map(str.upper)
    parent.process_token("abc")
    parent.sink().push_event(Citation(kind="url", url="https://example.org", start=0, end=3))
    parent.stop()
    (citation,) = stream.result(1).citations
    assert (citation.url, citation.start, citation.end) == ("https://example.org", None, None)


@pytest.mark.parametrize(
    "arguments",
    [{"unit": "page"}, {"kinds": "words"}, {"kinds": ()}, {"kinds": 3}, {"flush_interval": 0}],
    ids=str,
)
def test_arguments_that_are_not_allowed_are_refused_at_the_call(system: SimulatedSystem, arguments: Any) -> None:
    parent = system.open_stream("p")
    with pytest.raises(OptionError, match=next(iter(arguments))):
        parent.map(str.upper, **arguments)
    for method in (parent.map, parent.filter, parent.flat_map):
        with pytest.raises(OptionError, match="function"):
            method("upper")  # type: ignore[arg-type]
    assert parent.statistics().subscribers == 0
