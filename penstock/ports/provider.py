"""Providers: what the core asks of one, and what it tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from penstock.config.options import RequestOptions
from penstock.errors import ProviderError
from penstock.ports.deltas import Delta

__all__ = [
    "CanListModels",
    "CanResume",
    "ChatCall",
    "Decoder",
    "Provider",
    "ProviderRequest",
    "Quota",
    "Secret",
    "TellsQuota",
]


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
