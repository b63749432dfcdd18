"""Every recorded OpenAI-like stream decodes to its sidecar's content, wherever its bytes are split."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.ports import (
    ChoiceDelta,
    Delta,
    ErrorDelta,
    FinishDelta,
    KeepAlive,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
)

CORPUS = Path(__file__).parent.parent / "corpus"
BYTE_BY_BYTE_UP_TO = 12_000
EVERY_CUT_UP_TO = 4_000
LIMIT = 4 * 1_048_576


def _recordings() -> list[Any]:
    found = []
    for sidecar in sorted(CORPUS.glob("*/*.json")):
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        if facts.get("api") in ("chat", "responses"):
            found.append(pytest.param(facts, id=f"{sidecar.parent.name}/{sidecar.stem[-60:]}"))
    return found


RECORDINGS = _recordings()

READ_FROM_DETAILS_ONLY = {"snowflake/pydantic-pydantic-ai__test_snowflake_thinking_streaming.sse": "15 * 27 = 405"}
"""The sidecar does not read ``reasoning_details``; Penstock does if no other field has the reasoning."""

ERROR_FIELD = {
    "gpustack/crmne-ruby_llm__TRIMMED-chat_with_extended_thinking_gpustack_qwen3_streams_thinking_.sse": (
        "failed to decode, try again, increasing context size or reducing parallel"
    )
}
"""The sidecar drops ``error:`` field lines, as the standard says; Penstock reports them."""


RUN_BY_THE_PROVIDER = {
    "xai/vkryukov-req_llm__grok_4_fast_reasoning-x_search_streaming.sse": {"x_keyword_search"},
}
"""Calls that the sidecar lists like any others, though the request asked for the provider's own ``x_search``."""


SHORTER_WHEN_WHOLE = {"openai/maruel-genai__openairesponses-gpt-5.6-sol_thinking-GenStream-MaxTokens.sse"}
"""The finished summary is shorter than what was streamed of it, which is counted."""


def _decoder(facts: dict[str, Any]) -> ChatDecoder | ResponsesDecoder:
    return ChatDecoder(LIMIT) if facts["api"] == "chat" else ResponsesDecoder(LIMIT)


def _decode(facts: dict[str, Any], chunks: Iterable[bytes]) -> tuple[list[Delta], ChatDecoder | ResponsesDecoder]:
    decoder = _decoder(facts)
    deltas: list[Delta] = []
    for chunk in chunks:
        deltas += decoder.feed(chunk)
    deltas += decoder.close()
    return [delta for delta in deltas if not isinstance(delta, KeepAlive)], decoder


def _body(facts: dict[str, Any]) -> bytes:
    path: Path = CORPUS / facts["file"]
    return path.read_bytes()


def _calls(deltas: list[Delta]) -> list[dict[str, Any]]:
    """Put fragments together: a new id or index is a new call; a fragment with neither belongs to the last one."""
    calls: list[dict[str, Any]] = []
    by_index: dict[int | None, dict[str, Any]] = {}
    for delta in deltas:
        if not isinstance(delta, ToolCallFragment):
            continue
        call = by_index.get(delta.index) if delta.index is not None else (calls[-1] if calls else None)
        if call is None or (delta.id is not None and call["id"] not in (None, delta.id)):
            call = {"id": None, "name": None, "arguments": "", "is_server": delta.is_server}
            calls.append(call)
        by_index[delta.index] = call
        call["id"] = call["id"] or delta.id
        call["name"] = call["name"] or delta.name
        call["arguments"] += delta.arguments
        assert call["is_server"] is delta.is_server
    return calls


def _joined(deltas: list[Delta], kind: type[TextDelta] | type[ReasoningDelta] | type[RefusalDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, kind))


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recording_decodes_to_what_its_sidecar_says(facts: dict[str, Any]) -> None:
    expect = facts["expect"]
    deltas, decoder = _decode(facts, [_body(facts)])

    assert _joined(deltas, TextDelta) == expect["text"]
    assert _joined(deltas, ReasoningDelta) == READ_FROM_DETAILS_ONLY.get(facts["file"], expect["reasoning"])
    assert _joined(deltas, RefusalDelta) == expect["refusal"]
    hosted = RUN_BY_THE_PROVIDER.get(facts["file"], set())
    assert [(call["id"], call["name"], call["arguments"], call["is_server"]) for call in _calls(deltas)] == [
        (call["id"], call["name"], call["arguments_raw"], call["name"] in hosted) for call in expect["tool_calls"]
    ]
    assert decoder.done == expect["terminated"]
    assert decoder.finished == (expect["finish_reason"] not in (None, "failed"))


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_finish_reason_is_told_in_the_providers_word(facts: dict[str, Any]) -> None:
    expect = facts["expect"]
    finishes = [delta for delta in _decode(facts, [_body(facts)])[0] if isinstance(delta, FinishDelta)]

    raw = expect["finish_reason"]
    if expect["flags"].get("finish_reason_changed"):
        raw = "tool_calls"  # the sidecar has the "stop" that came later
    if raw in (None, "failed"):
        assert finishes == []
        return
    assert [finish.raw for finish in finishes] == [raw]
    if facts["file"] in RUN_BY_THE_PROVIDER:
        assert finishes[0].reason == "stop"  # these calls need no result
    elif expect["tool_calls"] and raw in ("stop", "completed", "tool_calls"):
        assert finishes[0].reason == "tool_calls"


@pytest.mark.parametrize("facts", [each for each in RECORDINGS if each.values[0]["expect"].get("choices")])
def test_a_recordings_other_choices_are_told_too(facts: dict[str, Any]) -> None:
    deltas, decoder = _decode(facts, [_body(facts)])
    others: dict[str, list[Delta]] = {}
    for delta in deltas:
        if isinstance(delta, ChoiceDelta):
            others.setdefault(str(delta.index), []).append(delta.delta)
    choices = dict(facts["expect"]["choices"])
    first = choices.pop("0")
    assert first["text"] == _joined(deltas, TextDelta)
    assert set(others) == set(choices)
    for index, choice in choices.items():
        told = others[index]
        assert _joined(told, TextDelta) == choice["text"]
        assert sum(isinstance(delta, TextDelta) for delta in told) == choice["text_deltas"]
        finishes = [delta.raw for delta in told if isinstance(delta, FinishDelta)]
        assert finishes == ([choice["finish_reason"]] if choice["finish_reason"] else [])
    last = max(at for at, delta in enumerate(deltas) if isinstance(delta, ChoiceDelta))
    assert [at for at, delta in enumerate(deltas) if isinstance(delta, FinishDelta)] > [last]
    assert decoder.skipped == 0


@pytest.mark.parametrize("facts", [each for each in RECORDINGS if each.values[0]["api"] == "responses"])
def test_a_recordings_reasoning_items_are_announced_and_come_back_as_blocks(facts: dict[str, Any]) -> None:
    deltas, decoder = _decode(facts, [_body(facts)])
    added: list[dict[str, Any]] = []
    done: list[dict[str, Any]] = []
    for line in _body(facts).decode("utf-8").splitlines():
        event = json.loads(line[6:]) if line.startswith("data: {") else {}
        if event.get("item", {}).get("type") == "reasoning":
            (added if event["type"].endswith(".added") else done).append(event["item"])
    assert sum(isinstance(delta, Thinking) for delta in deltas) == len(added)
    blocks = [delta.block for delta in deltas if isinstance(delta, ReasoningBlockDelta)]
    assert [(block.kind, block.id, block.signature, block.text) for block in blocks] == [
        (
            "reasoning",
            item.get("id"),
            item.get("encrypted_content") or "",
            "".join(part["text"] for part in item.get("summary", [])),
        )
        for item in done
        if item.get("id") or item.get("encrypted_content")
    ]
    assert decoder.skipped == (facts["file"] in SHORTER_WHEN_WHOLE)


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_usage_is_told_and_what_is_not_told_is_none(facts: dict[str, Any]) -> None:
    usages = [delta.usage for delta in _decode(facts, [_body(facts)])[0] if isinstance(delta, UsageDelta)]

    expected = facts["expect"]["usage_normalized"]
    assert bool(usages) == bool(expected)
    if usages:
        assert {name: getattr(usages[-1], name) for name in expected} == expected


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_errors_are_told_with_code_and_message(facts: dict[str, Any]) -> None:
    errors = [delta.error for delta in _decode(facts, [_body(facts)])[0] if isinstance(delta, ErrorDelta)]

    expected = facts["expect"]["errors"]
    if facts["file"] in ERROR_FIELD:
        assert [getattr(error, "message", None) for error in errors] == [ERROR_FIELD[facts["file"]]]
        return
    if facts["api"] == "responses":
        expected = expected[:1]  # `error` and `response.failed` contain the same one
    assert [getattr(error, "message", None) for error in errors] == [error["message"] for error in expected]
    for error, facts_of_error in zip(errors, expected, strict=True):
        code = facts_of_error.get("code") or facts_of_error.get("type")
        assert getattr(error, "code", None) == (None if code is None else str(code))


@pytest.mark.sample(6)
@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recording_decodes_to_the_same_however_it_is_cut(facts: dict[str, Any]) -> None:
    body = _body(facts)
    whole = [_told(delta) for delta in _decode(facts, [body])[0]]
    if len(body) <= BYTE_BY_BYTE_UP_TO:
        single = _decode(facts, (body[at : at + 1] for at in range(len(body))))[0]
        assert [_told(delta) for delta in single] == whole
    cuts = random.Random(facts["file"])
    every = range(len(body) + 1)
    for at in every if len(body) <= EVERY_CUT_UP_TO else cuts.choices(every, k=12):
        assert [_told(delta) for delta in _decode(facts, [body[:at], body[at:]])[0]] == whole


def _told(delta: Delta) -> object:
    return repr(delta.error) if isinstance(delta, ErrorDelta) else delta


@pytest.mark.parametrize("facts", RECORDINGS)
def test_cutting_a_recording_short_never_raises_and_never_invents(facts: dict[str, Any]) -> None:
    body = _body(facts)
    text, reasoning = facts["expect"]["text"], READ_FROM_DETAILS_ONLY.get(facts["file"], facts["expect"]["reasoning"])
    cuts = random.Random(facts["file"])
    for _ in range(12):
        deltas, _decoder = _decode(facts, [body[: cuts.randrange(len(body))]])
        assert text.startswith(_joined(deltas, TextDelta))
        assert reasoning.startswith(_joined(deltas, ReasoningDelta))


def test_the_corpus_is_there() -> None:
    assert len(RECORDINGS) >= 90
