"""Files of a conversation as parts of chat messages, in the form that the provider takes."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from penstock.config.providers import Dialect

__all__ = ["data_url", "file_part", "kept_part"]

_SOUNDS: Final = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}


def data_url(data: str, media_type: str) -> str:
    """A ``data:`` URL of base64 text."""
    return f"data:{media_type};base64,{data}"


def file_part(url: str, media_type: str, name: str | None, dialect: Dialect) -> dict[str, Any]:
    """A picture, document or sound as a content part.

    Anthropic and Gemini take every kind in the form of a picture, by its media type; a document's address is
    Anthropic's own form. OpenAI's forms are one for each kind. A file of text is text.
    """
    kind, is_data = media_type.partition(";")[0].strip().lower(), url[:5].lower() == "data:"
    if kind.startswith("text/") and is_data and (text := _text(url)) is not None:
        return {"type": "text", "text": f"{name}:\n{text}" if name else text}
    if kind.startswith("image/") or dialect == "gemini" or (dialect == "anthropic" and is_data):
        return {"type": "image_url", "image_url": {"url": url}}
    if dialect == "anthropic":
        return {"type": "document", "source": {"type": "url", "url": url}} | ({"title": name} if name else {})
    if is_data and (sound := _SOUNDS.get(kind)):
        return {"type": "input_audio", "input_audio": {"data": url.partition(",")[2], "format": sound}}
    if dialect == "openai-responses" and not is_data:
        return {"type": "file", "file": {"file_url": url}}
    return {"type": "file", "file": {"filename": name or "file", "file_data": url}}


def kept_part(file_id: str, media_type: str, dialect: Dialect) -> dict[str, Any]:
    """A file that the provider keeps as a content part, in the provider's own form."""
    if dialect == "anthropic":
        kind = "image" if media_type.startswith("image/") else "document"
        return {"type": kind, "source": {"type": "file", "file_id": file_id}}
    if dialect == "gemini":
        return {"fileData": {"fileUri": file_id, "mimeType": media_type}}
    return {"type": "file", "file": {"file_id": file_id}}


def _text(url: str) -> str | None:
    """The text in a ``data:`` URL; None if it is no UTF-8."""
    head, _, data = url[5:].partition(",")
    try:
        if head.lower().endswith(";base64"):
            return base64.b64decode(data, validate=True).decode()
        return unquote_to_bytes(data).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
