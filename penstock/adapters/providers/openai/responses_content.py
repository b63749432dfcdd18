"""The content of chat messages as the Responses API takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

__all__ = ["INPUT_TEXT", "OUTPUT_TEXT", "is_list", "to_content"]

INPUT_TEXT: Final = "input_text"
OUTPUT_TEXT: Final = "output_text"


def to_content(content: Any, text_type: str) -> Any:
    """Convert a message's content; text stays text. ``text_type``: the type of parts that are text."""
    if content is None:
        return ""
    return [_part(part, text_type) for part in content] if is_list(content) else content


def _part(part: Any, text_type: str) -> Any:
    if isinstance(part, str):
        return {"type": text_type, "text": part}
    if not isinstance(part, Mapping):
        return part
    match part.get("type"):
        case "text":
            return {"type": text_type, "text": part.get("text")}
        case "image_url":
            image = part.get("image_url")
            image = image if isinstance(image, Mapping) else {"url": image}
            return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail") or "auto"}
        case "file" if isinstance(part.get("file"), Mapping):
            return {"type": "input_file", **part["file"]}
    return part


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether this is a list or tuple, or another sequence that is no text."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
