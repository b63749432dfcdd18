"""Gemini: requests made of messages in OpenAI's form, events, errors."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from penstock.actors.call.toolcalls import ToolCallAccumulator
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.config.options import RequestOptions
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthExceeded,
    OptionError,
    ProtocolError,
    RateLimited,
)
from penstock.events import ReasoningBlock, ToolCall, Usage
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
    ReasoningBlockDelta,
    ReasoningDelta,
    Secret,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

KEY = Secret("AIza-test-123")
HELLO = [{"role": "user", "content": "Hi"}]


def body(messages: Any = HELLO, model: str = "gemini-2.5-flash", **parameters: Any) -> Any:
    call = ChatCall(model=model, input=messages, parameters=parameters)
    return json.loads(Gemini(KEY).request(call).body)


def contents(*messages: Any, model: str = "gemini-2.5-flash") -> Any:
    return body(list(messages), model)["contents"]


def url(base: str, model: str = "gemini-2.5-flash") -> str:
    return Gemini(KEY, base).request(ChatCall(model=model, input=HELLO)).url


# --- requests ------------------------------------------------------------------------------------------------------


def test_a_request_streams_events_and_its_key_is_in_a_header_only() -> None:
    request = Gemini(KEY).request(ChatCall(model="gemini-2.5-flash", input=HELLO))
    assert request.url == (
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    )
    assert json.loads(request.body) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    assert request.secret_headers["x-goog-api-key"].reveal() == "AIza-test-123"
    assert "AIza" not in repr(request) + repr(request.headers) + repr(Gemini(KEY)) + repr(vars(Gemini(KEY)))


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("http://host", "/v1beta/models/m"),
        ("http://host/", "/v1beta/models/m"),
        ("http://host/proxy", "/proxy/v1beta/models/m"),
        ("http://host/v1", "/v1/models/m"),
        ("http://host/v1beta", "/v1beta/models/m"),
        ("http://host/v1alpha", "/v1alpha/models/m"),
        ("http://host/v1/projects/p/publishers/google", "/v1/projects/p/publishers/google/models/m"),
    ],
)
def test_a_base_url_with_a_version_keeps_it(base: str, path: str) -> None:
    assert url(base, "m") == f"http://host{path}:streamGenerateContent?alt=sse"


def test_a_models_name_may_have_a_path_but_leads_nowhere_else() -> None:
    assert "/v1beta/tunedModels/mine:stream" in url("http://host", "tunedModels/mine")
    assert "/models/a%3Fb%23c:stream" in url("http://host", "a?b#c")
    odd: list[Any] = [
        "../../files",
        "..",
        ".",
        "./m",
        "models/./m",
        "",
        "/m",
        "//host/m",
        "models//m",
        "\ud83d",
        None,
        5,
    ]
    for name in odd:
        with pytest.raises(OptionError, match="model"):
            url("http://host", name)


def test_googles_own_url_wants_a_key_and_another_does_not() -> None:
    with pytest.raises(OptionError, match="GEMINI_API_KEY"):
        Gemini(None).request(ChatCall(model="m", input=HELLO))
    assert not Gemini(None, "http://localhost:1").request(ChatCall(model="m", input=HELLO)).secret_headers


def test_system_messages_become_the_instruction_wherever_they_stand() -> None:
    told = body(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "developer", "content": [{"type": "text", "text": "In French."}]},
        ]
    )
    assert told["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "In French."}]}
    assert [each["role"] for each in told["contents"]] == ["user"]


def test_text_alone_is_what_the_user_says() -> None:
    assert body("Hi")["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]


def test_images_go_whole_or_by_address() -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.jpg?size=1"}},
        {"type": "image_url", "image_url": {"url": "gs://bucket/thing"}},
    ]
    assert contents({"role": "user", "content": parts})[0]["parts"] == [
        {"text": "What is it?"},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"fileData": {"fileUri": "https://example.org/cat.jpg?size=1", "mimeType": "image/jpeg"}},
        {"fileData": {"fileUri": "gs://bucket/thing"}},
    ]


def asked(name: str, call_id: str, arguments: str = "{}", **more: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def test_calls_and_their_answers_are_given_back_with_names_ids_and_signatures() -> None:
    told = contents(
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [asked("weather", "w1", '{"city": "Rome"}', signature="sig-1"), asked("time", "t1")],
        },
        {"role": "tool", "tool_call_id": "w1", "content": '{"degrees": 20}'},
        {"role": "tool", "tool_call_id": "t1", "content": "noon"},
        {"role": "user", "content": "Thanks"},
    )
    assert [each["role"] for each in told] == ["user", "model", "user", "user"]
    assert told[1]["parts"] == [
        {"text": "Let me see."},
        {
            "functionCall": {"name": "weather", "args": {"city": "Rome"}, "id": "w1"},
            "thoughtSignature": "sig-1",
        },
        {"functionCall": {"name": "time", "args": {}, "id": "t1"}},
    ]
    assert told[2]["parts"] == [
        {"functionResponse": {"name": "weather", "response": {"degrees": 20}, "id": "w1"}},
        {"functionResponse": {"name": "time", "response": {"output": "noon"}, "id": "t1"}},
    ]


def test_an_id_that_gemini_never_gave_is_not_told_and_may_come_again_with_another_name() -> None:
    told = contents(
        {"role": "assistant", "tool_calls": [asked("first", "call_0")]},
        {"role": "tool", "tool_call_id": "call_0", "content": "1"},
        {"role": "assistant", "tool_calls": [asked("second", "call_0")]},
        {"role": "tool", "tool_call_id": "call_0", "content": "[2]"},
    )
    assert told[0]["parts"] == [{"functionCall": {"name": "first", "args": {}}}]
    assert told[1]["parts"] == [{"functionResponse": {"name": "first", "response": {"output": "1"}}}]
    assert told[3]["parts"] == [{"functionResponse": {"name": "second", "response": {"output": "[2]"}}}]


def test_an_answer_to_no_call_is_refused_unless_it_names_the_function() -> None:
    with pytest.raises(OptionError, match="tool_call_id"):
        contents({"role": "tool", "tool_call_id": "x", "content": "1"})
    told = contents({"role": "tool", "tool_call_id": "x", "name": "f", "content": "1"})
    assert told[0]["parts"][0]["functionResponse"]["name"] == "f"


def test_an_image_that_a_tool_gives_goes_along_with_its_answer() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    text = {"type": "text", "text": "here"}
    told = contents({"role": "tool", "tool_call_id": "x", "name": "f", "content": [text, picture]})
    assert told[0]["parts"][0]["functionResponse"] == {
        "name": "f",
        "id": "x",
        "response": {"output": "here"},
        "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}],
    }


def test_signatures_are_given_back_where_they_came_from() -> None:
    blocks = [
        {"kind": "thought", "text": "Hm.", "signature": "of-the-thought"},
        {"kind": "thought", "signature": "of-the-text"},
        {"kind": "thinking", "text": "another provider's", "signature": "x"},
    ]
    told = contents({"role": "assistant", "content": "Yes.", "reasoning_blocks": blocks})
    assert told[0]["parts"] == [
        {"text": "Hm.", "thought": True, "thoughtSignature": "of-the-thought"},
        {"text": "Yes.", "thoughtSignature": "of-the-text"},
    ]
    block = ReasoningBlock(kind="thought", signature="alone")
    told = contents({"role": "assistant", "content": None, "reasoning_blocks": [block]})
    assert told[0]["parts"] == [{"text": "", "thoughtSignature": "alone"}]


def test_calls_that_another_model_made_are_marked_for_the_models_that_check() -> None:
    message = {"role": "assistant", "tool_calls": [asked("f", "a"), asked("g", "b")]}
    first, second = contents(message, model="gemini-3-pro-preview")[0]["parts"]
    assert first["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in second
    assert all("thoughtSignature" not in part for part in contents(message, model="gemini-2.5-pro")[0]["parts"])


def test_what_is_in_geminis_own_form_passes_unchanged() -> None:
    own: list[Any] = [
        {"parts": [{"text": "Hi"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s"}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
        {"role": "user", "content": [{"fileData": {"fileUri": "x"}}]},
    ]
    told = contents(*own)
    assert told[0] == {"role": "user", **own[0]}
    assert told[1:3] == own[1:3]
    assert told[3]["parts"] == own[3]["content"]
    instruction = {"parts": [{"text": "Be brief."}]}
    safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    more = body(systemInstruction=instruction, safetySettings=safety, cachedContent="c")
    assert (more["systemInstruction"], more["safetySettings"], more["cachedContent"]) == (instruction, safety, "c")
    assert body([{"role": "system", **instruction}, *HELLO])["systemInstruction"] == instruction


def test_functions_become_declarations_and_geminis_own_tools_stay() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": False}
    function = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": schema}}
    bare = {"type": "function", "function": {"name": "now"}}
    assert body(tools=[function, {"googleSearch": {}}, bare])["tools"] == [
        {
            "functionDeclarations": [
                {"name": "add", "description": "Adds.", "parametersJsonSchema": schema},
                {"name": "now"},
            ]
        },
        {"googleSearch": {}},
    ]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "add"}},
            {"mode": "ANY", "allowedFunctionNames": ["add"]},
        ),
    ],
)
def test_the_choice_of_a_tool_is_a_mode(choice: Any, config: Any) -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]
    assert body(tools=tools, tool_choice=choice)["toolConfig"] == {"functionCallingConfig": config}
    assert body(tools=None, tool_choice=choice, parallel_tool_calls=False) == body()


def test_common_parameters_go_into_the_generation_config_whose_own_words_go_first() -> None:
    told = body(
        max_tokens=10,
        temperature=0.5,
        top_p=0.9,
        stop="END",
        n=2,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        generationConfig={"temperature": 0.1, "thinkingConfig": {"includeThoughts": True}},
        stream_options={"include_usage": True},
        stream=True,
    )
    assert told == {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {
            "maxOutputTokens": 10,
            "temperature": 0.1,
            "topP": 0.9,
            "stopSequences": ["END"],
            "candidateCount": 2,
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
            "thinkingConfig": {"includeThoughts": True},
        },
    }
    assert body(response_format={"type": "json_object"})["generationConfig"] == {"responseMimeType": "application/json"}
    assert "generationConfig" not in body(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"stream": False}, "stream"),
        ({"contents": []}, "contents"),
        ({"model": "x"}, "model"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"generationConfig": 1}, "generationConfig"),
        ({"o": object()}, "o"),
    ],
)
def test_what_cannot_be_translated_is_refused_by_name(parameters: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        Gemini(KEY).request(ChatCall(model="m", input=HELLO, parameters=parameters))
    assert caught.value.field == field


def test_an_instruction_is_given_once() -> None:
    with pytest.raises(OptionError, match="systemInstruction"):
        body([{"role": "system", "content": "a"}], systemInstruction={"parts": []})


# --- what is streamed ----------------------------------------------------------------------------------------------


def sse(*payloads: object) -> bytes:
    return b"".join(b"data: " + json.dumps(payload).encode() + b"\r\n\r\n" for payload in payloads)


def chunk(*parts: object, finish: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], **more}


def decode(*payloads: object) -> list[Delta]:
    return GeminiDecoder(1_000_000).feed(sse(*payloads))


def calls(*payloads: object) -> tuple[ToolCall, ...]:
    accumulator = ToolCallAccumulator()
    for delta in decode(*payloads):
        if isinstance(delta, ToolCallFragment):
            accumulator.feed(delta)
    return accumulator.finish()


def partial(*values: Any, more: bool = True, name: str | None = None, **rest: Any) -> dict[str, Any]:
    call: dict[str, Any] = {"partialArgs": list(values), **({"name": name} if name else {}), **rest}
    return chunk({"functionCall": {**call, **({"willContinue": True} if more else {})}})


def test_text_and_thoughts_come_in_order_and_the_model_is_named() -> None:
    decoder = GeminiDecoder(1_000_000)
    thought = chunk({"text": "Hm.", "thought": True}, modelVersion="gemini-x")
    assert decoder.feed(sse(thought, chunk({"text": "Hi"}, {"text": " you"}))) == [
        ReasoningDelta("Hm."),
        TextDelta("Hi"),
        TextDelta(" you"),
    ]
    assert decoder.model == "gemini-x"
    assert not decoder.finished


def test_the_models_name_is_the_first_that_is_told() -> None:
    decoder = GeminiDecoder(1_000_000)
    decoder.feed(sse(*(chunk(finish="STOP", modelVersion=name) for name in ("", "gemini-x", "gemini-y"))))
    assert (decoder.model, decoder.skipped) == ("gemini-x", 0)


def test_the_typed_way_and_the_lenient_one_tell_the_same() -> None:
    usage = {"promptTokenCount": 3, "thoughtsTokenCount": 2, "cachedContentTokenCount": 1, "totalTokenCount": 5}
    plain = chunk({"text": "Hi"}, usageMetadata=usage, modelVersion="m")
    unusual = {**plain, "promptFeedback": {"safetyRatings": []}}
    told = [TextDelta("Hi"), UsageDelta(Usage(input_tokens=3, reasoning_tokens=2, cached_tokens=1, total_tokens=5))]
    assert decode(plain) == decode(unusual) == told


def test_signatures_of_text_are_blocks_and_a_thoughts_text_is_in_its_block() -> None:
    parts: list[dict[str, Any]] = [
        {"text": "Hm.", "thought": True, "thoughtSignature": "a"},
        {"text": "", "thoughtSignature": "b"},
        {"text": "Yes", "thoughtSignature": "c"},
        {"thoughtSignature": "d"},
    ]
    assert decode(*map(chunk, parts)) == [
        ReasoningDelta("Hm."),
        ReasoningBlockDelta(ReasoningBlock(kind="thought", text="Hm.", signature="a")),
        BlockDelta(parts[0]),
        ReasoningBlockDelta(ReasoningBlock(kind="thought", signature="b")),
        BlockDelta(parts[1]),
        TextDelta("Yes"),
        ReasoningBlockDelta(ReasoningBlock(kind="thought", signature="c")),
        BlockDelta(parts[2]),
        ReasoningBlockDelta(ReasoningBlock(kind="thought", signature="d")),
        BlockDelta({"text": "", "thoughtSignature": "d"}),
    ]


def test_whole_calls_are_told_apart_without_ids_and_stop_means_that_they_are_asked_for() -> None:
    same = {"functionCall": {"name": "add", "args": {"x": 1}}}
    told = decode(chunk({**same, "thoughtSignature": "s"}, same), chunk({"functionCall": {"name": "now", "id": "7"}}),
                  chunk({"text": ""}, finish="STOP"))  # fmt: skip
    assert told == [
        ToolCallFragment(index=0, name="add", arguments='{"x":1}', signature="s"),
        ToolCallFragment(index=1, name="add", arguments='{"x":1}'),
        ToolCallFragment(index=2, id="7", name="now", arguments="{}"),
        FinishDelta("tool_calls", "STOP"),
    ]


def test_arguments_that_come_value_by_value_make_the_object() -> None:
    (call,) = calls(
        partial(name="book", more=True),
        partial({"jsonPath": "$.who.name", "stringValue": 'A "', "willContinue": True}),
        partial({"jsonPath": "$.who.name", "stringValue": 'q"\n', "willContinue": True}),
        partial({"jsonPath": "$.who.name", "stringValue": ""}),
        partial({"jsonPath": "$.who.age", "numberValue": 7}, {"jsonPath": "$.list[0].a", "boolValue": True}),
        partial(
            {"jsonPath": "$.list[0].b", "nullValue": "NULL_VALUE"}, {"jsonPath": "$.list[1].a", "numberValue": 1.5}
        ),
        partial({"jsonPath": "$['odd key'][0][0]", "stringValue": "é", "willContinue": True}),
        partial({"jsonPath": "$.last", "stringValue": "x"}, more=False),
    )
    assert call.arguments == {
        "who": {"name": 'A "q"\n', "age": 7},
        "list": [{"a": True, "b": None}, {"a": 1.5}],
        "odd key": [["é"]],
        "last": "x",
    }


def test_the_values_of_a_call_are_told_as_they_come() -> None:
    told = decode(
        partial(name="f"),
        partial({"jsonPath": "$.a", "stringValue": "Bos", "willContinue": True}),
        partial({"jsonPath": "$.a", "stringValue": "ton"}),
        chunk({"functionCall": {}}),
    )
    assert [delta.arguments for delta in told if isinstance(delta, ToolCallFragment)] == ["{", '"a":"Bos', 'ton"', "}"]


def test_a_call_that_was_cut_off_or_does_not_fit_together_cannot_be_run() -> None:
    (cut,) = calls(partial(name="f"), partial({"jsonPath": "$.a", "stringValue": "x"}))
    assert cut.arguments is None
    (bare,) = calls(partial(name="f"))
    assert bare.arguments is None
    for odd in ({"jsonPath": "$.a", "stringValue": "again"}, {"jsonPath": "$.b"}, {"jsonPath": "b", "numberValue": 1}):
        (call,) = calls(partial({"jsonPath": "$.a", "stringValue": "x"}, odd, name="f", more=False))
        assert call.arguments is None
    (call,) = calls(
        partial({"jsonPath": "$.a.b", "numberValue": 1}, {"jsonPath": "$.c", "numberValue": 2}, name="f"),
        partial({"jsonPath": "$.a.d", "numberValue": 3}, more=False),
    )
    assert call.arguments is None


def test_a_place_that_is_an_object_and_an_array_breaks_the_call_and_is_counted() -> None:
    decoder = GeminiDecoder(1_000_000)
    values = ({"jsonPath": "$.a[0]", "numberValue": 1}, {"jsonPath": "$.a.b", "numberValue": 2})
    decoder.feed(sse(partial(*values, name="f", more=False)))
    assert decoder.skipped == 1
    assert calls(partial(*values, name="f", more=False))[0].arguments is None


def test_a_call_cut_off_by_the_next_one_keeps_to_itself() -> None:
    first, second = calls(
        partial({"jsonPath": "$.a", "stringValue": "x"}, name="f"), chunk({"functionCall": {"name": "g", "args": {}}})
    )
    assert (first.name, first.arguments) == ("f", None)
    assert (second.name, second.arguments) == ("g", {})


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        *((each, "content_filter") for each in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")),
        ("IMAGE_SAFETY", "content_filter"),
        *((each, "other") for each in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "LANGUAGE", "NEW_WORD")),
    ],
)
def test_finish_reasons_keep_googles_word(raw: str, reason: Any) -> None:
    decoder = GeminiDecoder(1_000_000)
    assert decoder.feed(sse({"candidates": [{"finishReason": raw}]})) == [FinishDelta(reason, raw)]
    assert decoder.finished
    assert not decoder.done


def test_a_finish_reason_that_comes_with_every_chunk_is_told_once_and_a_later_call_counts() -> None:
    finishes = [
        delta
        for delta in decode(
            chunk({"text": "a"}, finish="STOP"),
            chunk({"text": "b"}, finish="STOP"),
            chunk({"functionCall": {"name": "f"}}, finish="STOP"),
            chunk({"text": "c"}, finish="STOP"),
        )
        if isinstance(delta, FinishDelta)
    ]
    assert finishes == [FinishDelta("stop", "STOP"), FinishDelta("tool_calls", "STOP")]


def test_a_call_remains_the_reason_for_the_end_whatever_comes_after_it() -> None:
    decoder = GeminiDecoder(1_000_000)
    asked = chunk({"functionCall": {"name": "f"}}, finish="STOP")
    deltas = decoder.feed(sse(asked, chunk({"text": "c"}, finish="MAX_TOKENS")))
    assert [delta for delta in deltas if isinstance(delta, FinishDelta)] == [FinishDelta("tool_calls", "STOP")]
    assert decode(chunk({"functionCall": {"name": "f"}}, finish="MAX_TOKENS"))[-1] == FinishDelta(
        "length", "MAX_TOKENS"
    )


def test_usage_may_follow_the_finish_and_the_last_one_counts() -> None:
    told = decode(
        chunk({"text": "a"}, usageMetadata={"promptTokenCount": 1, "candidatesTokenCount": 1}),
        chunk({"text": "b"}, usageMetadata={"promptTokenCount": 1, "candidatesTokenCount": 1}),
        chunk(finish="STOP"),
        {"usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2}},
        {"usageMetadata": {"trafficType": "ON_DEMAND"}},
    )
    usages = [delta.usage for delta in told if isinstance(delta, UsageDelta)]
    assert usages == [Usage(input_tokens=1, output_tokens=1), Usage(input_tokens=1, output_tokens=2)]


def test_other_candidates_are_choices_and_the_answer_is_finished_when_all_are() -> None:
    decoder = GeminiDecoder(1_000_000)
    second = {"index": 1, "content": {"parts": [{"text": "B"}, {"functionCall": {"name": "f"}}]}}
    first = {"content": {"parts": [{"text": "A"}]}, "finishReason": "STOP"}
    assert decoder.feed(sse({"candidates": [first, second]})) == [
        TextDelta("A"),
        FinishDelta("stop", "STOP"),
        ChoiceDelta(1, TextDelta("B")),
        ChoiceDelta(1, ToolCallFragment(index=0, name="f", arguments="{}")),
    ]
    assert not decoder.finished
    last = {"candidates": [{"index": 1, "finishReason": "STOP"}]}
    assert decoder.feed(sse(last)) == [ChoiceDelta(1, FinishDelta("tool_calls", "STOP"))]
    assert decoder.finished


def test_an_answer_is_not_finished_before_candidate_0_has_come() -> None:
    decoder = GeminiDecoder(1_000_000)
    decoder.feed(sse({"candidates": [{"index": 1, "finishReason": "STOP"}]}))
    assert not decoder.finished
    decoder.feed(sse(chunk({"text": "A"}, finish="STOP")))
    assert decoder.finished


def test_another_candidate_has_its_calls_and_its_extras_by_itself() -> None:
    """Its calls are numbered for themselves and end nothing but it; what is read of candidate 0 only is left alone."""
    decoder = GeminiDecoder(1_000_000)
    call = {"functionCall": {"name": "f"}}
    other = {"index": 1, "content": {"parts": [call]}, "logprobsResult": 7, "citationMetadata": 7}
    first = {"index": 0, "content": {"parts": [{"text": "A"}]}, "finishReason": "STOP"}
    assert decoder.feed(sse({"candidates": [other, first]}, chunk(call))) == [
        ChoiceDelta(1, ToolCallFragment(index=0, name="f", arguments="{}")),
        TextDelta("A"),
        FinishDelta("stop", "STOP"),
        ToolCallFragment(index=0, name="f", arguments="{}"),
    ]
    assert decoder.skipped == 0


def test_a_blocked_prompt_is_an_error_with_its_reason() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "No."}
    told, delta = decode({"promptFeedback": feedback})
    assert told == MetadataDelta({"prompt_feedback": feedback})
    assert isinstance(delta, ErrorDelta)
    assert isinstance(delta.error, ContentFilterError)
    assert (delta.error.code, delta.error.message) == ("PROHIBITED_CONTENT", "No.")
    assert decode({"promptFeedback": {"safetyRatings": []}}) == []
    ratings = {"safetyRatings": [{"category": "HARM", "probability": "LOW"}]}
    assert decode({"promptFeedback": ratings}) == [MetadataDelta({"prompt_feedback": ratings})]


def test_parts_that_nobody_is_told_of_are_counted() -> None:
    decoder = GeminiDecoder(1_000_000)
    parts = [{"executableCode": "1"}, {"codeExecutionResult": []}, {"inlineData": {"data": ""}}, 7]
    assert decoder.feed(sse(chunk(*parts), {"candidates": ["x"]}, [1], "text", {"strange": 1})) == []
    assert decoder.skipped == 8


def test_a_json_array_is_read_when_it_is_whole() -> None:
    whole = json.dumps([chunk({"text": "Hi"}), chunk({"text": "!"}, finish="STOP")], indent=2).encode()
    decoder = GeminiDecoder(1_000_000)
    assert decoder.feed(whole[:50]) + decoder.feed(whole[50:]) + decoder.close() == [
        TextDelta("Hi"),
        TextDelta("!"),
        FinishDelta("stop", "STOP"),
    ]
    cut = GeminiDecoder(1_000_000)
    assert cut.feed(whole[:-20]) + cut.close() == []
    assert not cut.finished


def test_halves_of_a_character_in_two_events_are_put_together() -> None:
    halves = [
        b'data: {"candidates":[{"content":{"parts":[{"text":"\\u%s"}]}}]}\n\n' % each for each in (b"d83d", b"de00")
    ]
    assert GeminiDecoder(1_000_000).feed(b"".join(halves)) == [TextDelta("😀")]


def test_comments_are_signs_of_life_and_an_event_over_the_limit_is_refused() -> None:
    assert GeminiDecoder(1_000_000).feed(b": ping\n\n") == [KeepAlive()]
    with pytest.raises(ProtocolError):
        Gemini(KEY).decoder(RequestOptions(max_event_bytes=1000)).feed(b"data: " + b"x" * 2000)


ODD: tuple[Any, ...] = (None, True, -1, 1.5, 10**30, "", "STOP", "\ud83d", [], {}, [1], {"x": 1})


def bent(value: Any, chance: float, dice: random.Random) -> Any:
    """Return ``value`` with something in it that no server sends."""
    if dice.random() < chance:
        return dice.choice(ODD)
    if isinstance(value, dict):
        return {name: bent(each, chance, dice) for name, each in value.items()}
    return [bent(each, chance, dice) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_is_json_makes_a_decoder_raise(seed: int) -> None:
    dice = random.Random(seed)
    plain = chunk(
        {"text": "a", "thought": True, "thoughtSignature": "s"},
        {"functionCall": {"name": "f", "id": "1", "args": {"x": 1}}},
        {
            "functionCall": {
                "name": "f",
                "partialArgs": [{"jsonPath": "$.a[0]", "stringValue": "x"}],
                "willContinue": True,
            }
        },
        finish="STOP",
        usageMetadata={"promptTokenCount": 1, "totalTokenCount": 2},
        promptFeedback={"blockReason": "X"},
        error={"code": 1, "status": "X", "details": [{"@type": "google.rpc.RetryInfo", "retryDelay": "1s"}]},
        modelVersion="m",
    )
    plain["candidates"][0]["index"] = 1
    for _ in range(400):
        decoder = GeminiDecoder(1_000_000)
        decoder.feed(sse(*(bent(plain, 0.08, dice) for _ in range(3))))
        decoder.close()


# --- errors --------------------------------------------------------------------------------------------------------


def answer(status: int, word: str, message: str = "No.", *details: object) -> ApiError:
    told = {"error": {"code": status, "message": message, "status": word, "details": list(details)}}
    error = Gemini(KEY).error(status, {}, json.dumps(told).encode())
    assert isinstance(error, ApiError)
    return error


def test_an_error_answers_status_says_its_type() -> None:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    wrong_key = answer(400, "INVALID_ARGUMENT", "API key not valid.", info)
    assert isinstance(wrong_key, AuthenticationError)
    assert wrong_key.code == "API_KEY_INVALID"
    assert isinstance(answer(401, "UNAUTHENTICATED"), AuthenticationError)
    assert isinstance(answer(403, "PERMISSION_DENIED"), AuthenticationError)
    assert type(answer(400, "INVALID_ARGUMENT")) is BadRequestError
    assert type(answer(404, "NOT_FOUND")) is BadRequestError
    too_long = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    assert isinstance(answer(400, "INVALID_ARGUMENT", too_long), ContextLengthExceeded)
    assert answer(503, "UNAVAILABLE").retryable


def test_how_long_to_wait_is_in_the_details_or_the_header() -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    limited = answer(429, "RESOURCE_EXHAUSTED", "Quota exceeded", retry)
    assert isinstance(limited, RateLimited)
    assert (limited.code, limited.retry_after, limited.retryable) == ("RESOURCE_EXHAUSTED", 34.5, True)
    assert answer(429, "RESOURCE_EXHAUSTED", "x", {**retry, "retryDelay": "soon"}).retry_after is None
    error = Gemini(KEY).error(
        429, {"retry-after": "3"}, json.dumps({"error": {"status": "X", "details": [retry]}}).encode()
    )
    assert isinstance(error, RateLimited)
    assert error.retry_after == 3


def test_an_error_inside_the_stream_has_the_same_type() -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"}
    error = {"error": {"code": 429, "message": "Slow down", "status": "RESOURCE_EXHAUSTED", "details": [retry]}}
    decoder = GeminiDecoder(1_000_000)
    deltas = (
        decoder.feed(sse(chunk({"text": "a"}))) + decoder.feed(json.dumps(error, indent=2).encode()) + decoder.close()
    )
    assert deltas[0] == TextDelta("a")
    assert isinstance(deltas[1], ErrorDelta)
    assert isinstance(deltas[1].error, RateLimited)
    assert deltas[1].error.retry_after == 2
    (delta,) = decode([{"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}])
    assert isinstance(delta, ErrorDelta)
    assert delta.error.retryable


@pytest.mark.parametrize("data", ["Overloaded", '"Overloaded"', "7"])
def test_an_event_that_is_called_an_error_is_one_whatever_is_in_it(data: str) -> None:
    decoder = GeminiDecoder(1_000_000)
    (delta,) = decoder.feed(f"event: error\ndata: {data}\n\n".encode())
    assert isinstance(delta, ErrorDelta)
    assert isinstance(delta.error, ApiError)
    assert (delta.error.status, decoder.skipped) == (200, 0)


def test_the_end_marker_of_other_providers_is_no_surprise() -> None:
    decoder = GeminiDecoder(1_000_000)
    assert decoder.feed(b"data: [DONE]\n\n") == []
    assert decoder.skipped == 0


def test_an_error_answer_that_is_no_json_still_says_its_status() -> None:
    error = Gemini(KEY).error(502, {}, b"<html>")
    assert isinstance(error, ApiError)
    assert (error.status, error.retryable) == (502, True)


# --- models --------------------------------------------------------------------------------------------------------


def test_models_are_listed_page_by_page() -> None:
    gemini = Gemini(KEY)
    assert isinstance(gemini, CanListModels)
    request = gemini.models_request()
    assert (request.method, request.url.partition("?")[0]) == (
        "GET",
        "https://generativelanguage.googleapis.com/v1beta/models",
    )
    assert request.secret_headers["x-goog-api-key"].reveal() == "AIza-test-123"
    assert gemini.models_request("a&b").url.endswith("&pageToken=a%26b")
    assert gemini.models(
        b'{"models": [{"name": "models/a"}, {"name": "tunedModels/b"}, {}], "nextPageToken": "n"}'
    ) == (
        ["a", "tunedModels/b"],
        "n",
    )
    assert gemini.models(b"{}") == ([], None)
    for wrong in (b"[]", b"<html>", b'{"models": 1}'):
        with pytest.raises(ProtocolError):
            gemini.models(wrong)


def test_a_candidate_with_a_negative_index_is_skipped_and_has_no_part_in_the_answer() -> None:
    decoder = GeminiDecoder(1_000_000)

    def feed(*candidates: Any) -> list[Delta]:
        return decoder.feed(b"data: " + json.dumps({"candidates": candidates}).encode() + b"\n\n")

    assert feed({"index": -1, "content": {"parts": [{"text": "odd"}]}, "finishMessage": "no"}) == []
    assert decoder.skipped == 1
    out = feed({"index": 0, "content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"})
    assert TextDelta("a") in out
    assert decoder.finished


@pytest.mark.parametrize(
    "odd",
    [
        {"usageMetadata": [1]},
        {"usageMetadata": "many"},
        {"candidates": {"index": 0}},
        {"candidates": ["text"]},
        {"candidates": [{"content": {"parts": 7}}]},
        {"candidates": [{"content": {"parts": {"text": "a"}}}]},
    ],
    ids=str,
)
def test_a_field_of_another_type_than_is_documented_is_skipped_and_counted(odd: dict[str, Any]) -> None:
    decoder = GeminiDecoder(1_000_000)
    decoder.feed(b"data: " + json.dumps(odd).encode() + b"\n\n")
    assert decoder.skipped == 1
