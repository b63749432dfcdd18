"""Whole answers as messages of Anthropic's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message

from penstock.events import Citation, ProviderBlock, ReasoningBlock, StreamCompleted, Usage
from penstock.gateway.answers.anthropic import answer
from penstock.gateway.answers.anthropic_parts import seal
from tests.contract.test_corpus_anthropic import _content
from tests.unit.gateway.chat_made import CORPUS, call, completed, opened, source_of


def content_of(end: StreamCompleted, *, is_turn: bool = False) -> list[Any]:
    content: list[Any] = answer(end, opened(is_turn=is_turn))["content"]
    return content


def test_a_text_with_its_counts() -> None:
    usage = Usage(input_tokens=3, output_tokens=2, cached_tokens=1)
    end = completed("Hi", usage=usage, provider="anthropic", model="claude-x", raw_finish_reason="end_turn")
    assert answer(end, opened()) == {
        "id": "msg_s1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Hi"}],
        "model": "claude-x",
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 1, "output_tokens": 2},
    }


def test_reasoning_text_refusal_and_calls_in_order() -> None:
    block = ReasoningBlock(kind="reasoning", text="hm", signature="ZW5j", id="rs_1", provider="openai-responses")
    end = completed(
        "a",
        reasoning="hm",
        refusal="no",
        reasoning_blocks=(block,),
        tool_calls=(call(), call(arguments="[", id="call_2")),
        finish_reason="tool_calls",
    )
    assert content_of(end) == [
        {"type": "thinking", "thinking": "hm", "signature": seal(block)},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "call_2", "name": "f", "input": {}},
        {"type": "text", "text": "no"},
    ]
    assert answer(end, opened())["stop_reason"] == "tool_use"


def test_reasoning_that_nobody_signed_is_one_block_without_a_signature() -> None:
    assert content_of(completed("a", reasoning="hm"))[0] == {"type": "thinking", "thinking": "hm", "signature": ""}


def test_text_is_cut_where_its_sources_change() -> None:
    one = Citation(kind="url", url="https://a.example/", start=2, end=4)
    two = Citation(kind="url", url="https://b.example/", start=2, end=4)
    found = content_of(completed("abcdef", citations=(one, two)))
    assert [(block["text"], [each["url"] for each in block.get("citations", ())]) for block in found] == [
        ("ab", []),
        ("cd", ["https://a.example/", "https://b.example/"]),
        ("ef", []),
    ]
    placeless = content_of(completed("ab", citations=(Citation(kind="url", url="https://a.example/"),)))
    assert [each["url"] for each in placeless[0]["citations"]] == ["https://a.example/"]


def test_the_calls_of_an_agents_turn_and_its_last_rounds_blocks_are_left_out() -> None:
    block = ProviderBlock(provider="anthropic", data={"type": "thinking", "thinking": "hm", "signature": "s"}, at=0)
    end = completed(
        "a", tool_calls=(call(),), provider_blocks=(block,), provider="anthropic", raw_finish_reason="end_turn"
    )
    assert content_of(end, is_turn=True) == [{"type": "text", "text": "a"}]


def test_the_matched_stop_sequence_the_container_and_the_refusals_details() -> None:
    metadata = {"stop_sequence": "!", "container": {"id": "c"}, "refusal_details": {"type": "refusal"}}
    found = answer(completed("a", provider_metadata=metadata), opened())
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "!")
    assert (found["container"], found["stop_details"]) == ({"id": "c"}, {"type": "refusal"})


def _messages() -> list[Any]:
    sides = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(CORPUS.glob("*/*.json"))]
    whole = [side for side in sides if side["api"] == "messages" and side["expect"]["terminated"]]
    return [pytest.param(side, id=side["file"][-70:]) for side in whole]


@pytest.mark.parametrize("facts", _messages())
def test_a_recorded_message_is_put_together_block_by_block(facts: dict[str, Any]) -> None:
    end = source_of(facts)[-1]
    assert isinstance(end, StreamCompleted)
    expected = [_without_seals(block) for block in _content((CORPUS / facts["file"]).read_bytes())]
    expected = [block for block in expected if block != {"type": "text", "text": ""}]
    assert _joined([_without_seals(block) for block in content_of(end)]) == _joined(expected)


def _without_seals(block: dict[str, Any]) -> dict[str, Any]:
    """A block without the sealed index of its citations, and without the mark of a direct call, which nothing tells."""
    fields = {name: value for name, value in block.items() if name != "citations"}
    if block["type"] == "tool_use" and block.get("caller", {}).get("type") == "direct":
        del fields["caller"]
    sources = [
        {name: value for name, value in citation.items() if name != "encrypted_index" and value is not None}
        for citation in block.get("citations") or ()
    ]
    return fields | ({"citations": sources} if sources else {})


def _joined(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring texts without sources as one: the borders between them mean nothing."""
    out: list[dict[str, Any]] = []
    for block in blocks:
        if block["type"] == "text" and "citations" not in block and out and set(out[-1]) == {"type", "text"}:
            out[-1] = {"type": "text", "text": out[-1]["text"] + block["text"]}
        else:
            out.append(block)
    return out


@pytest.mark.parametrize(
    "end",
    [
        completed("Hi", usage=Usage(input_tokens=1, output_tokens=1)),
        completed("a", tool_calls=(call(),), finish_reason="tool_calls", citations=(Citation(kind="url"),)),
        completed("a", reasoning="hm"),
    ],
)
def test_the_official_client_accepts_the_answer(end: StreamCompleted) -> None:
    Message.model_validate(answer(end, opened()))
