"""What a decoder makes of bytes."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from penstock.errors import ProviderError
from penstock.events import FinishReason, ReasoningBlock, Usage

__all__ = [
    "ChoiceDelta",
    "Delta",
    "ErrorDelta",
    "FinishDelta",
    "KeepAlive",
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
    """A fragment of a function call. What the fragment does not say is ``None`` or empty."""

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    is_server: bool = False
    signature: str = ""


class ReasoningBlockDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of reasoning is complete and has what the provider wants back. Its text has come as `ReasoningDelta`."""

    block: ReasoningBlock


class Thinking(msgspec.Struct, frozen=True, gc=False):
    """The model has begun to reason, and may show nothing of it for long. Not a first delta: nothing is told yet."""


class ChoiceDelta(msgspec.Struct, frozen=True, gc=False):
    """A delta of another answer than the first, where several were asked for (``n`` > 1). ``index`` is at least 1."""

    index: int
    delta: TextDelta | ReasoningDelta | RefusalDelta | ToolCallFragment | FinishDelta


class UsageDelta(msgspec.Struct, frozen=True, gc=False):
    """Token counts so far; a later one takes the place of an earlier one."""

    usage: Usage


class FinishDelta(msgspec.Struct, frozen=True, gc=False):
    """The model stopped: why, in our word and in the provider's."""

    reason: FinishReason
    raw: str


class ErrorDelta(msgspec.Struct, frozen=True):
    """The provider reported an error inside the stream."""

    error: ProviderError


class KeepAlive(msgspec.Struct, frozen=True, gc=False):
    """A comment or ping: a sign of life, not of progress."""


Delta: TypeAlias = (
    TextDelta
    | ReasoningDelta
    | ReasoningBlockDelta
    | RefusalDelta
    | ToolCallFragment
    | ChoiceDelta
    | UsageDelta
    | FinishDelta
    | ErrorDelta
    | KeepAlive
    | Thinking
)
