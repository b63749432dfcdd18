"""What a line of Ollama's chat API has besides text, calls and counts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from penstock.adapters.providers.shared.json_values import count_of, text_of
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import MediaPart

__all__ = ["THINKING", "metadata_of", "picture_of"]

THINKING: Final = "message.thinking"
"""The ``type`` of the block that holds the ``thinking`` of a message with calls, which goes back with the message."""

_DURATIONS: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
_UPSTREAM: Final = {"upstream_provider": "remote_host", "upstream_model": "remote_model"}
_LONGEST_TEXT: Final = 4_096  # characters
_MAGIC: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
}


def metadata_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """What the last line says of the whole answer: ``timings`` in nanoseconds, and what answered in Ollama's place."""
    values: dict[str, Any] = {}
    timings = {name: count for name in _DURATIONS if (count := count_of(line.get(name))) is not None}
    if timings:
        values["timings"] = timings
    for name, field in _UPSTREAM.items():
        text = replace_surrogates(text_of(line.get(field)))
        if 0 < len(text) <= _LONGEST_TEXT:
            values[name] = text
    return values


def picture_of(data: object) -> MediaPart | None:
    """A picture of base64 text; its media type is read from its first bytes. None: it is no such text."""
    if not isinstance(data, str) or not data or not data.isascii():
        return None
    return MediaPart(kind="image", mime=_mime_of(data[:24]), data=data)


def _mime_of(beginning: str) -> str | None:
    """The media type of a picture by the first 24 characters of its base64 text; None: not known."""
    try:
        head = base64.b64decode(beginning)
    except (binascii.Error, ValueError):
        return None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    return next((mime for magic, mime in _MAGIC.items() if head.startswith(magic)), None)
