"""Whole answers as chat completions."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from penstock.events import Choice, Citation, MediaPart, ReasoningBlock, StreamCompleted, TokenLogprob, Usage
from penstock.gateway.answers.chat import answer
from tests.unit.gateway.chat_made import call, completed, opened


def whole(end: StreamCompleted, **variant: Any) -> dict[str, Any]:
    return answer(end, opened(**variant))


def message_of(end: StreamCompleted, **variant: Any) -> dict[str, Any]:
    message: dict[str, Any] = whole(end, **variant)["choices"][0]["message"]
    return message


def test_a_text_with_its_counts() -> None:
    usage = Usage(input_tokens=3, output_tokens=2, total_tokens=5, cached_tokens=1)
    metadata = {"system_fingerprint": "fp", "service_tier": "default"}
    end = completed("Hi", usage=usage, model="m-2", raw_finish_reason="stop", provider_metadata=metadata)
    assert whole(end) == {
        "id": "chatcmpl-s1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m-2",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
        "service_tier": "default",
        "system_fingerprint": "fp",
    }


def test_an_unknown_usage_is_left_out() -> None:
    assert "usage" not in whole(completed("Hi"))
    assert whole(completed("Hi", usage=Usage(input_tokens=3)))["usage"] == {"prompt_tokens": 3}


def test_calls_and_no_text() -> None:
    end = completed(tool_calls=(call(), call("g", "", id="call_2")), finish_reason="tool_calls")
    message = message_of(end)
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert whole(end)["choices"][0]["finish_reason"] == "tool_calls"


def test_a_call_with_free_text_and_one_with_a_signature() -> None:
    free, signed = call("sql", "SELECT 1", type="custom"), call(signature="c2ln")
    told = message_of(completed(tool_calls=(free, signed), finish_reason="tool_calls"))["tool_calls"]
    assert told[0] == {"id": "call_1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    assert told[1]["extra_content"] == {"google": {"thought_signature": "c2ln"}}


def test_the_providers_calls_and_those_of_an_agents_turn_are_left_out() -> None:
    server = call(id="srvtoolu_1", is_server=True)
    assert "tool_calls" not in message_of(completed("a", tool_calls=(server,), finish_reason="tool_calls"))
    done = completed("a", tool_calls=(call(),), finish_reason="stop", raw_finish_reason="stop")
    assert "tool_calls" not in message_of(done, is_turn=True)
    assert "tool_calls" in message_of(completed("a", tool_calls=(call(),), finish_reason="length"))
    untold = completed("a", tool_calls=(call(),))
    assert whole(untold)["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "other", "tool_calls"])
def test_an_agents_turn_has_no_calls_for_the_client_however_it_ends(reason: Any) -> None:
    end = completed("a", tool_calls=(call(),), finish_reason=reason, raw_finish_reason=reason)
    (choice,) = whole(end, is_turn=True)["choices"]
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] != "tool_calls"


def test_a_refusal_and_reasoning() -> None:
    end = completed(refusal="no", reasoning="hm", finish_reason="refusal", raw_finish_reason="stop")
    assert message_of(end) == {
        "role": "assistant",
        "content": None,
        "refusal": "no",
        "reasoning_content": "hm",
        "annotations": [],
    }
    assert message_of(end, reasoning_field="reasoning")["reasoning"] == "hm"


def test_an_empty_answer_has_empty_content() -> None:
    assert message_of(completed(""))["content"] == ""


def test_sources_pictures_sound_and_sealed_reasoning() -> None:
    end = completed(
        "a",
        reasoning="hm",
        citations=(Citation(kind="url", url="https://a.example/", start=0, end=1),),
        media=(
            MediaPart(kind="image", data="QQ=="),
            MediaPart(kind="image", url="https://a.example/b.png"),
            MediaPart(kind="audio", id="a1", data="QQ==", transcript="Hi"),
        ),
        reasoning_blocks=(ReasoningBlock(kind="thinking", text="hm", signature="c2ln", provider="anthropic"),),
    )
    message = message_of(end)
    assert [one["url_citation"]["url"] for one in message["annotations"]] == ["https://a.example/"]
    assert [one["index"] for one in message["images"]] == [0, 1]
    assert message["audio"] == {"id": "a1", "data": "QQ==", "transcript": "Hi"}
    (entry,) = message["reasoning_details"]
    assert (entry["type"], entry["text"], entry["signature"]) == ("reasoning.text", "hm", "c2ln")


def test_probabilities() -> None:
    token = TokenLogprob(token="é", logprob=-0.5)
    (choice,) = whole(completed("é", logprobs=(token,)))["choices"]
    assert choice["logprobs"] == {"content": [{"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": []}]}


def test_further_choices() -> None:
    other = Choice(index=1, text="b", finish_reason="length", raw_finish_reason="length")
    choices = whole(completed("a", choices=(other,)))["choices"]
    assert [(one["index"], one["message"]["content"], one["finish_reason"]) for one in choices] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]


@pytest.mark.parametrize(
    "end",
    [
        completed("Hi", usage=Usage(input_tokens=1, output_tokens=1)),
        completed(tool_calls=(call(),), finish_reason="tool_calls", citations=(Citation(kind="url"),)),
        completed("a", logprobs=(TokenLogprob(token="a", logprob=-1.0),), choices=(Choice(index=1, text="b"),)),
    ],
)
def test_the_official_client_accepts_the_answer(end: StreamCompleted) -> None:
    ChatCompletion.model_validate(whole(end))
