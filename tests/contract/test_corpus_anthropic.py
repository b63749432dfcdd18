"""Every recorded stream of Anthropic's Messages API decodes to its sidecar's content, wherever its bytes are split."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.actors.agent.history import Round, answer_message
from penstock.actors.call.answer import OutcomeBuilder
from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.errors import ApiError
from penstock.events import ServerToolCall, ServerToolResult
from penstock.ports import (
    BlockStart,
    ChatCall,
    CitationDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    KeepAlive,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    Secret,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

CORPUS = Path(__file__).parent.parent / "corpus"
BYTE_BY_BYTE_UP_TO = 12_000
LIMIT = 4 * 1_048_576


def _recordings() -> list[Any]:
    found = []
    for sidecar in sorted(CORPUS.glob("*/*.json")):
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        if facts.get("api") == "messages":
            found.append(pytest.param(facts, id=f"{sidecar.parent.name}/{sidecar.stem[-60:]}"))
    return found


RECORDINGS = _recordings()


def _decode(chunks: Iterable[bytes]) -> tuple[list[Delta], MessagesDecoder]:
    decoder = MessagesDecoder(LIMIT)
    deltas: list[Delta] = []
    for chunk in chunks:
        deltas += decoder.feed(chunk)
    return deltas + decoder.close(), decoder


def _body(facts: dict[str, Any]) -> bytes:
    path: Path = CORPUS / facts["file"]
    return path.read_bytes()


def _expected(facts: dict[str, Any]) -> dict[str, Any]:
    """A last block that lacks only its blank line is read if it is complete JSON, as by every decoder."""
    expect: dict[str, Any] = facts["expect"]
    return {**expect, **expect.get("expect_lenient", {})}


def _joined(deltas: list[Delta], kind: type[TextDelta] | type[ReasoningDelta] | type[RefusalDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, kind))


def _calls(deltas: list[Delta]) -> list[dict[str, Any]]:
    calls: dict[int | None, dict[str, Any]] = {}
    for delta in deltas:
        if not isinstance(delta, ToolCallFragment):
            continue
        if delta.id is not None:
            assert delta.index not in calls
            calls[delta.index] = {"id": delta.id, "name": delta.name, "server": delta.is_server, "raw": ""}
        calls[delta.index]["raw"] += delta.arguments
    return list(calls.values())


def _told(delta: Delta) -> object:
    return repr(delta.error) if isinstance(delta, ErrorDelta) else delta


def _told_all(chunks: Iterable[bytes]) -> list[object]:
    return [_told(delta) for delta in _decode(chunks)[0] if not isinstance(delta, KeepAlive)]


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recording_decodes_to_what_its_sidecar_says(facts: dict[str, Any]) -> None:
    expect = _expected(facts)
    deltas, decoder = _decode([_body(facts)])

    assert _joined(deltas, TextDelta) == expect["text"]
    assert _joined(deltas, ReasoningDelta) == expect["reasoning"]
    assert _joined(deltas, RefusalDelta) == expect["refusal"]
    assert decoder.done == expect["terminated"]
    assert decoder.finished == (expect["finish_reason"] is not None)
    assert decoder.model == expect["model"]
    assert sum(isinstance(delta, KeepAlive) for delta in deltas) == expect["pings"] + bool(expect["sse"]["comments"])


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_calls_are_told_with_what_they_say_and_who_runs_them(facts: dict[str, Any]) -> None:
    calls = _calls(_decode([_body(facts)])[0])
    expected = _expected(facts)["tool_calls"]

    assert [(call["id"], call["name"], call["server"]) for call in calls] == [
        (call["id"], call["name"], call.get("server", False)) for call in expected
    ]
    for call, facts_of_call in zip(calls, expected, strict=True):
        if isinstance(facts_of_call["arguments_raw"], str):
            assert call["raw"] == facts_of_call["arguments_raw"]
        else:  # it came whole, as an object
            assert json.loads(call["raw"]) == facts_of_call["arguments_raw"]


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_reasoning_is_told_in_blocks_that_can_be_given_back(facts: dict[str, Any]) -> None:
    blocks = [delta.block for delta in _decode([_body(facts)])[0] if isinstance(delta, ReasoningBlockDelta)]

    expected = facts["expect"]["thinking_blocks"]
    assert len(blocks) == len(expected)
    for block, facts_of_block in zip(blocks, expected, strict=True):
        if "redacted_data_len" in facts_of_block:
            assert (block.kind, block.text) == ("redacted_thinking", "")
            assert len(block.signature) == facts_of_block["redacted_data_len"]
            assert block.signature.encode() in _body(facts)
        else:
            assert (block.kind, block.text) == ("thinking", facts_of_block["thinking"])
            assert block.signature == facts_of_block["signature"]


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_finish_reason_is_told_in_the_providers_word(facts: dict[str, Any]) -> None:
    finishes = [delta.raw for delta in _decode([_body(facts)])[0] if isinstance(delta, FinishDelta)]

    raw = facts["expect"]["finish_reason"]
    assert finishes == ([] if raw is None else [raw])


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_usage_is_told_and_what_is_not_told_is_none(facts: dict[str, Any]) -> None:
    usages = [delta.usage for delta in _decode([_body(facts)])[0] if isinstance(delta, UsageDelta)]

    expected = facts["expect"]["usage_normalized"]
    assert bool(usages) == bool(expected)
    if usages:
        last = usages[-1]
        assert (last.input_tokens, last.output_tokens) == (expected["input_tokens"], expected["output_tokens"])
        assert last.cached_tokens == expected["cache_read_input_tokens"]
        assert last.cache_write_tokens == expected["cache_creation_input_tokens"]
        assert last.cache_write_tokens == expected["cache_creation_input_tokens"]
        assert last.total_tokens is None


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_errors_are_told_with_type_and_message(facts: dict[str, Any]) -> None:
    errors = [delta.error for delta in _decode([_body(facts)])[0] if isinstance(delta, ErrorDelta)]

    expected = [(error["type"], error["message"], True) for error in facts["expect"]["errors"]]
    told = [(error.code, error.message, error.retryable) for error in errors if isinstance(error, ApiError)]
    assert told == expected


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recording_decodes_to_the_same_however_it_is_cut(facts: dict[str, Any]) -> None:
    body = _body(facts)
    whole = _told_all([body])
    if len(body) <= BYTE_BY_BYTE_UP_TO:
        assert _told_all(body[at : at + 1] for at in range(len(body))) == whole
    cuts = random.Random(facts["file"])
    for _ in range(12):
        at = cuts.randrange(len(body) + 1)
        assert _told_all([body[:at], body[at:]]) == whole
        edges = [0, *sorted(cuts.randrange(len(body) + 1) for _ in range(40)), len(body)]
        assert _told_all(body[start:end] for start, end in itertools.pairwise(edges)) == whole


@pytest.mark.parametrize("facts", RECORDINGS)
def test_cutting_a_recording_short_never_raises_never_invents_and_never_completes(facts: dict[str, Any]) -> None:
    body = _body(facts).rstrip()
    expect = _expected(facts)
    whole_calls = [call["raw"] for call in _calls(_decode([body])[0])]
    cuts = random.Random(facts["file"])
    last_event = body.rfind(b"\n\n")
    for at in [*(cuts.randrange(len(body)) for _ in range(12)), last_event, len(body) - 1]:
        deltas, decoder = _decode([body[:at]])
        assert expect["text"].startswith(_joined(deltas, TextDelta))
        assert expect["reasoning"].startswith(_joined(deltas, ReasoningDelta))
        for call, raw in zip(_calls(deltas), whole_calls, strict=False):
            assert raw.startswith(call["raw"])
        assert not decoder.done


@pytest.mark.parametrize("facts", [each for each in RECORDINGS if each.values[0]["expect"]["usage_delta"]])
def test_a_recording_cut_before_its_stop_reason_is_not_finished(facts: dict[str, Any]) -> None:
    body = _body(facts)
    assert not _decode([body[: body.index(b"event: message_delta")]])[1].finished


def test_the_corpus_is_there() -> None:
    assert len(RECORDINGS) >= 27


# --- what is there besides text and calls ----------------------------------------------------------------------------


def _content(body: bytes) -> list[dict[str, Any]]:
    """The content of a recorded message, put together without the decoder."""
    content: list[dict[str, Any]] = []
    arguments: dict[int, str] = {}
    for line in body.decode("utf-8", "replace").splitlines():
        event = json.loads(line[5:]) if line.startswith("data:") else {}
        if event.get("type") == "message_start":
            content += event["message"]["content"]
        elif event.get("type") == "content_block_start":
            content.append(dict(event["content_block"]))
        elif event.get("type") == "content_block_delta":
            delta, block = dict(event["delta"]), content[event["index"]]
            kind = delta.pop("type")
            if kind == "input_json_delta":
                arguments[event["index"]] = arguments.get(event["index"], "") + delta["partial_json"]
            elif kind == "citations_delta":
                block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
            elif kind in ("text_delta", "thinking_delta"):
                (name,) = delta
                block[name] += delta[name]
            else:
                block |= delta
        elif event.get("type") == "content_block_stop" and arguments.get(event["index"]):
            with contextlib.suppress(ValueError):
                content[event["index"]]["input"] = json.loads(arguments[event["index"]])
    return content


def _goes_back(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same as it should go back: texts without citations and as one, no blank ones, no mark of a direct call."""
    out: list[dict[str, Any]] = []
    for block in content:
        if block["type"] == "text":
            if out and out[-1]["type"] == "text":
                out[-1] = {"type": "text", "text": out[-1]["text"] + block["text"]}
            elif block["text"]:
                out.append({"type": "text", "text": block["text"]})
        elif block["type"] == "tool_use" and block.get("caller", {}).get("type") == "direct":
            out.append({name: value for name, value in block.items() if name != "caller"})
        else:
            out.append(block)
    return out


def _sent_back(deltas: list[Delta]) -> list[dict[str, Any]]:
    """The assistant's content of the next request, by way of the core's history."""
    builder, text = OutcomeBuilder(), ""
    builder.provider = "anthropic"
    for delta in deltas:
        builder.note(delta, len(text))
        if isinstance(delta, TextDelta):
            text += delta.text
    outcome = builder.outcome()
    calls = tuple(call for call in outcome.tool_calls if not call.is_server)
    answer = answer_message(text, "", (), outcome.provider_blocks)
    messages = [answer]
    if calls:
        messages = Round(calls, ("done",) * len(calls), text, (), outcome.provider_blocks).messages()
    call = ChatCall(model="m", input=[{"role": "user", "content": "Hi"}, *messages], provider="anthropic")
    sent = json.loads(AnthropicMessages(Secret("sk-ant-123")).request(call).body)["messages"]
    content = sent[1]["content"] if len(sent) > 1 else []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


@pytest.mark.parametrize("facts", RECORDINGS)
def test_what_a_recording_says_goes_back_block_by_block_as_it_was_said(facts: dict[str, Any]) -> None:
    content = _goes_back(_content(_body(facts)))
    while content and content[-1]["type"] in ("thinking", "redacted_thinking"):
        content.pop()  # refused at the end
    if content and content[-1]["type"] == "text":
        content[-1]["text"] = content[-1]["text"].rstrip()  # refused at the end of a request
    if facts["expect"]["finish_reason"] == "max_tokens":  # a call that was cut off has no arguments
        content = [block | ({"input": {}} if block["type"] == "tool_use" else {}) for block in content]
    assert _sent_back(_decode([_body(facts)])[0]) == content


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_citations_are_told_for_the_text_that_they_are_of(facts: dict[str, Any]) -> None:
    deltas = _decode([_body(facts)])[0]
    text, start, cited = "", 0, []
    for delta in deltas:
        if isinstance(delta, TextDelta):
            text += delta.text
        elif isinstance(delta, BlockStart) and delta.kind == "text":
            start = len(text)
        elif isinstance(delta, CitationDelta):
            assert delta.is_of_block
            cited.append((delta.citation.url, delta.citation.title, delta.citation.cited_text, text[start:]))
    assert cited == [
        (citation.get("url"), citation["title"], citation["cited_text"], block["text"])
        for block in _content(_body(facts))
        for citation in block.get("citations") or ()
    ]
    assert len(cited) == facts["expect"]["citations"]


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_parts_begin_where_text_follows_something_else(facts: dict[str, Any]) -> None:
    parts = [""]
    for delta in _decode([_body(facts)])[0]:
        if isinstance(delta, BlockStart) and delta.is_joint:
            parts.append("")
        elif isinstance(delta, TextDelta):
            parts[-1] += delta.text
    runs = itertools.groupby(_content(_body(facts)), lambda block: block["type"] == "text")
    texts = ["".join(block["text"] for block in blocks) for is_text, blocks in runs if is_text]
    assert [part for part in parts if part] == [text for text in texts if text]


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_own_tools_are_told_with_their_results(facts: dict[str, Any]) -> None:
    events = [delta.event for delta in _decode([_body(facts)])[0] if isinstance(delta, EventDelta)]
    content = _content(_body(facts))
    calls = {block["id"]: block for block in content if block["type"] in ("server_tool_use", "mcp_tool_use")}
    results = [block for block in content if block["type"].endswith("_tool_result")]
    assert [(one.id, one.name, one.input) for one in events if isinstance(one, ServerToolCall)] == [
        (call["id"], call["name"], call["input"]) for call in calls.values()
    ]
    assert [(one.id, one.name, one.output) for one in events if isinstance(one, ServerToolResult)] == [
        (result["tool_use_id"], calls[result["tool_use_id"]]["name"], result["content"]) for result in results
    ]


@pytest.mark.parametrize("facts", RECORDINGS)
def test_a_recordings_metadata_is_told_and_nothing_of_it_is_unknown(facts: dict[str, Any]) -> None:
    deltas, decoder = _decode([_body(facts)])
    values: dict[str, Any] = {}
    for delta in deltas:
        if isinstance(delta, MetadataDelta):
            values |= delta.values
    assert values.get("response_id") == facts["expect"]["message_id"]
    assert values.get("stop_sequence") == facts["expect"]["stop_sequence"]
    assert values.get("service_tier") == (facts["expect"]["usage_start"] or {}).get("service_tier")
    assert ("container" in values) == (b'"container":{' in _body(facts))
    assert ("refusal_details" in values) == (facts["expect"]["finish_reason"] == "refusal")
    assert decoder.skipped == 0
