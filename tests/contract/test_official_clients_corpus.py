"""The official clients and our decoders read recordings alike; `docs/official-clients.md` lists every exception."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from google.genai import errors as genai_errors

from penstock.adapters.loopback.replay import Replay
from penstock.adapters.loopback.script import Script
from penstock.adapters.loopback.server import LoopbackProvider
from tests.contract.official_clients import CORPUS, KEY, OfficialClients, Reading, connected_clients, our_reading

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "official-clients.md"


ERROR_FIELD = {"gpustack/crmne-ruby_llm__TRIMMED-chat_with_extended_thinking_gpustack_qwen3_streams_thinking_.sse"}
"""The sidecar drops ``error:`` field lines, as the standard says; Penstock reports them."""

READ_FURTHER = {"gemini/vercel-ai__google-stream-tool-call-arguments.sse": {"tool_calls"}}
"""Where Penstock reads more than a client that agrees with the sidecar: it puts ``partialArgs`` together."""


def _recordings() -> list[dict[str, Any]]:
    sidecars = sorted(CORPUS.glob("*/*.json"))
    return [json.loads(sidecar.read_text(encoding="utf-8")) for sidecar in sidecars]


RECORDINGS = _recordings()
CASES = [pytest.param(facts, id=facts["file"].replace("__", "/")[-70:]) for facts in RECORDINGS]


def _client(facts: dict[str, Any]) -> dict[str, Any]:
    """What is known of the official client's reading; empty if it was not used."""
    return (facts.get("cross_check") or {}).get("official_sdk") or {}


def _agreed(facts: dict[str, Any]) -> set[str]:
    """The points on which the client is right."""
    return {point for point, agrees in (_client(facts).get("agrees") or {}).items() if agrees}


def _errs(facts: dict[str, Any]) -> bool:
    client = _client(facts)
    return not client or client.get("sdk_error") is not None or False in client["agrees"].values()


ERRING = [case for case, facts in zip(CASES, RECORDINGS, strict=True) if _errs(facts)]


@pytest.fixture(scope="module")
def clients() -> Iterator[OfficialClients]:
    # Split without regard to events and characters.
    replays = {_model(facts): Replay(CORPUS / facts["file"], chunk=(997, 1, 61)) for facts in RECORDINGS}
    with connected_clients(LoopbackProvider(Script(models=replays), api_key=KEY)) as clients:
        yield clients


def _model(facts: dict[str, Any]) -> str:
    return f"recording-{RECORDINGS.index(facts)}"


def _ours(facts: dict[str, Any]) -> Reading:
    return our_reading(facts["api"], [(CORPUS / facts["file"]).read_bytes()])


@pytest.mark.filterwarnings(
    "ignore:Pydantic serializer warnings"
)  # raised by OpenAI's client for Mistral's lists of parts
@pytest.mark.sample(4)
@pytest.mark.parametrize("facts", CASES)
def test_the_client_and_our_decoder_read_a_recording_alike(clients: OfficialClients, facts: dict[str, Any]) -> None:
    theirs, ours = clients.read(facts["api"], _model(facts)), _ours(facts)

    for point in sorted(_agreed(facts) - READ_FURTHER.get(facts["file"], set())):
        match point:
            case "text_accumulated":
                assert ours.text == (theirs.text_accumulated or "")
            case "usage":
                assert {name: ours.usage.get(name) for name in theirs.usage} == theirs.usage
            case "tool_calls":
                assert ours.tool_calls == theirs.tool_calls
                for our_id, their_id in zip(ours.call_ids, theirs.call_ids, strict=True):
                    assert their_id in (our_id, None)
            case _:
                assert getattr(ours, point) == getattr(theirs, point), point


@pytest.mark.parametrize("facts", ERRING)
def test_where_the_client_errs_our_decoder_reads_what_the_sidecar_says(facts: dict[str, Any]) -> None:
    expect, ours = {**facts["expect"], **facts["expect"].get("expect_lenient", {})}, _ours(facts)

    assert (ours.text, ours.reasoning, ours.refusal) == (expect["text"], expect["reasoning"], expect["refusal"])
    assert [name for name, _ in ours.tool_calls] == [call["name"] for call in expect["tool_calls"]]
    for (_, arguments), call in zip(ours.tool_calls, expect["tool_calls"], strict=True):
        assert arguments == (call["arguments_raw"] if call["arguments"] is None else call["arguments"])
    assert ours.finish_reason == _finish_reason(facts)
    expected = expect["usage_normalized"] or {}
    assert ours.usage == {name: expected[name] for name in ours.usage}
    assert bool(ours.usage) == bool(expected)
    tells_error = expect["errors"] or expect.get("unframed_json_tail") or facts["file"] in ERROR_FIELD
    assert (ours.error is not None) == bool(tells_error)


def _finish_reason(facts: dict[str, Any]) -> str | None:
    """The sidecar's, except that Penstock counts no error as a finish reason, and uses the first of two."""
    told: str | None = facts["expect"]["finish_reason"]
    if facts["expect"]["flags"].get("finish_reason_changed"):
        return "tool_calls"
    return None if told == "failed" else told


def _listed() -> dict[str, str]:
    """The recordings that the document lists, each with where the client errs."""
    rows = re.findall(r"^\| `([^`]+\.(?:sse|ndjson))` \| (\S+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


def test_the_document_lists_every_recording_on_which_a_client_errs() -> None:
    assert sorted(_listed()) == sorted(facts["file"] for facts in RECORDINGS if _errs(facts))


@pytest.mark.parametrize("facts", ERRING)
def test_the_document_says_whether_a_plain_iterator_or_only_a_helper_errs(
    clients: OfficialClients, facts: dict[str, Any]
) -> None:
    where = _listed()[facts["file"]]
    assert (where == "–") == (not _client(facts))
    if where != "–":
        error = clients.iterate(facts["api"], _model(facts))
        assert isinstance(error, (openai.APIError, genai_errors.APIError) if where != "helper" else type(None))
