"""The provider's events as they came, on request."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.adapters.providers.shared.json_values import MOST_LEVELS, plain_json
from penstock.events import ProviderEvent
from penstock.ports import Delta, EventDelta, KeepAlive

CORPUS = Path(__file__).parents[3] / "corpus"
DECODERS: dict[str, tuple[Callable[..., Any], str]] = {
    "chat": (ChatDecoder, "openai"),
    "responses": (ResponsesDecoder, "openai"),
    "messages": (MessagesDecoder, "anthropic"),
    "gemini": (GeminiDecoder, "gemini"),
    "ollama": (OllamaDecoder, "ollama"),
}
LIMIT = 10_000_000


def bodies(api: str) -> list[bytes]:
    found = []
    for sidecar in sorted((CORPUS / DECODERS[api][1]).glob("*.json")):
        if json.loads(sidecar.read_text())["api"] == api:
            found += [path.read_bytes() for path in sidecar.parent.glob(f"{sidecar.stem}.*") if path != sidecar]
    return found[:12]


def decoded(decoder: Any, body: bytes, size: int) -> list[Delta]:
    deltas = []
    for start in range(0, len(body), size):
        deltas += decoder.feed(body[start : start + size])
    return [delta for delta in deltas + decoder.close() if not isinstance(delta, KeepAlive)]


def is_raw(delta: Delta) -> bool:
    return isinstance(delta, EventDelta) and isinstance(delta.event, ProviderEvent)


def events_of(body: bytes, api: str) -> list[Any]:
    """The data of each event, parsed, up to the one that ends the answer; read without our parsers."""
    text = body.decode().replace("\r\n", "\n")
    if api == "ollama":
        found = text.splitlines()
    else:
        blocks = [[line for line in block.split("\n") if line.startswith("data:")] for block in text.split("\n\n")]
        found = ["\n".join(line[5:].removeprefix(" ") for line in lines) for lines in blocks if lines]
    events: list[Any] = []
    for data in found:
        try:
            events.append(json.loads(data))
        except ValueError:
            events.append(data)
        if data == "[DONE]" or (isinstance(events[-1], dict) and events[-1].get("type") in ENDS):
            break
    return events


ENDS = ("message_stop", "response.completed", "response.incomplete", "response.failed")


@pytest.mark.parametrize("api", DECODERS)
def test_all_events_come_before_what_is_made_of_them_and_nothing_else_changes(api: str) -> None:
    make = DECODERS[api][0]
    tried = bodies(api)
    assert tried
    for body in tried:
        plain = decoded(make(LIMIT), body, 65_536)
        for size in (65_536, 7):
            deltas = decoded(make(LIMIT, "all"), body, size)
            others = [delta for delta in deltas if not is_raw(delta)]
            assert list(map(repr, others)) == list(map(repr, decoded(make(LIMIT), body, size)))  # errors are not equal
            payloads = [delta.event.payload for delta in deltas if is_raw(delta)]  # type: ignore[union-attr]
            assert payloads == events_of(body, api)
            assert is_raw(deltas[0])
        assert not any(is_raw(delta) for delta in plain)


UNKNOWN = {
    "chat": b'data: {"new": 1}\n\n',
    "responses": b'event: response.new\ndata: {"type": "response.new", "x": 1}\n\n',
    "messages": b'event: new\ndata: {"type": "new", "x": 1}\n\n',
    "gemini": b'data: {"new": 1}\n\n',
    "ollama": b'{"new": 1}\n',
}


@pytest.mark.parametrize("api", DECODERS)
def test_what_is_not_understood_is_counted_and_passed_on_on_request(api: str) -> None:
    make = DECODERS[api][0]
    for raw, count in (("none", 0), ("unknown", 1), ("all", 1)):
        decoder = make(LIMIT, raw)
        found = [delta.event.payload for delta in decoded(decoder, UNKNOWN[api], 5) if is_raw(delta)]  # type: ignore[union-attr]
        assert len(found) == count
        assert decoder.skipped == 1
        if found:
            assert found[0] == json.loads(
                UNKNOWN[api].splitlines()[-2 if api != "ollama" else 0].removeprefix(b"data: ")
            )


def test_a_payload_has_nothing_that_json_does_not_have() -> None:
    assert plain_json([float("nan"), {"a": float("-inf")}, 1.5, 10**40]) == [None, {"a": None}, 1.5, 10**40]


@pytest.mark.parametrize("api", DECODERS)
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400"])
def test_an_infinite_number_in_an_event_is_null_in_its_payload(api: str, number: str) -> None:
    body = UNKNOWN[api].replace(b"1}", f"[{number}]}}".encode())
    for raw in ("all", "unknown"):
        found = decoded(DECODERS[api][0](LIMIT, raw), body, 1_000)
        payloads = [delta.event.payload for delta in found if is_raw(delta)]  # type: ignore[union-attr]
        assert [None] in payloads[0].values()


def test_a_payload_may_be_put_together_of_others() -> None:
    part = plain_json({"a": [float("nan")]})
    assert plain_json((part, {"b": part, "c": ("\ud83d",)})) == [{"a": [None]}, {"b": {"a": [None]}, "c": ["\ufffd"]}]


def test_a_payload_that_is_nested_too_deeply_is_left_out() -> None:
    for levels, is_kept in ((MOST_LEVELS, True), (MOST_LEVELS + 1, False)):
        nested: Any = 1
        for _ in range(levels):
            nested = [nested]
        assert plain_json(nested) == (nested if is_kept else "[nested too deeply]")


def test_a_payload_has_no_surrogates_and_can_be_encoded() -> None:
    assert plain_json({"a": "\ud83d", "b\udce9": [1]}) == {"a": "\ufffd", "b\ufffd": [1]}
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert plain_json(deep) == "[nested too deeply]"


@pytest.mark.parametrize("raw", ["unknown", "all"])
def test_half_a_character_in_a_type_is_replaced(raw: str) -> None:
    decoder = MessagesDecoder(LIMIT, raw)  # type: ignore[arg-type]
    deltas = decoder.feed(b'data: {"type": "new\\ud83d"}\n\n')
    assert [delta.event.type for delta in deltas if is_raw(delta)] == ["new\ufffd"]  # type: ignore[union-attr]


OTHER_CHOICES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat": (
        {"choices": [{"index": 1, "delta": {"content": "b"}}]},
        {"choices": [{"index": 1, "delta": {"content": "b", "annotations": [{"type": "url_citation"}]}}]},
    ),
    "gemini": (
        {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}}]},
        {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}, {"executableCode": {"code": "1"}}]}}]},
    ),
}
MORE: dict[str, dict[str, Any]] = {
    "chat": {"choices": [{"index": 1, "delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}}]},
    "gemini": {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}, "groundingMetadata": {"a": 1}}]},
}


@pytest.mark.parametrize("api", OTHER_CHOICES)
def test_what_only_the_first_choice_has_events_for_is_passed_on_as_it_came(api: str) -> None:
    plain, full = OTHER_CHOICES[api]
    for chunk, is_passed_on in ((plain, False), (full, True), (MORE[api], True)):
        body = b"data: " + json.dumps(chunk).encode() + b"\n\n"
        for raw in ("none", "unknown"):
            decoder = DECODERS[api][0](LIMIT, raw)
            found = [d.event.payload for d in decoded(decoder, body, 1_000) if is_raw(d)]  # type: ignore[union-attr]
            assert found == (next(iter(chunk.values())) if is_passed_on and raw == "unknown" else [])
            assert decoder.skipped == 0
