"""Ollama's own API: requests made of chat messages, lines, errors, models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.actors.call.toolcalls import ToolCallAccumulator
from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.ollama.provider import OllamaChat
from penstock.config.options import RequestOptions
from penstock.errors import ApiError, BadRequestError, OptionError, ProtocolError
from penstock.events import Usage
from penstock.ports import (
    CanListModels,
    ChatCall,
    Delta,
    ErrorDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningDelta,
    Secret,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)
from tests.unit.adapters.providers.common import nested, telling_depths

PROVIDER = OllamaChat()
HI = [{"role": "user", "content": "Hi"}]
PNG = "data:image/png;base64,iVBORw0KGgo="


def body(given: Any = HI, /, **parameters: object) -> Any:
    return json.loads(PROVIDER.request(ChatCall(model="m", input=given, parameters=parameters)).body)


def messages(*given: dict[str, Any]) -> Any:
    return body(list(given))["messages"]


# --- requests ------------------------------------------------------------------------------------------------------


def test_a_request_streams_and_needs_no_key() -> None:
    request = PROVIDER.request(ChatCall(model="m", input=HI))
    assert request.url == "http://localhost:11434/api/chat"
    assert json.loads(request.body) == {"model": "m", "messages": HI, "stream": True}
    assert request.headers["Accept"] == "application/x-ndjson"
    assert request.secret_headers == {}
    assert repr(PROVIDER) == "OllamaChat(http://localhost:11434)"


def test_a_key_is_sent_as_a_bearer_token_and_kept_out_of_sight() -> None:
    provider = OllamaChat(Secret("key-1"), "https://ollama.com/api/", headers={"x-team": "a"})
    request = provider.request(ChatCall(model="m", input=HI))
    assert request.url == "https://ollama.com/api/chat"
    assert request.headers["x-team"] == "a"
    assert request.secret_headers["Authorization"].reveal() == "Bearer key-1"
    assert "key-1" not in repr(request) + repr(provider) + repr(vars(provider))


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"stream": False}, "stream"),
        ({"model": "x"}, "model"),
        ({"messages": []}, "messages"),
        ({"o": object()}, "o"),
        ({"options": 5}, "options"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_name(parameters: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as refusal:
        body(**parameters)
    assert refusal.value.field == field


def test_the_models_parameters_go_into_options_and_others_into_the_body() -> None:
    assert body(max_tokens=5, temperature=0.5, top_p=0.9, seed=1, stop="END", keep_alive="5m", think=True) == {
        "model": "m",
        "messages": HI,
        "stream": True,
        "keep_alive": "5m",
        "think": True,
        "options": {"num_predict": 5, "temperature": 0.5, "top_p": 0.9, "seed": 1, "stop": ["END"]},
    }
    assert body(stop=["a", "b"], options={"num_ctx": 8_192})["options"] == {"stop": ["a", "b"], "num_ctx": 8_192}
    assert body(temperature=0.5, max_tokens=None, options={"temperature": 0})["options"] == {"temperature": 0}
    assert "options" not in body(max_tokens=None)


def test_the_answers_format_is_asked_for_by_format() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert body(response_format=wanted)["format"] == schema
    assert body(response_format={"type": "json_object"})["format"] == "json"
    assert body(response_format={"type": "text"}) == body()
    assert body(format="json")["format"] == "json"
    assert "response_format" not in body(response_format=wanted)


def test_tools_pass_and_to_choose_none_leaves_them_out() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert body(tools=tools)["tools"] == tools
    assert body(tools=tools, tool_choice="auto") == body(tools=tools)
    assert body(tools=tools, tool_choice="none") == body()


def test_content_is_text_and_images_stand_beside_it() -> None:
    parts = [
        {"type": "text", "text": "What "},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "text", "text": "is this?"},
    ]
    assert messages({"role": "user", "content": parts, "name": "ann"}) == [
        {"role": "user", "content": "What is this?", "images": ["iVBORw0KGgo="]}
    ]
    own = {"role": "user", "content": "a", "images": ["AAAA"]}
    assert messages(own) == [own]
    assert messages({**own, "content": parts})[0]["images"] == ["AAAA", "iVBORw0KGgo="]
    assert messages({"role": "user", "content": [{"type": ["odd"], "text": "a"}]})[0]["content"] == ""
    assert messages({"role": "developer", "content": "a"}) == [{"role": "system", "content": "a"}]
    assert body("Hi")["messages"] == HI


def test_an_image_that_would_have_to_be_fetched_is_refused() -> None:
    with pytest.raises(OptionError, match="image_url"):
        messages({"role": "user", "content": [{"type": "image_url", "image_url": "https://x/a.png"}]})


def test_calls_have_objects_as_arguments_and_results_name_their_function() -> None:
    def call(number: int, arguments: object) -> dict[str, Any]:
        return {"id": f"c{number}", "type": "function", "function": {"name": f"f{number}", "arguments": arguments}}

    assert messages(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call(1, '{"x": 1}'), call(2, '{"x": '), {"function": {"name": "g", "arguments": {"y": 2}}}],
            "reasoning_blocks": [{"kind": "thinking", "signature": "s"}],
        },
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}], "is_error": True},
        {"role": "tool", "content": "of g", "name": "g"},
        {"role": "tool", "content": "own", "tool_name": "h"},
    ) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "function": {"name": "f1", "arguments": {"x": 1}}},
                {"id": "c2", "function": {"name": "f2", "arguments": {}}},
                {"function": {"name": "g", "arguments": {"y": 2}}},
            ],
        },
        {"role": "tool", "content": "two", "tool_call_id": "c2", "tool_name": "f2"},
        {"role": "tool", "content": "of g", "tool_name": "g"},
        {"role": "tool", "content": "own", "tool_name": "h"},
    ]


def test_a_result_names_the_function_of_the_last_call_that_had_its_id() -> None:
    def turn(name: str) -> list[dict[str, Any]]:
        calls = [{"id": "call_0", "function": {"name": name, "arguments": "{}"}}]
        return [
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "call_0", "content": "r"},
        ]

    given = messages(*turn("f"), *turn("g"))
    assert [message["tool_name"] for message in given[1::2]] == ["f", "g"]


def test_nothing_that_is_given_is_changed() -> None:
    given = [{"role": "user", "content": [{"type": "text", "text": "a"}], "images": ["AAAA"], "name": "x"}]
    parameters = {"stop": "x", "options": {"num_ctx": 1}, "tool_choice": "none", "tools": []}
    before = json.dumps([given, parameters])
    PROVIDER.request(ChatCall(model="m", input=given, parameters=parameters))
    assert json.dumps([given, parameters]) == before


# --- deltas --------------------------------------------------------------------------------------------------------


def line(content: object = "", *, done: object = False, **more: object) -> dict[str, Any]:
    """A line; ``thinking`` and ``tool_calls`` go into its message, all other fields beside it."""
    message = {"role": "assistant", "content": content}
    message |= {name: more.pop(name) for name in ("thinking", "tool_calls") if name in more}
    return {"model": "m-1", "message": message, "done": done, **more}


def ndjson(*lines: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def decode(*lines: object) -> list[Delta]:
    return OllamaDecoder(1_000_000).feed(ndjson(*lines))


def call(name: object = "f", arguments: object = None, **more: object) -> dict[str, Any]:
    return {**more, "function": {"index": 0, "name": name, "arguments": arguments}}


def test_text_and_reasoning_are_told_apart() -> None:
    assert decode(
        line("", thinking="hm"), line("a"), line(None), line("c", thinking="b"), line("d", thinking=None)
    ) == [
        ReasoningDelta("hm"),
        TextDelta("a"),
        ReasoningDelta("b"),
        TextDelta("c"),
        TextDelta("d"),
    ]


def test_calls_come_whole_and_are_never_taken_for_one() -> None:
    deltas = decode(
        line(tool_calls=[call("f", {"x": "\u00e9"}, id="c1"), call("f", {"x": 2})]),
        line("text", tool_calls=[call("g", {}), call("h", '{"y": 1}'), call("k")]),
    )
    assert deltas == [
        ToolCallFragment(0, "c1", "f", '{"x":"\u00e9"}'),
        ToolCallFragment(1, None, "f", '{"x":2}'),
        TextDelta("text"),
        ToolCallFragment(2, None, "g", "{}"),
        ToolCallFragment(3, None, "h", '{"y": 1}'),
        ToolCallFragment(4, None, "k", "{}"),
    ]
    calls = ToolCallAccumulator()
    for delta in deltas:
        if isinstance(delta, ToolCallFragment):
            calls.feed(delta)
    assert [(each.name, each.arguments) for each in calls.finish()] == [
        ("f", {"x": "\u00e9"}),
        ("f", {"x": 2}),
        ("g", {}),
        ("h", {"y": 1}),
        ("k", {}),
    ]


@pytest.mark.parametrize(
    ("raw", "reason"), [("stop", "stop"), ("length", "length"), ("load", "other"), ("unload", "other"), (None, "stop")]
)
def test_the_last_line_says_why_it_stopped_and_ends_everything(raw: str | None, reason: str) -> None:
    decoder = OllamaDecoder(1_000_000)
    last = line("z", done=True, done_reason=raw, prompt_eval_count=5, eval_count=0, total_duration=9)
    assert decoder.feed(ndjson(line("a"), last, line("late"))) == [
        TextDelta("a"),
        TextDelta("z"),
        MetadataDelta({"timings": {"total_duration": 9}}),
        FinishDelta(reason, raw or ""),  # type: ignore[arg-type]
        UsageDelta(Usage(input_tokens=5, output_tokens=0)),
    ]
    assert (decoder.finished, decoder.done, decoder.model, decoder.skipped) == (True, True, "m-1", 0)
    assert decoder.feed(ndjson(line("later"))) == decoder.close() == []


def test_stop_after_a_call_means_tool_calls_and_length_does_not() -> None:
    called = line(tool_calls=[call("f", {})])
    assert decode(called, line(done=True, done_reason="stop"))[-1] == FinishDelta("tool_calls", "stop")
    assert decode(called, line(done=True, done_reason="length"))[-1] == FinishDelta("length", "length")


def test_usage_that_is_not_told_is_none() -> None:
    assert decode(line(done=True, done_reason="stop", eval_count=3))[-1] == UsageDelta(Usage(output_tokens=3))
    assert decode({"done": True, "done_reason": "stop"}) == [FinishDelta("stop", "stop")]


def test_an_error_inside_the_stream_is_told_and_completes_nothing() -> None:
    decoder = OllamaDecoder(1_000_000)
    text, error = decoder.feed(ndjson(line("a"), {"error": "model runner has unexpectedly stopped"}))
    assert text == TextDelta("a")
    assert isinstance(error, ErrorDelta)
    assert isinstance(error.error, ApiError)
    assert (error.error.status, error.error.message) == (200, "model runner has unexpectedly stopped")
    assert (decoder.finished, decoder.done) == (False, False)


@pytest.mark.parametrize(
    "odd",
    [
        "no object",
        [1],
        {},
        {"message": 5},
        {"done": "yes"},
        line(tool_calls=["junk"]),
        line(tool_calls=[call(None, {})]),
        line(tool_calls=[{"function": None}]),
    ],
)
def test_what_is_not_understood_is_counted_and_breaks_nothing(odd: object) -> None:
    decoder = OllamaDecoder(1_000_000)
    assert decoder.feed(b"\n" + ndjson(odd, line("x"))) == [TextDelta("x")]
    assert (decoder.skipped, decoder.done) == (1, False)


def test_fields_of_other_types_are_read_the_lenient_way() -> None:
    assert decode({"model": 5, "message": {"content": "a"}}, line(5, thinking="b", tool_calls={})) == [
        TextDelta("a"),
        ReasoningDelta("b"),
    ]
    assert OllamaDecoder(1_000).feed(b"not json\n" + ndjson(line("x"))) == [TextDelta("x")]


def test_arguments_of_any_depth_break_nothing() -> None:
    decoder = OllamaDecoder(10_000_000)
    skipped = []
    for depth in telling_depths():
        call = f'{{"function":{{"name":"f","arguments":{nested(depth)}}}}}'
        before = decoder.skipped
        told = decoder.feed(f'{{"message":{{"tool_calls":[{call}]}}}}\n'.encode())
        skipped.append(decoder.skipped - before)
        assert len(told) + skipped[-1] == 1, depth
    assert (skipped[0], skipped[-1]) == (0, 1)


def test_a_character_cut_in_two_between_lines_is_one_character() -> None:
    decoder = OllamaDecoder(1_000_000)
    assert decoder.feed(b'{"message":{"content":"a\\ud83c"}}\n') == [TextDelta("a")]
    assert decoder.feed(b'{"message":{"content":"\\udf0a"}}\n') == [TextDelta("\U0001f30a")]
    assert decoder.feed(b'{"message":{"content":"\\ud83c"}}\n') == []
    assert decoder.close() == [TextDelta("\ufffd")]


def test_a_last_line_without_its_end_counts_and_a_cut_one_does_not() -> None:
    last = ndjson(line("a", done=True, done_reason="stop"))
    decoder = OllamaDecoder(1_000_000)
    assert decoder.feed(last[:-1]) == []
    assert (decoder.close(), decoder.done) == ([TextDelta("a"), FinishDelta("stop", "stop")], True)
    decoder = OllamaDecoder(1_000_000)
    decoder.feed(last[:-2])
    assert (decoder.close(), decoder.finished, decoder.done) == ([], False, False)


def test_a_line_over_the_limit_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        PROVIDER.decoder(RequestOptions(max_event_bytes=1_024)).feed(ndjson(line("x" * 2_000)))


# --- errors and models ---------------------------------------------------------------------------------------------


def test_an_http_error_is_typed() -> None:
    missing = PROVIDER.error(404, {}, b'{"error":"model \\"x\\" not found, try pulling it first"}')
    assert isinstance(missing, BadRequestError)
    assert missing.message == 'model "x" not found, try pulling it first'
    busy = PROVIDER.error(503, {}, b'{"error":"server busy, please try again.  maximum pending requests exceeded"}')
    assert busy.retryable


def test_models_are_listed_in_one_page() -> None:
    assert isinstance(PROVIDER, CanListModels)
    request = PROVIDER.models_request()
    assert (request.method, request.url) == ("GET", "http://localhost:11434/api/tags")
    tags = {"models": [{"name": "a:latest", "model": "a:latest"}, {"name": "b"}, {"size": 5}]}
    assert PROVIDER.models(json.dumps(tags).encode()) == (["a:latest", "b"], None)
    assert PROVIDER.models(b'{"models": null}') == ([], None)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"models": 5}', b'{"models": [5]}', b"\xff"])
def test_what_is_no_list_of_models_is_a_protocol_error(answer: bytes) -> None:
    with pytest.raises(ProtocolError, match="models"):
        PROVIDER.models(answer)
