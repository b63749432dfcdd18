"""Deltas: what a decoder makes of a response's bytes.

An answer begins, and is not retried any more, with the first delta that says something of its own: `TextDelta`,
`ReasoningDelta`, `RefusalDelta`, `ToolCallFragment`, `ChoiceDelta`, `ReasoningBlockDelta`, `FinishDelta`, and an
`EventDelta` of media or of the provider's own tools. The others are about the answer and do not begin it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import force_setattr

from penstock.errors import ProviderError
from penstock.events import (
    Citation,
    FinishReason,
    Logprobs,
    MediaPart,
    Phase,
    ProviderEvent,
    ReasoningBlock,
    ServerToolCall,
    ServerToolResult,
    TokenKind,
    Usage,
    freeze,
)

__all__ = [
    "BlockDelta",
    "BlockStart",
    "ChoiceDelta",
    "CitationDelta",
    "Delta",
    "ErrorDelta",
    "EventDelta",
    "FinishDelta",
    "FinishHeld",
    "KeepAlive",
    "MetadataDelta",
    "ReasoningBlockDelta",
    "ReasoningDelta",
    "RefusalDelta",
    "TextDelta",
    "Thinking",
    "ToolCallFragment",
    "UsageDelta",
]


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer's text, never empty."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's reasoning, never empty."""

    text: str


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of a refusal, never empty."""

    text: str


class ToolCallFragment(msgspec.Struct, frozen=True, gc=False):
    """A fragment of a call. Fields that the fragment does not contain are None or empty.

    ``type`` is that of `penstock.events.ToolCall`, empty for a function. ``replaces``: ``arguments`` are the whole
    ones, and replace those of earlier fragments.
    """

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    is_server: bool = False
    signature: str = ""
    type: str = ""
    replaces: bool = False


class BlockStart(msgspec.Struct, frozen=True, gc=False):
    """A block of text begins, of the given kind. Providers without blocks need none.

    ``is_joint`` False: it continues the text before it (Anthropic begins a new block at the border of a citation).
    Otherwise a new part of the answer begins, if there is text in the present one; see `penstock.events.AnswerPart`.
    """

    kind: TokenKind
    is_joint: bool = True
    phase: Phase | None = None


class CitationDelta(msgspec.Struct, frozen=True):
    """A citation. Its ``start`` and ``end`` are counted from the last `BlockStart` of kind ``"text"``, or from the
    start of the answer.

    ``is_of_block``: it belongs to the whole block up to here, and has no span of its own.
    """

    citation: Citation
    is_of_block: bool = False


class EventDelta(msgspec.Struct, frozen=True):
    """Something else than text, to be passed on to the subscribers as it is; the stream numbers it."""

    event: ServerToolCall | ServerToolResult | MediaPart | Logprobs | ProviderEvent


class BlockDelta(msgspec.Struct, frozen=True):
    """A block to be returned to the provider in the next request; see `penstock.events.ProviderBlock`.

    The stream adds the place in the answer, and the provider's name.
    """

    data: Mapping[str, Any]

    def __post_init__(self) -> None:
        force_setattr(self, "data", freeze(self.data))


class MetadataDelta(msgspec.Struct, frozen=True):
    """What the provider says of the answer as a whole. A later value replaces an earlier one of the same name."""

    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        force_setattr(self, "values", freeze(self.values))


class ReasoningBlockDelta(msgspec.Struct, frozen=True, gc=False):
    """A signed piece of reasoning is complete. Its text has already come as `ReasoningDelta`."""

    block: ReasoningBlock


class Thinking(msgspec.Struct, frozen=True, gc=False):
    """The model has begun to reason, possibly for a long time without output. Does not count as the first delta."""


class ChoiceDelta(msgspec.Struct, frozen=True, gc=False):
    """A delta of one of the further answers, if several were requested (``n`` > 1). ``index`` is at least 1."""

    index: int
    delta: TextDelta | ReasoningDelta | RefusalDelta | ToolCallFragment | FinishDelta


class UsageDelta(msgspec.Struct, frozen=True, gc=False):
    """Token counts so far; a later one replaces an earlier one."""

    usage: Usage


class FinishDelta(msgspec.Struct, frozen=True, gc=False):
    """The model has finished: the reason, and the provider's own word for it (``raw``)."""

    reason: FinishReason
    raw: str


class FinishHeld(msgspec.Struct, frozen=True, gc=False):
    """A finish reason has come that does not end the answer: the result of one of the provider's own tools is missing.

    If nothing more comes, the answer is incomplete.
    """


class ErrorDelta(msgspec.Struct, frozen=True):
    """The provider reported an error inside the stream."""

    error: ProviderError


class KeepAlive(msgspec.Struct, frozen=True, gc=False):
    """A comment or ping: the connection is alive, but the answer has made no progress."""


Delta: TypeAlias = (
    TextDelta
    | BlockStart
    | BlockDelta
    | CitationDelta
    | EventDelta
    | MetadataDelta
    | ReasoningDelta
    | ReasoningBlockDelta
    | RefusalDelta
    | ToolCallFragment
    | ChoiceDelta
    | UsageDelta
    | FinishDelta
    | FinishHeld
    | ErrorDelta
    | KeepAlive
    | Thinking
)
