"""The events of a recorded body, split by the standard library alone: what tests decoders must not use them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

__all__ = ["Json", "events", "lines"]

Json: TypeAlias = dict[str, Any]

_LINE_END = re.compile("\r\n|\r|\n")


def events(body: bytes) -> Iterator[Json]:
    """The JSON objects of a body of server-sent events, in order; ``[DONE]`` and what is not an object are left out.

    A last block that lacks its blank line counts if its data is JSON: Penstock reads such a block too.
    """
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    data: list[str] = []
    for line in [*_LINE_END.split(text), ""]:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            found = _parsed("\n".join(data))
            data = []
            if isinstance(found, dict):
                yield found


def lines(body: bytes) -> Iterator[Json]:
    """The JSON objects of a body of lines (Ollama)."""
    for line in body.decode("utf-8", "replace").split("\n"):
        found = _parsed(line)
        if isinstance(found, dict):
            yield found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
