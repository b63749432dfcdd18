"""Request parameters as callers give them, before any provider's own rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.errors import OptionError

__all__ = ["TOOL_PARAMETERS", "check_reserved", "drop_none"]

TOOL_PARAMETERS: Final = ("tools", "tool_choice", "parallel_tool_calls")
"""The tools, and what providers refuse without them."""


def drop_none(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out parameters that are None: OpenAI's clients mean "not given" by it, other providers refuse null."""
    return {name: value for name, value in parameters.items() if value is not None}


def check_reserved(parameters: Mapping[str, Any], *names: str) -> None:
    """Refuse parameters that the call itself sets, and ``stream`` unless it is True. None means "not given".

    Raises:
        OptionError: one of ``names`` is among the parameters, or ``stream`` is not True.
    """
    for name in names:
        if parameters.get(name) is not None:
            message = f"{name} cannot be a request parameter: the call itself already sets it."
            raise OptionError(name, type(parameters[name]), "not given as a parameter", message=message)
    stream = parameters.get("stream")
    if stream is not None and stream is not True:
        raise OptionError("stream", stream, "True")
