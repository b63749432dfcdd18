"""Anthropic's Messages API: requests made of chat messages, events, errors, rate limits, models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.config.options import RequestOptions
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ContextLengthExceeded,
    OptionError,
    ProtocolError,
    ProviderError,
    RateLimited,
)
from penstock.events import ReasoningBlock, Usage
from penstock.ports import (
    BlockDelta,
    CanListModels,
    ChatCall,
    Delta,
    ErrorDelta,
    FinishDelta,
    KeepAlive,
    MetadataDelta,
    Quota,
    ReasoningBlockDelta,
    ReasoningDelta,
    Secret,
    TellsQuota,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
)
from tests.unit.adapters.providers.common import nested, telling_depths

KEY = Secret("sk-ant-123")
PROVIDER = AnthropicMessages(KEY)
HI = [{"role": "user", "content": "Hi"}]
PNG = "data:image/png;base64,iVBORw0KGgo="


def body(given: Any = HI, /, **parameters: object) -> Any:
    return json.loads(PROVIDER.request(ChatCall(model="m", input=given, parameters=parameters)).body)


def messages(*given: dict[str, Any]) -> Any:
    return body(list(given))["messages"]


# --- requests ------------------------------------------------------------------------------------------------------


def test_a_request_streams_says_the_version_and_keeps_the_key_out_of_sight() -> None:
    request = PROVIDER.request(ChatCall(model="m", input=HI))
    assert request.url == "https://api.anthropic.com/v1/messages"
    assert json.loads(request.body) == {"model": "m", "messages": HI, "max_tokens": 4096, "stream": True}
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["Accept"] == "text/event-stream"
    assert {name: key.reveal() for name, key in request.secret_headers.items()} == {"x-api-key": "sk-ant-123"}
    assert "sk-ant" not in repr(request) + repr(request.headers) + repr(PROVIDER) + repr(vars(PROVIDER))
    assert repr(PROVIDER) == "AnthropicMessages(https://api.anthropic.com)"


@pytest.mark.parametrize("url", ["http://localhost:8080", "http://localhost:8080/", "http://localhost:8080/v1/"])
def test_a_base_url_may_end_in_the_version_already(url: str) -> None:
    request = AnthropicMessages(None, url).request(ChatCall(model="m", input=HI))
    assert request.url == "http://localhost:8080/v1/messages"
    assert request.secret_headers == {}


def test_anthropics_own_url_needs_a_key() -> None:
    with pytest.raises(OptionError, match="ANTHROPIC_API_KEY"):
        AnthropicMessages(None).request(ChatCall(model="m", input=HI))


def test_headers_may_say_another_version_and_betas_are_a_parameter() -> None:
    provider = AnthropicMessages(KEY, headers={"anthropic-version": "2030-01-01", "x-team": "a"})

    def headers(**parameters: object) -> Any:
        return provider.request(ChatCall(model="m", input=HI, parameters=parameters)).headers

    assert headers()["anthropic-version"] == "2030-01-01"
    assert headers()["x-team"] == "a"
    assert "anthropic-beta" not in headers()
    assert headers(anthropic_beta="a-1")["anthropic-beta"] == "a-1"
    assert headers(anthropic_beta=["a-1", "b-2"])["anthropic-beta"] == "a-1,b-2"
    assert "anthropic-beta" not in headers()
    assert "anthropic_beta" not in body(anthropic_beta="a-1")


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"stream": False}, "stream"),
        ({"model": "x"}, "model"),
        ({"messages": []}, "messages"),
        ({"o": object()}, "o"),
        ({"anthropic_beta": 5}, "anthropic_beta"),
        ({"output_config": 5, "response_format": {"type": "json_schema", "json_schema": {}}}, "output_config"),
        ({"anthropic_beta": "a\nb"}, "headers"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_name(parameters: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as refusal:
        body(**parameters)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("given", "field"),
    [(5, "messages"), (["Hi"], "messages[0]"), ([{"content": "secret"}], "messages[0].role"), (b"x", "messages")],
)
def test_messages_that_are_none_are_refused_without_being_shown(given: object, field: str) -> None:
    with pytest.raises(OptionError) as refusal:
        body(given)
    assert refusal.value.field == field
    assert "secret" not in str(refusal.value)


def test_text_alone_is_what_the_user_says() -> None:
    assert body("Hi")["messages"] == HI


def test_common_parameters_are_renamed_and_others_pass() -> None:
    assert body(max_tokens=5, temperature=0.5, top_p=0.9, top_k=3, metadata={"user_id": "u"}) == {
        "model": "m",
        "messages": HI,
        "stream": True,
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "metadata": {"user_id": "u"},
    }
    assert body(stop="END")["stop_sequences"] == ["END"]
    assert body(stop=["a", "b"])["stop_sequences"] == ["a", "b"]
    assert body(stop_sequences=["a"])["stop_sequences"] == ["a"]
    assert "stop" not in body(stop="END")


def test_max_tokens_has_a_default_that_leaves_room_beside_a_thinking_budget() -> None:
    assert body(max_tokens=None)["max_tokens"] == 4096
    assert body(thinking={"type": "enabled", "budget_tokens": 10_000})["max_tokens"] == 14_096
    assert body(thinking={"type": "enabled", "budget_tokens": 10_000}, max_tokens=11_000)["max_tokens"] == 11_000
    assert body(thinking={"type": "adaptive"})["max_tokens"] == 4096


def test_a_schema_is_asked_for_by_output_config() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    given = body(response_format=wanted, output_config={"effort": "low"})
    assert given["output_config"] == {"format": {"type": "json_schema", "schema": schema}, "effort": "low"}
    assert "response_format" not in given
    assert "response_format" not in body(response_format={"type": "text"})


def test_system_messages_wherever_they_stand_become_the_system_parameter() -> None:
    one = {"role": "system", "content": "A"}
    given = body([one, *HI])
    assert (given["system"], given["messages"]) == ("A", HI)

    cached = {"type": "text", "text": "C", "cache_control": {"type": "ephemeral"}}
    given = body([one, *HI, {"role": "developer", "content": ["B", cached]}], system="S")
    assert given["system"] == [
        {"type": "text", "text": "S"},
        {"type": "text", "text": "A"},
        {"type": "text", "text": "B"},
        cached,
    ]
    assert given["messages"] == HI
    assert body([{"role": "system", "content": [cached]}, *HI])["system"] == [cached]
    assert "system" not in body([{"role": "system", "content": ""}, *HI])


def test_parts_of_a_message_become_blocks() -> None:
    def blocks(*parts: object) -> Any:
        return messages({"role": "user", "content": list(parts)})[0]["content"]

    assert blocks({"type": "text", "text": "a"}, "b", {"type": "text", "text": ""}) == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    assert blocks({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}) == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    ]
    assert blocks({"type": "image_url", "image_url": "https://x/a.png", "cache_control": {"type": "ephemeral"}}) == [
        {
            "type": "image",
            "source": {"type": "url", "url": "https://x/a.png"},
            "cache_control": {"type": "ephemeral"},
        }
    ]
    assert blocks({"type": "image_url", "image_url": {"url": "data:application/pdf;base64,JVBE"}}) == [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}}
    ]
    assert blocks({"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg/%3E"}})[0]["source"] == {
        "type": "base64",
        "media_type": "image/svg+xml",
        "data": "PHN2Zy8+",
    }


def test_a_malformed_data_url_is_refused_without_being_shown() -> None:
    with pytest.raises(OptionError, match="image_url") as refusal:
        messages({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:secret"}}]})
    assert "secret" not in str(refusal.value)


def test_what_is_in_anthropics_own_form_passes_unchanged() -> None:
    content = [
        {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}, "citations": {"enabled": True}},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": ""}]},
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
    ]
    own = [{"role": "user", "content": content}]
    assert messages(*own) == own
    answer = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
    assert messages(*HI, answer) == [*HI, answer]
    tools = [{"name": "f", "input_schema": {}}, {"type": "web_search_20250305", "name": "web_search"}]
    assert body(tools=tools, tool_choice={"type": "any"}) == {**body(), "tools": tools, "tool_choice": {"type": "any"}}


def call(number: int, arguments: object = '{"x": 1}', **more: object) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": arguments}, **more}


def test_calls_become_tool_use_blocks_and_results_that_follow_one_another_one_message() -> None:
    assert messages(
        *HI,
        {"role": "assistant", "content": "Well", "tool_calls": [call(1), call(2, {"y": 2})]},
        {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}], "is_error": True},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": None, "tool_calls": [call(3, "")]},
        {"role": "tool", "tool_call_id": "c3", "content": ""},
    ) == [
        *HI,
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Well"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "c2", "name": "f", "input": {"y": 2}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "content": [{"type": "text", "text": "two"}],
                    "is_error": True,
                },
            ],
        },
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c3", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c3"}]},
    ]


def test_ids_of_another_providers_calls_become_such_as_the_api_takes() -> None:
    def turn(number: int) -> list[dict[str, Any]]:
        result = {"role": "tool", "tool_call_id": "f.x:0", "content": f"{number}"}
        return [{"role": "assistant", "tool_calls": [call(1) | {"id": "f.x:0"}]}, result]

    given = messages(*turn(1), *turn(2), *turn(3), {"role": "tool", "tool_call_id": "of:none", "content": ""})
    assert [message["content"][0]["id"] for message in given[::2]] == ["f_x_0", "f_x_0_2", "f_x_0_3"]
    results = [result for message in given[1::2] for result in message["content"]]
    assert [result["tool_use_id"] for result in results] == ["f_x_0", "f_x_0_2", "f_x_0_3", "of_none"]


@pytest.mark.parametrize("broken", ['{"x": ', "[1]", "null", None, 5])
def test_arguments_that_are_no_object_go_back_as_an_empty_one(broken: object) -> None:
    (answer,) = messages({"role": "assistant", "content": None, "tool_calls": [call(1, broken)]})
    assert answer["content"] == [{"type": "tool_use", "id": "c1", "name": "f", "input": {}}]


def test_calls_that_the_provider_ran_itself_are_not_given_back() -> None:
    (answer,) = messages({"role": "assistant", "content": "a", "tool_calls": [call(1, is_server=True)]})
    assert answer["content"] == "a"


def test_reasoning_is_given_back_first_and_unchanged_and_that_of_others_is_dropped() -> None:
    blocks = [
        {"kind": "thinking", "text": "hm", "signature": "s1", "id": None},
        ReasoningBlock(kind="redacted_thinking", signature="r1"),
        {"kind": "reasoning", "signature": "openai"},
        {"kind": "thought", "signature": "gemini"},
    ]
    message = {"role": "assistant", "content": "Well", "tool_calls": [call(1)], "reasoning_blocks": blocks}
    (answer,) = messages(message)
    assert answer == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s1"},
            {"type": "redacted_thinking", "data": "r1"},
            {"type": "text", "text": "Well"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
        ],
    }
    (answer,) = messages({"role": "assistant", "content": "a", "reasoning_blocks": blocks[2:]})
    assert answer == {"role": "assistant", "content": "a"}


def test_fields_of_openais_messages_that_the_api_would_refuse_are_dropped() -> None:
    assert messages({"role": "user", "content": "a", "name": "ann"}) == [{"role": "user", "content": "a"}]
    (answer,) = messages({"role": "assistant", "content": None, "refusal": "No.", "annotations": [], "audio": None})
    assert answer == {"role": "assistant", "content": [{"type": "text", "text": "No."}]}


def test_tools_and_the_choice_of_them_are_translated() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}}
    bare = {"type": "function", "function": {"name": "g"}, "cache_control": {"type": "ephemeral"}}
    assert body(tools=[tool, bare])["tools"] == [
        {"name": "f", "description": "d", "input_schema": schema, "strict": True},
        {
            "name": "g",
            "input_schema": {"type": "object", "properties": {}},
            "cache_control": {"type": "ephemeral"},
        },
    ]

    def choice(value: object, **more: object) -> object:
        return body(tools=[tool], tool_choice=value, **more)["tool_choice"]

    assert choice("auto") == {"type": "auto"}
    assert choice("none") == {"type": "none"}
    assert choice("required") == {"type": "any"}
    assert choice({"type": "function", "function": {"name": "f"}}) == {"type": "tool", "name": "f"}
    assert choice("required", parallel_tool_calls=False) == {"type": "any", "disable_parallel_tool_use": True}
    assert choice("none", parallel_tool_calls=False) == {"type": "none"}
    assert choice("auto", parallel_tool_calls=True) == {"type": "auto"}
    alone = body(tools=[tool], parallel_tool_calls=False)
    assert alone["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "parallel_tool_calls" not in alone
    assert "tool_choice" not in body(parallel_tool_calls=False)
    assert choice("some_new_word", parallel_tool_calls=False) == "some_new_word"


def test_nothing_that_is_given_is_changed() -> None:
    given = [{"role": "assistant", "content": [{"type": "input_text", "text": "a"}], "tool_calls": [call(1)]}]
    parameters = {"stop": "x", "tools": [{"type": "function", "function": {"name": "g"}}], "system": "s"}
    before = json.dumps([given, parameters])
    PROVIDER.request(ChatCall(model="m", input=given, parameters=parameters))
    assert json.dumps([given, parameters]) == before


# --- deltas --------------------------------------------------------------------------------------------------------


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def decode(*events: dict[str, Any]) -> list[Delta]:
    return MessagesDecoder(1_000_000).feed(sse(*events))


def start(index: int, **block: object) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: int, **delta: object) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def end(stop_reason: object = None, **usage: object) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage}


def head(**message: object) -> dict[str, Any]:
    return {"type": "message_start", "message": {"type": "message", "model": "claude", "content": [], **message}}


def test_text_comes_in_pieces_and_may_stand_in_the_start_already() -> None:
    assert decode(
        start(0, type="text", text="a"), piece(0, type="text_delta", text="b"), piece(0, type="text_delta", text="")
    ) == [TextDelta("a"), TextDelta("b")]


def test_reasoning_is_told_as_it_comes_and_with_its_signature_when_it_is_whole() -> None:
    assert decode(
        start(0, type="thinking", thinking="", signature=""),
        piece(0, type="thinking_delta", thinking="h"),
        piece(0, type="thinking_delta", thinking="m"),
        piece(0, type="signature_delta", signature="sig=="),
        stop(0),
        start(1, type="redacted_thinking", data="opaque"),
        stop(1),
    ) == [
        Thinking(),
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningBlockDelta(ReasoningBlock(kind="thinking", text="hm", signature="sig==")),
        BlockDelta({"type": "thinking", "thinking": "hm", "signature": "sig=="}),
        Thinking(),
        ReasoningBlockDelta(ReasoningBlock(kind="redacted_thinking", signature="opaque")),
        BlockDelta({"type": "redacted_thinking", "data": "opaque"}),
    ]


def test_reasoning_of_which_only_the_signature_is_shown_is_a_block_too() -> None:
    assert decode(
        start(0, type="thinking", thinking="", signature=""), piece(0, type="signature_delta", signature="s"), stop(0)
    ) == [
        Thinking(),
        ReasoningBlockDelta(ReasoningBlock(kind="thinking", signature="s")),
        BlockDelta({"type": "thinking", "thinking": "", "signature": "s"}),
    ]


def test_reasoning_without_a_signature_or_without_its_end_is_no_block() -> None:
    begun = [start(0, type="thinking", thinking="h"), piece(0, type="thinking_delta", thinking="m")]
    assert decode(*begun, stop(0)) == [Thinking(), ReasoningDelta("h"), ReasoningDelta("m")]
    cut = MessagesDecoder(1_000_000)
    cut.feed(sse(*begun, piece(0, type="signature_delta", signature="s")))
    assert cut.close() == []


def test_calls_are_told_by_their_blocks_index_and_who_runs_them() -> None:
    assert decode(
        start(1, type="tool_use", id="t1", name="f", input={}),
        piece(1, type="input_json_delta", partial_json=""),
        piece(1, type="input_json_delta", partial_json='{"x"'),
        piece(1, type="input_json_delta", partial_json=": 1}"),
        stop(1),
        start(2, type="server_tool_use", id="s1", name="web_search", input={}),
        start(3, type="mcp_tool_use", id="m1", name="echo", server_name="s", input={"a": "\u00e9"}),
    ) == [
        ToolCallFragment(1, "t1", "f", ""),
        ToolCallFragment(1, None, None, '{"x"'),
        ToolCallFragment(1, None, None, ": 1}"),
        ToolCallFragment(2, "s1", "web_search", "", is_server=True),
        ToolCallFragment(3, "m1", "echo", '{"a":"\u00e9"}', is_server=True),
    ]


def test_arguments_that_came_whole_are_not_added_to() -> None:
    decoder = MessagesDecoder(1_000_000)
    whole = start(0, type="tool_use", id="t", name="f", input={"x": 1})
    deltas = decoder.feed(sse(whole, piece(0, type="input_json_delta", partial_json='{"x":1}')))
    assert deltas == [ToolCallFragment(0, "t", "f", '{"x":1}')]
    assert decoder.skipped == 1


def test_a_whole_answer_may_stand_in_the_first_event() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
    ]
    told = [
        Thinking(),
        ReasoningDelta("hm"),
        ReasoningBlockDelta(ReasoningBlock(kind="thinking", text="hm", signature="s")),
        BlockDelta({"type": "thinking", "thinking": "hm", "signature": "s"}),
        TextDelta("a"),
        ToolCallFragment(2, "t", "f", '{"x":1}'),
        FinishDelta("tool_calls", "tool_use"),
        UsageDelta(Usage(output_tokens=1)),
    ]
    message = head(content=content, stop_reason="tool_use", usage={"output_tokens": 1})
    decoder = MessagesDecoder(1_000_000)
    assert decoder.feed(sse(message)) == told
    assert (decoder.finished, decoder.done) == (True, False)
    decoder = MessagesDecoder(1_000_000)  # the same from a server that does not stream
    assert decoder.feed(json.dumps(message["message"]).encode()) + decoder.close() == told
    assert (decoder.finished, decoder.done) == (True, True)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "refusal"),
        ("pause_turn", "other"),
        ("something_new", "other"),
    ],
)
def test_stop_reasons_are_told_in_our_word_and_in_theirs(raw: str, reason: str) -> None:
    decoder = MessagesDecoder(1_000_000)
    assert decoder.feed(sse(end(raw), end(raw))) == [FinishDelta(reason, raw)]  # type: ignore[arg-type]
    assert (decoder.finished, decoder.done) == (True, False)
    assert decoder.feed(sse({"type": "message_stop"}, piece(0, type="text_delta", text="late"))) == []
    assert decoder.done
    assert decoder.feed(sse(end("refusal"))) == decoder.close() == []


def test_a_message_without_a_stop_reason_is_not_finished() -> None:
    decoder = MessagesDecoder(1_000_000)
    decoder.feed(sse(head(), end(None, output_tokens=1), {"type": "message_stop"}))
    assert (decoder.finished, decoder.done) == (False, True)


def test_usage_is_cumulative_and_each_count_that_comes_later_wins() -> None:
    usages = decode(
        head(usage={"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 1}),
        end(None, output_tokens=5),
        end(None, input_tokens=30, output_tokens=0, cache_read_input_tokens=None),
        end(None, output_tokens=7, output_tokens_details={"thinking_tokens": 3}),
        end(None),
    )
    assert usages[:4] == [
        UsageDelta(Usage(input_tokens=10, output_tokens=1, cached_tokens=4)),
        UsageDelta(Usage(input_tokens=10, output_tokens=5, cached_tokens=4)),
        UsageDelta(Usage(input_tokens=30, output_tokens=0, cached_tokens=4)),
        UsageDelta(Usage(input_tokens=30, output_tokens=7, cached_tokens=4, reasoning_tokens=3)),
    ]
    assert decode(head(usage={})) == decode(head(usage=None)) == []
    assert decode(head(usage={"service_tier": "standard"})) == [MetadataDelta({"service_tier": "standard"})]


def test_the_models_name_is_that_of_the_message() -> None:
    decoder = MessagesDecoder(1_000_000)
    decoder.feed(sse(head(model="claude-x")))
    assert decoder.model == "claude-x"


def test_pings_and_comments_are_keep_alives() -> None:
    decoder = MessagesDecoder(1_000_000)
    assert decoder.feed(b'event: ping\ndata: {"type": "ping"}\n\n') == [KeepAlive()]
    assert decoder.feed(b"event: ping\ndata:\n\n") == [KeepAlive()]
    assert decoder.feed(b": keep-alive\n") == [KeepAlive()]


@pytest.mark.parametrize(
    "event",
    [
        start(0, type="web_search_tool_result", content=[]),
        start(0, type="hologram"),
        {"type": "content_block_start", "index": 0},
        piece(0, type="citations_delta", citation={"type": "new_location"}),
        piece(0, type="citations_delta", citation="x"),
        piece(0, type="compaction_delta", content="c"),
        piece(0, type="signature_delta", signature="of no block"),
        piece(7, type="input_json_delta", partial_json="{"),
        {"type": "content_block_delta", "index": 0, "delta": None},
        {"type": "something_new"},
        {"type": "message_start", "message": 5},
        {"type": 5},
        {},
    ],
)
def test_what_is_not_told_is_counted_and_breaks_nothing(event: dict[str, Any]) -> None:
    decoder = MessagesDecoder(1_000_000)
    assert decoder.feed(sse(event, piece(0, type="text_delta", text="x"))) == [TextDelta("x")]
    assert (decoder.skipped, decoder.done) == (1, False)


@pytest.mark.parametrize("data", ["no json", "[1]", "12", '{"type": "content_block_start", "content_block": ' * 5])
def test_data_that_is_no_event_is_counted(data: str) -> None:
    decoder = MessagesDecoder(1_000_000)
    assert decoder.feed(f"data: {data}\n\n".encode() + sse(piece(0, type="text_delta", text="x"))) == [TextDelta("x")]
    assert decoder.skipped == 1


def test_input_of_any_depth_breaks_nothing() -> None:
    decoder = MessagesDecoder(10_000_000)
    skipped = []
    for depth in telling_depths():
        block = f'{{"type":"tool_use","id":"t","name":"f","input":{nested(depth)}}}'
        event = f'data: {{"type":"content_block_start","index":0,"content_block":{block}}}\n\n'
        before = decoder.skipped
        told = decoder.feed(event.encode())
        skipped.append(decoder.skipped - before)
        assert len(told) + skipped[-1] == 1, depth
    assert (skipped[0], skipped[-1]) == (0, 1)


def test_events_without_a_type_go_by_the_name_of_the_event() -> None:
    decoder = MessagesDecoder(1_000_000)
    nameless = b'event: content_block_delta\ndata: {"index": 0, "delta": {"type": "text_delta", "text": "x"}}\n\n'
    assert decoder.feed(nameless + b"event: message_stop\ndata: {}\n\n") == [TextDelta("x")]
    assert decoder.done


def test_odd_fields_are_read_the_lenient_way() -> None:
    assert decode(
        piece(0, type="thinking_delta", thinking="h", text=5),
        {**piece(0, type="text_delta", text="x"), "index": None},
        {**start(0, type="tool_use", id="t", name="f"), "index": 2.0},
        {**piece(0, type="input_json_delta", partial_json="{}"), "index": 2.0},
    ) == [ReasoningDelta("h"), TextDelta("x"), ToolCallFragment(2, "t", "f"), ToolCallFragment(2, arguments="{}")]


def test_a_character_cut_in_two_between_events_is_one_character() -> None:
    def half(text: str) -> bytes:
        return (
            b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'
            + text.encode()
            + b'"}}\n\n'
        )

    decoder = MessagesDecoder(1_000_000)
    assert decoder.feed(half("a\\ud83c")) == [TextDelta("a")]
    assert decoder.feed(half("\\udf0a!")) == [TextDelta("\U0001f30a!")]
    decoder = MessagesDecoder(1_000_000)
    decoder.feed(half("\\ud83c"))
    assert decoder.close() == [TextDelta("\ufffd")]


def test_an_end_without_its_blank_line_counts_and_a_cut_one_does_not() -> None:
    decoder = MessagesDecoder(1_000_000)
    decoder.feed(sse(end("end_turn")) + b'event: message_stop\ndata: {"type":"message_stop"}')
    assert (decoder.close(), decoder.done) == ([], True)
    decoder = MessagesDecoder(1_000_000)
    decoder.feed(sse(end("end_turn"))[:-5])
    assert (decoder.close(), decoder.finished, decoder.done) == ([], False, False)


def test_the_end_marker_of_openais_dialect_ends_it_too() -> None:
    decoder = MessagesDecoder(1_000_000)
    assert decoder.feed(b"data: [DONE]\n\n") == []
    assert decoder.done


def test_an_event_over_the_limit_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        PROVIDER.decoder(RequestOptions(max_event_bytes=1_024)).feed(sse(piece(0, type="text_delta", text="x" * 2_000)))


# --- errors --------------------------------------------------------------------------------------------------------


def frame(type: str, message: str = "m") -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message, "details": None}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("type", "error", "retryable"),
    [
        ("overloaded_error", ApiError, True),
        ("api_error", ApiError, True),
        ("timeout_error", ApiError, True),
        ("rate_limit_error", RateLimited, True),
        ("authentication_error", AuthenticationError, False),
        ("permission_error", AuthenticationError, False),
        ("invalid_request_error", BadRequestError, False),
        ("not_found_error", BadRequestError, False),
        ("billing_error", ApiError, False),
        ("something_new", ApiError, False),
    ],
)
def test_an_error_inside_the_stream_is_typed(type: str, error: type[ProviderError], retryable: bool) -> None:
    decoder = MessagesDecoder(1_000_000)
    (delta,) = decoder.feed(sse(frame(type)))
    assert isinstance(delta, ErrorDelta)
    assert isinstance(delta.error, ApiError)
    assert (delta.error.__class__, delta.error.retryable) == (error, retryable)
    assert (delta.error.code, delta.error.message, delta.error.status) == (type, "m", 200)
    assert (decoder.finished, decoder.done) == (False, False)


def test_a_prompt_that_is_too_long_is_told_apart() -> None:
    (delta,) = decode(frame("invalid_request_error", "prompt is too long: 300000 tokens > 200000 maximum"))
    assert isinstance(delta, ErrorDelta)
    assert isinstance(delta.error, ContextLengthExceeded)


def test_errors_in_other_shapes_are_errors_too() -> None:
    decoder = MessagesDecoder(1_000_000)
    (first,) = decoder.feed(b'data: {"error": {"message": "of a proxy"}}\n\n')
    (second,) = decoder.feed(b"event: error\ndata: upstream is gone\n\n")
    assert [getattr(each, "error", None) and str(each.error) for each in (first, second)] == [  # type: ignore[union-attr]
        "HTTP 200: of a proxy",
        "HTTP 200: upstream is gone",
    ]


@pytest.mark.parametrize(
    ("status", "type", "error", "retryable"),
    [
        (400, "invalid_request_error", BadRequestError, False),
        (401, "authentication_error", AuthenticationError, False),
        (403, "permission_error", AuthenticationError, False),
        (404, "not_found_error", BadRequestError, False),
        (413, "request_too_large", BadRequestError, False),
        (429, "rate_limit_error", RateLimited, True),
        (500, "api_error", ApiError, True),
        (504, "timeout_error", ApiError, True),
        (529, "overloaded_error", ApiError, True),
    ],
)
def test_an_http_error_is_typed(status: int, type: str, error: type[ProviderError], retryable: bool) -> None:
    told = PROVIDER.error(status, {}, json.dumps(frame(type)).encode())
    assert (told.__class__, told.retryable) == (error, retryable)
    assert isinstance(told, ApiError)
    assert (told.status, told.code, told.retry_after) == (status, type, None)


DATE = {"date": "Sat, 21 Nov 2026 03:00:00 GMT"}


def limits(**told: str) -> dict[str, str]:
    return DATE | {f"anthropic-ratelimit-{name.replace('_', '-')}": value for name, value in told.items()}


def test_a_rate_limit_waits_as_told_or_until_the_spent_limit_is_there_again() -> None:
    def wait(status: int, /, **headers: str) -> float | None:
        error = PROVIDER.error(status, limits(**headers), b"{}")
        assert isinstance(error, ApiError)
        return error.retry_after

    spent = {"input_tokens_remaining": "0", "input_tokens_reset": "2026-11-21T03:00:20Z"}
    left = {"requests_remaining": "5", "requests_reset": "2026-11-21T03:10:00Z"}
    assert wait(429, **spent, **left) == 20
    assert wait(429, **spent, output_tokens_remaining="0", output_tokens_reset="2026-11-21T05:00:30+02:00") == 30
    assert wait(429, **left) is None
    assert wait(529, **spent) is None
    assert PROVIDER.error(429, limits(**spent) | {"retry-after": "7"}, b"{}").retry_after == 7  # type: ignore[attr-defined]


def test_a_quota_is_read_with_seconds_until_its_reset() -> None:
    assert isinstance(PROVIDER, TellsQuota)
    headers = limits(
        requests_remaining="49",
        requests_reset="2026-11-21T03:00:01Z",
        tokens_remaining="900",
        tokens_reset="2026-11-21T02:59:00Z",
        input_tokens_remaining="1",
    )
    assert PROVIDER.quota(headers) == Quota(requests_left=49, requests_reset_s=1, tokens_left=900, tokens_reset_s=0)
    headers = limits(
        input_tokens_remaining="900",
        output_tokens_remaining="80",
        output_tokens_reset="2026-11-21T03:01:00.5Z",
    )
    assert PROVIDER.quota(headers) == Quota(tokens_left=80, tokens_reset_s=60.5)
    assert PROVIDER.quota(limits(requests_remaining="soon", requests_reset="later")) is None
    assert PROVIDER.quota({}) is None


# --- models --------------------------------------------------------------------------------------------------------


def test_models_are_listed_page_by_page() -> None:
    assert isinstance(PROVIDER, CanListModels)
    request = PROVIDER.models_request()
    assert (request.method, request.url) == ("GET", "https://api.anthropic.com/v1/models?limit=1000")
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert set(request.secret_headers) == {"x-api-key"}
    page = {"data": [{"id": "a"}, {"id": "b"}, {"id": None}], "has_more": True, "first_id": "a", "last_id": "b&c"}
    assert PROVIDER.models(json.dumps(page).encode()) == (["a", "b"], "b&c")
    assert PROVIDER.models_request("b&c").url.endswith("/v1/models?limit=1000&after_id=b%26c")
    assert PROVIDER.models(json.dumps({**page, "has_more": False}).encode()) == (["a", "b"], None)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"data": 5}', b'{"data": [5]}', b"\xff"])
def test_what_is_no_list_of_models_is_a_protocol_error(answer: bytes) -> None:
    with pytest.raises(ProtocolError, match="models"):
        PROVIDER.models(answer)
