"""Pictures and sound in chat completion chunks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import parse_image
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.errors import OptionError
from penstock.events import MediaPart
from penstock.ports import Delta, EventDelta

__all__ = ["AudioPieces", "Pictures"]


class AudioPieces:
    """The sound of an answer (``delta.audio``): each piece as it comes, and the whole at the end."""

    def __init__(self, skip: Callable[[str, object], None]) -> None:
        self._skip = skip
        self._id: str | None = None
        self._data: list[str] = []
        self._words: list[str] = []

    def read(self, audio: object, out: list[Delta]) -> None:
        """Append a piece. The id comes only once; all pieces get it."""
        if not isinstance(audio, dict):
            self._skip("audio", audio)
            return
        self._id = replace_surrogates(text_of(audio.get("id"))) or self._id
        data, words = text_of(audio.get("data")), replace_surrogates(text_of(audio.get("transcript")))
        if not data.isascii():
            self._skip("audio", audio)
            return
        if data:
            self._data.append(data)
        if words:
            self._words.append(words)
        if data or words:
            out.append(EventDelta(_sound(self._id, data, words, is_partial=True)))

    def close(self, out: list[Delta]) -> None:
        """Append the whole sound, if any came."""
        if self._data or self._words:
            out.append(EventDelta(_sound(self._id, _joined(self._data), "".join(self._words), is_partial=False)))
            self._data, self._words = [], []


def _sound(identifier: str | None, data: str, words: str, *, is_partial: bool) -> MediaPart:
    return MediaPart(kind="audio", id=identifier, data=data, transcript=words, is_partial=is_partial)


def _joined(pieces: list[str]) -> str:
    """Join pieces of base64 text that each end in their own padding; text that is not base64 stays as it is."""
    try:
        return base64.b64encode(b"".join(base64.b64decode(piece, validate=True) for piece in pieces)).decode()
    except binascii.Error:  # cut at any place, or no base64 at all
        return "".join(pieces)


class Pictures:
    """The pictures of an answer; servers repeat them, and each is reported once."""

    def __init__(self, skip: Callable[[str, object], None]) -> None:
        self._skip = skip
        self._seen: set[int | str] = set()

    def read(self, images: object, out: list[Delta]) -> None:
        """Append those of a list that are new: ``{"image_url": address or {"url": address}}``."""
        if not isinstance(images, list):
            self._skip("images", images)
        for image in images if isinstance(images, list) else ():
            self.read_one(image, out)

    def read_one(self, image: object, out: list[Delta]) -> None:
        """Append one picture, if it is new. A data URL becomes data."""
        picture = _parse(image)
        if picture is None:
            self._skip("images", image)
            return
        key = picture.url or hash(picture.data)
        if key not in self._seen:
            self._seen.add(key)
            out.append(EventDelta(picture))


def _parse(image: object) -> MediaPart | None:
    if not isinstance(image, dict):
        return None
    try:
        found = parse_image({"type": "image_url", "image_url": image.get("image_url", image.get("url"))})
    except (OptionError, UnicodeError):
        return None
    if found is None:
        return None
    address, data, mime = (replace_surrogates(text) for text in (found.url, found.data, found.media_type))
    if not data.isascii():
        return None
    return MediaPart(kind="image", mime=mime or None, data=data, url=address or None, id=_id_of(image))


def _id_of(image: dict[str, Any]) -> str | None:
    return replace_surrogates(text_of(image.get("id"))) or None
