"""Chat completion chunks, row by row of the projection table."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import RateLimited
from penstock.events import (
    AnswerPart,
    Choice,
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlock,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamStarted,
    TokenLogprob,
    ToolApprovalRequested,
    ToolCallCompleted,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
    Usage,
)
from penstock.gateway.answers.chat import answer
from penstock.gateway.problems import Problem, problem_of
from penstock.gateway.projections.chat import ChatProjection, error_body
from penstock.gateway.projections.frames import joined
from tests.unit.gateway.chat_made import (
    call,
    calling,
    cancelled,
    completed,
    datas,
    failed,
    fed,
    numbered,
    opened,
    reset,
    sent,
    snapshot,
    token,
)

USAGE = {"stream_options": {"include_usage": True}}
ROLE = {"role": "assistant", "content": ""}
END: list[Any] = [({}, "stop"), "[DONE]"]


def chunks(*events: Event, request: dict[str, Any] | None = None, **variant: str) -> list[Any]:
    return datas(sent(fed(ChatProjection(opened(request, **variant)), *events)))


def seen(*events: Event, request: dict[str, Any] | None = None, **variant: str) -> list[Any]:
    """The deltas; with the finish reason if there is one; errors and the end as they are."""
    found: list[Any] = []
    for chunk in chunks(*events, request=request, **variant):
        if chunk == "[DONE]" or "error" in chunk or not chunk["choices"]:
            found.append(chunk)
            continue
        (choice,) = chunk["choices"]
        assert choice["index"] == 0
        reason = choice["finish_reason"]
        found.append(choice["delta"] if reason is None else (choice["delta"], reason))
    return found


def error_of(found: list[Any]) -> dict[str, Any]:
    error: dict[str, Any] = found[-1]["error"]
    return error


# --- text -------------------------------------------------------------------------------------------------------------


def test_the_frames_of_a_text_byte_by_byte() -> None:
    projection = ChatProjection(opened(USAGE))
    usage = Usage(input_tokens=3, output_tokens=2, total_tokens=5)
    head = b'data: {"id":"chatcmpl-s1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    tail = b',"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
    assert [frame.data for frame in fed(projection, token("Hi"), completed("Hi", usage=usage))] == [
        head + b'"choices":[{"index":0,"delta":{"role":"assistant","content":""}' + tail,
        head + b'"choices":[{"index":0,"delta":{"content":"Hi"}' + tail,
        head + b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}\n\n',
        head + b'"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n',
        b"data: [DONE]\n\n",
    ]


def test_reasoning_text_and_refusal_have_their_own_fields() -> None:
    events = token("hm", "reasoning"), token("a"), token("no", "refusal")
    end = completed("a", reasoning="hm", refusal="no")
    assert seen(*events, end) == [ROLE, {"reasoning_content": "hm"}, {"content": "a"}, {"refusal": "no"}, *END]
    assert seen(*events, reasoning_field="reasoning")[1] == {"reasoning": "hm"}


def test_empty_text_makes_no_frame() -> None:
    assert fed(ChatProjection(opened()), token("")) == []


def test_neighbouring_pieces_of_one_kind_become_one_delta() -> None:
    projection = ChatProjection(opened(events="numbered"))
    frames = fed(projection, token("a"), token("b"), token("c", "reasoning"), token("d"), token("e"))
    body = joined(frames[1:], projection)
    deltas = [chunk["choices"][0]["delta"] for chunk in datas(body)]
    assert deltas == [{"content": "ab"}, {"reasoning_content": "c"}, {"content": "de"}]
    assert [line for line in body.split(b"\n") if line.startswith(b"id:")] == [b"id: e1-2", b"id: e1-3", b"id: e1-5"]


def test_ids_go_to_the_last_frame_of_an_event_and_only_if_they_are_wanted() -> None:
    events = token("a"), completed("a")
    assert b"id:" not in sent(fed(ChatProjection(opened()), *events))
    frames = fed(ChatProjection(opened(events="numbered")), *events)
    assert [frame.data.startswith(b"id: ") for frame in frames] == [False, True, False, True]
    assert frames[-1].data == b"id: e1-2\ndata: [DONE]\n\n"


def test_the_model_of_an_agent_is_told_if_the_request_names_none() -> None:
    projection = ChatProjection(opened(model=""))
    body = sent(fed(projection, StreamStarted(model="gpt-x"), token("a")))
    assert [chunk["model"] for chunk in datas(body)] == ["gpt-x", "gpt-x"]


def test_an_agents_start_is_the_first_chunk() -> None:
    assert seen(StreamStarted(model="x"), token("a")) == [ROLE, {"content": "a"}]


def test_lone_surrogates_in_pushed_text_become_a_replacement_character() -> None:
    assert seen(token("caf\udce9"))[1] == {"content": "caf\ufffd"}


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_is_told_as_it_grows() -> None:
    one = call()
    assert seen(*calling(one), ToolCallCompleted(index=0, call=one), completed(finish_reason="tool_calls")) == [
        ROLE,
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        ({}, "tool_calls"),
        "[DONE]",
    ]


def test_pieces_of_one_call_are_joined_and_those_of_two_are_not() -> None:
    projection = ChatProjection(opened())
    one, two = call(), call(id="call_2")
    frames = fed(projection, *calling(one, 0), *calling(two, 1))
    found = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in datas(joined(frames[1:], projection))]
    assert [(each["index"], each["function"]["arguments"]) for each in found] == [
        (0, ""),
        (0, '{"x":1}'),
        (1, ""),
        (1, '{"x":1}'),
    ]


def test_a_call_without_arguments_has_an_empty_object_as_clients_parse_it() -> None:
    one = call(arguments="")
    assert seen(*calling(one), ToolCallCompleted(index=0, call=one))[-1] == {
        "tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]
    }


def test_a_call_with_arguments_that_are_no_json_is_passed_on_as_it_is() -> None:
    one = call(arguments='{"x":')
    body = sent(fed(ChatProjection(opened()), *calling(one), ToolCallCompleted(index=0, call=one)))
    pieces = [chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] for chunk in datas(body)[1:]]
    assert "".join(pieces) == '{"x":'


def test_a_calls_signature_is_told_where_googles_api_has_it() -> None:
    one = call(signature="c2ln")
    (told,) = seen(*calling(one), ToolCallCompleted(index=0, call=one))[-1]["tool_calls"]
    assert told == {
        "index": 0,
        "function": {"arguments": ""},
        "extra_content": {"google": {"thought_signature": "c2ln"}},
    }


def test_a_tool_that_takes_free_text_is_known_by_the_request() -> None:
    request = {"tools": [{"type": "custom", "custom": {"name": "sql"}}]}
    one = call("sql", "SELECT 1", type="custom")
    found = seen(*calling(one, pieces=1), request=request)
    assert [delta["tool_calls"][0] for delta in found[1:]] == [
        {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "sql", "input": ""}},
        {"index": 0, "custom": {"input": "SELECT 1"}},
    ]


def test_the_providers_own_tools_are_not_told_as_calls() -> None:
    ran = call("web_search", '{"q":1}', id="srvtoolu_1", is_server=True)
    own = call()
    events = [
        *calling(ran, 0),
        ServerToolCall(id=ran.id, name=ran.name, input={"q": 1}),
        ServerToolResult(id=ran.id, name=ran.name, output=[]),
        *calling(own, 1, pieces=1),
        ToolCallCompleted(index=0, call=ran),
        ToolCallCompleted(index=1, call=own),
    ]
    found = seen(*events, completed(tool_calls=(ran, own), finish_reason="tool_calls"))
    assert [delta["tool_calls"][0]["index"] for delta in found[1:3]] == [0, 0]
    assert found[3:] == [({}, "tool_calls"), "[DONE]"]


def test_the_calls_and_results_of_an_agents_turn_are_invisible() -> None:
    one = call()
    events = [
        StreamStarted(model="m"),
        *calling(one),
        ToolCallCompleted(index=0, call=one),
        ToolApprovalRequested(call=one),
        ToolExecutionStarted(round=1, calls=(one,)),
        ToolProgress(call_id=one.id, name="f", progress=0.5),
        ToolResult(call_id=one.id, name="f", content="1"),
        token("One."),
    ]
    end = completed("One.", tool_calls=(one,), raw_finish_reason="stop")
    assert seen(*events, end) == [ROLE, {"content": "One."}, *END]
    rows = [row["penstock"]["type"] for row in seen(*events, extras="penstock") if "penstock" in row]
    assert rows == [
        "tool_call_completed",
        "tool_approval_requested",
        "tool_execution_started",
        "tool_progress",
        "tool_result",
    ]


def test_a_further_row_has_what_the_event_has_but_not_the_streams_own_data() -> None:
    row = seen(ToolResult(call_id="c", name="f", content="1", stream_id="s1"), extras="penstock")[1]["penstock"]
    assert row == {
        "type": "tool_result",
        "call_id": "c",
        "name": "f",
        "status": "ok",
        "content": "1",
        "duration_s": 0.0,
    }


# --- the rest of an answer --------------------------------------------------------------------------------------------


def test_a_source_has_the_four_fields_that_strict_clients_require() -> None:
    cited = Citation(kind="url", url="https://a.example/", title="A", cited_text="words", start=2, end=5)
    bare = Citation(kind="document", id="file_1", location={"document_index": 0})
    found = seen(cited, bare)
    assert found[1:] == [
        {
            "annotations": [
                {
                    "type": "url_citation",
                    "index": 0,
                    "url_citation": {
                        "url": "https://a.example/",
                        "title": "A",
                        "start_index": 2,
                        "end_index": 5,
                        "content": "words",
                    },
                }
            ]
        },
        {
            "annotations": [
                {
                    "type": "url_citation",
                    "index": 1,
                    "url_citation": {
                        "document_index": 0,
                        "url": "",
                        "title": "",
                        "start_index": 0,
                        "end_index": 0,
                        "file_id": "file_1",
                    },
                }
            ]
        },
    ]


def test_pictures_come_whole_and_sound_in_pieces() -> None:
    found = seen(
        MediaPart(kind="image", mime="image/webp", data="QQ==", is_partial=True),
        MediaPart(kind="image", mime="image/webp", data="QUI="),
        MediaPart(kind="image", url="https://a.example/b.png"),
        MediaPart(kind="audio", id="a1", data="QQ==", transcript="Hi", is_partial=True),
        MediaPart(kind="audio", id="a1", data="QQ==", transcript="Hi"),
        MediaPart(kind="audio", data="QUI="),
        MediaPart(kind="video", data="QUI="),
        MediaPart(kind="file", mime="text/csv", data="QUI="),
    )
    assert found[1:] == [
        {"images": [{"type": "image_url", "index": 0, "image_url": {"url": "data:image/webp;base64,QUI="}}]},
        {"images": [{"type": "image_url", "index": 1, "image_url": {"url": "https://a.example/b.png"}}]},
        {"audio": {"id": "a1", "data": "QQ==", "transcript": "Hi"}},
        {"audio": {"data": "QUI="}},
        {"videos": [{"type": "video_url", "index": 0, "video_url": {"url": "data:video/mp4;base64,QUI="}}]},
        {"files": [{"type": "file", "index": 0, "file": {"file_data": "data:text/csv;base64,QUI="}}]},
    ]


LOGPROB = TokenLogprob(token="a", logprob=-0.5, top=(("a", -0.5), ("b", -1.5)))
TOLD = {
    "token": "a",
    "logprob": -0.5,
    "bytes": [97],
    "top_logprobs": [
        {"token": "a", "logprob": -0.5, "bytes": [97]},
        {"token": "b", "logprob": -1.5, "bytes": [98]},
    ],
}


def test_probabilities_come_in_the_chunk_with_their_text_if_the_request_asks_for_them() -> None:
    found = chunks(token("a"), Logprobs(tokens=(LOGPROB,)), token("b"), completed("ab"), request={"logprobs": True})
    choices = [chunk["choices"][0] for chunk in found[:-1]]
    assert [(choice["delta"], choice["logprobs"]) for choice in choices] == [
        (ROLE, None),
        ({"content": "a"}, {"content": [TOLD]}),
        ({"content": "b"}, None),
        ({}, None),
    ]


def test_otherwise_probabilities_follow_their_text_directly() -> None:
    choices = [chunk["choices"][0] for chunk in chunks(token("no", "refusal"), Logprobs(tokens=(LOGPROB,)))]
    assert [(choice["delta"], choice["logprobs"]) for choice in choices[1:]] == [
        ({"refusal": "no"}, None),
        ({}, {"refusal": [TOLD]}),
    ]


def test_text_does_not_wait_for_probabilities_that_do_not_come() -> None:
    projection = ChatProjection(opened({"logprobs": True}))
    numbers = [len(projection.feed(event)) for event in numbered([token("a"), token("b"), token("c"), token("d")])]
    assert numbers == [1, 2, 1, 1]  # the role; both texts; then each at once


@pytest.mark.parametrize(
    ("kind", "signature", "told"),
    [
        ("thinking", "c2ln", {"type": "reasoning.text", "signature": "c2ln", "format": "anthropic-claude-v1"}),
        ("redacted_thinking", "c2ln", {"type": "reasoning.encrypted", "data": "c2ln", "format": "anthropic-claude-v1"}),
    ],
)
def test_sealed_reasoning_is_told_when_it_is_complete(kind: str, signature: str, told: dict[str, Any]) -> None:
    block = ReasoningBlockClosed(index=0, kind=kind, signature=signature, provider="anthropic")
    (entry,) = seen(token("hm", "reasoning"), block)[-1]["reasoning_details"]
    mark = {"kind": kind, "provider": "anthropic", "start": 0, "end": 2}
    assert entry == told | {"index": 0, "penstock": mark}


def test_each_sealed_piece_says_which_reasoning_is_its_own() -> None:
    block = ReasoningBlockClosed(index=0, kind="reasoning", signature="e", id="rs_1", provider="openai-responses")
    found = seen(token("hm", "reasoning"), block, token("so", "reasoning"), block)
    marks = [entry["penstock"] for row in found if "reasoning_details" in row for entry in row["reasoning_details"]]
    assert [(mark["start"], mark["end"]) for mark in marks] == [(0, 2), (2, 4)]


def test_what_the_provider_sends_raw_is_told_on_request_only() -> None:
    raw = ProviderEvent(type="t", payload={"a": 1})
    assert seen(raw, token("a")) == [ROLE, {"content": "a"}]
    assert seen(raw, extras="penstock")[1]["penstock"]["payload"] == {"a": 1}


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("refusal", "stop"),
        ("other", "stop"),
        ("tool_calls", "stop"),  # without a call for the client
    ],
)
def test_the_finish_reason_in_openais_words(reason: Any, word: str) -> None:
    assert seen(token("a"), completed("a", finish_reason=reason))[-2:] == [({}, word), "[DONE]"]


def test_of_an_answer_that_ended_for_an_unknown_reason_the_providers_word_is_told() -> None:
    unknown = completed("a", finish_reason="other", raw_finish_reason="MALFORMED_FUNCTION_CALL")
    end = chunks(token("a"), unknown)[-2]["choices"][0]
    assert (end["finish_reason"], end["native_finish_reason"]) == ("stop", "MALFORMED_FUNCTION_CALL")
    assert "native_finish_reason" not in chunks(token("a"), completed("a", raw_finish_reason="stop"))[-2]["choices"][0]
    untold = completed("a", choices=(Choice(index=1, text="b"),))
    asked = completed("a", choices=(Choice(index=1, tool_calls=(call(),)),))
    for one, word in ((untold, "stop"), (asked, "tool_calls")):
        assert chunks(token("a"), one)[-3]["choices"][0]["finish_reason"] == word
        assert [choice["finish_reason"] for choice in answer(one, opened())["choices"]] == ["stop", word]


def test_the_usage_is_told_only_if_it_is_asked_for_and_known() -> None:
    usage = Usage(input_tokens=1, output_tokens=2)
    assert all("usage" not in chunk for chunk in chunks(token("a"), completed("a", usage=usage))[:-1])
    assert all(chunk["choices"] for chunk in chunks(token("a"), completed("a"), request=USAGE)[:-1])


def test_the_details_of_a_usage() -> None:
    usage = Usage(
        input_tokens=10,
        output_tokens=5,
        reasoning_tokens=2,
        cached_tokens=4,
        cache_write_tokens=1,
        audio_output_tokens=3,
        server_tool_requests={"web_search": 2, "sources": 1},
        reported_cost=0.5,
    )
    told = chunks(token("a"), completed("a", usage=usage, provider="openai"), request=USAGE)[-2]["usage"]
    assert told == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 3},
        "num_sources_used": 1,
        "server_tool_use": {"web_search_requests": 2},
        "cost": 0.5,
    }


@pytest.mark.parametrize(("provider", "counts"), [("anthropic", (15, 5)), ("gemini", (12, 7)), ("openai", (10, 5))])
def test_counts_are_inclusive_as_openais_are(provider: str, counts: tuple[int, int]) -> None:
    usage = Usage(
        input_tokens=10,
        output_tokens=5,
        cached_tokens=4,
        cache_write_tokens=1,
        reasoning_tokens=2,
        tool_input_tokens=2 if provider == "gemini" else None,
    )
    told = chunks(completed("", usage=usage, provider=provider), request=USAGE)[-2]["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"]) == counts


def test_the_last_chunk_says_what_the_provider_says_of_the_answer() -> None:
    metadata = {
        "system_fingerprint": "fp",
        "service_tier": "flex",
        "native_finish_reason": "STOP",
        "stop_sequence": "!",
    }
    end = chunks(token("a"), completed("a", provider_metadata=metadata))[-2]
    assert (end["system_fingerprint"], end["service_tier"]) == ("fp", "flex")
    choice = end["choices"][0]
    assert (choice["native_finish_reason"], choice["stop_reason"]) == ("STOP", "!")


def test_further_choices_come_whole_before_the_end() -> None:
    others = (
        Choice(index=1, text="b", reasoning="hm", finish_reason="length", raw_finish_reason="length"),
        Choice(index=2, tool_calls=(call(),), finish_reason="tool_calls", raw_finish_reason="tool_calls"),
    )
    found = chunks(token("a"), completed("a", choices=others))
    assert [(chunk["choices"][0]["index"], chunk["choices"][0]["finish_reason"]) for chunk in found[2:-1]] == [
        (1, "length"),
        (2, "tool_calls"),
        (0, "stop"),
    ]
    assert found[2]["choices"][0]["delta"] == {"role": "assistant", "reasoning_content": "hm", "content": "b"}
    (told,) = found[3]["choices"][0]["delta"]["tool_calls"]
    assert told["function"] == {"name": "f", "arguments": '{"x":1}'}


def test_calls_without_a_finish_reason_are_calls_nevertheless() -> None:
    one = call()
    assert seen(*calling(one), ToolCallCompleted(index=0, call=one), completed(tool_calls=(one,)))[-2] == (
        {},
        "tool_calls",
    )


def test_an_answer_that_breaks_off_ends_in_an_error_and_never_in_done() -> None:
    found = seen(token("a"), failed("ab", undelivered=1))
    assert found[1] == {"content": "a"}
    assert error_of(found) == {
        "message": "The provider's stream stopped before its end.",
        "type": "server_error",
        "param": None,
        "code": "stream_interrupted",
    }
    assert "[DONE]" not in found


def test_a_cancelled_answer_ends_in_an_error() -> None:
    found = seen(token("a"), cancelled("a", reason="enough"))
    assert error_of(found)["code"] == "stream_cancelled"
    assert "[DONE]" not in found


def test_an_error_before_the_first_token_is_the_only_frame() -> None:
    assert [*seen(failed())[0]] == ["error"]


def test_a_reader_that_is_cut_off_gets_an_error() -> None:
    projection = ChatProjection(opened())
    problem = Problem(status=200, type="server_error", code="draining", message="restarting")
    assert datas(projection.cut(problem)) == [error_body(problem)]


def test_an_errors_body_for_a_response() -> None:
    error = RateLimited(429, "slow down", retry_after=2.0)
    assert error_body(problem_of(error)) == {
        "error": {
            "message": str(error),
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }


def test_the_heartbeat_is_a_comment_of_one_line() -> None:
    assert ChatProjection.heartbeat == b": hb\n"


# --- resets and snapshots ---------------------------------------------------------------------------------------------


def test_a_reset_before_any_text_is_silent() -> None:
    assert seen(reset(), token("a"), completed("a")) == [ROLE, {"content": "a"}, *END]
    assert seen(StreamStarted(), reset(), token("a")) == [ROLE, {"content": "a"}]


def test_a_reset_after_text_is_an_error() -> None:
    found = seen(token("a"), reset(), token("b"), completed("b"))
    assert found[:2] == [ROLE, {"content": "a"}]
    assert error_of(found)["code"] == "stream_restarted"
    assert len(found) == 3


def test_a_reset_can_be_told_to_a_reader_that_knows_of_it() -> None:
    found = seen(token("a"), reset("broke"), token("b"), completed("b"), extras="penstock")
    assert found[2:] == [{"penstock": {"type": "reset", "reset": True, "reason": "broke"}}, {"content": "b"}, *END]


def test_text_that_waits_for_its_probabilities_is_void_after_a_reset() -> None:
    assert seen(token("a"), reset(), token("b"), completed("b"), request={"logprobs": True}) == [
        ROLE,
        {"content": "b"},
        *END,
    ]


def full_snapshot(**more: Any) -> Any:
    fields: dict[str, Any] = {
        "reasoning": "hm",
        "refusal": "no",
        "tool_calls": (call(),),
        "parts": (AnswerPart(index=0, kind="text", start=0, end=2),),
        "answer_events": (Citation(kind="url", url="https://a.example/"), MediaPart(kind="image", data="QQ==")),
    }
    return snapshot("ab", **fields | more)


def test_a_first_snapshot_is_one_delta_for_each_kind() -> None:
    found = seen(full_snapshot(), token("c"), completed("abc", finish_reason="tool_calls"))
    assert found[:4] == [ROLE, {"reasoning_content": "hm"}, {"content": "ab"}, {"refusal": "no"}]
    assert [next(iter(delta)) for delta in found[4:7]] == ["annotations", "images", "tool_calls"]
    assert found[6]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x":1}'}
    assert found[7:] == [{"content": "c"}, ({}, "tool_calls"), "[DONE]"]


def test_each_sealed_piece_of_a_snapshot_says_which_reasoning_is_its_own() -> None:
    parts = tuple(AnswerPart(index=place, kind="reasoning", start=2 * place, end=2 * place + 2) for place in range(2))
    kinds = ("thinking", "redacted_thinking", "thinking")
    events = tuple(ReasoningBlockClosed(index=place, kind=kind, signature="s") for place, kind in enumerate(kinds))
    found = seen(snapshot("a", reasoning="hmso", parts=parts, answer_events=events))
    marks = [entry["penstock"] for row in found if "reasoning_details" in row for entry in row["reasoning_details"]]
    assert [(mark["start"], mark["end"]) for mark in marks] == [(0, 2), (2, 2), (2, 4)]


def test_probabilities_before_a_snapshot_are_not_told_out_of_order() -> None:
    end = completed("ab", logprobs=(LOGPROB, LOGPROB))
    assert seen(snapshot("a"), token("b"), Logprobs(tokens=(LOGPROB,)), end) == [
        ROLE,
        {"content": "a"},
        {"content": "b"},
        {},
        *END,
    ]


def test_sound_that_was_sent_cannot_be_taken_back() -> None:
    piece = MediaPart(kind="audio", data="QQ==", is_partial=True)
    assert error_of(seen(piece, reset()))["code"] == "stream_restarted"


def test_a_later_snapshot_tells_only_what_lies_beyond() -> None:
    before = [token("h", "reasoning"), token("a"), Citation(kind="url"), *calling(call(), pieces=1)[:1]]
    found = seen(*before, full_snapshot())
    assert found[len(before) + 1 :] == [
        {"reasoning_content": "m"},
        {"content": "b"},
        {"refusal": "no"},
        {"images": [{"type": "image_url", "index": 0, "image_url": {"url": "data:image/png;base64,QQ=="}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":1}'}}]},
    ]


def test_a_snapshot_that_repeats_everything_makes_no_frame() -> None:
    assert len(seen(token("ab"), snapshot("ab"))) == 2


def test_a_snapshot_of_another_text_is_a_reset() -> None:
    assert error_of(seen(token("x"), snapshot("ab")))["code"] == "stream_restarted"
    assert seen(token("x"), snapshot("ab"), extras="penstock")[3] == {"content": "ab"}


def test_pieces_that_were_missed_come_with_the_calls_end() -> None:
    one = call(arguments='{"x":[1,2,3]}')
    started, first, second, third = calling(one, pieces=3)
    found = seen(started, first, snapshot(), third, ToolCallCompleted(index=0, call=one))
    pieces = [delta["tool_calls"][0]["function"]["arguments"] for delta in found[1:]]
    assert "".join(pieces) == one.arguments_raw
    assert len(pieces) == 3
    assert isinstance(second, type(third))


def test_a_call_whose_start_was_missed_comes_whole() -> None:
    one = call()
    (told,) = seen(*calling(one)[1:], ToolCallCompleted(index=0, call=one))[-1]["tool_calls"]
    assert told == {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}


def test_a_snapshot_with_results_is_an_agents() -> None:
    result = ToolResult(call_id="call_1", name="f", content="1")
    end = completed("a", tool_calls=(call(),), raw_finish_reason="stop")
    assert seen(snapshot("a", tool_calls=(call(),), tool_results=(result,)), end) == [ROLE, {"content": "a"}, *END]


def test_an_end_alone_tells_the_whole_answer() -> None:
    end = completed(
        "ab",
        reasoning="hm",
        tool_calls=(call(),),
        finish_reason="tool_calls",
        citations=(Citation(kind="url"),),
        media=(MediaPart(kind="image", data="QQ=="),),
        reasoning_blocks=(ReasoningBlock(kind="thinking", text="hm", signature="s"),),
        logprobs=(LOGPROB,),
    )
    found = seen(end)
    assert found[:3] == [ROLE, {"reasoning_content": "hm"}, {"content": "ab"}]
    (mark,) = [delta["reasoning_details"][0]["penstock"] for delta in found[3:4]]
    assert (mark["start"], mark["end"]) == (0, 2)
    names = [next(iter(delta), "logprobs") for delta in found[3:-2]]
    assert names == ["reasoning_details", "annotations", "images", "tool_calls", "logprobs"]
    assert found[-2:] == [({}, "tool_calls"), "[DONE]"]


def test_a_start_that_says_the_provider_runs_the_call_is_believed() -> None:
    started = ToolCallStarted(id="xs_call_1", name="x_search", index=0)
    assert seen(started, completed("", raw_finish_reason="stop"))[1:] == END
