"""OpenAI chat: requests, and the deviations of compatible servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.config.options import RequestOptions
from penstock.errors import ApiError, AuthenticationError, OptionError, ProtocolError, RateLimited
from penstock.events import ReasoningBlock, Usage
from penstock.ports import (
    BlockDelta,
    CanListModels,
    ChatCall,
    ChoiceDelta,
    Delta,
    ErrorDelta,
    FinishDelta,
    KeepAlive,
    MetadataDelta,
    Quota,
    ReasoningDelta,
    RefusalDelta,
    Secret,
    TellsQuota,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

KEY = Secret("sk-test-123")
CALL = ChatCall(model="m", input=[{"role": "user", "content": "Hi"}])


def sse(*payloads: object) -> bytes:
    return b"".join(b"data: " + (p if isinstance(p, bytes) else json.dumps(p).encode()) + b"\n\n" for p in payloads)


def choice(delta: object, finish: object = None, **more: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


def decode(*payloads: object) -> list[Delta]:
    return ChatDecoder(1_000_000).feed(sse(*payloads))


def error_of(payload: object) -> ApiError:
    (delta,) = decode(payload)
    assert isinstance(delta, ErrorDelta)
    assert isinstance(delta.error, ApiError)
    return delta.error


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_request_streams_asks_for_usage_and_keeps_the_key_out_of_sight() -> None:
    request = OpenAiChat(KEY, organization="org", project="proj").request(CALL)
    assert request.url == "https://api.openai.com/v1/chat/completions"
    assert json.loads(request.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request.headers["OpenAI-Organization"] == "org"
    assert request.headers["OpenAI-Project"] == "proj"
    assert request.secret_headers["Authorization"].reveal() == "Bearer sk-test-123"
    assert "sk-test" not in repr(request) + repr(request.headers) + repr(vars(OpenAiChat(KEY)))


def test_parameters_go_through_and_may_replace_or_remove_stream_options() -> None:
    def body(**parameters: object) -> Any:
        return json.loads(OpenAiChat(KEY).request(ChatCall(model="m", input=[], parameters=parameters)).body)

    assert body(temperature=0.5, tools=[{"a": 1}])["tools"] == [{"a": 1}]
    assert body(stream_options={"include_usage": False})["stream_options"] == {"include_usage": False}
    assert "stream_options" not in body(stream_options=None)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [({"stream": False}, "stream"), ({"model": "x"}, "model"), ({"messages": []}, "messages"), ({"o": object()}, "o")],
)
def test_a_parameter_that_cannot_be_is_refused_by_name(parameters: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as refusal:
        OpenAiChat(KEY).request(ChatCall(model="m", input=[], parameters=parameters))
    assert refusal.value.field == field


def messages(*given: object) -> Any:
    return json.loads(OpenAiChat(KEY).request(ChatCall(model="m", input=list(given))).body)["messages"]


def test_messages_pass_unchanged_but_for_what_is_other_providers() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    plain = [
        {"role": "developer", "content": "d", "name": "n"},
        {"role": "user", "content": [{"type": "text", "text": "t"}, image, {"type": "input_audio", "input_audio": {}}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    assert messages(*plain) == plain
    signed = {
        "role": "assistant",
        "content": "a",
        "reasoning_blocks": [ReasoningBlock(kind="thinking", signature="s"), {"kind": "thought"}],
        "tool_calls": [{**call, "signature": "s"}, call],
    }
    before = json.dumps({**signed, "reasoning_blocks": []})
    assert messages(signed) == [{"role": "assistant", "content": "a", "tool_calls": [call, call]}]
    assert json.dumps({**signed, "reasoning_blocks": []}) == before


def test_an_answer_that_ended_before_it_began_can_be_sent_again() -> None:
    empties: list[dict[str, Any]] = [{}, {"content": None}]
    for empty in (*empties, {"content": None, "tool_calls": []}, {"content": "", "tool_calls": ()}):
        assert messages({"role": "assistant", **empty}) == [{"role": "assistant", "content": ""}]
    refused = {"role": "assistant", "content": None, "refusal": "no"}
    assert messages(refused, {"role": "user", "content": None}) == [refused, {"role": "user", "content": None}]


def test_text_alone_is_what_the_user_says() -> None:
    request = OpenAiChat(KEY).request(ChatCall(model="m", input="Hi"))
    assert json.loads(request.body)["messages"] == [{"role": "user", "content": "Hi"}]


def test_what_is_no_message_is_sent_as_it_is() -> None:
    assert messages("x", 5) == ["x", 5]


def test_openais_own_url_needs_a_key_and_others_do_not() -> None:
    with pytest.raises(OptionError, match="OPENAI_API_KEY"):
        OpenAiChat(None).request(CALL)
    assert OpenAiChat(None, "http://localhost:8080/v1/").request(CALL).secret_headers == {}
    assert (
        OpenAiChat(None, "http://localhost:8080/v1/").request(CALL).url == "http://localhost:8080/v1/chat/completions"
    )


@pytest.mark.parametrize("key", ["sk-abc\n", "sk abc", "sk-äbc", "\tsk"])
def test_a_malformed_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(OptionError, match="api_key") as refusal:
        OpenAiChat(Secret(key))
    assert key.strip() not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/v1",
        "localhost:8080",
        "https://",
        "https://u:pw@x/v1",
        "https://x/v1?k=1",
        "https://x/#a",
        "http://x:y/",
    ],
)
def test_a_malformed_base_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(OptionError, match="base_url") as refusal:
        OpenAiChat(KEY, url)
    assert "pw" not in str(refusal.value)


# --- deltas ----------------------------------------------------------------------------------------------------------


def test_text_reasoning_and_refusal_are_told_apart() -> None:
    assert decode(
        choice({"role": "assistant", "content": ""}),
        choice({"reasoning_content": "r1"}),
        choice({"reasoning": "r2", "reasoning_content": "r2", "reasoning_details": [{"text": "r2"}]}),
        choice({"reasoning_details": [{"type": "reasoning.text", "text": "r3"}, {"summary": "r4"}, 5]}),
        choice({"content": "a"}),
        choice({"refusal": "no"}),
    ) == [
        ReasoningDelta("r1"),
        ReasoningDelta("r2"),
        ReasoningDelta("r3r4"),
        BlockDelta({"type": "reasoning.text", "text": "r3"}),
        TextDelta("a"),
        RefusalDelta("no"),
    ]


def test_content_as_a_list_of_parts_keeps_their_order() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts = [thinking, {"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [1]}, "b", 7]
    assert decode(choice({"content": parts})) == [ReasoningDelta("hm"), TextDelta("a"), TextDelta("b")]


@pytest.mark.parametrize(
    "payload",
    [
        {"choices": []},
        {"choices": None},
        {"choices": [{"index": 0, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": None}]},
        choice({"content": None, "tool_calls": None, "refusal": None}),
        choice({"content": "", "tool_calls": [], "function_call": {}}),
        choice({}, logprobs={"content": None, "refusal": None}),
        {"choices": [], "prompt_filter_results": []},
        {"usage": None},
    ],
)
def test_empty_and_missing_parts_tell_nothing_and_are_no_error(payload: object) -> None:
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(sse(payload, choice({"content": "x"}))) == [TextDelta("x")]
    assert decoder.skipped == 0


def test_what_is_not_understood_is_counted() -> None:
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(sse(b"no json", b"[1]", b"12", {"object": "x"}, {"choices": [5]})) == []
    assert decoder.skipped == 5


def test_logprobs_of_any_shape_do_not_matter() -> None:
    assert decode(choice({"content": "a"}, logprobs=-0.5), choice({"content": "b"}, logprobs={"x": []})) == [
        TextDelta("a"),
        TextDelta("b"),
    ]


def test_a_cumulative_message_beside_the_delta_is_ignored() -> None:
    assert decode(choice({"content": "b"}, message={"content": "ab"})) == [TextDelta("b")]


def of(index: object, delta: object, finish: object = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def test_every_choice_is_told_with_its_own_number() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    decoder = ChatDecoder(1_000_000)
    both = {"choices": [of(1, {"content": "b"})["choices"][0], of(0, {"content": "a"})["choices"][0]]}
    assert decoder.feed(
        sse(
            both,
            of(2, {"reasoning": "r"}),
            of(2, {"refusal": "no"}, "stop"),
            of(1, call, "stop"),
            of(0, {"content": "c"}),
        )
    ) == [
        ChoiceDelta(1, TextDelta("b")),
        TextDelta("a"),
        ChoiceDelta(2, ReasoningDelta("r")),
        ChoiceDelta(2, RefusalDelta("no")),
        ChoiceDelta(2, FinishDelta("stop", "stop")),
        ChoiceDelta(1, ToolCallFragment(0, "c", "f", "{}")),
        ChoiceDelta(1, FinishDelta("tool_calls", "stop")),
        TextDelta("c"),
    ]
    assert (decoder.skipped, decoder.finished) == (0, False)


def test_the_answers_finish_waits_for_the_choices_that_have_begun() -> None:
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(sse(of(1, {"content": "b"}), of(0, {}, "stop"))) == [ChoiceDelta(1, TextDelta("b"))]
    assert decoder.finished
    assert decoder.feed(sse(of(1, {"content": "c"}))) == [ChoiceDelta(1, TextDelta("c"))]
    assert decoder.feed(sse(of(1, {}, "length"), {"choices": [], "usage": {"total_tokens": 1}})) == [
        ChoiceDelta(1, FinishDelta("length", "length")),
        FinishDelta("stop", "stop"),
        UsageDelta(Usage(total_tokens=1)),
    ]
    assert decoder.close() == []


def test_a_choice_that_never_finishes_holds_nothing_back_beyond_the_end() -> None:
    begun = sse(of(1, {"content": "b"}), of(0, {}, "stop"))
    decoder = ChatDecoder(1_000_000)
    decoder.feed(begun)
    assert decoder.feed(sse(b"[DONE]")) == [FinishDelta("stop", "stop")]
    decoder = ChatDecoder(1_000_000)
    decoder.feed(begun)
    assert decoder.close() == [FinishDelta("stop", "stop")]
    decoder = ChatDecoder(1_000_000)
    decoder.feed(begun)
    finish, error = decoder.feed(sse({"error": {"message": "m"}}))
    assert finish == FinishDelta("stop", "stop")
    assert isinstance(error, ErrorDelta)


def test_halves_of_characters_of_different_choices_are_not_mixed() -> None:
    events = (of(1, {"content": "\ud83d"}), of(0, {"content": "\ud83d"}), of(1, {"content": "\ude00"}))
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(sse(*events)) == [ChoiceDelta(1, TextDelta("😀"))]
    assert decoder.feed(sse(of(1, {"content": "x\ud83d"}), of(0, {"content": "\ude00"}))) == [
        ChoiceDelta(1, TextDelta("x")),
        TextDelta("😀"),
    ]
    assert decoder.close() == [ChoiceDelta(1, TextDelta("\ufffd"))]


def test_whole_answers_of_several_choices_are_read() -> None:
    answer = {"choices": [{"index": n, "message": {"content": str(n)}, "finish_reason": "stop"} for n in (0, 1)]}
    assert decode(answer) == [
        TextDelta("0"),
        ChoiceDelta(1, TextDelta("1")),
        ChoiceDelta(1, FinishDelta("stop", "stop")),
        FinishDelta("stop", "stop"),
    ]


@pytest.mark.parametrize("index", ["one", -1, 1.5, [0], {"a": 1}])
def test_a_choice_of_no_number_is_counted(index: object) -> None:
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(sse(of(index, {"content": "no"}, "stop"))) == []
    assert (decoder.skipped, decoder.finished) == (1, False)


def test_the_models_name_is_the_first_that_is_not_empty() -> None:
    decoder = ChatDecoder(1_000_000)
    decoder.feed(sse({"choices": [], "model": ""}))
    assert decoder.model is None
    decoder.feed(sse({**choice({"content": "a"}), "model": "m-1"}, {**choice({"content": "a"}), "model": "m-2"}))
    assert decoder.model == "m-1"


def test_tool_call_fragments_tell_what_they_say() -> None:
    def fragments(*calls: object) -> list[Delta]:
        return decode(choice({"tool_calls": list(calls)}))

    assert fragments(
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a'}},
        {"id": "c2", "function": {"name": "g", "arguments": {"b": 1}}},
        {"index": None, "id": "", "function": {"name": None, "arguments": "x"}},
        {"index": 2.0, "type": "custom", "id": "c3", "custom": {"name": "h", "input": "free"}},
        {"index": 1, "id": "c4"},
        {"index": 3},
        "junk",
    ) == [
        ToolCallFragment(0, "c1", "f", ""),
        ToolCallFragment(0, None, None, '{"a'),
        ToolCallFragment(None, "c2", "g", '{"b":1}'),
        ToolCallFragment(None, None, None, "x"),
        ToolCallFragment(2, "c3", "h", "free", type="custom"),
        ToolCallFragment(1, "c4", None, ""),
    ]


def test_a_legacy_function_call_is_a_tool_call() -> None:
    assert decode(
        choice({"function_call": {"name": "f", "arguments": ""}}),
        choice({"function_call": {"arguments": "{}"}}),
        choice({}, "function_call"),
    ) == [
        ToolCallFragment(None, None, "f", ""),
        ToolCallFragment(None, None, None, "{}"),
        FinishDelta("tool_calls", "function_call"),
    ]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("tool_calls", "tool_calls"),
        ("content_filter", "content_filter"),
        ("something_new", "other"),
    ],
)
def test_finish_reasons_are_told_in_our_word_and_in_theirs(raw: str, reason: str) -> None:
    assert decode(choice({"content": "a"}, raw)) == [TextDelta("a"), FinishDelta(reason, raw)]  # type: ignore[arg-type]


def test_a_repeated_finish_reason_is_told_once_and_tool_calls_is_kept() -> None:
    assert decode(choice({}, "stop"), choice({}, "stop")) == [FinishDelta("stop", "stop")]
    assert decode(choice({}, "tool_calls"), choice({}, "stop")) == [FinishDelta("tool_calls", "tool_calls")]
    assert decode(choice({}, "stop"), choice({}, "length"))[-1] == FinishDelta("length", "length")


def test_stop_after_a_tool_call_means_tool_calls() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    assert decode(choice(call, "stop"))[-1] == FinishDelta("tool_calls", "stop")


def test_usage_is_read_wherever_it_stands_and_what_is_not_told_is_none() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 0,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    told = UsageDelta(Usage(input_tokens=5, output_tokens=0, cached_tokens=4, cache_write_tokens=1, reasoning_tokens=3))
    assert decode({"choices": [], "usage": usage}) == [told]
    assert decode({**choice({"content": "a"}), "usage": usage}) == [TextDelta("a"), told]
    assert decode({"choices": [], "x_groq": {"usage": usage}}) == [told]
    assert decode({"choices": [], "usage": usage, "x_groq": {"usage": {"total_tokens": 7}}}) == [told]
    for place in ({"usage": usage}, {"x_groq": {"usage": usage}}):
        assert decode(choice({"content": "a"}), {**choice({"content": "b"}), **place})[1:] == [TextDelta("b"), told]
    assert decode({"choices": [], "usage": {"total_tokens": 7, "prompt_tokens_details": None}}) == [
        UsageDelta(Usage(total_tokens=7))
    ]
    assert decode({"choices": [], "usage": {}}, {"choices": [], "usage": None}) == []


def test_the_end_marker_ends_everything() -> None:
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(sse(choice({"content": "a"}), b"[DONE]", choice({"content": "b"}))) == [TextDelta("a")]
    assert decoder.done
    assert decoder.feed(sse(choice({"content": "c"}))) == []
    assert decoder.close() == []


def test_an_end_marker_or_a_finish_without_its_blank_line_counts() -> None:
    decoder = ChatDecoder(1_000_000)
    decoder.feed(sse(choice({"content": "a"})) + b"data: [DONE]")
    assert not decoder.done
    assert decoder.close() == []
    assert decoder.done
    decoder = ChatDecoder(1_000_000)
    decoder.feed(sse(choice({"content": "a"}, "stop"))[:-2])
    assert decoder.close() == [TextDelta("a"), FinishDelta("stop", "stop")]


def test_comments_are_keep_alives() -> None:
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(b": OPENROUTER PROCESSING\n\n") == [KeepAlive()]
    assert decoder.feed(b": ping\n") == [KeepAlive()]
    assert decoder.feed(sse(choice({"content": "a"}))) == [TextDelta("a")]


def test_an_event_over_the_limit_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        ChatDecoder(1_000).feed(sse(choice({"content": "x" * 2_000})))


def test_lone_surrogates_are_shown_as_such_and_deep_nesting_is_counted_not_raised() -> None:
    decoder = ChatDecoder(1_000_000)
    decoder.feed(b'data: {"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}\n\n')
    assert decoder.feed(sse(b"[" * 100_000 + b"]" * 100_000)) == []
    assert decoder.feed(sse(choice({"content": "a"}))) == [TextDelta("\ufffda")]


# --- errors under HTTP 200 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "m", "code": "c"}},
        {"error": {"message": "m", "type": "c"}},
        {"error": "m", "code": "c"},
        {"object": "error", "message": "m", "code": "c"},
        {"message": "m", "code": "c"},
        {"detail": "m", "code": "c"},
        {"errors": [{"message": "m", "code": "c"}]},
        [{"error": {"message": "m", "code": "c"}}],
        {**choice({"content": ""}), "error": {"message": "m", "code": "c"}},
    ],
)
def test_error_frames_of_every_shape_are_told(payload: object) -> None:
    error = error_of(payload)
    assert (error.status, error.message, error.code) == (200, "m", "c")


def test_what_is_called_an_error_is_one_without_a_message_too() -> None:
    assert error_of({"object": "error", "code": "c"}).code == "c"
    (delta,) = ChatDecoder(1_000_000).feed(b"event: error\n" + sse({"code": "c"}))
    assert isinstance(delta, ErrorDelta)
    assert isinstance(delta.error, ApiError)
    assert delta.error.code == "c"


def test_a_message_beside_the_choices_is_no_error() -> None:
    assert decode({**choice({"content": "a"}), "message": "m", "detail": "d"}) == [TextDelta("a")]


@pytest.mark.parametrize(
    "body",
    [
        b'event: error\ndata: {"error":{"message":"m"}}\n\n',
        b'event: error\ndata: {"message":"m"}\n\n',
        b"event: error\ndata: m\n\n",
        b'error: {"error":{"message":"m"}}\n\n',
        b'{\n"error": {"message": "m"}\n}\n\n',
    ],
)
def test_error_events_error_fields_and_bare_bodies_are_told(body: bytes) -> None:
    (delta,) = ChatDecoder(1_000_000).feed(body)
    assert isinstance(delta, ErrorDelta)
    assert isinstance(delta.error, ApiError)
    assert delta.error.message == "m"


def test_usage_and_the_end_marker_after_an_error_still_count() -> None:
    decoder = ChatDecoder(1_000_000)
    deltas = decoder.feed(sse({"error": {"code": 429, "message": "m"}}, {"choices": [], "usage": {"total_tokens": 1}}))
    assert isinstance(deltas[0], ErrorDelta)
    assert isinstance(deltas[0].error, RateLimited)
    assert deltas[1] == UsageDelta(Usage(total_tokens=1))
    decoder.feed(sse(b"[DONE]"))
    assert decoder.done


def test_http_errors_are_mapped_by_the_provider() -> None:
    body = b'{"error":{"message":"Incorrect API key","type":"invalid_request_error","code":"invalid_api_key"}}'
    error = OpenAiChat(KEY).error(401, {}, body)
    assert isinstance(error, AuthenticationError)
    assert str(error) == "HTTP 401 invalid_api_key: Incorrect API key"
    assert OpenAiChat(KEY).decoder(RequestOptions()).skipped == 0


# --- servers that do not stream --------------------------------------------------------------------------------------


def test_a_whole_answer_instead_of_a_stream_is_read() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "Hi", "refusal": "no", "tool_calls": [call]}
    answer = {"object": "chat.completion", "model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(json.dumps(answer, indent=1).encode()) == []
    assert decoder.close() == [
        TextDelta("Hi"),
        RefusalDelta("no"),
        ToolCallFragment(None, "a", "f", "{}"),
        FinishDelta("tool_calls", "stop"),
    ]
    assert (decoder.finished, decoder.model) == (True, "m")


def test_a_whole_message_behind_its_own_pieces_is_not_told_twice() -> None:
    whole = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    assert decode(choice({"content": "Hi"}), whole) == [TextDelta("Hi"), FinishDelta("stop", "stop")]


def test_a_whole_message_after_pieces_in_chunks_of_their_own_is_not_told_twice() -> None:
    decoder = ChatDecoder(1_000_000)
    whole = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    begun, empty = choice({"role": "assistant", "content": ""}), choice({"content": ""})
    told = [decoder.feed(sse(event)) for event in (begun, choice({"content": "Hi"}), empty, whole)]
    assert told == [[], [TextDelta("Hi")], [], [FinishDelta("stop", "stop")]]


def test_a_character_cut_in_two_between_events_is_one_character() -> None:
    first, second = choice({"content": "a\ud83d"}), choice({"content": "\ude00b"})
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(sse(first)) == [TextDelta("a")]
    assert decoder.feed(sse(second)) == [TextDelta("😀b")]


def test_half_a_character_alone_is_shown_as_such() -> None:
    told = decode(
        choice({"content": "\ude00a\ud83d"}), choice({"content": "b"}), choice({"content": "c\ud83d"}, "stop")
    )
    assert "".join(each.text for each in told if isinstance(each, TextDelta)) == "\ufffda\ufffdbc\ufffd"
    assert isinstance(told[-1], FinishDelta)


def test_half_a_character_before_a_finish_in_a_chunk_of_its_own_is_shown_as_such() -> None:
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(sse(choice({"content": "a\ud83d"}))) == [TextDelta("a")]
    assert decoder.feed(sse(choice({}, "stop"))) == [TextDelta("\ufffd"), FinishDelta("stop", "stop")]


def test_half_a_character_in_a_name_or_an_error_can_be_written_as_json() -> None:
    call = {"id": "a\ud83d", "function": {"name": "f\ud83d", "arguments": "{}"}}
    assert decode(choice({"tool_calls": [call]})) == [ToolCallFragment(None, "a\ufffd", "f\ufffd", "{}")]
    error = error_of({"error": {"message": "m\ud83d", "code": "c\ud83d"}})
    assert (error.message, error.code) == ("m\ufffd", "c\ufffd")


# --- what servers deviate in, one by one: docs/providers/openai-compatible.md ----------------------------------------


def test_vllm_sends_the_end_marker_behind_an_error_and_more_fields() -> None:
    decoder = ChatDecoder(1_000_000)
    last = {**choice({"content": "a"}, "length", stop_reason=None, token_ids=[1]), "prompt_token_ids": None}
    assert decoder.feed(sse(choice({"reasoning": "r"}), last)) == [
        ReasoningDelta("r"),
        TextDelta("a"),
        FinishDelta("length", "length"),
    ]
    (error,) = decoder.feed(sse({"error": {"message": "m", "type": "BadRequestError", "code": 400}}, b"[DONE]"))
    assert isinstance(error, ErrorDelta)
    assert decoder.done


def test_llamacpps_first_null_timings_and_progress_tell_nothing() -> None:
    progress = {"prompt_progress": {"total": 9, "cache": 0, "processed": 3, "time_ms": 1}}
    decoder = ChatDecoder(1_000_000)
    body = b": \n\n" + sse(
        {**choice({"role": "assistant", "content": None}), **progress},
        {**choice({"reasoning_content": "r"}), "timings": {"predicted_ms": 1.5}},
        {**choice({}, "stop"), "timings": {}},
    )
    assert decoder.feed(body) == [KeepAlive(), ReasoningDelta("r"), FinishDelta("stop", "stop")]
    assert decoder.skipped == 0


def test_azures_filter_chunks_have_no_model_and_no_delta() -> None:
    filters = {"choices": [], "id": "", "model": "", "prompt_filter_results": [{"prompt_index": 0}]}
    offsets = {"content_filter_offsets": {"check_offset": 1}, "content_filter_results": {"hate": {"filtered": False}}}
    late = {"choices": [{"index": 0, "finish_reason": None, **offsets}], "id": "", "model": ""}
    decoder = ChatDecoder(1_000_000)
    told = decoder.feed(sse(filters, {**choice({"content": "a"}), "model": "m"}, late, choice({}, "content_filter")))
    assert told == [
        MetadataDelta({"moderation": {"prompt_filter_results": [{"prompt_index": 0}]}}),
        TextDelta("a"),
        FinishDelta("content_filter", "content_filter"),
    ]
    assert (decoder.model, decoder.skipped) == ("m", 0)


def test_openrouters_error_rides_on_a_chunk_with_a_choice() -> None:
    error = {"code": 502, "message": "m", "metadata": {"provider_name": "p"}}
    (told,) = decode({**choice({"content": ""}, "error"), "error": error})
    assert isinstance(told, ErrorDelta)
    assert isinstance(told.error, ApiError)
    assert told.error.retryable


def test_geminis_endpoint_sends_whole_calls_without_index_and_says_stop() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"id": "", "type": "function", "function": {"name": name, "arguments": "{}"}}

    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert decode({**choice({"tool_calls": [call("f"), call("g")]}, "stop"), "usage": usage}) == [
        ToolCallFragment(None, None, "f", "{}"),
        ToolCallFragment(None, None, "g", "{}"),
        FinishDelta("tool_calls", "stop"),
        UsageDelta(Usage(input_tokens=1, output_tokens=2, total_tokens=3)),
    ]


def test_a_stream_without_its_end_marker_is_finished_by_its_finish_reason() -> None:
    decoder = ChatDecoder(1_000_000)
    decoder.feed(sse(choice({"content": "a"}, "stop")))
    assert decoder.close() == []
    assert (decoder.finished, decoder.done) == (True, False)


@pytest.mark.parametrize(
    "url",
    [
        "https://r.openai.azure.com/openai/v1",
        "https://r.cognitiveservices.azure.com/openai/v1",
        "https://r.services.ai.azure.com/openai/v1/",
    ],
)
def test_azures_hosts_get_the_key_under_the_name_they_want(url: str) -> None:
    (name, value), *more = OpenAiChat(KEY, url).request(CALL).secret_headers.items()
    assert (name, value.reveal(), more) == ("api-key", "sk-test-123", [])
    elsewhere = OpenAiChat(KEY, "https://openai.azure.com.example/v1").request(CALL)
    assert list(elsewhere.secret_headers) == ["Authorization"]


def test_a_query_is_in_every_url_as_older_azure_resources_want_their_version() -> None:
    url = "https://r.openai.azure.com/openai/deployments/d"
    provider = OpenAiChat(KEY, url, query={"api-version": "2024-10-21"})
    assert provider.request(CALL).url == f"{url}/chat/completions?api-version=2024-10-21"
    newer = OpenAiChat(KEY, "https://r.openai.azure.com/openai/v1", query={"api-version": "preview"})
    url = "https://r.openai.azure.com/openai/v1/models?api-version=preview"
    assert newer.models_request().url == url
    assert newer.models_request("x y").url == url + "&after=x+y"


def test_a_header_that_is_secret_is_sent_and_not_shown() -> None:
    token = Secret("Bearer hush")
    provider = OpenAiChat(None, headers={"Authorization": token, "X-Team": "a"})
    request = provider.request(CALL)
    assert request.secret_headers == {"Authorization": token}
    assert request.headers["X-Team"] == "a"
    assert "hush" not in repr(request) + repr(request.headers) + repr(vars(provider))
    with pytest.raises(OptionError, match="headers") as refusal:
        OpenAiChat(KEY, headers={"X-Key": Secret("hush\n")})
    assert "hush" not in str(refusal.value)


# --- models, limits --------------------------------------------------------------------------------------------------


def test_models_are_asked_for_with_the_key_and_read_in_every_form() -> None:
    provider = OpenAiChat(KEY)
    request = provider.models_request()
    assert (request.method, request.url, request.body) == ("GET", "https://api.openai.com/v1/models", b"")
    assert request.secret_headers["Authorization"].reveal() == "Bearer sk-test-123"
    assert isinstance(provider, CanListModels)
    for payload in (
        {"object": "list", "data": [{"id": "a", "object": "model"}, {"id": "b", "root": "b", "max_model_len": 9}]},
        [{"id": "a"}, {"id": "b", "type": "chat"}],
        {"models": [{"name": "a"}, {"model": "b"}]},
        {"data": [{"id": "a"}, "b", {"x": 1}, 5], "models": [{"name": "other"}]},
    ):
        assert provider.models(json.dumps(payload).encode()) == (["a", "b"], None)
    assert provider.models(b'{"data": []}') == ([], None)
    assert provider.models(b'{"data":[{"id":"a"}],"has_more":true}') == (["a"], "a")
    assert provider.models(b'{"data":[{"id":"a"}],"has_more":true,"last_id":"z"}') == (["a"], "z")
    _, page = provider.models(b'{"data":[{"id":"a"}],"has_more":true,"last_id":"\\ud83d"}')
    assert provider.models_request(page).url.endswith("?after=%EF%BF%BD")


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data":5}', b"5", b"[" * 100_000, b'{"error":{}}'])
def test_what_is_no_list_of_models_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        OpenAiChat(KEY).models(body)


def test_the_quota_is_read_from_the_headers() -> None:
    provider = OpenAiChat(KEY)
    assert isinstance(provider, TellsQuota)
    headers = {"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-tokens": "6m0s"}
    assert provider.quota(headers) == Quota(requests_left=9, tokens_reset_s=360.0)
    assert provider.quota({"content-type": "text/event-stream"}) is None


def test_the_url_without_its_last_slash_is_the_providers_name_among_limits() -> None:
    provider = OpenAiChat(KEY, "http://localhost:1/v1/")
    assert (provider.base_url, repr(provider)) == ("http://localhost:1/v1", "OpenAiChat(http://localhost:1/v1)")


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_a_header_of_the_keys_name_takes_its_place_however_it_is_written(name: str) -> None:
    for key in (KEY, None):
        request = OpenAiChat(key, headers={name: "Bearer plain", "accept": "x/y"}).request(CALL)
        assert not request.secret_headers
        assert request.headers == {"Content-Type": "application/json", name: "Bearer plain", "accept": "x/y"}
        request = OpenAiChat(key, headers={name: Secret("Bearer other")}).request(CALL)
        assert request.secret_headers == {name: Secret("Bearer other")}


def test_half_a_surrogate_pair_at_the_answers_end_is_shown_as_such_with_the_last_event() -> None:
    half = b'{"choices": [{"index": 0, "delta": {"content": "a\\ud83d"}}]}'
    decoder = ChatDecoder(1_000_000)
    assert decoder.feed(sse(half)) == [TextDelta("a")]
    out = decoder.feed(sse(b"[DONE]"))
    assert "".join(delta.text for delta in out if isinstance(delta, TextDelta)) == "\ufffd"
    assert decoder.done


def test_half_a_surrogate_pair_before_a_body_that_breaks_off_is_shown_as_such() -> None:
    half = b'{"choices": [{"index": 0, "delta": {"content": "a\\ud83d"}}]}'
    decoder = ChatDecoder(1_000_000)
    decoder.feed(sse(half))
    out = decoder.close()
    assert "".join(delta.text for delta in out if isinstance(delta, TextDelta)) == "\ufffd"
