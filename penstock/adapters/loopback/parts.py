"""The parts of an answer, in the order in which they are sent. Frozen values, validated when they are made.

Each API sends a part in its own form. A part, or a field of one, that an API has no form for is left out there, so that
one answer serves all APIs; ``docs/loopback.md`` has a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from penstock.adapters.loopback.hosted import Found, Ran, Search, ServerTool
from penstock.adapters.loopback.media import Picture, Sound
from penstock.adapters.loopback.pieces import ScriptedCall, check_id, check_text, split_text, take_json, take_tuple
from penstock.config.checks import check_choice, check_number
from penstock.errors import OptionError
from penstock.events import CitationKind, Phase, TokenLogprob

__all__ = [
    "Block",
    "Declined",
    "Found",
    "Part",
    "Picture",
    "Ran",
    "RawEvent",
    "Said",
    "Search",
    "ServerTool",
    "Silence",
    "Sound",
    "Source",
    "Thought",
    "delay_in",
]

_DAY_S = 86_400
_DIALECTS = ("chat", "responses", "anthropic", "gemini", "ollama")


# --- text ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A source of text: a citation of a `Said`.

    Attributes:
        url, title: of the page, file or document.
        kind: ``"url"``, ``"file"``, ``"document"`` (of the request) or ``"search_result"``.
        id: the file's id.
        cited_text: the words of the source.
        start, end: the span in the text of the `Said`, in characters, ``end`` excluded; None is all of the text.
    """

    url: str | None = None
    title: str | None = None
    _: KW_ONLY
    kind: CitationKind = "url"
    id: str | None = None
    cited_text: str | None = None
    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        for name in ("url", "title", "cited_text"):
            check_text(name, getattr(self, name), optional=True)
        check_choice("kind", self.kind, get_args(CitationKind))
        check_id(self.id)
        check_number("start", self.start, 0, 2**31, whole=True, optional=True)
        check_number("end", self.end, 0, 2**31, whole=True, optional=True)
        if (self.start is None) != (self.end is None):
            raise OptionError("end", self.end, "a number if there is a start, otherwise None")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise OptionError("end", self.end, f"more than start ({self.start})")


@dataclass(frozen=True, slots=True)
class Said:
    """Text. Consecutive ones are one text; anything else between two of them makes a new part of the answer.

    Attributes:
        text: split into tokens by `split_text`.
        tokens: the tokens themselves, in place of ``text``.
        citations: its sources. Anthropic cuts the text into blocks where their spans begin and end; chat completions,
            Responses and Gemini send them after the text.
        logprobs: the tokens with their probabilities, in place of ``text`` and ``tokens``; None: they are made up if
            they are to be sent (see ``Answer.logprobs``).
        phase: what it is for; only the Responses API says so.
    """

    text: str = ""
    _: KW_ONLY
    citations: Sequence[Source] = ()
    tokens: Sequence[str] | None = None
    logprobs: Sequence[TokenLogprob] | None = None
    phase: Phase | None = None

    def __post_init__(self) -> None:
        check_text("text", self.text)
        take_tuple(self, "citations", Source, "a list of Source")
        take_tuple(self, "logprobs", TokenLogprob, "a list of TokenLogprob, or None", optional=True)
        take_tuple(self, "tokens", str, "a list of strings, or None", optional=True)
        if self.logprobs is not None:
            self._take_tokens("logprobs", tuple(one.token for one in self.logprobs))
        elif self.tokens is not None:
            self._take_tokens("tokens", tuple(self.tokens))
        check_choice("phase", self.phase, (None, *get_args(Phase)))
        if not self.text:
            raise OptionError("text", self.text, "at least one character")
        for source in self.citations:
            if source.end is not None and source.end > len(self.text):
                raise OptionError("citations", source.end, f"spans inside of the text ({len(self.text)} characters)")

    def _take_tokens(self, name: str, tokens: tuple[str, ...]) -> None:
        text = "".join(tokens)
        check_text(name, text)
        if self.text not in ("", text) or (self.tokens is not None and tuple(self.tokens) != tokens):
            raise OptionError(name, tokens, "tokens that make the text when they are joined")
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "text", text)

    @property
    def pieces(self) -> list[str]:
        """The tokens."""
        return split_text(self.text) if self.tokens is None else list(self.tokens)

    @property
    def token_count(self) -> int:
        """How many events of it are paced and counted."""
        return len(self.pieces)


@dataclass(frozen=True, slots=True)
class Declined:
    """A refusal. Anthropic, Gemini and Ollama send it as text."""

    text: str

    def __post_init__(self) -> None:
        check_text("text", self.text)

    @property
    def pieces(self) -> list[str]:
        """The tokens."""
        return split_text(self.text)

    @property
    def token_count(self) -> int:
        """How many events of it are paced and counted."""
        return len(self.pieces)


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning.

    Attributes:
        text: what can be read of it.
        signature: Anthropic's ``signature`` (None: made up, since Anthropic always signs; empty: none), the
            ``encrypted_content`` of the Responses API, the signature of an entry of chat's ``reasoning_details``,
            Gemini's ``thoughtSignature`` (of the next part that can have one).
        redacted: encrypted reasoning without text: Anthropic's ``redacted_thinking``, the ``encrypted_content`` of the
            Responses API, chat's ``reasoning.encrypted``.
    """

    text: str = ""
    _: KW_ONLY
    signature: str | None = None
    redacted: str | None = None

    def __post_init__(self) -> None:
        check_text("text", self.text)
        check_text("signature", self.signature, optional=True)
        check_text("redacted", self.redacted, optional=True)
        if self.redacted is not None and (self.text or self.signature or not self.redacted):
            raise OptionError("redacted", self.redacted, "data in place of text and signature, or None")

    @property
    def pieces(self) -> list[str]:
        """The tokens."""
        return split_text(self.text)

    @property
    def token_count(self) -> int:
        """How many events of it are paced and counted."""
        return len(self.pieces) or int(self.redacted is not None)


# --- everything else -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Silence:
    """Silence of ``seconds`` between what precedes and what follows. Due times after it are so much later."""

    seconds: float

    def __post_init__(self) -> None:
        check_number("seconds", self.seconds, 0, _DAY_S)

    @property
    def token_count(self) -> int:
        """Nothing."""
        return 0


@dataclass(frozen=True, slots=True)
class RawEvent:
    """An event as it is, such as one of a type that no client knows. Only streams have it.

    ``payload``: a JSON object, or text that may be anything. ``event``: the name of a server-sent event; None is the
    payload's ``type`` for Anthropic and Responses, and no name for the others. The Responses API numbers it, if it is
    an object without a ``sequence_number``.
    """

    payload: Any
    event: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.payload, str):
            check_text("payload", self.payload)
            if "\n" in self.payload or "\r" in self.payload:
                raise OptionError("payload", self.payload, "a text of one line")
        else:
            take_json(self, "payload", "a dict that JSON can encode, or text", dict)
        check_text("event", self.event, optional=True)
        if self.event is not None and not self.event.isprintable():
            raise OptionError("event", self.event, "a name of printable characters, or None")

    @property
    def encoded(self) -> bytes:
        """The payload as it is sent."""
        return self.payload.encode() if isinstance(self.payload, str) else msgspec.json.encode(self.payload)

    @property
    def name(self) -> str:
        """The name of the event, given or derived."""
        if self.event is not None:
            return self.event
        kind = self.payload.get("type") if isinstance(self.payload, dict) else None
        return kind if isinstance(kind, str) and kind.isprintable() else ""

    @property
    def token_count(self) -> int:
        """One."""
        return 1


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of an answer in one API's own form, such as ``{"type": "compaction", …}``; other APIs leave it out.

    ``dialect``: ``"anthropic"``: a content block, ``"responses"``: an output item, ``"gemini"``: a part, ``"chat"``: an
    entry of ``reasoning_details``, ``"ollama"``: fields of a message.
    """

    data: Any
    _: KW_ONLY
    dialect: Literal["chat", "responses", "anthropic", "gemini", "ollama"]

    def __post_init__(self) -> None:
        take_json(self, "data", "a dict that JSON can encode", dict)
        check_choice("dialect", self.dialect, _DIALECTS)

    @property
    def token_count(self) -> int:
        """One."""
        return 1


Part: TypeAlias = (
    Said | Declined | Thought | Search | Ran | ServerTool | Picture | Sound | ScriptedCall | Silence | RawEvent | Block
)
"""A part of an answer."""


def delay_in(part: Part) -> float:
    """Return the seconds of silence between a tool's call and its result."""
    return part.takes if isinstance(part, (Search, Ran, ServerTool)) and part.has_result else 0.0
