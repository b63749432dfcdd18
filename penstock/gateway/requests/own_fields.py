"""What every body may say to Penstock itself, in the object ``penstock``; and what it says to the model. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from penstock.adapters.providers.call_options import CALL_OPTIONS
from penstock.adapters.providers.shared.parameters import TOOL_PARAMETERS, drop_none
from penstock.config.checks import check_on_orphan
from penstock.errors import OptionError
from penstock.gateway.problems import RequestRefused, shown_name, type_name

__all__ = [
    "any_text_field",
    "flag_field",
    "given_fields",
    "list_field",
    "messages_of",
    "model_of",
    "model_parameters",
    "object_field",
    "own_fields",
    "read_own",
    "text_field",
    "whole_field",
    "wrong",
]

_MOST: Final = 1 << 53  # what every client can count exactly
_TEXTS: Final = ("provider", "stream_id")
_OBJECTS: Final = ("metadata", "options", "request_options")
_OWN: Final = (*_TEXTS, "on_orphan", *_OBJECTS, "approval")


def wrong(path: str, value: object, allowed: str) -> RequestRefused:
    """The error for a field with a value that is not allowed. It says the value's type only.

    >>> str(wrong("tools", 1, "a list"))
    'tools: got a number, allowed: a list.'
    """
    return RequestRefused.bad_request(f"{path}: got {type_name(value)}, allowed: {allowed}.", path)


# --- fields of any body ----------------------------------------------------------------------------------------------


def text_field(body: Mapping[str, Any], name: str, path: str = "") -> str | None:
    """A field that is a text that is not empty, or absent.

    Raises:
        RequestRefused: it is something else.
    """
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise wrong(f"{path}{name}", value, "a text")
    return value


def any_text_field(body: Mapping[str, Any], name: str, path: str = "") -> str:
    """A field that is a text; absent: ``""``.

    Raises:
        RequestRefused: it is something else.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong(f"{path}{name}", value, "a text")
    return value or ""


def list_field(body: Mapping[str, Any], name: str, path: str = "") -> list[Any]:
    """A field that is a list, or absent.

    Raises:
        RequestRefused: it is something else.
    """
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong(f"{path}{name}", value, "a list")
    return value


def object_field(body: Mapping[str, Any], name: str, path: str = "") -> dict[str, Any]:
    """A field that is an object, or absent.

    Raises:
        RequestRefused: it is something else.
    """
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(f"{path}{name}", value, "an object")
    return value


def flag_field(body: Mapping[str, Any], name: str, path: str = "") -> bool:
    """A field that is true or false; absent: false.

    Raises:
        RequestRefused: it is something else.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong(f"{path}{name}", value, "true or false")
    return bool(value)


def whole_field(body: Mapping[str, Any], name: str, least: int, absent: int) -> int:
    """A field that is a whole number from ``least`` to 2**53; ``absent``: its value if it is not given.

    Raises:
        RequestRefused: it is something else.
    """
    value = body.get(name)
    if value is None:
        return absent
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise RequestRefused.bad_request(f"{name} must be a whole number from {least}.", name)
    return value


def model_of(body: Mapping[str, Any]) -> str:
    """The model that the body names.

    Raises:
        RequestRefused: it names none.
    """
    model = text_field(body, "model")
    if model is None:
        raise wrong("model", None, "the name of a model")
    return model


def messages_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages: objects, each with a role.

    Raises:
        RequestRefused: they are not.
    """
    given = body.get("messages")
    if not isinstance(given, list):
        raise wrong("messages", given, "a list of messages")
    for place, message in enumerate(given):
        name = f"messages[{place}]"
        if not isinstance(message, dict):
            raise wrong(name, message, "an object with a role")
        if not isinstance(message.get("role"), str):
            raise wrong(f"{name}.role", message.get("role"), "a role: user, assistant, …")
    return [dict(message) for message in given]


# --- Penstock's own --------------------------------------------------------------------------------------------------


def own_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``body["penstock"]``, as fields of `Asked`: those that are given only.

    Raises:
        RequestRefused: one of them is unknown or malformed.
    """
    given = object_field(body, "penstock")
    for name in given:
        if name not in _OWN:
            path = f"penstock.{shown_name(name)}"
            raise RequestRefused.bad_request(f"{path}: no such field, allowed: {', '.join(_OWN)}.", path)
    made = read_own(given, "penstock.")
    approval = given.get("approval")
    if approval is not None:
        if approval not in ("wait", "deny"):
            raise wrong("penstock.approval", approval, '"wait" or "deny"')
        made["waits_for_approval"] = approval == "wait"
    return made


def read_own(given: Mapping[str, Any], path: str, without: Collection[str] = ()) -> dict[str, Any]:
    """The fields about the stream, as fields of `Asked`: those that are given only.

    Args:
        given: where they stand.
        path: what stands before their names in errors.
        without: fields that are not read.

    Raises:
        RequestRefused: one of them is malformed.
    """
    made: dict[str, Any] = {}
    for name in _TEXTS:
        if name not in without and (text := text_field(given, name, path)) is not None:
            made[name] = text
    for name in _OBJECTS:
        if name not in without and (values := object_field(given, name, path)):
            made[name] = values
    on_orphan = given.get("on_orphan")
    if on_orphan is not None and "on_orphan" not in without:
        try:
            check_on_orphan(on_orphan)
        except OptionError:
            allowed = '"cancel", "continue", or a number of seconds from 0 to 86400'
            raise wrong(f"{path}on_orphan", on_orphan, allowed) from None
        made["on_orphan"] = on_orphan
    return made


# --- the model's -----------------------------------------------------------------------------------------------------


def given_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that are null: parameters in a body whose protocol knows nothing of them.

    Without tools there is no choice among them either, which providers refuse.

    >>> given_fields({"tools": [], "tool_choice": "auto", "seed": None, "top_p": 1})
    {'top_p': 1}
    """
    absent = () if fields.get("tools") else TOOL_PARAMETERS
    return {name: value for name, value in drop_none(fields).items() if name not in absent}


def model_parameters(fields: Mapping[str, Any], *, has_extra_body: bool = False) -> dict[str, Any]:
    """The fields as parameters of the model, so that all of them come to it, and none is for Penstock itself.

    Those with names of Penstock's own call options (``timeout``, ``extra_headers`` …) go into ``extra_body``, whose
    entries are added to the request as they are.

    Args:
        fields: by name.
        has_extra_body: the fields are in Penstock's own form: entries of a given ``extra_body`` are added too. In the
            forms of providers it is a field like any other.

    >>> model_parameters({"timeout": 5, "top_p": 1, "extra_body": {"a": 1}})
    {'top_p': 1, 'extra_body': {'timeout': 5, 'extra_body': {'a': 1}}}
    >>> model_parameters({"timeout": 5, "extra_body": {"a": 1}}, has_extra_body=True)
    {'extra_body': {'a': 1, 'timeout': 5}}
    """
    parameters = {name: value for name, value in fields.items() if name not in CALL_OPTIONS}
    own = {name: value for name, value in fields.items() if name in CALL_OPTIONS}
    if has_extra_body:
        extra = own.pop("extra_body", None)
        if isinstance(extra, Mapping):
            own = {**extra, **own}
        elif extra is not None:
            own["extra_body"] = extra
    if own:
        parameters["extra_body"] = own
    return parameters
