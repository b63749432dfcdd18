"""The OpenAPI description of the gateway, made of its routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from penstock.config.version import __version__
from penstock.gateway.keys import Scope
from penstock.gateway.protocols import PROTOCOLS, choices

__all__ = ["Described", "describe"]


class Described(Protocol):
    """A route, as far as its description goes."""

    @property
    def method(self) -> str:
        """The HTTP method."""

    @property
    def path(self) -> str:
        """The path, with parameters in braces."""

    @property
    def protocol(self) -> str:
        """The protocol of its errors."""

    @property
    def scope(self) -> Scope | None:
        """What the key needs; None: no key is needed."""

    @property
    def run(self) -> Any:
        """The function; the first line of its docstring is the summary."""


def describe(routes: Iterable[Described]) -> dict[str, Any]:
    """Describe routes in OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Penstock", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": _SCHEMAS,
        },
    }


def _operation(route: Described) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_")
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": (route.run.__doc__ or "").partition("\n")[0],
        "tags": [route.protocol],
    }
    query = _QUERIES.get((route.method, route.path), {})
    parameters = [_parameter(one, "path", _TEXT) for one in re.findall(r"{(\w+)}", route.path)]
    parameters += [_parameter(one, "query", schema) for one, schema in query.items()]
    if (route.method, route.path) == ("POST", "/v1/streams"):
        parameters.append(_parameter("Idempotency-Key", "header", {"type": "string", "minLength": 1, "maxLength": 256}))
    if parameters:
        operation["parameters"] = parameters
    body = _BODIES.get((route.method, route.path))
    if body is not None:
        schema, is_required = body
        operation["requestBody"] = {"required": is_required, "content": {"application/json": {"schema": schema}}}
    operation["responses"] = _responses(route)
    if route.scope is not None:
        operation["security"] = [{"bearer": []}, {"header": []}, {}]
    return operation


def _parameter(name: str, place: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _responses(route: Described) -> dict[str, Any]:
    kind, schema = _ERRORS.get(route.protocol, ("application/json", _ref("Error")))
    content: dict[str, Any] = {kind: {"schema": schema}}
    if (route.method, route.path) == ("GET", f"{_STREAM}/events"):  # in the protocol that ``as`` names
        shapes = [_ref("Error"), _ref("AnthropicError"), _ref("AguiError")]
        content = {"application/json": {"schema": {"anyOf": shapes}}, "text/plain": {"schema": {"type": "string"}}}
    failed = {"description": "An error in the shape of the protocol.", "content": content}
    statuses = _STATUSES.get((route.method, route.path), ("200",))
    made: dict[str, Any] = {}
    for status in statuses:
        made[status] = {"description": "Done." if status == "204" else "The answer."}
        if status != "204":
            made[status]["content"] = _answer(route)
    return made | {"default": failed}


def _answer(route: Described) -> dict[str, Any]:
    events: dict[str, Any] = {"text/event-stream": {}}
    whole = {"application/json": {"schema": {"type": "object"}}}
    key = (route.method, route.path)
    if key == ("GET", "/metrics"):
        return {"text/plain": {"schema": {"type": "string"}}}
    if key in _STREAMED:
        return events
    return events | whole if key in _EITHER else whole


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Final[dict[str, Any]] = {"type": "string", "minLength": 1}
_SWITCH: Final[dict[str, Any]] = {"type": ["boolean", "null"]}
_OPTIONAL: Final[dict[str, Any]] = {"type": ["string", "null"]}
_FREE: Final[dict[str, Any]] = {"type": "object"}
_STREAM: Final = "/v1/streams/{stream_id}"
_MESSAGES: Final[dict[str, Any]] = {
    "type": "array",
    "items": {"type": "object", "required": ["role"], "properties": {"role": {"type": "string"}}},
}
_CURSOR: Final[dict[str, Any]] = {"type": "string", "pattern": "^(latest|([0-9a-f]{8}-)?[0-9]{1,18})$"}

_SCHEMAS: Final[dict[str, Any]] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                    "first_seq": {"type": "integer"},
                },
            }
        },
    },
    "AnthropicError": {
        "type": "object",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
    "AguiError": {
        "type": "object",
        "required": ["message", "code"],
        "properties": {"message": {"type": "string"}, "code": {"type": "string"}, "type": {"type": "string"}},
    },
    "NewStream": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "model": _TEXT,
            "messages": _MESSAGES,
            "input": {"type": ["string", "array"]},
            "provider": _TEXT,
            "parameters": _FREE,
            "options": _FREE,
            "request_options": _FREE,
            "metadata": _FREE,
            "on_orphan": {
                "anyOf": [{"enum": ["cancel", "continue"]}, {"type": "number", "minimum": 0, "maximum": 86_400}]
            },
            "stream_id": {"type": "string", "minLength": 1, "maxLength": 256},
        },
    },
}

_ERRORS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "anthropic": ("application/json", _ref("AnthropicError")),
    "ui": ("text/plain", {"type": "string"}),
    "agui": ("application/json", _ref("AguiError")),
}


def _choices(protocol: str | None, *more: str) -> dict[str, dict[str, Any]]:
    """What a reader may choose; ``more`` is what only the protocol's own routes take."""
    own = {name: PROTOCOLS[protocol].variants[name] for name in more} if protocol is not None else {}
    return {name: {"enum": list(values)} for name, values in {**choices(protocol), **own}.items()}


_UI_CHOICES: Final = _choices("ui", "reset", "approval")
_QUERIES: Final[dict[tuple[str, str], dict[str, dict[str, Any]]]] = {
    ("GET", "/v1/streams"): {
        "state": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 1_000},
    },
    ("GET", f"{_STREAM}/events"): {
        "as": {"enum": [name for name in PROTOCOLS if name != "socket"]},
        "after": _CURSOR,
        "strict": {"enum": ["0", "1"]},
        "ticket": {"type": "string"},
        **_choices(None),
    },
    ("POST", "/v1/chat/completions"): _choices("openai"),
    ("POST", "/v1/ui/chat"): _UI_CHOICES,
    ("GET", "/v1/ui/chat/{chat_id}/stream"): _UI_CHOICES,
    ("POST", "/v1/agents/{agent_id}/messages"): _choices("native"),
    ("GET", "/v1/responses/{response_id}"): {
        "stream": {"enum": ["true", "false"]},
        "starting_after": {"type": "integer", "minimum": 0},
    },
    ("GET", "/v1/agui/{run_id}/events"): {"after": _CURSOR},
    ("GET", "/v1/doctor/probe"): {"id": _TEXT, "seconds": {"type": "number"}, "interval": {"type": "number"}},
    ("GET", "/v1/doctor/seen"): {"id": _TEXT},
}
_MODEL_BODY: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {"model": _TEXT, "messages": _MESSAGES, "stream": _SWITCH, "penstock": _FREE},
}
_BODIES: Final[dict[tuple[str, str], tuple[dict[str, Any], bool]]] = {
    ("POST", "/v1/streams"): (_ref("NewStream"), False),
    ("PATCH", f"{_STREAM}/options"): (_FREE, False),
    ("POST", f"{_STREAM}/tokens"): (
        {
            "type": "object",
            "properties": {
                "tokens": {"type": ["array", "null"], "items": {"type": "string"}},
                "text": _OPTIONAL,
                "end": _SWITCH,
            },
        },
        True,
    ),
    ("POST", f"{_STREAM}/cancel"): ({"type": "object", "properties": {"reason": _OPTIONAL}}, False),
    ("POST", "/v1/chat/completions"): (_MODEL_BODY, True),
    ("POST", "/v1/messages"): (_MODEL_BODY, True),
    ("POST", "/v1/responses"): (
        {
            "type": "object",
            "required": ["model", "input"],
            "properties": {
                "model": _TEXT,
                "input": {"type": ["string", "array"]},
                "stream": _SWITCH,
            },
        },
        True,
    ),
    ("POST", "/v1/ui/chat"): (
        {
            "type": "object",
            "required": ["messages"],
            "properties": {"id": _TEXT | _OPTIONAL, "messages": {"type": "array"}},
        },
        True,
    ),
    ("POST", "/v1/agui"): (
        {
            "type": "object",
            "required": ["threadId", "runId", "messages"],
            "properties": {"threadId": _TEXT, "runId": _TEXT, "messages": {"type": "array"}},
        },
        True,
    ),
    ("POST", "/v1/agents"): ({"type": "object", "properties": {"model": _OPTIONAL, "agent": _OPTIONAL}}, True),
    ("POST", "/v1/agents/{agent_id}/messages"): (
        {"type": "object", "required": ["message"], "properties": {"message": {"type": ["string", "array", "object"]}}},
        True,
    ),
    **{
        ("POST", path): (
            {"type": "object", "required": ["approve"], "properties": {"approve": {"type": "boolean"}}},
            True,
        )
        for path in ("/v1/agents/{agent_id}/approvals/{call_id}", f"{_STREAM}/approvals/{{call_id}}")
    },
}
_STATUSES: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("POST", "/v1/streams"): ("200", "201"),
    ("DELETE", _STREAM): ("204",),
    ("GET", f"{_STREAM}/events"): ("200", "204"),
    ("POST", f"{_STREAM}/tickets"): ("201",),
    ("POST", "/v1/agents"): ("201",),
    ("DELETE", "/v1/agents/{agent_id}"): ("204",),
    ("POST", "/v1/agents/{agent_id}/messages"): ("200", "201"),
    ("GET", "/v1/ui/chat/{chat_id}/stream"): ("200", "204"),
    ("POST", "/v1/ui/chat/{chat_id}/stop"): ("204",),
    ("GET", "/ready"): ("200", "503"),
}
_STREAMED: Final = frozenset(
    {
        ("GET", f"{_STREAM}/events"),
        ("GET", "/v1/agui/{run_id}/events"),
        ("POST", "/v1/agui"),
        ("POST", "/v1/ui/chat"),
        ("GET", "/v1/ui/chat/{chat_id}/stream"),
    }
)
_EITHER: Final = frozenset(
    {
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/{response_id}"),
        ("POST", "/v1/agents/{agent_id}/messages"),
    }
)
