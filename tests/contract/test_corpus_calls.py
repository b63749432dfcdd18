"""Every recorded stream's function calls, put together: ids, names, parsed arguments, wherever the bytes are split."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.actors.call.answer import OutcomeBuilder
from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.events import ToolCall
from penstock.ports import Decoder, TextDelta

CORPUS = Path(__file__).parent.parent / "corpus"
LIMIT = 4 * 1_048_576
DECODERS: dict[str, type[Any]] = {
    "chat": ChatDecoder,
    "responses": ResponsesDecoder,
    "messages": MessagesDecoder,
    "ollama": OllamaDecoder,
    "gemini": GeminiDecoder,
    "gemini-json": GeminiDecoder,
}


IN_PIECES = "gemini/vercel-ai__google-stream-tool-call-arguments.sse"
"""The sidecar lists each fragment (``partialArgs``) as a call; test_corpus_gemini has what they make together."""


def _recordings() -> list[Any]:
    found = []
    for sidecar in sorted(CORPUS.glob("*/*.json")):
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        if facts.get("expect", {}).get("tool_calls") and facts["file"] != IN_PIECES:
            found.append(pytest.param(facts, id=f"{sidecar.parent.name}/{sidecar.stem[-60:]}"))
    return found


RECORDINGS = _recordings()


def _calls(facts: dict[str, Any], chunks: Iterable[bytes]) -> tuple[ToolCall, ...]:
    decoder: Decoder = DECODERS[facts["api"]](LIMIT)
    builder = OutcomeBuilder()
    for chunk in chunks:
        for delta in decoder.feed(chunk):
            if not isinstance(delta, TextDelta):
                builder.note(delta)
    for delta in decoder.close():
        if not isinstance(delta, TextDelta):
            builder.note(delta)
    if decoder.done or decoder.finished:
        builder.complete()
    return builder.outcome().tool_calls


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_calls_are_the_right_ones_however_it_is_cut(facts: dict[str, Any]) -> None:
    body = (CORPUS / facts["file"]).read_bytes()
    calls = _calls(facts, [body])
    expected = facts["expect"]["tool_calls"]
    assert [call.name for call in calls] == [call["name"] for call in expected]
    for call, its in zip(calls, expected, strict=True):
        if its.get("type") == "custom_tool_call":  # free text, which may be JSON: the sidecar does not parse it
            assert call.arguments_raw == its["arguments_raw"]
        else:
            assert call.arguments == its["arguments"]
        assert call.id == its["id"] if its["id"] else call.id
    assert len({call.id for call in calls}) == len(calls)
    cuts = random.Random(facts["file"])
    for _ in range(3):
        at = sorted(cuts.randrange(len(body)) for _ in range(20))
        pieces = [body[low:high] for low, high in zip([0, *at], [*at, len(body)], strict=True)]
        assert _calls(facts, pieces) == calls


def test_there_are_calls_in_every_wire_format() -> None:
    assert {facts.values[0]["api"] for facts in RECORDINGS} >= {"chat", "responses", "messages", "ollama", "gemini"}
