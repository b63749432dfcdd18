r"""Surrogates in providers' JSON, for servers that cut ``"\ud83d\ude00"`` between two events."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.config.surrogates import replace_surrogates
from penstock.ports import (
    BlockStart,
    CitationDelta,
    Delta,
    ErrorDelta,
    FinishDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
)

__all__ = ["SurrogateJoiner", "has_escaped_surrogates", "replace_surrogates"]


def has_escaped_surrogates(data: str) -> bool:
    """Tell whether this JSON contains escaped surrogates, paired or not. Does not copy it: last events may be large."""
    return "\\ud" in data or "\\uD" in data


class SurrogateJoiner:
    """Joins surrogate pairs that were split between the deltas of one answer; replaces lone ones with U+FFFD."""

    def __init__(self) -> None:
        self._pending: Delta | None = None  # its text is one high surrogate

    def join(self, deltas: list[Delta], *, is_end: bool) -> list[Delta]:
        """Return ``deltas`` without surrogates.

        A high surrogate at the end of the last text waits for the next call, unless this is the end.
        """
        out: list[Delta] = []
        for delta in deltas:
            name = _TEXT_FIELDS.get(type(delta))
            if name is None:
                if isinstance(delta, (FinishDelta, ErrorDelta, BlockStart)) or (
                    isinstance(delta, CitationDelta) and delta.is_of_block  # it is for all the text before it
                ):
                    self._flush(out)
                out.append(delta)
                continue
            text = getattr(delta, name)
            pending = self._pending
            if text and pending is not None:
                if getattr(delta, "replaces", False) and _without_text(pending) == _without_text(delta):
                    self._pending = None  # a piece of what is replaced
                elif _without_text(pending) == _without_text(delta):
                    text, self._pending = getattr(pending, name) + text, None
                else:
                    self._flush(out)
            if text and "\ud800" <= text[-1] <= "\udbff":
                self._pending = msgspec.structs.replace(_without_text(delta), **{name: text[-1]})
                text = text[:-1]
            joined = msgspec.structs.replace(delta, **{name: replace_surrogates(text)})
            if joined != _without_text(delta) or isinstance(delta, ToolCallFragment):
                out.append(joined)
        if is_end:
            self._flush(out)
        return out

    def _flush(self, out: list[Delta]) -> None:
        """Append the pending surrogate as U+FFFD."""
        if self._pending is not None:
            out.append(msgspec.structs.replace(self._pending, **{_TEXT_FIELDS[type(self._pending)]: "\ufffd"}))
            self._pending = None


_TEXT_FIELDS: dict[type, str] = {
    TextDelta: "text",
    ReasoningDelta: "text",
    RefusalDelta: "text",
    ToolCallFragment: "arguments",
}


def _without_text(delta: Any) -> Any:
    """Return ``delta`` without its text, and without what only the first fragment of a call carries."""
    if isinstance(delta, ToolCallFragment):
        return ToolCallFragment(index=delta.index)
    return type(delta)("")
