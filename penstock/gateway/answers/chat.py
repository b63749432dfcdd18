"""Whole answers as chat completions."""

from __future__ import annotations

from typing import Any

from penstock.events import MediaPart, StreamCompleted, ToolCall
from penstock.gateway.answers.chat_parts import (
    annotation,
    call_body,
    choice_reason,
    envelope_extras,
    finish_extras,
    finish_reason,
    logprob_bodies,
    media_body,
    reasoning_detail,
    usage_body,
)
from penstock.gateway.projections.frames import Opening

__all__ = ["answer", "client_calls", "completion_id"]


def completion_id(opening: Opening) -> str:
    """The completion's id."""
    return f"chatcmpl-{opening.stream_id}"


def client_calls(terminal: StreamCompleted, *, is_turn: bool) -> tuple[ToolCall, ...]:
    """The calls that the client is to run.

    Left out are those of tools that the provider ran, and those of an agent's turn (``is_turn``), however it ended: the
    agent has run them.
    """
    return () if is_turn else tuple(call for call in terminal.tool_calls if not call.is_server)


def answer(terminal: StreamCompleted, opening: Opening) -> dict[str, Any]:
    """The body of the response: an object of type ``chat.completion``."""
    calls = client_calls(terminal, is_turn=opening.is_turn)
    word = finish_reason(terminal.finish_reason, terminal.raw_finish_reason, has_calls=bool(calls))
    body: dict[str, Any] = {
        "id": completion_id(opening),
        "object": "chat.completion",
        "created": opening.created,
        "model": terminal.model or opening.model,
        "choices": [
            {
                "index": 0,
                "message": _message(terminal, calls, opening),
                "logprobs": {"content": logprob_bodies(terminal.logprobs)} if terminal.logprobs else None,
                "finish_reason": word,
                **finish_extras(terminal, terminal.raw_finish_reason, word),
            },
            *_others(terminal, opening),
        ],
    }
    if (usage := usage_body(terminal)) is not None:
        body["usage"] = usage
    return body | envelope_extras(terminal)


def _message(terminal: StreamCompleted, calls: tuple[ToolCall, ...], opening: Opening) -> dict[str, Any]:
    message = _said(terminal.text, terminal.reasoning, terminal.refusal, calls, opening)
    message["annotations"] = [annotation(citation, place) for place, citation in enumerate(terminal.citations)]
    details, start = [], 0
    for place, block in enumerate(terminal.reasoning_blocks):
        found = terminal.reasoning.find(block.text, start) if block.text else start
        begin = max(found, start)
        end = min(begin + len(block.text), len(terminal.reasoning))
        entry = reasoning_detail(block.kind, block.signature, block.id, block.provider, place, (begin, end))
        if block.text:
            entry["summary" if entry["type"] == "reasoning.summary" else "text"] = block.text
        details.append(entry)
        start = end
    if details:
        message["reasoning_details"] = details
    _add_media(terminal.media, message)
    return message


def _add_media(media: tuple[MediaPart, ...], message: dict[str, Any]) -> None:
    counts: dict[str, int] = {}
    for part in media:
        place = counts[part.kind] = counts.get(part.kind, -1) + 1
        for name, value in media_body(part, place).items():
            if isinstance(value, list):
                message.setdefault(name, []).extend(value)
            else:
                message.setdefault(name, value)


def _said(text: str, reasoning: str, refusal: str, calls: tuple[ToolCall, ...], opening: Opening) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not (calls or refusal) else None,
        "refusal": refusal or None,
    }
    if reasoning:
        message[opening.variant.get("reasoning_field", "reasoning_content")] = reasoning
    if calls:
        message["tool_calls"] = [call_body(call) for call in calls]
    return message


def _others(terminal: StreamCompleted, opening: Opening) -> list[dict[str, Any]]:
    """The further choices (``n`` > 1)."""
    return [
        {
            "index": choice.index,
            "message": _said(choice.text, choice.reasoning, choice.refusal, choice.tool_calls, opening),
            "logprobs": None,
            "finish_reason": finish_reason(
                choice_reason(choice, terminal), choice.raw_finish_reason, has_calls=bool(choice.tool_calls)
            ),
        }
        for choice in terminal.choices
    ]
