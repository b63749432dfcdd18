"""What chat chunks have besides text, calls, finish and usage: sources, media, own tools, probabilities, metadata."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.events import (
    Citation,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ServerToolCall,
    ServerToolResult,
    TokenLogprob,
)
from penstock.ports import (
    BlockDelta,
    ChoiceDelta,
    CitationDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)
from tests.unit.adapters.providers.common import nested

DONE = b"data: [DONE]\n\n"


def sse(*payloads: object) -> bytes:
    return b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)


def choice(delta: object, finish: object = None, **more: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


def decode(*payloads: object, end: bytes = b"") -> list[Delta]:
    """The deltas of the whole body, which are the same byte by byte, and begin the same if it is cut short."""
    body = sse(*payloads) + end
    decoder = ChatDecoder(1_000_000)
    whole = decoder.feed(body) + decoder.close()
    assert decoder.skipped == 0
    single = ChatDecoder(1_000_000)
    assert [delta for at in range(len(body)) for delta in single.feed(body[at : at + 1])] + single.close() == whole
    for at in range(len(body)):
        short = ChatDecoder(1_000_000)
        told = short.feed(body[:at]) + short.close()
        assert told == whole[: len(told)]
    return whole


def skipped(*payloads: object) -> list[ProviderEvent]:
    """What was not understood, which is counted, and told as such only if that is asked for."""
    silent = ChatDecoder(1_000_000)
    assert not [delta for delta in silent.feed(sse(*payloads)) if isinstance(delta, EventDelta)]
    decoder = ChatDecoder(1_000_000, raw="unknown")
    told = [delta.event for delta in decoder.feed(sse(*payloads)) if isinstance(delta, EventDelta)]
    assert decoder.skipped == silent.skipped == len(told)
    assert all(isinstance(event, ProviderEvent) for event in told)
    return told  # type: ignore[return-value]


def events(deltas: list[Delta]) -> list[object]:
    return [delta.event for delta in deltas if isinstance(delta, EventDelta)]


def citations(deltas: list[Delta]) -> list[Citation]:
    return [delta.citation for delta in deltas if isinstance(delta, CitationDelta)]


def metadata(deltas: list[Delta]) -> list[object]:
    return [delta.values for delta in deltas if isinstance(delta, MetadataDelta)]


PAGE = {"type": "url_citation", "url_citation": {"url": "https://a.example"}}
CALLED = {"name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "d"}]}, BlockDelta),
        ({"refusal": "no"}, RefusalDelta),
        ({"tool_calls": [{"index": 0, "id": "c", "function": CALLED}]}, ToolCallFragment),
        ({"function_call": CALLED}, ToolCallFragment),
        ({"annotations": [PAGE]}, CitationDelta),
        ({"audio": {"data": "YQ=="}}, EventDelta),
        ({"images": [{"image_url": "https://a.example/1.png"}]}, EventDelta),
        ({"executed_tools": [{"index": 0, "type": "search", "arguments": "{}"}]}, EventDelta),
    ],
)
def test_what_comes_with_a_piece_of_text_in_the_middle_is_read(more: dict[str, Any], kind: type[Delta]) -> None:
    deltas = decode(choice({"content": "a"}), choice({"content": "b"} | more), choice({"content": "c"}))
    assert [delta for delta in deltas if isinstance(delta, TextDelta)] == [TextDelta(text) for text in "abc"]
    assert kind in map(type, deltas)


@pytest.mark.parametrize(
    ("more", "kind"),
    [({"error": {"message": "m"}}, ErrorDelta), ({"usage": {"total_tokens": 1}}, UsageDelta)],
)
def test_what_stands_beside_a_choice_in_the_middle_is_read(more: dict[str, Any], kind: type[Delta]) -> None:
    deltas = ChatDecoder(1_000).feed(sse(choice({"content": "a"}), choice({"content": "b"}) | more))
    assert [type(delta) for delta in deltas] == [TextDelta, TextDelta, kind]


# --- sources ---------------------------------------------------------------------------------------------------------


def test_annotations_are_citations_with_their_spans() -> None:
    page = {"url": "https://a.example", "title": "A", "start_index": 2, "end_index": 5}
    flat = {"type": "container_file_citation", "container_id": "k", "file_id": "f", "filename": "x.csv", **page}
    assert decode(
        choice({"content": "Hello"}),
        choice({"annotations": [{"type": "url_citation", "url_citation": page}, flat]}),
        choice(
            {"annotations": [{"type": "file_citation", "index": 3, "file_citation": {"file_id": "g", "quote": "q"}}]}
        ),
        choice({}, "stop"),
    ) == [
        TextDelta("Hello"),
        CitationDelta(Citation(kind="url", url="https://a.example", title="A", start=2, end=5)),
        CitationDelta(
            Citation(
                kind="file",
                url="https://a.example",
                id="f",
                title="A",
                start=2,
                end=5,
                location={"container_id": "k"},
            )
        ),
        CitationDelta(Citation(kind="file", id="g", cited_text="q", location={"index": 3})),
        FinishDelta("stop", "stop"),
    ]


@pytest.mark.parametrize(
    "span", [{}, {"start_index": 0, "end_index": 0}, {"start_index": 4}, {"start_index": -1, "end_index": 2}]
)
def test_a_span_that_is_none_is_left_out(span: dict[str, int]) -> None:
    page = {"type": "url_citation", "url_citation": {"url": "https://a.example", "content": "words", **span}}
    (found,) = citations(decode(choice({"content": "Hello", "annotations": [page]})))
    assert (found.start, found.end, found.cited_text) == (None, None, "words")


def test_annotations_of_a_whole_answer_are_read() -> None:
    page = {"type": "url_citation", "url": "https://a.example", "start_index": 0, "end_index": 2}
    message = {"role": "assistant", "content": "Hi", "annotations": [page]}
    deltas = decode({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    assert [type(delta) for delta in deltas] == [TextDelta, CitationDelta, FinishDelta]


def test_annotations_of_another_form_are_counted() -> None:
    told = skipped(choice({"annotations": [{"type": "file", "file": {}}, 5]}), choice({"annotations": 7}))
    assert [(event.type, event.payload) for event in told] == [
        ("annotation.file", {"type": "file", "file": {}}),
        ("annotation.", 5),
        ("annotations", 7),
    ]


def test_perplexitys_lists_are_told_once_though_each_chunk_repeats_them() -> None:
    lists = {
        "citations": ["https://a.example", "https://b.example"],
        "search_results": [{"title": "B", "url": "https://b.example", "date": "2025-01-01", "snippet": "s"}],
    }
    usage = {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    deltas = decode(
        {**choice({"content": "x"}), **lists, **usage},
        {**choice({"content": "y"}), **lists, **usage},
        {**choice({}, "stop"), **lists, **usage},
    )
    assert citations(deltas) == [
        Citation(
            kind="search_result",
            url="https://b.example",
            title="B",
            cited_text="s",
            location={"index": 2, "date": "2025-01-01"},
        ),
        Citation(kind="url", url="https://a.example", location={"index": 1}),
    ]


def test_sources_that_come_with_the_end_only_are_told() -> None:
    deltas = decode(choice({"content": "x"}), {**choice({}, "stop"), "citations": ["https://a.example"]})
    assert [type(delta) for delta in deltas] == [TextDelta, CitationDelta, FinishDelta]


@pytest.mark.parametrize(
    "lists", [{"citations": "x"}, {"search_results": 5}, {"citations": [5]}, {"search_results": [5]}]
)
def test_lists_of_another_form_are_counted(lists: dict[str, Any]) -> None:
    assert len(skipped({**choice({"content": "x"}), **lists})) == 1


# --- media -----------------------------------------------------------------------------------------------------------


def test_pictures_are_told_once_each() -> None:
    inline = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}, "index": 0}
    found = {"image_url": "https://a.example/1.png", "origin_url": "https://a.example"}
    assert events(
        decode(
            choice({"content": "", "images": [inline]}),
            choice({"images": [inline]}),
            {**choice({}, "stop"), "images": [found, found]},
        )
    ) == [
        MediaPart(kind="image", mime="image/png", data="aGk="),
        MediaPart(kind="image", url="https://a.example/1.png"),
    ]


def test_a_picture_among_the_parts_of_the_content_is_told() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "https://a.example/1.png"}}]
    assert [type(delta) for delta in decode(choice({"content": parts}))] == [TextDelta, EventDelta]


@pytest.mark.parametrize("image", [5, {}, {"image_url": {"url": "data:nothing"}}, {"image_url": ""}])
def test_pictures_of_another_form_are_counted(image: object) -> None:
    (event,) = skipped(choice({"images": [image]}))
    assert (event.type, event.payload) == ("images", image)
    assert len(skipped(choice({"images": image}))) == 1


def test_sound_comes_in_pieces_and_whole_at_the_end() -> None:
    pieces = [base64.b64encode(data).decode() for data in (b"a", b"bcde", b"fg")]
    deltas = decode(
        choice({"role": "assistant", "audio": {"id": "au", "transcript": "Hel"}}),
        choice({"audio": {"data": pieces[0]}}),
        choice({"audio": {"data": pieces[1], "transcript": "lo"}}),
        choice({"audio": {"data": pieces[2]}}),
        choice({"audio": {"expires_at": 5}}),
        choice({}, "stop"),
    )
    assert events(deltas) == [
        MediaPart(kind="audio", id="au", transcript="Hel", is_partial=True),
        MediaPart(kind="audio", id="au", data=pieces[0], is_partial=True),
        MediaPart(kind="audio", id="au", data=pieces[1], transcript="lo", is_partial=True),
        MediaPart(kind="audio", id="au", data=pieces[2], is_partial=True),
        MediaPart(kind="audio", id="au", data=base64.b64encode(b"abcdefg").decode(), transcript="Hello"),
    ]
    assert isinstance(deltas[-1], FinishDelta)


def test_sound_is_whole_at_the_end_marker_without_a_finish_and_never_if_it_is_cut_short() -> None:
    told = events(decode(choice({"audio": {"id": "au", "data": "YQ=="}}), end=DONE))
    assert [part.is_partial for part in told if isinstance(part, MediaPart)] == [True, False]
    short = events(decode(choice({"audio": {"id": "au", "data": "YQ=="}})))
    assert [part.is_partial for part in short if isinstance(part, MediaPart)] == [True]


def test_sound_that_comes_after_the_finish_is_whole_when_the_body_ends() -> None:
    told = events(decode(choice({"content": "a"}, "stop"), choice({"audio": {"data": "YQ=="}})))
    assert [part.is_partial for part in told if isinstance(part, MediaPart)] == [True, False]


def test_base64_that_was_cut_within_a_group_is_joined_as_text() -> None:
    told = events(decode(choice({"audio": {"data": "YWJ"}}), choice({"audio": {"data": "j"}}), end=DONE))
    assert told[-1] == MediaPart(kind="audio", data="YWJj")


@pytest.mark.parametrize("audio", [5, "x", {"data": "ü"}])
def test_sound_of_another_form_is_counted(audio: object) -> None:
    assert [event.payload for event in skipped(choice({"audio": audio}))] == [audio]


# --- Groq's tools ----------------------------------------------------------------------------------------------------


def test_executed_tools_are_a_call_and_a_result() -> None:
    begun = {"index": 0, "type": "search", "arguments": '{"query": "x"}'}
    results = {"results": [{"url": "https://a.example"}]}
    assert events(
        decode(
            choice({"executed_tools": [begun]}),
            choice({"executed_tools": [{**begun, "output": "found", "search_results": results}]}),
            choice({"executed_tools": [{"index": 1, "type": "python", "arguments": "print(", "output": "1"}]}),
            choice({"content": "x"}, "stop"),
        )
    ) == [
        ServerToolCall(id="server_0", name="search", input={"query": "x"}),
        ServerToolResult(id="server_0", name="search", output={"output": "found", "search_results": results}),
        ServerToolCall(id="server_1", name="python", input="print("),
        ServerToolResult(id="server_1", name="python", output="1"),
    ]


@pytest.mark.parametrize("tools", [5, [5], [{"arguments": "{}"}]])
def test_executed_tools_of_another_form_are_counted(tools: object) -> None:
    assert len(skipped(choice({"executed_tools": tools}))) == 1


# --- probabilities ---------------------------------------------------------------------------------------------------


def test_probabilities_come_directly_after_their_text() -> None:
    content = [{"token": "He", "logprob": -0.5, "bytes": [72], "top_logprobs": [{"token": "Ho", "logprob": -1}]}]
    refusal = [{"token": "no", "logprob": 0, "top_logprobs": None}]
    assert decode(
        choice({"content": "Hi"}),
        choice({"content": "He"}, logprobs={"content": content, "refusal": None}),
        choice({"refusal": "no"}, "stop", logprobs={"content": [], "refusal": refusal}),
    )[1:4:2] == [TextDelta("He"), *decode(choice({"refusal": "no"}))]
    assert events(
        decode(
            choice({"content": "He"}, logprobs={"content": content, "refusal": None}),
            choice({"refusal": "no"}, "stop", logprobs={"content": [], "refusal": refusal}),
        )
    ) == [
        Logprobs(tokens=(TokenLogprob(token="He", logprob=-0.5, top=(("Ho", -1.0),)),)),
        Logprobs(tokens=(TokenLogprob(token="no", logprob=0.0),)),
    ]


@pytest.mark.parametrize(
    "logprobs",
    [-0.5, "x", {"content": 5}, {"content": [5]}, {"content": [{"token": "a"}]}, {"content": [{"logprob": -1}]}],
)
def test_malformed_probabilities_are_counted_and_the_text_is_told(logprobs: object) -> None:
    (event,) = skipped(choice({"content": "x"}, logprobs=logprobs))
    assert event.type == "logprobs"
    assert ChatDecoder(1_000).feed(sse(choice({"content": "x"}, logprobs=logprobs))) == [TextDelta("x")]


# --- calls -----------------------------------------------------------------------------------------------------------


def test_fragments_of_a_custom_call_tell_its_type() -> None:
    assert decode(
        choice({"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": ""}}]}),
        choice({"tool_calls": [{"index": 0, "custom": {"input": "SELECT"}}]}),
    ) == [
        ToolCallFragment(0, "c", "sql", type="custom"),
        ToolCallFragment(0, arguments="SELECT", type="custom"),
    ]


@pytest.mark.parametrize("missing", ["", "null", "None", None])
def test_names_and_ids_that_say_null_are_missing(missing: object) -> None:
    call = {"index": 0, "id": missing, "function": {"name": missing, "arguments": "{"}}
    assert decode(choice({"tool_calls": [call]})) == [ToolCallFragment(0, None, None, "{")]


def test_only_calls_that_cannot_be_read_are_counted() -> None:
    empty = [{"index": 0}, {"index": 0, "function": {"arguments": ""}}, {"index": 0, "type": "custom"}]
    assert decode(choice({"tool_calls": empty})) == []
    told = skipped(choice({"tool_calls": ["junk", {"type": "new", "new": {}}]}))
    assert [event.payload for event in told] == ["junk", {"type": "new", "new": {}}]


# --- the answer as a whole -------------------------------------------------------------------------------------------


def test_what_each_chunk_repeats_is_told_once() -> None:
    whole = {"id": "r1", "model": "m", "system_fingerprint": "fp", "service_tier": "default", "provider": "P"}
    told = {
        "response_id": "r1",
        "system_fingerprint": "fp",
        "service_tier": "default",
        "upstream_provider": "P",
    }
    deltas = decode(
        {**choice({"content": "a"}), **whole},
        {**choice({"content": "b"}), **whole},
        {**choice({}, "stop"), **whole, "id": "r2"},
    )
    assert metadata(deltas) == [told]


def test_what_the_end_says_is_metadata() -> None:
    deltas = decode(
        choice({"content": "a"}, "stop", native_finish_reason="end_turn", stop_reason="###"),
        {
            "choices": [],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.25},
            "timings": {"prompt_ms": 2},
        },
    )
    assert metadata(deltas) == [
        {"native_finish_reason": "end_turn", "stop_sequence": "###"},
        {"timings": {"prompt_ms": 2}, "cost": 0.25},
    ]


def test_groqs_durations_and_xais_ticks_are_metadata() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "queue_time": 0.5, "total_time": 2}
    deltas = decode({**choice({}, "stop"), "x_groq": {"usage": usage}})
    assert metadata(deltas) == [{"timings": {"queue_time": 0.5, "total_time": 2}}]
    ticks = {"prompt_tokens": 1, "cost_in_usd_ticks": 158500}
    assert metadata(decode({"choices": [], "usage": ticks})) == [{"cost": {"cost_in_usd_ticks": 158500}}]


@pytest.mark.parametrize("stop", [None, "", [], {"a": 1}])
def test_a_stop_reason_of_another_form_is_left_out(stop: object) -> None:
    assert metadata(decode(choice({}, "stop", stop_reason=stop))) == []


def test_metadata_is_bounded() -> None:
    decoder = ChatDecoder(1_000_000)
    body = sse({**choice({"content": "a"}), "id": "x" * 4_097, "prompt_filter_results": ["y" * 16_384]})
    assert decoder.feed(body) == [TextDelta("a")]
    assert decoder.skipped == 2


@pytest.mark.parametrize("value", [5, None, "", [], {"a": 1}, True])
def test_ids_and_names_that_are_no_text_are_left_out(value: object) -> None:
    chunk = {**choice({"content": "a"}), "id": value, "service_tier": value, "provider": value}
    assert metadata(decode(chunk)) == []


@pytest.mark.parametrize(
    ("value", "skipped"),
    [("NaN", 3), ("-Infinity", 3), ("1e999", 3), ("123456789012345678901234567890", 2), (nested(16_000), 1)],
)
def test_values_that_json_cannot_carry_do_not_break_the_answer(value: str, skipped: int) -> None:
    extras = f'"citations":[{value}],"timings":{{"a":{value}}},"usage":{{"prompt_tokens":1,"cost":{value}}}'
    tools = f'"executed_tools":[{{"type":"t","output":{value}}}]'
    delta = f'"content":"a","annotations":[{value}],"audio":{{"id":{value}}},{tools}'
    end = f'"finish_reason":"stop","logprobs":{{"content":[{{"token":"a","logprob":{value}}}]}},"stop_reason":{value}'
    decoder = ChatDecoder(1_000_000, raw="unknown")
    body = f'data: {{"choices":[{{"delta":{{{delta}}},{end}}}],{extras}}}\n\n'.encode()
    told = decoder.feed(body)
    assert decoder.skipped == skipped
    for event in events(told):
        msgspec.json.encode(event)


def test_metadata_has_no_lone_surrogates() -> None:
    assert metadata(decode({**choice({"content": "a"}), "id": "\ud800"})) == [{"response_id": "\ufffd"}]


# --- several choices, raw --------------------------------------------------------------------------------------------


def test_extras_of_the_other_choices_are_no_events() -> None:
    page = {"type": "url_citation", "url_citation": {"url": "https://a.example"}}
    details = [{"type": "reasoning.text", "text": "t", "signature": "s"}]
    delta = {"content": "x", "annotations": [page], "audio": {"data": "YQ=="}, "reasoning_details": details}
    other = {"index": 1, "delta": delta, "logprobs": {"content": [{"token": "x", "logprob": -1}]}}
    assert decode({"choices": [other]}) == [ChoiceDelta(1, ReasoningDelta("t")), ChoiceDelta(1, TextDelta("x"))]


def test_unknown_parts_of_the_other_choices_are_told_raw() -> None:
    (event,) = skipped({"choices": [{"index": 1, "delta": {"content": [{"type": "reference", "ids": [1]}]}}]})
    assert (event.type, event.payload) == ("content.reference", {"type": "reference", "ids": [1]})


def test_what_is_not_understood_is_told_before_the_finish() -> None:
    deltas = ChatDecoder(1_000, raw="unknown").feed(sse(choice({"content": "x"}, "stop", logprobs=-0.5)))
    assert [type(delta) for delta in deltas] == [TextDelta, EventDelta, FinishDelta]


def test_chunks_that_are_not_understood_are_told_raw() -> None:
    told = skipped({"object": "x.y", "a": 1}, {"type": "z"}, [1], [], [{"a": 1}], {"choices": [5]})
    assert [(event.type, event.payload) for event in told] == [
        ("x.y", {"object": "x.y", "a": 1}),
        ("z", {"type": "z"}),
        ("", [1]),
        ("", []),
        ("", [{"a": 1}]),
        ("choice", 5),
    ]


def test_extras_change_neither_usage_nor_finish() -> None:
    deltas = decode(
        choice({"content": "a"}),
        {**choice({"images": [{"image_url": "https://a.example"}]}, "length"), "usage": {"prompt_tokens": 3}},
    )
    assert [type(delta) for delta in deltas] == [TextDelta, EventDelta, FinishDelta, UsageDelta]
