"""Requests of the native protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.gateway.problems import Problem, RequestRefused, shown_name
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.own_fields import model_parameters, object_field, read_own, text_field

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
    unknown = next((name for name in body if name not in _FIELDS), None)
    if unknown is not None:
        name = shown_name(unknown)
        text = f"There is no field {name}; the model's parameters stand in parameters."
        raise RequestRefused.bad_request(text, name)
    asks = [name for name in ("messages", "input") if body.get(name) is not None]
    if len(asks) == 2:
        raise RequestRefused.bad_request("Give messages or input, not both.", "input")
    model = text_field(body, "model") or (default_model if asks else None)
    if asks and not model:
        raise RequestRefused.bad_request("model is missing, and the server has no default.", "model")
    if not asks and body.get("model") is not None:
        raise RequestRefused.bad_request("A model needs messages or input.", "messages")
    own = read_own(body, "")
    for name in ("options", "request_options"):
        check_changes(own.get(name, {}), name)
    return Asked(
        api="responses" if asks == ["input"] else "chat",
        model=model or "",
        input=body.get(asks[0]) if asks else "",
        parameters=model_parameters(object_field(body, "parameters"), has_extra_body=True),
        **own,
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
