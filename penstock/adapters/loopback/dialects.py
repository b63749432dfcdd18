"""The five dialects: their paths, what they require of a request, where a request carries the key. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from penstock.adapters.loopback.answer import Answer
from penstock.adapters.loopback.anthropic_encoder import encode_anthropic_error
from penstock.adapters.loopback.anthropic_parts import make_anthropic_encoder
from penstock.adapters.loopback.chat_parts import make_chat_encoder
from penstock.adapters.loopback.encoder import AnswerContext, AnswerEncoder, ErrorEncoder, encode_openai_error
from penstock.adapters.loopback.gemini_encoder import encode_gemini_error
from penstock.adapters.loopback.gemini_parts import make_gemini_array_encoder, make_gemini_encoder
from penstock.adapters.loopback.ollama_encoder import encode_ollama_error
from penstock.adapters.loopback.ollama_parts import make_ollama_encoder
from penstock.adapters.loopback.request import ReceivedRequest
from penstock.adapters.loopback.responses_parts import make_responses_encoder

__all__ = [
    "ANTHROPIC",
    "CHAT",
    "GEMINI",
    "OLLAMA",
    "RESPONSES",
    "Dialect",
    "GenerationTarget",
    "Query",
    "Rejection",
    "check_request",
    "dialect_of",
    "generation_target",
    "reject_key",
    "sent_key",
]

Query = Mapping[str, str]


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request is not answered: the arguments for an `ErrorEncoder`."""

    status: int
    message: str | None = None
    code: str | None = None
    param: str | None = None


class _MakeEncoder(Protocol):
    def __call__(self, answer: Answer, context: AnswerContext) -> AnswerEncoder: ...


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's wire format."""

    name: str
    make_encoder: _MakeEncoder
    encode_error: ErrorEncoder
    needed: tuple[tuple[str, tuple[type, ...]], ...]
    """The required fields of a request, and the types they may have."""

    has_choices: bool = False


_MODEL = ("model", (str,))

CHAT = Dialect(
    name="chat",
    make_encoder=make_chat_encoder,
    encode_error=encode_openai_error,
    needed=(_MODEL, ("messages", (list,))),
    has_choices=True,
)
RESPONSES = Dialect(
    name="responses",
    make_encoder=make_responses_encoder,
    encode_error=encode_openai_error,
    needed=(_MODEL, ("input", (list, str))),
)
ANTHROPIC = Dialect(
    name="anthropic",
    make_encoder=make_anthropic_encoder,
    encode_error=encode_anthropic_error,
    needed=(_MODEL, ("max_tokens", (int,)), ("messages", (list,))),
)
OLLAMA = Dialect(
    name="ollama",
    make_encoder=make_ollama_encoder,
    encode_error=encode_ollama_error,
    needed=(_MODEL, ("messages", (list,))),
)
GEMINI = Dialect(
    name="gemini",
    make_encoder=make_gemini_array_encoder,
    encode_error=encode_gemini_error,
    needed=(("contents", (list, dict, str)),),
    has_choices=True,
)
_GEMINI_EVENTS = msgspec.structs.replace(GEMINI, make_encoder=make_gemini_encoder)

_GENERATING = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/messages": ANTHROPIC,
    "/api/chat": OLLAMA,
}
_GEMINI_PATH = re.compile(r"/v1(?:beta|alpha)?/models/([^/]+):(?:streamG|g)enerateContent")


class GenerationTarget(msgspec.Struct, frozen=True):
    """A request target that asks for an answer, in this dialect; ``model`` if the path names it."""

    dialect: Dialect
    model: str | None = None


def generation_target(path: str, query: Query) -> GenerationTarget | None:
    """Return what the target asks for, or None if it does not ask for an answer."""
    if path in _GENERATING:
        return GenerationTarget(_GENERATING[path])
    found = _GEMINI_PATH.fullmatch(path)
    if found is None:
        return None
    events = query.get("alt") == "sse" and ":stream" in path
    return GenerationTarget(_GEMINI_EVENTS if events else GEMINI, found[1])


def dialect_of(path: str, headers: Mapping[str, str], query: Query) -> Dialect:
    """Return the dialect of any target. Headers decide if APIs share a path, as OpenAI and Anthropic share a list."""
    asked = generation_target(path, query)
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
    """Return the key that a request carries, or an empty string."""
    if dialect.name == "gemini":
        return headers.get("x-goog-api-key", query.get("key", ""))
    if dialect.name == "anthropic" and "x-api-key" in headers:  # newer clients send a bearer token instead
        return headers["x-api-key"]
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key if scheme == "Bearer" else ""


def reject_key(dialect: Dialect, key: str) -> Rejection:
    """Return the rejection of a request with a wrong key, or without one."""
    if dialect.name != "gemini":
        return Rejection(status=401)
    if key:
        return Rejection(status=400, code="API_KEY_INVALID")
    message = "Method doesn't allow unregistered callers (callers without established identity)."
    return Rejection(status=403, message=message)


def check_request(dialect: Dialect, request: ReceivedRequest) -> Rejection | None:
    """Return why no provider of this dialect would accept the request, or None if one would."""
    body: Any = request.body
    if not isinstance(body, dict):
        message = "We could not parse the JSON body of your request."
        return Rejection(status=400, message=message, code="invalid_json")
    if dialect.name == "anthropic" and "anthropic-version" not in request.headers:
        return Rejection(status=400, message="anthropic-version: header is required")
    for name, kinds in dialect.needed:
        value = body.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool) or (name == "model" and not value):
            message = f"Missing required parameter, or one of the wrong type: {name!r}."
            return Rejection(status=400, message=message, code="missing_required_parameter", param=name)
    return None
