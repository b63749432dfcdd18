"""Pictures and speech, as parts of an answer."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from penstock.adapters.loopback.pieces import check_text, split_text, take_tuple
from penstock.errors import OptionError

__all__ = ["Picture", "Sound"]


def _take_data(owner: Picture | Sound) -> None:
    """Store bytes as base64 text; raise `OptionError` if text is no base64."""
    data = owner.data
    if isinstance(data, bytes):
        object.__setattr__(owner, "data", base64.b64encode(data).decode())
        return
    try:
        base64.b64decode(data, validate=True)
    except (TypeError, ValueError):
        raise OptionError("data", type(data), "bytes, or base64 text") from None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture.

    Attributes:
        data: its bytes, or base64 text.
        mime: its media type; Ollama does not send it, and the Responses API only the part after ``image/``.
        url: its address, in place of data: chat completions and Gemini.
        previews: earlier, unfinished versions of it, in the same form as ``data``: Responses only.
    """

    data: bytes | str = b""
    mime: str = "image/png"
    _: KW_ONLY
    url: str | None = None
    previews: Sequence[bytes | str] = ()

    def __post_init__(self) -> None:
        _take_data(self)
        check_text("url", self.url, optional=True)
        if bool(self.data) == bool(self.url):
            raise OptionError("url", self.url, "an address if there is no data, otherwise None")
        check_text("mime", self.mime)
        if not self.mime.startswith("image/"):
            raise OptionError("mime", self.mime, "image/…")
        take_tuple(self, "previews", (bytes, str), "a list of bytes or base64 texts")
        shown = tuple(Picture(data).encoded for data in self.previews)
        object.__setattr__(self, "previews", shown)

    @property
    def encoded(self) -> str:
        """The data as base64 text."""
        assert isinstance(self.data, str)
        return self.data

    @property
    def place(self) -> str:
        """Its address, or its data as an address."""
        return self.url or f"data:{self.mime};base64,{self.encoded}"

    @property
    def token_count(self) -> int:
        """How many events of it are paced and counted."""
        return 1 + len(self.previews)


@dataclass(frozen=True, slots=True)
class Sound:
    """Speech.

    Attributes:
        data: its bytes, or base64 text.
        mime: its media type; only Gemini sends it.
        transcript: the words, sent by chat completions and Responses before the data.
    """

    data: bytes | str
    mime: str = "audio/wav"
    _: KW_ONLY
    transcript: str = ""

    def __post_init__(self) -> None:
        _take_data(self)
        check_text("mime", self.mime)
        if not self.mime.startswith("audio/"):
            raise OptionError("mime", self.mime, "audio/…")
        check_text("transcript", self.transcript)

    @property
    def encoded(self) -> str:
        """The data as base64 text."""
        assert isinstance(self.data, str)
        return self.data

    @property
    def words(self) -> list[str]:
        """The tokens of the transcript."""
        return split_text(self.transcript)

    @property
    def token_count(self) -> int:
        """How many events of it are paced and counted."""
        return len(self.words) + 1
