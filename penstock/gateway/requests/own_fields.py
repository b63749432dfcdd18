"""What every body may say to Penstock itself, in the object ``penstock``; and what it says to the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.config.checks import check_on_orphan
from penstock.errors import OptionError
from penstock.gateway.problems import RequestRefused

__all__ = ["list_field", "model_parameters", "own_fields", "text_field", "type_name"]

_OWN: Final = ("provider", "stream_id", "on_orphan", "metadata", "options", "request_options", "approval")
_CALL_OPTIONS: Final = frozenset({"timeout", "max_retries", "extra_headers", "extra_query", "extra_body"})
"""Names that mean something to Penstock's own functions. In a client's body they are the model's."""
_TYPES: Final = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number"}


def type_name(value: object) -> str:
    """What came, without its content.

    >>> type_name([]), type_name(None)
    ('a list', 'null')
    """
    return "null" if value is None else _TYPES.get(type(value), "a number")


def text_field(body: Mapping[str, Any], name: str, path: str = "") -> str | None:
    """A field that is a text that is not empty, or absent.

    Raises:
        RequestRefused: it is something else.
    """
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise RequestRefused.bad_request(f"{path}{name}: got {type_name(value)}, allowed: a text.", f"{path}{name}")
    return value


def list_field(body: Mapping[str, Any], name: str, path: str = "") -> list[Any]:
    """A field that is a list, or absent.

    Raises:
        RequestRefused: it is something else.
    """
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestRefused.bad_request(f"{path}{name}: got {type_name(value)}, allowed: a list.", f"{path}{name}")
    return value


def own_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``body["penstock"]``, as fields of `Asked`.

    Raises:
        RequestRefused: one of them is unknown or malformed.
    """
    given = body.get("penstock")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise RequestRefused.bad_request(f"penstock: got {type_name(given)}, allowed: an object.", "penstock")
    unknown = sorted(given.keys() - set(_OWN))
    if unknown:
        path = f"penstock.{unknown[0]}"
        raise RequestRefused.bad_request(f"{path}: no such field, allowed: {', '.join(_OWN)}.", path)
    made: dict[str, Any] = {}
    for name in ("provider", "stream_id"):
        if (text := text_field(given, name, "penstock.")) is not None:
            made[name] = text
    for name in ("metadata", "options", "request_options"):
        value = given.get(name)
        if value is not None and not isinstance(value, dict):
            path = f"penstock.{name}"
            raise RequestRefused.bad_request(f"{path}: got {type_name(value)}, allowed: an object.", path)
        if value:
            made[name] = value
    if (on_orphan := given.get("on_orphan")) is not None:
        try:
            check_on_orphan(on_orphan)
        except OptionError as error:
            raise RequestRefused.bad_request(f"penstock.{error}", "penstock.on_orphan") from None
        made["on_orphan"] = on_orphan
    approval = given.get("approval")
    if approval is not None and approval != "wait":
        raise RequestRefused.bad_request('penstock.approval: allowed: "wait".', "penstock.approval")
    return made | ({"waits_for_approval": True} if approval else {})


def model_parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as parameters of the model; those with names of Penstock's own go into ``extra_body``."""
    parameters = {name: value for name, value in fields.items() if name not in _CALL_OPTIONS}
    if own := {name: fields[name] for name in sorted(_CALL_OPTIONS & fields.keys())}:
        parameters["extra_body"] = own
    return parameters
