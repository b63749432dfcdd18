"""Every recorded stream of Ollama's own API decodes to its sidecar's content, wherever its bytes are split."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.ports import (
    Delta,
    ErrorDelta,
    FinishDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

CORPUS = Path(__file__).parent.parent / "corpus"
BYTE_BY_BYTE_UP_TO = 13_000
LIMIT = 4 * 1_048_576


def _recordings() -> list[Any]:
    found = []
    for sidecar in sorted(CORPUS.glob("*/*.json")):
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        if facts.get("api") == "ollama":
            found.append(pytest.param(facts, id=f"{sidecar.parent.name}/{sidecar.stem[-60:]}"))
    return found


RECORDINGS = _recordings()


def _decode(chunks: Iterable[bytes]) -> tuple[list[Delta], OllamaDecoder]:
    decoder = OllamaDecoder(LIMIT)
    deltas: list[Delta] = []
    for chunk in chunks:
        deltas += decoder.feed(chunk)
    return deltas + decoder.close(), decoder


def _body(facts: dict[str, Any]) -> bytes:
    path: Path = CORPUS / facts["file"]
    return path.read_bytes()


def _joined(deltas: list[Delta], kind: type[TextDelta] | type[ReasoningDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, kind))


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recording_decodes_to_what_its_sidecar_says(facts: dict[str, Any]) -> None:
    expect = facts["expect"]
    deltas, decoder = _decode([_body(facts)])

    assert _joined(deltas, TextDelta) == expect["text"]
    assert _joined(deltas, ReasoningDelta) == expect["reasoning"]
    assert (decoder.finished, decoder.done) == (expect["terminated"], expect["terminated"])
    assert decoder.model == facts["model"]
    assert decoder.skipped == 0
    assert expect["errors"] == [delta for delta in deltas if isinstance(delta, ErrorDelta)] == []


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_calls_come_whole_each_under_a_number_of_its_own(facts: dict[str, Any]) -> None:
    calls = [delta for delta in _decode([_body(facts)])[0] if isinstance(delta, ToolCallFragment)]

    expected = facts["expect"]["tool_calls"]
    assert [(call.id, call.name, json.loads(call.arguments)) for call in calls] == [
        (call["id"], call["name"], call["arguments"]) for call in expected
    ]
    assert [call.index for call in calls] == list(range(len(calls)))


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_finish_reason_and_usage_are_told(facts: dict[str, Any]) -> None:
    expect = facts["expect"]
    deltas = _decode([_body(facts)])[0]

    (finish,) = [delta for delta in deltas if isinstance(delta, FinishDelta)]
    assert finish.raw == expect["finish_reason"]
    assert finish.reason == ("tool_calls" if expect["tool_calls"] else expect["finish_reason"])
    (usage,) = [delta.usage for delta in deltas if isinstance(delta, UsageDelta)]
    expected = expect["usage_normalized"]
    assert {name: getattr(usage, name) for name in expected} == expected
    assert (usage.total_tokens, usage.cached_tokens, usage.reasoning_tokens) == (None, None, None)


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recording_decodes_to_the_same_however_it_is_cut(facts: dict[str, Any]) -> None:
    body = _body(facts)
    whole = _decode([body])[0]
    if len(body) <= BYTE_BY_BYTE_UP_TO:
        assert _decode(body[at : at + 1] for at in range(len(body)))[0] == whole
    cuts = random.Random(facts["file"])
    for _ in range(12):
        at = cuts.randrange(len(body) + 1)
        assert _decode([body[:at], body[at:]])[0] == whole
        edges = [0, *sorted(cuts.randrange(len(body) + 1) for _ in range(40)), len(body)]
        assert _decode(body[start:end] for start, end in itertools.pairwise(edges))[0] == whole


@pytest.mark.parametrize("facts", RECORDINGS)
def test_cutting_a_recording_short_never_raises_never_invents_and_never_completes(facts: dict[str, Any]) -> None:
    body = _body(facts).rstrip()
    whole = _decode([body])[0]
    cuts = random.Random(facts["file"])
    for at in [*(cuts.randrange(len(body)) for _ in range(12)), body.rfind(b"\n"), len(body) - 1]:
        deltas, decoder = _decode([body[:at]])
        assert deltas == whole[: len(deltas)]
        assert (decoder.finished, decoder.done) == (False, False)


def test_the_corpus_is_there() -> None:
    assert len(RECORDINGS) >= 10
