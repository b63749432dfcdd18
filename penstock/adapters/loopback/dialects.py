"""The five dialects: which paths are theirs, what they want of a request, where they have the key. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.anthropic_wire import AnthropicWire, encode_anthropic_error
from penstock.adapters.loopback.chat_wire import ChatWire
from penstock.adapters.loopback.gemini_wire import GeminiArrayWire, GeminiWire, encode_gemini_error
from penstock.adapters.loopback.ollama_wire import OllamaWire, encode_ollama_error
from penstock.adapters.loopback.request import ReceivedRequest
from penstock.adapters.loopback.responses_wire import ResponsesWire
from penstock.adapters.loopback.wire import EncodeError, Exchange, Wire, encode_error

__all__ = [
    "ANTHROPIC",
    "CHAT",
    "GEMINI",
    "OLLAMA",
    "RESPONSES",
    "Dialect",
    "Generating",
    "Query",
    "Refusal",
    "complaint",
    "dialect_of",
    "generating",
    "sent_key",
    "unauthorized",
]

Query = Mapping[str, str]


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request is not answered; what `EncodeError` wants to know."""

    status: int
    message: str | None = None
    code: str | None = None
    param: str | None = None


class _MakeWire(Protocol):
    def __call__(self, answer: Answer, exchange: Exchange) -> Wire: ...


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's wire format."""

    name: str
    make_wire: _MakeWire
    encode_error: EncodeError
    needed: tuple[tuple[str, tuple[type, ...]], ...]
    """The fields that must be there, and what they may be."""

    has_choices: bool = False


_MODEL = ("model", (str,))

CHAT = Dialect(
    name="chat",
    make_wire=ChatWire,
    encode_error=encode_error,
    needed=(_MODEL, ("messages", (list,))),
    has_choices=True,
)
RESPONSES = Dialect(
    name="responses", make_wire=ResponsesWire, encode_error=encode_error, needed=(_MODEL, ("input", (list, str)))
)
ANTHROPIC = Dialect(
    name="anthropic",
    make_wire=AnthropicWire,
    encode_error=encode_anthropic_error,
    needed=(_MODEL, ("max_tokens", (int,)), ("messages", (list,))),
)
OLLAMA = Dialect(
    name="ollama", make_wire=OllamaWire, encode_error=encode_ollama_error, needed=(_MODEL, ("messages", (list,)))
)
GEMINI = Dialect(
    name="gemini",
    make_wire=GeminiArrayWire,
    encode_error=encode_gemini_error,
    needed=(("contents", (list, dict, str)),),
    has_choices=True,
)
_GEMINI_EVENTS = msgspec.structs.replace(GEMINI, make_wire=GeminiWire)

_GENERATING = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/messages": ANTHROPIC,
    "/api/chat": OLLAMA,
}
_GEMINI_PATH = re.compile(r"/v1(?:beta|alpha)?/models/([^/]+):(?:streamG|g)enerateContent")


class Generating(msgspec.Struct, frozen=True):
    """The address asks for an answer, in this dialect; ``model`` where the address names it."""

    dialect: Dialect
    model: str | None = None


def generating(path: str, query: Query) -> Generating | None:
    """What the address asks for, where it asks for an answer."""
    if path in _GENERATING:
        return Generating(_GENERATING[path])
    found = _GEMINI_PATH.fullmatch(path)
    if found is None:
        return None
    events = query.get("alt") == "sse" and ":stream" in path
    return Generating(_GEMINI_EVENTS if events else GEMINI, found[1])


def dialect_of(path: str, headers: Mapping[str, str], query: Query) -> Dialect:
    """The dialect of an address, whatever it asks for. OpenAI's and Anthropic's model lists have the same address."""
    asked = generating(path, query)
    if asked is not None:
        return asked.dialect
    if path.startswith("/v1/messages") or "anthropic-version" in headers:
        return ANTHROPIC
    if path.startswith("/api/"):
        return OLLAMA
    if path.startswith(("/v1beta/", "/v1alpha/")) or "x-goog-api-key" in headers:
        return GEMINI
    return RESPONSES if path.startswith("/v1/responses") else CHAT


def sent_key(dialect: Dialect, headers: Mapping[str, str], query: Query) -> str:
    """The key that came with a request, empty where there is none."""
    if dialect.name == "gemini":
        return headers.get("x-goog-api-key", query.get("key", ""))
    if dialect.name == "anthropic" and "x-api-key" in headers:  # its newer clients send a bearer token instead
        return headers["x-api-key"]
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key if scheme == "Bearer" else ""


def unauthorized(dialect: Dialect, key: str) -> Refusal:
    """What a wrong key, or none, gets."""
    if dialect.name != "gemini":
        return Refusal(status=401)
    if key:
        return Refusal(status=400, code="API_KEY_INVALID")
    message = "Method doesn't allow unregistered callers (callers without established identity)."
    return Refusal(status=403, message=message)


def complaint(dialect: Dialect, request: ReceivedRequest) -> Refusal | None:
    """Why no provider of this dialect would take the request, if so."""
    body: Any = request.body
    if not isinstance(body, dict):
        message = "We could not parse the JSON body of your request."
        return Refusal(status=400, message=message, code="invalid_json")
    if dialect.name == "anthropic" and "anthropic-version" not in request.headers:
        return Refusal(status=400, message="anthropic-version: header is required")
    for name, kinds in dialect.needed:
        value = body.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool) or (name == "model" and not value):
            message = f"Missing required parameter, or one of the wrong type: {name!r}."
            return Refusal(status=400, message=message, code="missing_required_parameter", param=name)
    return None
