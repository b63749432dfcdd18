"""The fields of a body that are the gateway's, whatever the protocol. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.config.checks import type_of
from penstock.config.options import OnOrphan
from penstock.gateway.problems import RequestRefused

__all__ = ["messages_of", "model_of", "own_parameters", "reserved_fields", "wants_stream"]

_OWN: Final = ("timeout", "max_retries", "extra_headers", "extra_query", "extra_body")
"""Parameters that are the caller's own in Python, and the model's business in a body."""
_TEXTS: Final = ("provider", "stream_id")
_OBJECTS: Final = ("metadata", "options", "request_options")
_KNOWN: Final = (*_TEXTS, "on_orphan", *_OBJECTS, "approval")


def model_of(body: Mapping[str, Any]) -> str:
    """The model that the body names.

    Raises:
        RequestRefused: it names none.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise RequestRefused.bad_request(f"model: expected the name of a model, got {type_of(model)}.", "model")
    return model


def wants_stream(body: Mapping[str, Any]) -> bool:
    """Whether the answer is to be streamed; it is not, unless the body says so.

    Raises:
        RequestRefused: ``stream`` is neither a boolean nor null.
    """
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise RequestRefused.bad_request(f"stream: expected true or false, got {type_of(stream)}.", "stream")
    return bool(stream)


def messages_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages: objects, each with a role.

    Raises:
        RequestRefused: they are not.
    """
    given = body.get("messages")
    if not isinstance(given, list):
        raise RequestRefused.bad_request(f"messages: expected a list of messages, got {type_of(given)}.", "messages")
    for place, message in enumerate(given):
        name = f"messages[{place}]"
        if not isinstance(message, Mapping):
            raise RequestRefused.bad_request(f"{name}: expected an object with a role, got {type_of(message)}.", name)
        if not isinstance(message.get("role"), str):
            text = f"{name}.role: expected a role: user, assistant, …; got {type_of(message.get('role'))}."
            raise RequestRefused.bad_request(text, f"{name}.role")
    return [dict(message) for message in given]


def own_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, with those that have the names of the caller's own options in ``extra_body``."""
    own = {name: value for name, value in parameters.items() if name in _OWN}
    others = {name: value for name, value in parameters.items() if name not in _OWN}
    return others | ({"extra_body": own} if own else {})


def reserved_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Read the object ``penstock``: fields of `Asked`, those that are given only.

    Raises:
        RequestRefused: it is no object, or one of its fields is not known or not allowed.
    """
    given = body.get("penstock")
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise RequestRefused.bad_request(f"penstock: expected an object, got {type_of(given)}.", "penstock")
    fields: dict[str, Any] = {}
    for name, value in given.items():
        path = f"penstock.{name}"
        if name not in _KNOWN:
            raise RequestRefused.bad_request(f"{path}: no such field; there are {', '.join(_KNOWN)}.", path)
        if value is None:
            continue
        if name in _TEXTS and (not isinstance(value, str) or not value):
            raise RequestRefused.bad_request(f"{path}: expected text, got {type_of(value)}.", path)
        if name in _OBJECTS and not isinstance(value, Mapping):
            raise RequestRefused.bad_request(f"{path}: expected an object, got {type_of(value)}.", path)
        if name == "approval":
            if value not in ("wait", "deny"):
                raise RequestRefused.bad_request(f'{path}: expected "wait" or "deny", got {type_of(value)}.', path)
            fields["waits_for_approval"] = value == "wait"
        elif name == "on_orphan":
            fields[name] = _on_orphan(value)
        else:
            fields[name] = value
    return fields


def _on_orphan(value: object) -> OnOrphan:
    if value == "cancel" or value == "continue":
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    path = "penstock.on_orphan"
    raise RequestRefused.bad_request(f'{path}: expected "cancel", "continue" or seconds, got {type_of(value)}.', path)
