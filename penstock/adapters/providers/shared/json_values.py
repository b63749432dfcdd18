"""Pieces of providers' JSON, read without trusting it: texts, whole numbers, counts, halves of characters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.events import Usage
from penstock.ports import (
    Delta,
    ErrorDelta,
    FinishDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
)

__all__ = [
    "Surrogates",
    "count_of",
    "decode_json",
    "has_escaped_halves",
    "json_text",
    "text_of",
    "to_usage",
    "whole_number",
    "without_halves",
]


def text_of(value: object) -> str:
    """``value`` where it is text, else ``""``. It may hold halves of surrogate pairs."""
    return value if isinstance(value, str) else ""


_MOST = 2**63


def whole_number(value: object) -> int | None:
    """``value`` where it is a whole number (also as 12.0) of 64 bits, else None; True is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and -_MOST <= value < _MOST:
        return value
    return None


def count_of(value: object) -> int | None:
    """``value`` where it is a whole number that can count something, else None."""
    count = whole_number(value)
    return None if count is None or count < 0 else count


def to_usage(usage: Mapping[str, Any], way_in: str, way_out: str) -> Usage | None:
    """Read a usage object whose counts are called ``{way_in}_tokens`` and ``{way_out}_tokens``; None: none are told."""
    details_in = usage.get(f"{way_in}_tokens_details")
    details_out = usage.get(f"{way_out}_tokens_details")
    counts = Usage(
        input_tokens=count_of(usage.get(f"{way_in}_tokens")),
        output_tokens=count_of(usage.get(f"{way_out}_tokens")),
        total_tokens=count_of(usage.get("total_tokens")),
        cached_tokens=count_of(details_in.get("cached_tokens")) if isinstance(details_in, dict) else None,
        cache_write_tokens=count_of(details_in.get("cache_write_tokens")) if isinstance(details_in, dict) else None,
        reasoning_tokens=count_of(details_out.get("reasoning_tokens")) if isinstance(details_out, dict) else None,
    )
    return None if counts == Usage() else counts


# --- halves of characters: servers that cut "\\ud83d\\ude00" between two events ------------------------------------

_decode = msgspec.json.Decoder().decode


def decode_json(data: str) -> object:
    """``data`` parsed, also where msgspec refuses what servers send: halves of surrogate pairs, ``-Infinity``.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return _decode(data)
    except msgspec.DecodeError:
        return json.loads(data, strict=False)


def has_escaped_halves(data: str) -> bool:
    """Whether surrogates are escaped in this JSON, in pairs or not. Last events may be large: they are not copied."""
    return "\\ud" in data or "\\uD" in data


def json_text(value: object) -> str:
    """The JSON of what `decode_json` gave, in one line; halves of surrogate pairs become U+FFFD.

    Raises:
        RecursionError: it is nested too deeply.
    """
    return without_halves(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


class Surrogates:
    """Puts the halves of surrogate pairs in an answer's deltas together; one without its other half is U+FFFD."""

    def __init__(self) -> None:
        self._kept: Delta | None = None  # its text is the first half

    def mend(self, deltas: list[Delta], *, is_end: bool) -> list[Delta]:
        """``deltas`` without halves; the last one's first half is kept for the next call unless this is the end."""
        out: list[Delta] = []
        for delta in deltas:
            name = _TEXT_FIELDS.get(type(delta))
            if name is None:
                if isinstance(delta, (FinishDelta, ErrorDelta)):
                    self._give_up(out)
                out.append(delta)
                continue
            text = getattr(delta, name)
            kept = self._kept
            if text and kept is not None:
                if _bare(kept) == _bare(delta):
                    text, self._kept = getattr(kept, name) + text, None
                else:
                    self._give_up(out)
            if text and "\ud800" <= text[-1] <= "\udbff":
                self._kept = msgspec.structs.replace(_bare(delta), **{name: text[-1]})
                text = text[:-1]
            whole = msgspec.structs.replace(delta, **{name: without_halves(text)})
            if whole != _bare(delta) or isinstance(delta, ToolCallFragment):
                out.append(whole)
        if is_end:
            self._give_up(out)
        return out

    def _give_up(self, out: list[Delta]) -> None:
        if self._kept is not None:
            out.append(msgspec.structs.replace(self._kept, **{_TEXT_FIELDS[type(self._kept)]: "\ufffd"}))
            self._kept = None


_TEXT_FIELDS: dict[type, str] = {
    TextDelta: "text",
    ReasoningDelta: "text",
    RefusalDelta: "text",
    ToolCallFragment: "arguments",
}


def _bare(delta: Any) -> Any:
    """``delta`` without its text, and without what only a call's first fragment says."""
    if isinstance(delta, ToolCallFragment):
        return ToolCallFragment(index=delta.index)
    return type(delta)("")


def without_halves(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
