"""Streams that no server should send: recordings with altered JSON and shuffled events, and very long ones.

For any input, a decoder raises nothing but `ProtocolError`, emits only what can be encoded as JSON, and takes time
proportional to its input.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.actors.call.answer import OutcomeBuilder
from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.config.prices import Price, Rates
from penstock.events import Usage
from penstock.ports import (
    ChoiceDelta,
    Decoder,
    Delta,
    ErrorDelta,
    FinishDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)
from tests.unit.flow.common import steps

CORPUS = Path(__file__).parent.parent / "corpus"
DECODERS: dict[str, Callable[[int], Decoder]] = {
    "chat": ChatDecoder,
    "responses": ResponsesDecoder,
    "messages": MessagesDecoder,
    "gemini": GeminiDecoder,
    "ollama": OllamaDecoder,
}
LIMIT = 1_048_576
LONGEST_FILE = 60_000

Event = tuple[str, Any]


def recorded(api: str) -> list[list[Event]]:
    """The events of the shorter recordings of an API: type and JSON."""
    found = []
    for sidecar in sorted(CORPUS.glob("*/*.json")):
        if json.loads(sidecar.read_bytes()).get("api") != api:
            continue
        body = sidecar.with_suffix(".ndjson" if api == "ollama" else ".sse")
        if body.exists() and body.stat().st_size <= LONGEST_FILE:
            found.append(_events(body.read_text("utf-8", "replace"), in_lines=api == "ollama"))
    return [events for events in found if events]


def _events(text: str, *, in_lines: bool) -> list[Event]:
    if in_lines:
        return [("", json.loads(line)) for line in text.splitlines() if line.strip()]
    found: list[Event] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(":", 1) for line in block.splitlines() if ":" in line)
        try:
            found.append((fields.get("event", "").strip(), json.loads(fields.get("data", ""))))
        except ValueError:
            continue
    return found


class Raw(str):
    """JSON that `json.dumps` does not produce."""


ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        1.5,
        12.0,
        2**63,
        2**64,
        Raw("1e308"),
        Raw("1e999"),
        Raw("-Infinity"),
        Raw("9" * 400),
    ),
    *("", " ", "x", "\u2028", Raw('"\\ud83d"'), Raw('"\\ude00"'), Raw('"\\u0000"'), "stop", "error", "tool_calls"),
    *([], {}, [None], [[]], [{}], {"": None}, {"type": None}, {"text": "x"}, [{"type": "text", "text": "t"}]),
    *({"error": "x"}, {"error": {"message": "m", "code": 1}}, {"name": "f", "args": {"a": [Raw('"\\ud83d"')]}}),
    *(Raw("[" * depth + "]" * depth) for depth in (50, 960, 1000, 5000)),
    *(Raw('{"a":' * depth + "1" + "}" * depth) for depth in (50, 960, 1000, 5000)),
]
NAMES = (
    *("type", "index", "delta", "text", "id", "name", "arguments", "tool_calls", "error", "usage", "choices", "item"),
    *("finish_reason", "message", "content", "output_index", "response", "output", "done", "args", "functionCall"),
)


def bent(value: Any, chance: float, dice: random.Random) -> Any:
    """Return a copy of ``value`` in which one item, anywhere, is missing, doubled, renamed or of another type."""
    if dice.random() < chance:
        return dice.choice(ODD)
    if isinstance(value, dict):
        kept = {name: bent(each, chance, dice) for name, each in value.items() if dice.random() > chance / 4}
        return {**kept, dice.choice(NAMES): dice.choice(ODD)} if dice.random() < chance else kept
    if isinstance(value, list):
        kept_items = [bent(each, chance, dice) for each in value]
        return kept_items * 2 if dice.random() < chance else kept_items
    if isinstance(value, str) and value and dice.random() < chance:
        at = dice.randrange(len(value) + 1)
        half = dice.choice(("\\ud83d", "\\ude00"))
        return Raw(json.dumps(value[:at])[:-1] + half + json.dumps(value[at:])[1:])
    return value


def written(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def body_of(api: str, events: list[Event], dice: random.Random) -> bytes:
    events = list(events[:12] + events[-12:]) if len(events) > 24 else list(events)
    if dice.random() < 0.3:
        dice.shuffle(events)
    events += dice.sample(events, k=min(2, len(events)))
    chance = dice.choice((0.005, 0.02, 0.06))
    said = [(kind, written(bent(value, chance, dice))) for kind, value in events]
    if api == "ollama":
        return "".join(f"{text}\n" for _, text in said).encode()
    kinds = ("error", "", "message")
    return "".join(
        f"event: {kind if dice.random() > chance else dice.choice(kinds)}\ndata: {text}\n\n" for kind, text in said
    ).encode()


def told(decoder: Decoder, body: bytes, step: int) -> list[Delta]:
    deltas: list[Delta] = []
    for start in range(0, len(body), step):
        deltas += decoder.feed(body[start : start + step])
        if decoder.done:
            return deltas
    return deltas + decoder.close()


def check(deltas: list[Delta], decoder: Decoder) -> None:
    """Check that everything can be encoded, and priced."""
    builder = OutcomeBuilder()
    for delta in deltas:
        if isinstance(delta, ErrorDelta):
            str(delta.error).encode()
            continue
        msgspec.json.encode(delta)
        if isinstance(delta, (TextDelta, RefusalDelta)):
            assert delta.text
        builder.note(delta)
    msgspec.json.encode(builder.complete())
    msgspec.json.encode(builder.outcome())
    (decoder.model or "").encode()
    usage = builder.usage or Usage()
    assert all(
        count is None or 0 <= count < 2**63
        for count in msgspec.structs.astuple(usage)
        if not isinstance(count, (str, dict))
    )
    assert Price(Rates(1.0, 1.0, 1.0, 1.0)).cost(usage, is_estimate=False).amount >= 0


@pytest.mark.sample(3)
@pytest.mark.seeds(3)
@pytest.mark.parametrize("api", DECODERS)
def test_whatever_json_comes_nothing_is_raised_and_all_that_is_told_can_be_written(api: str, seed: int) -> None:
    dice = random.Random(seed)
    recordings = recorded(api)
    assert recordings
    for _ in range(150):
        body = body_of(api, dice.choice(recordings), dice)
        decoder = DECODERS[api](LIMIT)
        check(told(decoder, body, dice.choice((len(body), 1000))), decoder)


# --- long ones -------------------------------------------------------------------------------------------------------


def sse(*payloads: object) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in payloads)


def _responses_items(count: int) -> bytes:
    item = {"type": "message", "content": [{"text": "a"}]}
    return sse(*({"type": "response.output_item.done", "output_index": at, "item": item} for at in range(count)))


def _gemini_candidates(count: int) -> bytes:
    content = {"parts": [{"text": "a"}]}
    return sse(*({"candidates": [{"index": at, "content": content, "finishReason": "STOP"}]} for at in range(count)))


def _chat_choices(count: int) -> bytes:
    return sse(
        *({"choices": [{"index": at, "delta": {"content": "a"}, "finish_reason": "stop"}]} for at in range(count))
    )


def _nameless_calls(count: int) -> bytes:
    return sse(
        *(
            {"choices": [{"delta": {"tool_calls": [{"index": at, "id": f"c{at}", "function": {"arguments": "1"}}]}}]}
            for at in range(count)
        )
    )


def _responses_parts(count: int) -> bytes:
    """Parts that never end, each with its source."""
    place = {"output_index": 0}
    page = {"type": "url_citation", "url": "u", "start_index": 0, "end_index": 1}
    return sse(
        *(
            event
            for at in range(count // 2)
            for event in (
                {"type": "response.output_text.delta", **place, "content_index": at, "delta": "x"},
                {"type": "response.output_text.annotation.added", **place, "content_index": at, "annotation": page},
            )
        )
    )


def _anthropic_blocks(count: int) -> bytes:
    call = {"type": "tool_use", "name": "f", "input": {}}
    return sse(
        *(
            {"type": "content_block_start", "index": at, "content_block": {**call, "id": f"c{at}"}}
            for at in range(count)
        )
    )


def _ollama_calls(count: int) -> bytes:
    return b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":{}}}]}}\n' * count


@pytest.mark.parametrize(
    ("decoder_of", "make"),
    [
        (ResponsesDecoder, _responses_items),
        (ResponsesDecoder, _responses_parts),
        (GeminiDecoder, _gemini_candidates),
        (ChatDecoder, _chat_choices),
        (ChatDecoder, _nameless_calls),
        (MessagesDecoder, _anthropic_blocks),
        (OllamaDecoder, _ollama_calls),
    ],
)
def test_many_items_take_time_in_proportion(decoder_of: Callable[[int], Decoder], make: Callable[[int], bytes]) -> None:
    def work(count: int, body: bytes) -> None:
        decoder, builder = decoder_of(LIMIT), OutcomeBuilder()
        deltas = told(decoder, body, 4096)
        assert len(deltas) >= count
        for delta in deltas:
            builder.note(delta)
        builder.complete()

    few, many = make(400), make(2000)
    assert steps(lambda: work(2000, many)) < 5.5 * steps(lambda: work(400, few))


# --- what bending has found ------------------------------------------------------------------------------------------


def deltas_of(decoder: Decoder, *payloads: str) -> list[Delta]:
    return decoder.feed("".join(f"data: {each}\n\n" for each in payloads).encode())


def test_an_error_event_with_a_number_that_nobody_can_read_is_an_error_all_the_same() -> None:
    (delta,) = deltas_of(ResponsesDecoder(LIMIT), '{"type":"error","message":"no","x":' + "9" * 5000 + "}")
    assert isinstance(delta, ErrorDelta)


def test_a_log_probability_of_minus_infinity_does_not_hide_the_finish() -> None:
    finish = '{"choices":[{"delta":{"content":"a"},"logprobs":{"x":-Infinity},"finish_reason":"stop"}]}'
    assert deltas_of(ChatDecoder(LIMIT), finish) == [TextDelta("a"), FinishDelta("stop", "stop")]


def test_arguments_that_came_parsed_may_hold_half_a_character() -> None:
    call = '{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":{"x":"\\ud83d"}}}]}}]}'
    assert deltas_of(ChatDecoder(LIMIT), call) == [ToolCallFragment(name="f", arguments='{"x":"\ufffd"}')]


@pytest.mark.parametrize(
    ("decoder", "payload", "raw"),
    [
        (ChatDecoder(LIMIT), '{"choices":[{"delta":{},"finish_reason":"s\\ud83d"}]}', "s\ufffd"),
        (
            ResponsesDecoder(LIMIT),
            '{"type":"response.incomplete","response":{"incomplete_details":{"reason":"s\\ud83d"}}}',
            "s\ufffd",
        ),
    ],
)
def test_half_a_character_in_a_finish_reason_can_be_written_as_json(decoder: Decoder, payload: str, raw: str) -> None:
    assert deltas_of(decoder, payload)[-1] == FinishDelta("other", raw)


def test_half_a_character_in_another_answers_call_can_be_written_as_json() -> None:
    call = '{"functionCall":{"name":"f","args":{"x":"\\ud83d"}}}'
    (delta,) = deltas_of(GeminiDecoder(LIMIT), '{"candidates":[{"index":1,"content":{"parts":[' + call + "]}}]}")
    assert delta == ChoiceDelta(1, ToolCallFragment(index=0, name="f", arguments='{"x":"\ufffd"}'))


@pytest.mark.parametrize("count", ["-1", "9" * 400, "1e300", "9223372036854775808", "true", '"7"'])
def test_what_counts_nothing_is_no_usage(count: str) -> None:
    chat = f'{{"choices":[],"usage":{{"prompt_tokens":{count},"completion_tokens":3}}}}'
    assert deltas_of(ChatDecoder(LIMIT), chat) == [UsageDelta(Usage(output_tokens=3))]
    part = '"candidates":[{"content":{"parts":[{"text":"a"}]}}]'
    gemini = f'{{{part},"usageMetadata":{{"promptTokenCount":{count},"candidatesTokenCount":3}}}}'
    assert deltas_of(GeminiDecoder(LIMIT), gemini) == [TextDelta("a"), UsageDelta(Usage(output_tokens=3))]
    messages = f'{{"type":"message_delta","usage":{{"input_tokens":{count},"output_tokens":3}}}}'
    assert deltas_of(MessagesDecoder(LIMIT), messages) == [UsageDelta(Usage(output_tokens=3))]
    line = f'{{"done":true,"prompt_eval_count":{count},"eval_count":3}}\n'.encode()
    assert OllamaDecoder(LIMIT).feed(line) == [FinishDelta("stop", ""), UsageDelta(Usage(output_tokens=3))]
