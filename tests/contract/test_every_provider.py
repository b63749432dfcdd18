"""Every provider's answers, through the whole system: a stream, the reader, real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.faults import StallAfter
from penstock.adapters.loopback.script import Answer, Replies, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.events import AnswerEvent, StreamStarted, ToolCallCompleted, ToolCallDelta, ToolCallStarted, Usage
from penstock.testing import Collector
from tests.contract.providers import (
    ANTHROPIC,
    EVERY,
    GEMINI,
    OPENAI,
    PATIENCE,
    WIRES,
    House,
    Wire,
    completed,
    house,
    serving,
)

TEXT = "Grüße aus der Röhre: 水は低きに流れる 🌊, <and>\u2028a line separator."
REASONING = "First the 水, then – perhaps – the turbine 🌀."
CALLS = (
    ScriptedCall("look_up", '{"city":"Zürich 🏔","days":[1,2,3],"deep":{"a":null}}', id="call_7", signature="Y2FsbA=="),
    ScriptedCall("now", id="call_8"),
    ScriptedCall("look_up", '{"city":"Αθήνα","unit":"°C"}', id="call_9"),
)
TOLD = Usage(input_tokens=11, output_tokens=7, total_tokens=18, reasoning_tokens=3, cached_tokens=5)
FULL = Answer(TEXT, reasoning=REASONING, signature="c2lnbmVk", tool_calls=CALLS, usage=TOLD)
SAID = FULL.replace(tool_calls=())
FINISHES = ("stop", "length", "content_filter")
NOTHING = Usage(input_tokens=0, output_tokens=0, total_tokens=0, reasoning_tokens=0, cached_tokens=0)

TEXTS = {
    "astral": "\U0001d11e\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 e\u0301 \ufeff\U0010ffff",
    "line-ends": "a\r\nb\rc\n\n\nd\u2028e\u2029f\u0085g\x0bh\x0ci",
    "controls": "".join(map(chr, range(1, 32))) + '\x7f\x80\xa0\xad"\\/',
    "wire": 'data: [DONE]\n\nevent: error\ndata: {"error":1}\n\n: ping\r\n\r\n{"done":true}\n]',
    "blanks": "   \t  ",
    "empty": "",
}
LONG = Answer(tokens=tuple(f"{number:05d} Wörter 🌊…\n" for number in range(5000)))
LONG_CALL = ScriptedCall("store", json.dumps({"text": "ünter 🌊 " * 4000}, ensure_ascii=False), id="call_1")

SPLITS: tuple[Any, ...] = (None, "bytes", 7)
WAYS: Mapping[str, Answer] = {
    **{
        f"{framing}-{split}": FULL.replace(framing=framing, split=split)
        for framing, split in product(("chunked", "close", "length", "gzip"), SPLITS)
    },
    **{
        f"lines-{name}-{split}": FULL.replace(line_ending=ending, bom=True, comments=2, split=split)
        for (name, ending), split in product({"lf": "\n", "crlf": "\r\n", "cr": "\r"}.items(), SPLITS)
    },
    "grouped": FULL.replace(batch=3, events_per_chunk=2, timestamps=True),
    "paced": FULL.replace(pace=0.0005, comments=1),
    "no-marker": FULL.replace(done_marker=False),
    "in-the-middle": FULL.replace(split=(1, 2, 3, 100, 101, 500, 501, 502, 503, 504)),
}
MODELS: dict[str, Replies] = {
    "full": FULL,
    "said": SAID,
    "refused": Answer("", refusal="I’m sorry, I can’t.", reasoning="No.", usage=TOLD),
    **{f"ends-{reason}": Answer(TEXT, finish_reason=reason, usage=TOLD) for reason in FINISHES},
    **{f"text-{name}": Answer(text) for name, text in TEXTS.items()},
    "untold": Answer("x", send_usage="never"),
    "half-told": Answer("x", usage=Usage(input_tokens=4, output_tokens=2)),
    "nothing": Answer("x", usage=NOTHING),
    "long": LONG,
    "long-call": Answer("", tool_calls=(LONG_CALL,)),
    "held": Answer("a b c", tool_calls=CALLS[:1], faults=(StallAfter(4),)),
    "nameless": Answer("", tool_calls=(ScriptedCall("f"), ScriptedCall("f", '{"x":1}'))),
    "broken-call": Answer("", tool_calls=(ScriptedCall("f", '{"x":', id="call_1"),)),
    "two": Answer("one", choices=(Answer("two", tool_calls=CALLS[1:2]),)),
    **WAYS,
}


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackProvider]:
    with serving(MODELS) as running:
        yield running


@pytest.fixture
def here(server: LoopbackProvider) -> Iterator[House]:
    with house(server) as made:
        yield made


def number_of(here: House, wire: Wire, model: str) -> int:
    """The number of the last request, which is part of Responses' ids."""
    numbers: list[int] = [each.number for each in here.requests(model) if wire.path.format(model) == each.path]
    return numbers[-1]


def check_whole(wire: Wire, end: penstock.StreamCompleted, answer: Answer, number: int) -> None:
    """Everything that the terminal event contains for ``answer``."""
    assert end.text == wire.text(answer)
    assert end.reasoning == answer.reasoning
    assert end.refusal == wire.refusal(answer)
    assert end.tool_calls == tuple(map(wire.call, answer.tool_calls))
    assert end.reasoning_blocks == wire.blocks(answer, number)
    assert (end.provider, end.choices, end.cost, end.dropped) == (wire.name, (), None, 0)


# --- what an answer has --------------------------------------------------------------------------------------------


@EVERY
def test_the_end_has_all_that_was_said(here: House, wire: Wire) -> None:
    for model, answer in (("full", FULL), ("said", SAID)):
        collector = here.watch(wire, model)
        end = completed(collector)
        check_whole(wire, end, answer, number_of(here, wire, model))
        assert (end.finish_reason, end.raw_finish_reason) == wire.finish["tool_calls" if answer is FULL else "stop"]
        assert end.usage == wire.usage(TOLD)
        assert end.model == model
        assert end.metrics is not None
        assert (end.metrics.function_calls, end.metrics.errors) == (len(answer.tool_calls), 0)
        said = [event for event in collector.events if isinstance(event, penstock.TokenEvent)]
        for kind, whole in (("text", end.text), ("reasoning", end.reasoning)):
            assert "".join(event.text for event in said if event.kind == kind) == whole
        kinds = [event.kind for event in said]
        assert kinds == sorted(kinds), "reasoning comes before text"


@EVERY
def test_calls_are_told_from_their_beginning_to_their_end(here: House, wire: Wire) -> None:
    collector = here.watch(wire, "full")
    end = completed(collector)
    others = [event for event in collector.events if not isinstance(event, penstock.TokenEvent)]
    assert others.pop() is end
    told = [event for event in others if not isinstance(event, AnswerEvent)]
    assert {type(event).__name__ for event in others} - {type(event).__name__ for event in told} <= {
        "ReasoningBlockClosed"
    }
    assert not any(isinstance(event, StreamStarted) for event in told)  # only an agent has it
    for index, call in enumerate(end.tool_calls):
        mine = [event for event in told if event.index == index]  # type: ignore[union-attr]
        first, *pieces, last = mine
        assert isinstance(first, ToolCallStarted)
        assert (first.id, first.name) == (call.id, call.name)
        assert all(isinstance(piece, ToolCallDelta) and piece.text for piece in pieces)
        assert "".join(piece.text for piece in pieces) == call.arguments_raw  # type: ignore[union-attr]
        assert isinstance(last, ToolCallCompleted)
        assert last.call == call
        if index == 0:
            assert len(pieces) == (1 if wire.sends_whole_calls else len(CALLS[0].fragments))
    for kind in (ToolCallStarted, ToolCallCompleted):
        assert [event.index for event in told if isinstance(event, kind)] == [0, 1, 2]
    texts = [event.seq for event in collector.events if isinstance(event, penstock.TokenEvent)]
    assert max(texts) < min(event.seq for event in told)  # they came after the text


@EVERY
def test_a_call_is_told_while_the_answer_is_still_coming(here: House, wire: Wire) -> None:
    stream = here.ask(wire, "held")
    events = stream.events()
    told = [events.next(PATIENCE)]
    while not isinstance(told[-1], ToolCallDelta):
        told.append(events.next(PATIENCE))
    begun = told[-2]
    assert isinstance(begun, ToolCallStarted)
    assert (begun.id, begun.name, begun.index) == ("call_7", "look_up", 0)
    stream.cancel()
    end = events.next(PATIENCE)
    assert isinstance(end, penstock.StreamCancelled)
    assert (end.text, end.provider) == ("a b c", wire.name)
    [call] = end.tool_calls  # all of it, or the beginning
    piece = CALLS[0].arguments if wire.sends_whole_calls else CALLS[0].fragments[0]
    assert call.arguments_raw == piece
    assert call.arguments == (json.loads(piece) if wire.sends_whole_calls else None)


@EVERY
def test_each_way_to_end_is_told_in_our_word_and_in_the_providers(here: House, wire: Wire) -> None:
    watched = {reason: here.watch(wire, f"ends-{reason}") for reason in FINISHES}
    for reason, collector in watched.items():
        end = completed(collector)
        assert (end.finish_reason, end.raw_finish_reason) == wire.finish[reason]
        assert (end.text, end.usage) == (TEXT, wire.usage(TOLD))


@EVERY
def test_a_refusal_is_kept_apart_where_the_provider_does_so(here: House, wire: Wire) -> None:
    collector = here.watch(wire, "refused")
    end = completed(collector)
    answer = MODELS["refused"]
    assert isinstance(answer, Answer)
    assert (end.text, end.refusal, end.reasoning) == (wire.text(answer), wire.refusal(answer), "No.")
    assert (end.finish_reason, end.raw_finish_reason) == wire.finish["refused"]
    kind = "refusal" if wire.has_refusals else "text"
    said = [event for event in collector.events if isinstance(event, penstock.TokenEvent)]
    assert "".join(event.text for event in said if event.kind == kind) == answer.refusal


@EVERY
def test_what_is_not_told_of_usage_is_none_and_not_nought(here: House, wire: Wire) -> None:
    untold, half, nothing = (here.watch(wire, model) for model in ("untold", "half-told", "nothing"))
    if wire is not ANTHROPIC:  # its first event always has one
        assert completed(untold).usage is None
    assert completed(half).usage == wire.usage(Usage(input_tokens=4, output_tokens=2))
    assert completed(nothing).usage == wire.usage(NOTHING)


@EVERY
def test_calls_without_ids_are_told_apart(here: House, wire: Wire) -> None:
    end = completed(here.watch(wire, "nameless"))
    assert [(call.name, call.arguments) for call in end.tool_calls] == [("f", {}), ("f", {"x": 1})]
    ids = [call.id for call in end.tool_calls]
    assert len(set(ids)) == 2
    assert all(ids)


@pytest.mark.parametrize("wire", [wire for wire in WIRES if not wire.sends_whole_calls], ids=lambda wire: wire.name)
def test_arguments_that_are_no_json_are_none_and_kept_as_they_came(here: House, wire: Wire) -> None:
    end = completed(here.watch(wire, "broken-call"))
    [call] = end.tool_calls
    assert (call.id, call.arguments, call.arguments_raw) == ("call_1", None, '{"x":')


@pytest.mark.parametrize("wire", [OPENAI, GEMINI], ids=lambda wire: wire.name)
def test_of_several_answers_the_first_is_the_stream(here: House, wire: Wire) -> None:
    end = completed(here.watch(wire, "two", n=2))
    assert (end.text, end.finish_reason, end.tool_calls) == ("one", "stop", ())
    [other] = end.choices
    assert (other.index, other.text, other.finish_reason) == (1, "two", "tool_calls")
    assert [(call.name, call.arguments) for call in other.tool_calls] == [("now", {})]


# --- what a text has -----------------------------------------------------------------------------------------------


@EVERY
def test_a_text_is_told_as_it_is_whatever_is_in_it(here: House, wire: Wire) -> None:
    watched = {name: here.watch(wire, f"text-{name}") for name in TEXTS}
    for name, collector in watched.items():
        assert completed(collector).text == TEXTS[name], name


@EVERY
def test_a_long_answer_is_whole(here: House, wire: Wire) -> None:
    text, call = here.watch(wire, "long"), here.watch(wire, "long-call")
    assert len(LONG.full_text.encode()) > 100_000
    assert completed(text).text == LONG.full_text
    [told] = completed(call).tool_calls
    assert told.arguments == json.loads(LONG_CALL.arguments)
    pieces = [event.text for event in call.events if isinstance(event, ToolCallDelta)]
    assert "".join(pieces) == told.arguments_raw


# --- how a body comes ----------------------------------------------------------------------------------------------


@EVERY
def test_however_the_body_comes_the_answer_is_the_same(here: House, wire: Wire) -> None:
    watched: dict[str, Collector] = {way: here.watch(wire, way) for way in WAYS}
    for way, collector in watched.items():
        end = completed(collector)
        check_whole(wire, end, FULL, number_of(here, wire, way))
        assert (end.finish_reason, end.raw_finish_reason) == wire.finish["tool_calls"], way
        assert end.usage == wire.usage(TOLD), way
