"""Decides which calls are run, and describes failed ones to the model. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from penstock.actors.stream.outcome import Outcome
from penstock.config.surrogates import replace_surrogates
from penstock.errors import PenstockError
from penstock.events import FinishReason, ToolCall

__all__ = ["cut_text", "describe_failure", "describe_parse_error", "is_paused", "is_runnable"]


def is_runnable(finish_reason: FinishReason, calls: Sequence[ToolCall]) -> bool:
    """Whether the calls of a round are run, by the round's finish reason.

    They are not, unless the round ended well or at its length limit. At the limit the last call may have been cut off:
    the calls are run only if all have complete arguments, which free text never shows. In a round that ended well, a
    call with broken arguments gets an error as its result.

    >>> is_runnable("length", [ToolCall(id="a", name="f", arguments={}, arguments_raw="")])
    False
    """
    if finish_reason == "length":
        return all(
            call.type != "custom" and call.arguments is not None and call.arguments_raw.strip() for call in calls
        )
    return finish_reason in ("tool_calls", "stop")


def is_paused(outcome: Outcome) -> bool:
    """Whether the provider has paused in the middle of its message, and goes on if the message is sent back as it is.

    See https://platform.claude.com/docs/en/api/handling-stop-reasons (``pause_turn``) and
    https://platform.claude.com/docs/en/build-with-claude/compaction (``pause_after_compaction``).
    """
    return outcome.raw_finish_reason in ("pause_turn", "compaction")


def describe_parse_error(raw: str) -> str:
    """Describe what is wrong with arguments that are not JSON, without repeating them.

    >>> describe_parse_error('{"x": ')
    'The arguments are not complete JSON (Expecting value: line 1 column 7 (char 6)). The call was not run.'
    """
    try:
        json.loads(raw)
        what = "not strict JSON"
    except (ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
    return f"The arguments are not complete JSON ({what}). The call was not run."


def describe_failure(error: BaseException) -> str:
    """Describe an exception of a tool to the model.

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
    r"""Cut a text to ``max_bytes`` of UTF-8; a text that is cut ends with a note of its length.

    Lone surrogates become U+FFFD, since the result is part of the next request.

    >>> cut_text("x" * 200, 100)[-41:]
    'xxxx\n[cut off: 40 of 200 bytes are shown]'
    """
    data = replace_surrogates(text).encode()
    if len(data) <= max_bytes:
        return data.decode()
    room = max(0, max_bytes - 60)
    shown = data[:room].decode(errors="ignore")
    return f"{shown}\n[cut off: {len(shown.encode())} of {len(data)} bytes are shown]"
