"""The events of every stream: tokens, resets, and the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from penstock.errors import PenstockError
from penstock.events.answer import (
    AnswerEvent,
    Citation,
    MediaPart,
    ProviderEvent,
    ServerToolCall,
    ServerToolResult,
    TokenLogprob,
)
from penstock.events.envelope import Envelope
from penstock.events.frozen import FrozenDict
from penstock.events.notices import LoopDetected, Progress, StallDetected
from penstock.events.tools import ToolEvent, ToolResult
from penstock.events.values import (
    AnswerPart,
    Choice,
    Cost,
    FinishReason,
    Phase,
    ProviderBlock,
    ReasoningBlock,
    StreamMetrics,
    ToolCall,
    Usage,
)

__all__ = [
    "Disconnected",
    "Event",
    "NoticeEvent",
    "OriginEnded",
    "SideEvent",
    "StreamCancelled",
    "StreamCompleted",
    "StreamFailed",
    "StreamReset",
    "StreamSnapshot",
    "TerminalEvent",
    "TokenEvent",
    "TokenKind",
    "to_dict",
]

TokenKind: TypeAlias = Literal["text", "reasoning", "refusal"]


class TokenEvent(msgspec.Struct, frozen=True, gc=False):
    """A batch of tokens of one kind.

    Attributes:
        stream_id: the stream's id.
        seq: the event's number in the stream's log; for a merged event, the last number it replaces.
        tokens: the tokens, in order; ``"".join(tokens) == text``.
        text: the same as one string.
        kind: ``"text"``, ``"reasoning"`` (not part of the answer's text) or ``"refusal"``.
        timestamp: when it was delivered, in seconds since the epoch.
        metadata: what the stream was opened with; read-only.
        dropped: how many tokens were dropped directly before this event (by ``overflow`` or ``slow="drop"``).
        part: the part of the answer that the tokens belong to, from 0; see `AnswerPart`. No event has tokens of two.
        phase: what the part is for; None if the provider does not say.
        origin: the input that the tokens came from, in a stream that is made from several, such as that of `merge`;
            None elsewhere. No event has tokens of two.
    """

    stream_id: str
    seq: int
    tokens: tuple[str, ...]
    text: str
    kind: TokenKind
    timestamp: float
    metadata: Mapping[str, Any]
    dropped: int = 0
    part: int = 0
    phase: Phase | None = None
    origin: str | None = None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(stream_id={self.stream_id!r}, seq={self.seq}, kind={self.kind!r}, "
            f"tokens={len(self.tokens)}, chars={len(self.text)}, dropped={self.dropped})"
        )


class StreamSnapshot(TokenEvent, frozen=True, gc=False):
    """Everything up to ``seq`` in one event.

    Sent to a subscriber that needs events which are no longer kept one by one (``retain_bytes``). It is a `TokenEvent`
    whose ``text`` is all the text so far, so a reader that only knows `TokenEvent` misses nothing. ``reasoning`` and
    ``refusal`` hold the other kinds, ``parts`` where each part of them is, ``tool_calls`` the complete calls,
    ``tool_results`` their results, and ``answer_events`` the other kept events: citations, whole pictures, calls and
    results of the provider's own tools, ends of reasoning blocks. ``notices`` are the kept `NoticeEvent` events:
    `OriginEnded` and `LoopDetected`. In a stream that is made from several, each of the ``parts`` has its ``origin``.

    It replaces everything the subscriber has read before; it must not be appended. The pieces of a call that is not
    yet complete are not repeated; its `ToolCallCompleted` has the whole call.
    """

    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()
    parts: tuple[AnswerPart, ...] = ()
    answer_events: tuple[AnswerEvent, ...] = ()
    notices: tuple[NoticeEvent, ...] = ()


class StreamReset(msgspec.Struct, frozen=True):
    """The answer starts again. All text before this event is void.

    Sent when the provider's answer broke off (``on_interrupt="restart"``), or by ``Stream.reset``. ``reason`` says why.
    With an ``origin``, only the text and the events of that origin are void.
    """

    stream_id: str
    seq: int
    reason: str
    timestamp: float
    metadata: Mapping[str, Any]
    origin: str | None = None

    def __repr__(self) -> str:
        of = "" if self.origin is None else f", origin={self.origin!r}"
        return f"StreamReset(stream_id={self.stream_id!r}, seq={self.seq}, reason={self.reason!r}{of})"


class _Terminal(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of all terminal events. ``usage`` is None if the provider reported none.

    ``undelivered`` is the number of tokens that were buffered at the end of a stream which was cancelled or crashed. No
    token event has them, but ``partial``, ``reasoning`` and ``refusal`` do.

    ``parts``, ``citations``, ``media`` (whole ones), ``server_tools`` (calls and results, in order) and ``logprobs``
    repeat the events of these names since the last `StreamReset`, with their numbers; those that were still buffered at
    the end of a stream that was cancelled have the number 0. ``provider_blocks`` are what the provider needs back in
    the next request.

    ``provider_metadata`` is what the provider says of the answer as a whole, as JSON, read-only. The names are the same
    for all providers: ``response_id``, ``system_fingerprint``, ``service_tier``, ``container``, ``stop_sequence`` (the
    one that matched), ``refusal_details``, ``finish_message``, ``prompt_feedback``, ``moderation``, ``timings``
    (durations in the provider's units), ``cost`` (as the provider tells it), ``usage_details`` (counts that `Usage` has
    no field for), ``upstream_provider``, ``native_finish_reason`` …; each provider's page says which ones it gives.
    Two are Penstock's own. ``dropped_blocks``: how many blocks of the conversation were not sent, since another
    provider made them. ``dropped_events``: how many raw events before the answer began were more than could be held.

    ``prediction`` is what a DSPy program has returned, as a dict (`penstock.sources.dspy`); None elsewhere.

    In a stream that is made from several, ``texts`` is the text of the kind ``"text"`` by origin, and ``costs`` the
    cost by origin, None where it is not known. Both are empty elsewhere. ``origin`` is the input that failed, where its
    failure was the end of all (``on_error="fail"`` of `merge`); else None.
    """

    stream_id: str
    seq: int
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    model: str | None = None
    provider: str | None = None
    reasoning_blocks: tuple[ReasoningBlock, ...] = ()
    choices: tuple[Choice, ...] = ()
    cost: Cost | None = None
    metrics: StreamMetrics | None = None
    timestamp: float = 0.0
    metadata: Mapping[str, Any] = {}
    dropped: int = 0
    undelivered: int = 0
    parts: tuple[AnswerPart, ...] = ()
    citations: tuple[Citation, ...] = ()
    media: tuple[MediaPart, ...] = ()
    server_tools: tuple[ServerToolCall | ServerToolResult, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    provider_blocks: tuple[ProviderBlock, ...] = ()
    provider_metadata: Mapping[str, Any] = FrozenDict()
    prediction: Mapping[str, Any] | None = None
    texts: Mapping[str, str] = FrozenDict()
    costs: Mapping[str, Cost | None] = FrozenDict()
    origin: str | None = None


class _CutShort(_Terminal, frozen=True, kw_only=True):
    """The fields of the ends without a complete answer.

    ``partial`` is all the text that came before the end, with the text that was still buffered (see ``undelivered``).
    """

    partial: str = ""

    @property
    def text(self) -> str:
        """The same as ``partial``."""
        return self.partial


class StreamCompleted(_Terminal, frozen=True, kw_only=True):
    """The stream ended well: the model finished its answer, or ``Stream.stop()`` was called.

    Attributes:
        text: the whole answer.
        finish_reason: why the model stopped; ``"stop"`` if no reason was given.
        raw_finish_reason: the provider's own word for it.
        reasoning, refusal: the text of the other kinds.
        tool_calls: the function calls the model asks for.
        usage: token counts; None if the provider reported none.
        model, provider: the ones that answered, which may be a ``fallback``.
        reasoning_blocks: signed reasoning, to be returned to the provider in the next request.
        choices: the other answers, if ``n`` > 1.
        cost: by the price table; None if the model's price is not known.
        metrics: counts and times.
        dropped: how many tokens were dropped directly before this event.
    """

    text: str
    finish_reason: FinishReason = "stop"
    raw_finish_reason: str | None = None

    def __repr__(self) -> str:
        return (
            f"StreamCompleted(stream_id={self.stream_id!r}, seq={self.seq}, finish_reason={self.finish_reason!r}, "
            f"chars={len(self.text)}, tool_calls={len(self.tool_calls)})"
        )


class StreamFailed(_CutShort, frozen=True, kw_only=True):
    """The stream ended with ``error``. ``partial`` is all the text that came before; other fields as above."""

    error: PenstockError

    def __repr__(self) -> str:
        return (
            f"StreamFailed(stream_id={self.stream_id!r}, seq={self.seq}, error={type(self.error).__name__}, "
            f"chars={len(self.partial)})"
        )


class StreamCancelled(_CutShort, frozen=True, kw_only=True):
    """The stream was cancelled, for ``reason``. ``partial`` is all the text that came before; other fields as above."""

    reason: str | None = None

    def __repr__(self) -> str:
        return (
            f"StreamCancelled(stream_id={self.stream_id!r}, seq={self.seq}, reason={self.reason!r}, "
            f"chars={len(self.partial)})"
        )


class Disconnected(msgspec.Struct, frozen=True):
    """The subscriber was too slow (``slow="disconnect"``) and gets no more events.

    Sent to this subscriber only, and not part of the log. ``seq`` is the last event it got; it may subscribe again
    after that one.
    """

    stream_id: str
    seq: int
    error: PenstockError


TerminalEvent: TypeAlias = StreamCompleted | StreamFailed | StreamCancelled
"""The last event of a stream; there is exactly one."""


class OriginEnded(Envelope, frozen=True, kw_only=True):
    """One input of a stream that is made from several has ended; ``outcome`` is its terminal event.

    ``origin`` says which one. No event of that origin follows.
    """

    outcome: TerminalEvent


NoticeEvent: TypeAlias = Progress | StallDetected | LoopDetected | OriginEnded
"""Events about a stream itself, not about the answer in it."""

SideEvent: TypeAlias = ToolEvent | AnswerEvent | NoticeEvent
"""Any event of a stream's log that is neither text nor a reset nor an end."""

Event: TypeAlias = TokenEvent | SideEvent | StreamReset | TerminalEvent
"""Any event of a stream's log."""


def to_dict(event: Event) -> dict[str, Any]:
    """Convert an event to plain JSON types. The first key is ``"type"``, the name of the event's class.

    The ``type`` of a `ProviderEvent` is named ``"provider_type"``.

    An error becomes ``{"type": its class, "message": its text}`` plus its attributes (status, code, which …). Every
    terminal event has its text as ``"text"``.

    >>> to_dict(TokenEvent("s", 1, ("Hi",), "Hi", "text", 0.0, {}))["type"]
    'TokenEvent'
    """
    names = event.__struct_fields__
    fields = {name: getattr(event, name) for name in (("text", *names) if isinstance(event, _CutShort) else names)}
    if isinstance(event, ProviderEvent):
        fields = {"provider_type": fields.pop("type"), **fields}
    return {"type": type(event).__name__} | {name: _plain(value) for name, value in fields.items()}


_ERROR_FACTS = ("status", "code", "retryable", "retry_after", "which", "timeout", "detail")


def _plain(value: Any) -> Any:
    if isinstance(value, PenstockError):
        facts = {name: getattr(value, name) for name in _ERROR_FACTS if getattr(value, name, None) is not None}
        return {"type": type(value).__name__, "message": str(value)} | facts
    if isinstance(value, _Terminal):
        return to_dict(value)  # type: ignore[arg-type] # there are three kinds of it
    if isinstance(value, tuple) and value and isinstance(value[0], Envelope):
        return tuple(map(to_dict, value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return msgspec.to_builtins(value, enc_hook=repr)
