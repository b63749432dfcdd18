"""Events about what an answer has besides text and calls: sources, the provider's own tools, media, probabilities.

The stream they are pushed into sets ``stream_id``, ``seq``, ``timestamp`` and ``metadata``. Like tool events, they wait
for no batch, count as no token, and are never merged or dropped.

All subscribers share one event, and some of it goes back to the provider, so the JSON in an event is read-only at all
levels: its dicts and lists refuse changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec.structs import force_setattr

from penstock.events.envelope import Envelope
from penstock.events.frozen import FrozenDict, freeze

__all__ = [
    "AnswerEvent",
    "Citation",
    "CitationKind",
    "Logprobs",
    "MediaKind",
    "MediaPart",
    "ProviderEvent",
    "ReasoningBlockClosed",
    "ServerToolCall",
    "ServerToolResult",
    "TokenLogprob",
]

CitationKind: TypeAlias = Literal["url", "file", "document", "search_result"]
"""A web page, a stored file, a range of a document that the request had, or a search result."""

MediaKind: TypeAlias = Literal["image", "audio", "video", "file"]


class Citation(Envelope, frozen=True, kw_only=True):
    """A source of a part of the answer's text.

    Given by chat completions (``annotations``; Perplexity's ``citations`` and ``search_results``), the Responses API
    (``annotations``), Anthropic (``citations_delta``, ``citations``) and Gemini (``groundingMetadata``,
    ``citationMetadata``, ``urlContextMetadata``).

    Attributes:
        kind: what the source is.
        url: the page's address, if it has one.
        id: the file's id, if the source is a file.
        title: of the page, file or document.
        cited_text: the words of the source, if the provider quotes them.
        start, end: the span of the answer's text that stands on this source, in characters from the start of the text,
            ``end`` excluded; None if the provider does not say. The span may be of text that comes after this event.
            The text is that which the provider has sent since the last `StreamReset`: tokens that ``overflow`` dropped
            are counted too, so with ``"drop_oldest"`` and ``"drop_newest"`` the span may not fit the stream's text.
        part: the part of the answer that the span is in; see `TokenEvent.part`.
        location: where in the source, in the provider's own words and units (``document_index``, ``start_char_index``,
            ``start_page_number``, ``index`` …).
    """

    kind: CitationKind
    url: str | None = None
    id: str | None = None
    title: str | None = None
    cited_text: str | None = None
    start: int | None = None
    end: int | None = None
    part: int = 0
    location: Mapping[str, Any] = FrozenDict()

    def __post_init__(self) -> None:
        force_setattr(self, "location", freeze(self.location))


class ServerToolCall(Envelope, frozen=True, kw_only=True):
    """The provider runs one of its own tools; nothing is to be done. Sent when the call is complete.

    Given by the Responses API (items of hosted tools, such as ``web_search_call``), Anthropic (``server_tool_use``,
    ``mcp_tool_use``), Gemini (``executableCode``, ``toolCall``) and Groq (``executed_tools``).

    Attributes:
        id: the call's id; one is made up (``"server_0"`` …) if the provider gives none. If a call of an earlier round
            of the turn has the same one, the number of the round is added (``"server_0_2"``).
        name: the tool, in the provider's word: ``"web_search"``, ``"web_fetch"``, ``"code_execution"``,
            ``"file_search"``, ``"mcp"``, ``"image_generation"``, ``"tool_search"`` …
        input: the arguments as parsed JSON; text if the provider sends text.
        status: the provider's own word (``"completed"``, ``"failed"`` …); None if it gives none.
    """

    id: str
    name: str
    input: Any = None
    status: str | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "input", freeze(self.input))


class ServerToolResult(Envelope, frozen=True, kw_only=True):
    """What one of the provider's own tools has returned.

    Given by the same providers as `ServerToolCall`: the Responses API (the results in the items), Anthropic
    (``…_tool_result``), Gemini (``codeExecutionResult``, ``toolResponse``) and Groq (``executed_tools``).

    Attributes:
        id: the ``id`` of the call.
        name: the tool, as in the call.
        output: the result as parsed JSON, as the provider sent it. Parts of it may be sealed (encrypted): they are for
            the provider alone, and are sent back with the conversation.
        status: the provider's own word; None if it gives none.
        is_error: whether the tool failed.
    """

    id: str
    name: str
    output: Any = None
    status: str | None = None
    is_error: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "output", freeze(self.output))


class MediaPart(Envelope, frozen=True, kw_only=True):
    """A picture or sound, or a piece of one.

    Given by Gemini (``inlineData``, ``fileData``), the Responses API (``image_generation_call``, ``response.audio``),
    OpenRouter and Perplexity (``images``) and OpenAI's audio models (``audio``).
    All parts of an answer together are bounded by ``max_answer_bytes``.

    Attributes:
        kind: what it is.
        mime: its media type, such as ``"image/png"``; None if the provider does not say.
        data: base64 text, if the content itself came.
        url: its address, if that came in place of the content.
        id: the provider's id for it, if there is one.
        is_partial: a preview of a picture, or a piece of sound; the whole one follows, in an event or in the terminal
            event's ``media``.
        transcript: the words spoken in it.
    """

    kind: MediaKind
    mime: str | None = None
    data: str = ""
    url: str | None = None
    id: str | None = None
    is_partial: bool = False
    transcript: str = ""


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """A token and the natural logarithm of its probability.

    ``top``: the likeliest tokens at its place, as the provider orders them, each with its logarithm.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()

    def __repr__(self) -> str:
        return f"TokenLogprob(chars={len(self.token)}, top={len(self.top)})"


class Logprobs(Envelope, frozen=True, kw_only=True):
    """Probabilities of the answer's tokens, in the order of the text, directly after the text they belong to.

    Given by chat completions, the Responses API, Gemini (``logprobsResult``) and Ollama, if the request asks for them.
    The tokens are the model's; those of the `TokenEvent` may be cut differently.
    """

    tokens: tuple[TokenLogprob, ...]


class ReasoningBlockClosed(Envelope, frozen=True, kw_only=True):
    """A signed or encrypted piece of reasoning is complete.

    Given by Anthropic (``thinking``, ``redacted_thinking``), the Responses API (``reasoning`` items with an id or
    ``encrypted_content``), Gemini (``thoughtSignature``) and OpenRouter and its like (``reasoning_details``).
    Its text, if any, has come as tokens of kind ``"reasoning"``.
    The whole block is in the terminal event's ``reasoning_blocks``, at the same ``index``.

    Attributes:
        index: numbers the blocks of all rounds of the answer from 0, or from the last `StreamReset`.
        kind: as in `ReasoningBlock`.
        signature: the signature, or the encrypted text.
        id: the provider's id for it, if there is one.
        provider: the name of the provider that signed it; only that one can read it.
    """

    index: int
    kind: str
    signature: str = ""
    id: str | None = None
    provider: str | None = None


class ProviderEvent(Envelope, frozen=True, kw_only=True):
    """What the provider sent, as it came, if ``RequestOptions.raw`` asks for it. Given by all providers.

    It directly precedes what Penstock makes of it. Late subscribers get those that are still kept one by one
    (``retain_bytes``). Those that come before the answer begins are held back until then, or until the end.

    Attributes:
        type: the provider's name for it (``"response.web_search_call.searching"``); ``""`` if it has none.
        payload: the parsed JSON. Text if it is not JSON, and ``"[nested too deeply]"`` beyond 200 levels; None in the
            place of NaN and infinity.
    """

    type: str
    payload: Any

    def __post_init__(self) -> None:
        force_setattr(self, "payload", freeze(self.payload))


AnswerEvent: TypeAlias = (
    Citation | ServerToolCall | ServerToolResult | MediaPart | Logprobs | ReasoningBlockClosed | ProviderEvent
)
