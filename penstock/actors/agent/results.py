"""Which calls are run, and what the model is told of those that come to nothing. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from penstock.errors import PenstockError
from penstock.events import FinishReason, ToolCall

__all__ = ["cut_text", "describe_failure", "describe_parse_error", "is_runnable"]


def is_runnable(finish_reason: FinishReason, calls: Sequence[ToolCall]) -> bool:
    """Whether calls are run, by how the round that brought them ended.

    Not unless it ended well. One that ran into its length limit may have lost the end of its last call: its calls are
    run only if none is, or may be, cut off. Of a round that ended well a broken call is answered with what is wrong.

    >>> is_runnable("length", [ToolCall(id="a", name="f", arguments={}, arguments_raw="")])
    False
    """
    if finish_reason == "length":
        return all(call.arguments is not None and call.arguments_raw.strip() for call in calls)
    return finish_reason in ("tool_calls", "stop")


def describe_parse_error(raw: str) -> str:
    """What is wrong with arguments that are no JSON, without repeating them.

    >>> describe_parse_error('{"x": ')
    'The arguments are not complete JSON (Expecting value: line 1 column 7 (char 6)). The call was not run.'
    """
    try:
        json.loads(raw)
        what = "not of a form that can be read"
    except (ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
    return f"The arguments are not complete JSON ({what}). The call was not run."


def describe_failure(error: BaseException) -> str:
    """What the model is told of a tool that raised.

    >>> describe_failure(ZeroDivisionError("division by zero"))
    'ZeroDivisionError: division by zero'
    """
    try:
        text = str(error)
    except Exception:  # a foreign __str__
        text = ""
    if isinstance(error, PenstockError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def cut_text(text: str, max_bytes: int) -> str:
    r"""The text, or as much of its beginning as there is room for, and how much it was.

    What cannot be written as UTF-8 is replaced: a result must not make the next request impossible.

    >>> cut_text("x" * 200, 100)[-41:]
    'xxxx\n[cut off: 40 of 200 bytes are shown]'
    """
    data = text.encode(errors="replace")
    if len(data) <= max_bytes:
        return data.decode()
    room = max(0, max_bytes - 60)
    shown = data[:room].decode(errors="ignore")
    return f"{shown}\n[cut off: {len(shown.encode())} of {len(data)} bytes are shown]"
