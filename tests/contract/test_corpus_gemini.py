"""Every recorded Gemini stream decodes to its sidecar's content, wherever its bytes are split."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.actors.call.toolcalls import ToolCallAccumulator
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.errors import ApiError, ContentFilterError
from penstock.ports import (
    BlockDelta,
    Delta,
    ErrorDelta,
    FinishDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

CORPUS = Path(__file__).parent.parent / "corpus"
BYTE_BY_BYTE_UP_TO = 12_000
LIMIT = 4 * 1_048_576

RECORDINGS = []
for _sidecar in sorted(CORPUS.glob("*/*.json")):
    _facts = json.loads(_sidecar.read_text(encoding="utf-8"))
    if _facts.get("api") in ("gemini", "gemini-json"):
        RECORDINGS.append(pytest.param(_facts, id=f"{_sidecar.parent.name}/{_sidecar.stem[-60:]}"))

PARTIAL_ARGUMENTS = {
    "gemini/vercel-ai__google-stream-tool-call-arguments.sse": [
        ("getWeather", {"location": "Boston"}),
        ("getWeather", {"location": "San Francisco"}),
    ]
}
"""The sidecar counts each `functionCall` as a call; Penstock puts ``partialArgs`` together."""

BLOCKED_PROMPT = "gemini/FirebaseExtended-vertexai-sdk-test-data__googleai-streaming-failure-prompt-blocked-safety.sse"
"""The sidecar follows the standard, which drops a last event without its blank line; Penstock reads complete ones."""

MID_STREAM_ERROR = "vertex-gemini/FirebaseExtended-vertexai-sdk-test-data__vertexai-streaming-failure-error-mid-stream"
"""The error is bare JSON after the events, which the sidecar has as ``unframed_json_tail``."""


def _decode(facts: dict[str, Any], chunks: Iterable[bytes]) -> tuple[list[Delta], GeminiDecoder]:
    decoder = GeminiDecoder(LIMIT)
    deltas: list[Delta] = []
    for chunk in chunks:
        deltas += decoder.feed(chunk)
    return deltas + decoder.close(), decoder


def _body(facts: dict[str, Any]) -> bytes:
    path: Path = CORPUS / facts["file"]
    return path.read_bytes()


def _joined(deltas: list[Delta], kind: type[TextDelta] | type[ReasoningDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, kind))


def _told(delta: Delta) -> object:
    return repr(delta.error) if isinstance(delta, ErrorDelta) else delta


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_text_reasoning_and_end_are_those_of_its_sidecar(facts: dict[str, Any]) -> None:
    expect = facts["expect"]
    deltas, decoder = _decode(facts, [_body(facts)])
    assert _joined(deltas, TextDelta) == expect["text"]
    assert _joined(deltas, ReasoningDelta) == expect["reasoning"]
    finishes = [delta.raw for delta in deltas if isinstance(delta, FinishDelta)]
    assert finishes == ([] if expect["finish_reason"] is None else [expect["finish_reason"]])
    assert decoder.finished == expect["terminated"]
    assert not decoder.done


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_calls_are_put_together_with_their_signatures(facts: dict[str, Any]) -> None:
    expect = facts["expect"]
    accumulator = ToolCallAccumulator()
    deltas = _decode(facts, [_body(facts)])[0]
    fragments = [delta for delta in deltas if isinstance(delta, ToolCallFragment)]
    for fragment in fragments:
        accumulator.feed(fragment)
    calls = [(call.name, call.arguments) for call in accumulator.finish()]
    told = [(call["name"], call["arguments"]) for call in expect["tool_calls"]]
    assert calls == PARTIAL_ARGUMENTS.get(facts["file"], told)
    if calls:
        assert [delta.reason for delta in deltas if isinstance(delta, FinishDelta)] == ["tool_calls"]
    signed = [bool(call.get("thought_signature")) for call in expect["tool_calls"] if call["name"]]
    assert [fragment.signature != "" for fragment in fragments if fragment.name] == signed
    blocks = [delta.data for delta in deltas if isinstance(delta, BlockDelta)]
    returned = [block["thoughtSignature"] for block in blocks if "thoughtSignature" in block]
    signatures = returned + [each.signature for each in fragments if each.signature]
    assert len(signatures) == expect["thought_signatures"]
    assert all(len(signature) > 20 for signature in signatures)
    texts = [block["thoughtSignature"] for block in blocks if "text" in block]
    assert [delta.block.signature for delta in deltas if isinstance(delta, ReasoningBlockDelta)] == texts


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_last_usage_is_that_of_its_sidecar(facts: dict[str, Any]) -> None:
    usages = [delta.usage for delta in _decode(facts, [_body(facts)])[0] if isinstance(delta, UsageDelta)]
    expected = facts["expect"]["usage_normalized"]
    assert bool(usages) == bool(expected)
    if usages:
        assert {name: getattr(usages[-1], name) for name in expected} == expected


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_errors_are_told_with_code_and_message(facts: dict[str, Any]) -> None:
    errors = [delta.error for delta in _decode(facts, [_body(facts)])[0] if isinstance(delta, ErrorDelta)]
    if facts["file"] == BLOCKED_PROMPT:
        (error,) = errors
        assert isinstance(error, ContentFilterError)
        assert error.code == "SAFETY"
        return
    expected = list(facts["expect"]["errors"])
    if facts["file"].startswith(MID_STREAM_ERROR):
        expected.append(facts["expect"]["unframed_json_tail"]["error"])
    assert all(isinstance(error, ApiError) for error in errors)
    assert [(getattr(error, "code", ""), getattr(error, "message", "")) for error in errors] == [
        (each["status"], each["message"].strip()) for each in expected
    ]


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recording_decodes_to_the_same_however_it_is_cut(facts: dict[str, Any]) -> None:
    body = _body(facts)
    whole = [_told(delta) for delta in _decode(facts, [body])[0]]
    if len(body) <= BYTE_BY_BYTE_UP_TO:
        single = _decode(facts, (body[at : at + 1] for at in range(len(body))))[0]
        assert [_told(delta) for delta in single] == whole
    cuts = random.Random(facts["file"])
    for _ in range(20):
        at = cuts.randrange(len(body) + 1)
        assert [_told(delta) for delta in _decode(facts, [body[:at], body[at:]])[0]] == whole
    for _ in range(3):
        ends = sorted(cuts.randrange(len(body) + 1) for _ in range(30))
        pieces = [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]
        assert [_told(delta) for delta in _decode(facts, pieces)[0]] == whole


@pytest.mark.parametrize("facts", RECORDINGS)
def test_cutting_a_recording_short_never_raises_and_never_invents(facts: dict[str, Any]) -> None:
    body = _body(facts)
    whole = [_told(delta) for delta in _decode(facts, [body])[0]]
    cuts = random.Random(facts["file"])
    for _ in range(20):
        deltas, decoder = _decode(facts, [body[: cuts.randrange(len(body))]])
        told = [_told(delta) for delta in deltas]
        assert told == whole[: len(told)]
        assert decoder.finished == any(isinstance(delta, FinishDelta) for delta in deltas)


def test_the_corpus_is_there() -> None:
    assert len(RECORDINGS) >= 18
