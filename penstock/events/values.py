"""The values that events carry: counts, costs, calls, choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec.structs import force_setattr

from penstock.events.frozen import freeze

__all__ = [
    "AnswerPart",
    "Choice",
    "Cost",
    "FinishReason",
    "Phase",
    "ProviderBlock",
    "ReasoningBlock",
    "StreamMetrics",
    "ToolCall",
    "Usage",
]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "other", "taken"]
"""Why the model stopped, in the same words for all providers. The provider's own word is in ``raw_finish_reason``.

``"taken"``: it did not stop; `Stream.take` had what it was asked for."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Counts as the provider reported them, in tokens unless said otherwise. ``None``: *not reported*, which is not 0.

    Each count is from 0 to 2**63 - 1.

    Attributes:
        input_tokens: of the prompt.
        output_tokens: of the answer. Reasoning is included, except for Gemini.
        total_tokens: the provider's own sum.
        reasoning_tokens: of reasoning.
        cached_tokens: read from the provider's prompt cache. Part of ``input_tokens``, except for Anthropic.
        cache_write_tokens: written to the prompt cache. Part of ``input_tokens``, except for Anthropic.
        cache_write_1h_tokens: the part of ``cache_write_tokens`` that is kept for an hour, where the provider tells the
            lifetimes (Anthropic); the rest is kept for five minutes.
        tool_input_tokens: results of the provider's own tools that the model read (Gemini); not part of
            ``input_tokens``. The other providers count them in ``input_tokens`` and do not tell them apart.
        audio_input_tokens, image_input_tokens: the parts of ``input_tokens`` that are audio and images (Gemini, chat).
        audio_output_tokens, image_output_tokens: the same for ``output_tokens``.
        server_tool_requests: how often each of the provider's own tools was used, by name: ``web_search``,
            ``web_fetch``, … (Anthropic, OpenRouter, xAI); ``sources``: sources read (xAI); ``search_queries``
            (Perplexity). Read-only.
        service_tier: the tier that served the request, in the provider's own word, such as ``"standard"``, ``"flex"``.
        reported_cost: what the provider itself says that the answer costs, in US dollars (xAI, Perplexity, OpenRouter;
            with an own key at OpenRouter, including what the upstream provider charges).
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    tool_input_tokens: int | None = None
    audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_output_tokens: int | None = None
    server_tool_requests: Mapping[str, int] | None = None
    service_tier: str | None = None
    reported_cost: float | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an answer costs: ``amount`` in ``currency``.

    Attributes:
        amount: by the price table; by the provider if ``source`` says so.
        currency: of ``amount``.
        is_estimate: the provider has not reported the usage (yet), or the price table has no rate for something in it.
        reported: what the provider itself says that the answer costs, in US dollars; None: it says nothing.
        source: ``"provider"``: the price table does not know the model, and ``amount`` is ``reported``. Of several
            rounds: all are so.
    """

    amount: float
    currency: str = "USD"
    is_estimate: bool = False
    reported: float | None = None
    source: Literal["prices", "provider"] = "prices"


class ReasoningBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of reasoning that the provider signed, to be returned to it unchanged in the next request.

    ``kind`` is the provider's own word: Anthropic's ``"thinking"`` and ``"redacted_thinking"``, Gemini's ``"thought"``,
    the Responses API's ``"reasoning"``, the types of chat's ``reasoning_details``. ``signature`` is a signature or
    encrypted text. ``provider`` is the name of the provider that signed it, and the block is returned to no other one;
    None: not known.
    """

    kind: str
    text: str = ""
    signature: str = ""
    id: str | None = None
    provider: str | None = None

    def __repr__(self) -> str:
        return f"ReasoningBlock(kind={self.kind!r}, chars={len(self.text)})"


Phase: TypeAlias = Literal["commentary", "final_answer"]
"""What a part of the text is for, as the Responses API says: the model comments on its work, or answers."""


class AnswerPart(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A part of an answer: text that the provider gave as one piece.

    Parts are numbered from 0 over all kinds. A number changes where text would otherwise run into earlier text of its
    kind: after one of the provider's own tools, at a new summary of reasoning, in the next round of an agent's turn.

    Attributes:
        index: as in `TokenEvent.part`.
        kind: ``"text"``, ``"reasoning"`` or ``"refusal"``.
        start, end: the span in the terminal event's text of that kind, in characters, ``end`` excluded.
        phase: what it is for; None if the provider does not say.
        origin: as in `TokenEvent.origin`.
    """

    index: int
    kind: Literal["text", "reasoning", "refusal"]
    start: int
    end: int
    phase: Phase | None = None
    origin: str | None = None


class ProviderBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of an answer in the provider's own form, to be returned to it unchanged in the next request.

    Signed reasoning, calls and results of the provider's own tools, compacted history. An assistant's message may have
    ``"provider_blocks"`` (dicts of these fields); they are sent to the provider that made them and dropped for others.

    Attributes:
        provider: the name of the provider that made it.
        data: the block, as JSON, read-only at all levels; for the Responses API an item, for Gemini a part.
        at: how many characters of the message's text come before it.
        calls: how many of the message's calls come before it.
    """

    provider: str
    data: Mapping[str, Any]
    at: int = 0
    calls: int = 0

    def __post_init__(self) -> None:
        force_setattr(self, "data", freeze(self.data))

    def __repr__(self) -> str:
        return f"ProviderBlock(provider={self.provider!r}, type={self.data.get('type')!r})"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One function call that the model asks for.

    Attributes:
        id: the call's id, by which its result refers to it.
        name: the function's name.
        arguments: the parsed JSON; ``None`` if the arguments are not complete JSON. Such a call must not be run.
        arguments_raw: the arguments as the provider sent them.
        is_server: the provider runs the call itself (web search …); do not run it.
        signature: to be returned to the provider with the call (Gemini's ``thoughtSignature``).
        type: ``"function"``, or another kind of call that the client must act on: ``"custom"`` (its ``arguments`` are
            free text), ``"local_shell"``, ``"shell"``, ``"apply_patch"``, ``"computer"``, ``"mcp_approval"``,
            ``"tool_search"``. All but the first two exist in the Responses API only, and have ``type`` as their
            ``name`` too, unless the provider names them.
        signed_by: the name of the provider that made ``signature``, to which alone it is returned; ``""`` if there is
            no signature, or its maker is not known.
    """

    id: str
    name: str
    arguments: Any = None
    arguments_raw: str = ""
    is_server: bool = False
    signature: str = ""
    type: str = "function"
    signed_by: str = ""

    def __repr__(self) -> str:
        state = "incomplete" if self.arguments is None else "complete"
        return f"ToolCall(id={self.id!r}, name={self.name!r}, arguments={state})"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of several answers to a request (``n`` > 1).

    Answer 0 is the stream itself; the others are in its terminal event, with ``index`` 1 and up.
    """

    index: int
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None

    def __repr__(self) -> str:
        return f"Choice(index={self.index}, finish_reason={self.finish_reason!r}, chars={len(self.text)})"


class StreamMetrics(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Counts and times of one stream.

    ``start_time``, ``first_token_time`` and ``end_time`` are seconds since the epoch; None has not happened yet. Names
    with ``_s`` are durations in seconds. The rates are measured from the first delivery to the last one, without the
    first batch; 0.0 until there are two.
    """

    start_time: float
    first_token_time: float | None = None
    end_time: float | None = None
    tokens: int = 0
    """Tokens delivered."""
    bytes: int = 0
    """The same in UTF-8 bytes of text."""
    function_calls: int = 0
    tool_time_s: float = 0.0
    """Time in which at least one tool was running."""
    errors: int = 0
    """Failed deliveries, failed provider requests (each retry counts) and failed tools."""
    total_time_s: float = 0.0
    time_to_first_token_s: float | None = None
    tokens_per_second: float = 0.0
    bytes_per_second: float = 0.0
