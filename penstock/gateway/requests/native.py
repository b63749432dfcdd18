"""Requests of the native protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.config.checks import check_on_orphan
from penstock.errors import OptionError
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.requests.asked import Asked

__all__ = ["SERVERS_OWN", "check_changes", "parse"]

SERVERS_OWN: Final = frozenset(
    {
        *("tokenizer", "debug", "retain_bytes", "keep_finished", "max_buffer_size", "time_to_live", "auto_restart"),
        *("max_answer_bytes", "max_event_bytes", "verify_tls", "proxy", "fallback"),
    }
)
"""Options that a client may not set: they are about the server's machine, its memory and its connections."""

_FIELDS: Final = {
    *("model", "messages", "input", "provider", "parameters", "options", "request_options", "metadata"),
    *("on_orphan", "stream_id"),
}


def parse(body: Mapping[str, Any], default_model: str | None = None) -> Asked:
    """Read a request for a stream. Without messages and input, it asks for an empty stream, and has no model.

    Raises:
        RequestRefused: a field is unknown or malformed.
    """
    unknown = sorted(body.keys() - _FIELDS)
    if unknown:
        text = f"There is no field {unknown[0]}; the model's parameters stand in parameters."
        raise RequestRefused.bad_request(text, unknown[0])
    asks = [name for name in ("messages", "input") if body.get(name) is not None]
    if len(asks) == 2:
        raise RequestRefused.bad_request("Give messages or input, not both.", "input")
    model = _text(body, "model") or (default_model if asks else None)
    if asks and not model:
        raise RequestRefused.bad_request("model is missing, and the server has no default.", "model")
    if not asks and body.get("model") is not None:
        raise RequestRefused.bad_request("A model needs messages or input.", "messages")
    on_orphan = body.get("on_orphan")
    if on_orphan is not None:
        try:
            check_on_orphan(on_orphan)
        except OptionError as error:
            raise RequestRefused.bad_request(str(error), "on_orphan") from None
    return Asked(
        api="responses" if asks == ["input"] else "chat",
        model=model or "",
        input=body.get(asks[0]) if asks else "",
        provider=_text(body, "provider"),
        parameters=_mapping(body, "parameters"),
        stream_id=_text(body, "stream_id"),
        on_orphan=on_orphan,
        metadata=_mapping(body, "metadata"),
        options=check_changes(_mapping(body, "options"), "options"),
        request_options=check_changes(_mapping(body, "request_options"), "request_options"),
    )


def check_changes(changes: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Return changes to options, if a client may make them.

    Raises:
        RequestRefused: one of them is the server's own.
    """
    for name in sorted(SERVERS_OWN & changes.keys()):
        text = f"{field}.{name} is set by the server."
        raise RequestRefused(
            Problem(
                status=403,
                type="permission_error",
                code="option_not_allowed",
                message=text,
                param=f"{field}.{name}",
            )
        )
    return changes


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise RequestRefused.bad_request(f"{name} must be a text.", name)
    return value


def _mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestRefused.bad_request(f"{name} must be an object.", name)
    return value
