"""Providers: what the core asks of one, and what it passes to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlencode

import msgspec

from penstock.config.options import RequestOptions
from penstock.config.secret import Secret
from penstock.errors import ProviderError
from penstock.ports.deltas import Delta

__all__ = [
    "CanListModels",
    "CanReplay",
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
    """Decodes one response body into deltas. Pure: no I/O, no clock. Each response needs a new decoder.

    Unknown events, unknown fields and events in an unexpected order never raise; they are counted in ``skipped``.
    """

    @property
    def skipped(self) -> int:
        """Events, choices or fields that were not understood."""

    finished: bool
    """Whether the model has finished: the answer is complete, although usage may still follow."""

    done: bool
    """Whether the end marker has come. Nothing of interest can follow; stop reading."""

    model: str | None
    """The model's name as reported by the provider; None until then."""

    def feed(self, chunk: bytes) -> list[Delta]:
        """Decode one chunk into the deltas it completes. Chunks may split anywhere.

        Raises:
            ProtocolError: an event is longer than the limit, or the body has another format. The decoder is then
                unusable.
        """

    def close(self) -> list[Delta]:
        """Decode a last event without its blank line, if it is surely complete. Called when the body has ended."""


class ChatCall(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a model, independent of the provider.

    Attributes:
        model: the model's name.
        input: a list of chat messages or, for response streams, anything the provider accepts. Chat messages have
            OpenAI's form (``{"role": …, "content": …, "tool_calls": …}``, ``{"role": "tool", "tool_call_id": …}``)
            for all providers. A provider's `request` converts them, and tools in OpenAI's form, and passes on
            unchanged what has the provider's own form. An assistant message may have ``"reasoning_blocks"`` (dicts of
            `ReasoningBlock`'s fields) and ``"provider_blocks"`` (dicts of `ProviderBlock`'s fields), and its tool calls
            a ``"signature"`` with its maker as ``"signed_by"``; they are returned to the provider that made them and
            dropped for others.
        provider: the name of the provider that is asked, as it stands in those blocks; empty matches every block.
        parameters: added to the request unchanged.
        headers: added to the HTTP request; they replace others of the same name.
        query: added to the URL.
        resumable: request an answer that can be resumed after a broken connection.
    """

    model: str
    input: Any
    provider: str = ""
    parameters: Mapping[str, Any] = {}
    headers: Mapping[str, str | Secret] = {}
    query: Mapping[str, str] = {}
    resumable: bool = False

    def __repr__(self) -> str:
        return f"ChatCall(model={self.model!r})"


class ProviderRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request, ready to be sent. ``secret_headers`` and the query of the URL are sent but never shown."""

    url: str
    body: bytes
    method: str = "POST"
    headers: Mapping[str, str] = {}
    secret_headers: Mapping[str, Secret] = {}

    def __repr__(self) -> str:
        return f"ProviderRequest({self.method} {self.url.partition('?')[0]}, {len(self.body)} bytes)"

    def extended(self, call: ChatCall) -> ProviderRequest:
        """Return the request with the headers and the query of ``call``."""
        if not call.headers and not call.query:
            return self
        given = {name.lower() for name in call.headers}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in given}
        secrets = {name: value for name, value in self.secret_headers.items() if name.lower() not in given}
        for name, value in call.headers.items():
            if isinstance(value, Secret):
                secrets[name] = value
            else:
                headers[name] = value
        url = self.url
        if call.query:
            url += ("&" if "?" in url else "?") + urlencode(call.query)
        return msgspec.structs.replace(self, url=url, headers=headers, secret_headers=secrets)


class Provider(Protocol):
    """One provider's wire format: builds requests, makes decoders, reads error answers. No state, no I/O."""

    name: str

    def request(self, call: ChatCall) -> ProviderRequest:
        """Build the streaming request for ``call``.

        Raises:
            OptionError: a key or base URL is missing or malformed, or a parameter cannot be encoded.
        """

    def decoder(self, options: RequestOptions) -> Decoder:
        """Make the decoder for one response."""

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Convert an HTTP error answer to an error. ``body`` may be truncated; header names are in lower case."""


@runtime_checkable
class CanListModels(Protocol):
    """A provider that can list its models."""

    def models_request(self, page: str | None = None) -> ProviderRequest:
        """Build the GET request for the list of models, or for a further page of it.

        Raises:
            OptionError: as for `Provider.request`.
        """

    def models(self, body: bytes) -> tuple[list[str], str | None]:
        """Read the answer: the models' names, and the next ``page`` or None.

        Raises:
            ProtocolError: the body is not a list of models.
        """


@runtime_checkable
class CanResume(Protocol):
    """A provider that can continue an answer whose connection broke."""

    def resume(self, decoder: Decoder) -> tuple[ProviderRequest, Decoder] | None:
        """Build the request for what follows the deltas of ``decoder``, and the decoder for its response.

        Returns None if this answer cannot be resumed.
        """


@runtime_checkable
class CanReplay(Protocol):
    """A provider that keeps answers, and sends one again from its beginning, also while it is still being written."""

    def kept_as(self, metadata: Mapping[str, Any]) -> str | None:
        """Read from a `MetadataDelta` under which name the provider keeps the answer; None if it does not say."""

    def replay(self, name: str) -> ProviderRequest:
        """Build the request for a kept answer, from its first event on. Its decoder is that of `Provider.decoder`.

        Raises:
            OptionError: as for `Provider.request`.
        """


class Quota(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is left of a provider's rate limits; None is not reported. ``…_reset_s``: seconds until it is full again."""

    requests_left: int | None = None
    requests_reset_s: float | None = None
    tokens_left: int | None = None
    tokens_reset_s: float | None = None


@runtime_checkable
class TellsQuota(Protocol):
    """A provider whose response headers say what is left of its rate limits."""

    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        """Read the headers (names in lower case). Returns None if they say nothing about limits."""
