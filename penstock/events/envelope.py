"""The fields of every event that is neither text nor an end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["Envelope"]

_HIDDEN: Final = frozenset(
    {
        *("timestamp", "metadata", "text", "progress", "content"),
        *("cited_text", "title", "url", "location", "input", "output", "data", "transcript", "tokens", "signature"),
        *("payload", "message", "outcome"),
    }
)
"""Fields that may hold what the model, a tool or a user said, or that are long."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of all events that are neither text nor an end. The repr leaves out texts, results and metadata.

    ``origin``: the input it came from, in a stream that is made from several; None elsewhere.
    """

    stream_id: str = ""
    seq: int = 0
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}
    origin: str | None = None

    def __repr__(self) -> str:
        hidden = _HIDDEN if self.origin is not None else _HIDDEN | {"origin"}
        shown = [f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in hidden]
        return f"{type(self).__name__}({', '.join(shown)})"
