"""The edge of the core: what it needs of the world, as Protocols, and the values that cross.

Adapters implement these; the core knows nothing else of them. A test may implement them too: `penstock.testing` does.

The data's way is ``bytes → Decoder → deltas → ReaderSink → stream``. Text travels as `TextDelta`; everything else
that a decoder can say has a type of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from penstock.config.options import RequestOptions
from penstock.errors import PenstockError, ProviderError
from penstock.events import Event, FinishReason, ReasoningBlock, Usage

__all__ = [
    "CanListModels",
    "CanResume",
    "ChatCall",
    "ChoiceDelta",
    "Clock",
    "Decoder",
    "Delta",
    "ErrorDelta",
    "FinishDelta",
    "HeaderSink",
    "Journal",
    "KeepAlive",
    "OfferSink",
    "Provider",
    "ProviderRequest",
    "Quota",
    "Reader",
    "ReaderJob",
    "ReaderSink",
    "ReasoningBlockDelta",
    "ReasoningDelta",
    "RefusalDelta",
    "Secret",
    "TellsQuota",
    "TextDelta",
    "Thinking",
    "ToolCallFragment",
    "UsageDelta",
]


# --- deltas: what a decoder makes of bytes -------------------------------------------------------------------------


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


class Decoder(Protocol):
    """Turns one response body into deltas. Pure: no I/O, no clock. One decoder serves one response.

    Unknown events, fields and orders never raise; they are counted in ``skipped``.
    """

    skipped: int
    """How many events, choices or fields were not understood."""

    finished: bool
    """A finish reason has come: the answer is complete, though usage may still follow."""

    done: bool
    """The end marker has come: nothing of interest can follow, stop reading."""

    model: str | None
    """The model's name as the provider says it, once it has."""

    def feed(self, chunk: bytes) -> list[Delta]:
        """Decode one chunk, which may split anywhere, into the deltas it completes.

        Raises:
            ProtocolError: an event is longer than the limit, or the body is not the format. Unusable afterwards.
        """

    def close(self) -> list[Delta]:
        """The body has ended: give what a last event without its blank line holds, where that is safe."""


class Secret:
    """A key. Its text leaves only through `reveal`; repr, str, format, pickling and logs show stars.

    >>> Secret("sk-123")
    Secret('***')
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The key itself. Only the adapter that sends it calls this."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled")


class ChatCall(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants of a provider, in no provider's words.

    ``input`` is a list of chat messages or, for response streams, whatever the provider takes. Chat messages are
    OpenAI's (``{"role": …, "content": …, "tool_calls": …}``, ``{"role": "tool", "tool_call_id": …}``), whoever the
    provider is: each provider's `request` turns them, and tools in OpenAI's form, into its own, and lets through what
    is in its own form already. An assistant message may have ``"reasoning_blocks"`` (dicts of `ReasoningBlock`'s
    fields) and each of its tool calls a ``"signature"``: given back to the provider that made them, dropped for others.
    ``parameters`` go into the request as they are. ``resumable``: ask for an answer that can be taken up again.
    """

    model: str
    input: Any
    parameters: Mapping[str, Any] = {}
    resumable: bool = False

    def __repr__(self) -> str:
        return f"ChatCall(model={self.model!r})"


class ProviderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request, ready to be sent. ``secret_headers`` are sent but shown nowhere."""

    url: str
    body: bytes
    method: str = "POST"
    headers: Mapping[str, str] = {}
    secret_headers: Mapping[str, Secret] = {}

    def __repr__(self) -> str:
        return f"ProviderRequest({self.method} {self.url}, {len(self.body)} bytes)"


class Provider(Protocol):
    """One provider's dialect: builds requests, makes decoders, reads error answers. Has no state and does no I/O."""

    name: str

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the streaming request for ``call``.

        Raises:
            OptionError: a key or base URL is missing or malformed, or a parameter cannot be encoded.
        """

    def decoder(self, options: RequestOptions) -> Decoder:
        """A fresh decoder for one response."""

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Map an HTTP error answer (``body`` may be cut) to a typed error. Header names are in lower case."""


@runtime_checkable
class CanListModels(Protocol):
    """A provider that says which models it has."""

    def models_request(self, page: str | None = None) -> ProviderRequest:
        """The GET request for the list of models, or for a further page of it.

        Raises:
            OptionError: as for `Provider.request`.
        """

    def models(self, body: bytes) -> tuple[list[str], str | None]:
        """Read the answer: the models' names, and the next page's mark if there is one.

        Raises:
            ProtocolError: it is no list of models.
        """


@runtime_checkable
class CanResume(Protocol):
    """A provider that can go on with an answer whose connection broke."""

    def resume(self, decoder: Decoder) -> tuple[ProviderRequest, Decoder] | None:
        """The request for what follows all that ``decoder`` has told, and the decoder that goes on from there.

        None: this answer cannot be taken up again.
        """


class Quota(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a provider says is left of its limits; None is not told. ``…_reset_s``: seconds until it is full again."""

    requests_left: int | None = None
    requests_reset_s: float | None = None
    tokens_left: int | None = None
    tokens_reset_s: float | None = None


@runtime_checkable
class TellsQuota(Protocol):
    """A provider whose answers' headers say what is left of its rate limits."""

    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        """Read them (names in lower case); None: nothing is told."""


class ReaderSink(Protocol):
    """Whom a reader tells. All methods are called from the reader's thread, in this order, and none raises.

    ``connecting`` → ``waiting`` → ``deltas`` … → ``ended``; ``ended`` is always the last and always comes, whatever
    was skipped before it.
    """

    def connecting(self) -> None:
        """A reader thread has taken the job."""

    def waiting(self) -> None:
        """The connection stands and the request is sent."""

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        """What one read brought; blocks while the stream has no credit. ``False``: nobody wants more, stop."""

    def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
        """The reading is over and its socket is closed or back in the pool.

        ``error`` is None when the body ended or the decoder was done; whether that is a complete answer is to be
        asked of ``decoder`` (None when no body ever came).
        """


@runtime_checkable
class HeaderSink(Protocol):
    """A sink that wants to see the answer's headers too."""

    def answered(self, headers: Mapping[str, str]) -> None:
        """Called between ``waiting`` and the first ``deltas``: a stream begins. Header names are in lower case."""


class OfferSink(ReaderSink, Protocol):
    """A sink for readers that have no thread to block."""

    def offer(self, deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        """The same as ``deltas`` without blocking. None: there was no room for some, which are kept here.

        ``on_room`` is then called once, in any thread, when it is time to offer again (nothing at all, to begin
        with); it must only send a message.
        """


class ReaderJob(Protocol):
    """One request under way."""

    def cancel(self) -> None:
        """Stop it, whatever it is doing: queued, connecting, waiting or reading. Any thread; idempotent; never blocks.

        The socket is closed within 100 ms and ``ended`` follows.
        """


class Reader(Protocol):
    """Runs requests on a bounded pool of threads."""

    def start(
        self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink
    ) -> ReaderJob:
        """Queue one request. Never blocks.

        Raises:
            ProviderError: the queue is full, or the reader is closed.
        """

    def statistics(self) -> Mapping[str, int]:
        """Counters: ``active``, ``queued``, ``started``, ``threads``, ``leaked``."""

    def close(self, timeout: float) -> int:
        """Cancel everything, end every thread, and say how many would not end within ``timeout`` seconds."""


class Journal(Protocol):
    """Where events are kept beyond this process's memory. Called once per event, before anybody hears of it."""

    def append(self, event: Event) -> None:
        """Store one event. If this raises, the stream keeps the batch, goes to ``error`` and tries again."""


class Clock(Protocol):
    """Time as the core sees it, so that tests can own it."""

    def monotonic(self) -> float:
        """Seconds that never go back, for arithmetic."""

    def time(self) -> float:
        """Seconds since the epoch, for display."""
