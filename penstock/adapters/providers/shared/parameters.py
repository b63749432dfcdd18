"""Request parameters as callers give them, before any provider's own rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.errors import OptionError

__all__ = ["check_reserved", "drop_none"]


def drop_none(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out parameters that are None: OpenAI's clients mean "not given" by it, other providers refuse null."""
    return {name: value for name, value in parameters.items() if value is not None}


def check_reserved(parameters: Mapping[str, Any], *names: str) -> None:
    """Refuse parameters that the call itself sets, and ``stream`` unless it is True.

    Raises:
        OptionError: one of ``names`` is among the parameters, or ``stream`` is not True.
    """
    for name in names:
        if name in parameters:
            message = f"{name} cannot be a request parameter: the call itself already sets it."
            raise OptionError(name, type(parameters[name]), "not given as a parameter", message=message)
    stream = parameters.get("stream", True)
    if stream is not True:
        raise OptionError("stream", stream, "True")
