"""Hand-made bodies of the Responses API, and their deltas however they are cut."""

from __future__ import annotations

import json
from typing import Any

from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.config.options import Raw
from penstock.ports import Delta, ErrorDelta, KeepAlive

__all__ = ["LIMIT", "added", "completed", "decode", "decoder_of", "delta", "done", "event", "message", "sse"]

LIMIT = 1_000_000


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields}


def added(index: int, type: Any, **fields: Any) -> dict[str, Any]:
    return event("output_item.added", output_index=index, item={"type": type, **fields})


def done(index: int, type: Any, **fields: Any) -> dict[str, Any]:
    return event("output_item.done", output_index=index, item={"type": type, **fields})


def delta(text: str, item: int = 0, part: int = 0, **more: Any) -> dict[str, Any]:
    return event("output_text.delta", output_index=item, content_index=part, delta=text, **more)


def message(index: int, *parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": "", **part} for part in parts]
    return done(index, "message", role="assistant", content=content, **fields)


def completed(**fields: Any) -> dict[str, Any]:
    return event("completed", response={"status": "completed", **fields})


def decode(*events: dict[str, Any], skipped: int = 0, raw: Raw = "none") -> list[Delta]:
    """The deltas of the whole body. They are the same byte by byte, and those of a body cut short are their beginning.

    ``skipped``: how much of it is not understood. Signs of life depend on the cuts and are left out.
    """
    deltas, decoder = decoder_of(*events, raw=raw)
    assert decoder.skipped == skipped
    body = sse(*events)
    whole = _told(deltas)
    single = ResponsesDecoder(LIMIT, raw)
    assert _told([told for at in range(len(body)) for told in single.feed(body[at : at + 1])] + single.close()) == whole
    for end in range(0, len(body), 1 + len(body) // 60):
        cut = ResponsesDecoder(LIMIT, raw)
        told = _told(cut.feed(body[:end]) + cut.close())
        assert told == whole[: len(told)]
    return deltas


def decoder_of(*events: dict[str, Any], raw: Raw = "none") -> tuple[list[Delta], ResponsesDecoder]:
    """The deltas of the whole body without signs of life, and the decoder."""
    decoder = ResponsesDecoder(LIMIT, raw)
    deltas = decoder.feed(sse(*events)) + decoder.close()
    return [told for told in deltas if not isinstance(told, KeepAlive)], decoder


def _told(deltas: list[Delta]) -> list[object]:
    shown = (repr(told.error) if isinstance(told, ErrorDelta) else told for told in deltas)
    return [told for told in shown if not isinstance(told, KeepAlive)]
