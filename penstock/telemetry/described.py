"""What spans say of calls: attributes and messages in OpenTelemetry's form. Pure; needs no OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec

from penstock.actors.call.record import CallRecord
from penstock.actors.stream.outcome import Outcome
from penstock.errors import ApiError, PenstockError
from penstock.events import ToolCall, Usage
from penstock.telemetry.conventions import PROVIDERS, Conventions

__all__ = [
    "Attributes",
    "answer_attributes",
    "error_type",
    "identity",
    "input_messages",
    "output_messages",
    "request_attributes",
    "usage_attributes",
]

Attributes: TypeAlias = dict[str, str | bool | int | float | Sequence[str]]

_NUMBERS: Final[Mapping[str, str]] = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
"""Parameters that are numbers, by the providers' names for them."""
_PORTS: Final = {"http": 80, "https": 443}


def identity(operation: str, call: CallRecord) -> Attributes:
    """The attributes that spans and metrics share: the operation, the provider, the model and the server."""
    provider, model = call.asked
    found: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDERS.get(provider, provider),
        "gen_ai.request.model": model,
    }
    try:
        url = urlsplit(call.request.url)
        host, port = url.hostname, url.port or _PORTS.get(url.scheme)
    except ValueError:
        return found
    if host and port:
        found["server.address"], found["server.port"] = host, port
    return found


def request_attributes(call: CallRecord, names: Conventions) -> Attributes:
    """What was asked, except the messages."""
    parameters = call.call.parameters
    found: Attributes = {"gen_ai.request.stream": True}
    for name, attribute in _NUMBERS.items():
        value = parameters.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[attribute] = value
    count = parameters.get("n")
    if isinstance(count, int) and count != 1:
        found["gen_ai.request.choice.count"] = count
    stop = parameters.get("stop") or parameters.get("stop_sequences")
    if stop:
        found["gen_ai.request.stop_sequences"] = [stop] if isinstance(stop, str) else [str(each) for each in stop]
    if names.has_new_request:
        reasoning = parameters.get("reasoning")
        effort = reasoning.get("effort") if isinstance(reasoning, Mapping) else parameters.get("reasoning_effort")
        for attribute, value in (("reasoning.level", effort), ("previous_response.id", _previous(parameters))):
            if isinstance(value, str):
                found[f"gen_ai.request.{attribute}"] = value
    return found


def _previous(parameters: Mapping[str, Any]) -> Any:
    return parameters.get("previous_response_id")


def answer_attributes(outcome: Outcome, names: Conventions) -> Attributes:
    """What was answered, except the text. An answer that is not complete has no finish reason; see the caller."""
    found = usage_attributes(outcome.usage, names)
    if outcome.model:
        found["gen_ai.response.model"] = outcome.model
    return found


def usage_attributes(usage: Usage | None, names: Conventions) -> Attributes:
    """The reported counts of tokens."""
    if usage is None:
        return {}
    counts = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        names.cache_write: usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    return {name: count for name, count in counts.items() if count is not None}


def error_type(error: PenstockError) -> str:
    """A word of low cardinality: the HTTP status of a refusal, else the class."""
    if isinstance(error, ApiError) and error.status != 200:
        return str(error.status)
    return type(error).__name__


# --- content, only where it is wanted ------------------------------------------------------------------------------


def input_messages(given: Any) -> str:
    """The conversation of a request, as JSON in the form of ``gen_ai.input.messages``."""
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return _json([_message(one) for one in messages if isinstance(one, Mapping)])


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    role = str(message.get("role") or message.get("type") or "user")
    content = message.get("content")
    if role == "tool":
        part = {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}
        return {"role": role, "parts": [part]}
    if isinstance(content, str):
        parts: list[dict[str, Any]] = [{"type": "text", "content": content}]
    else:
        parts = [_part(one) for one in content or () if isinstance(one, Mapping)]
    for call in message.get("tool_calls") or ():
        function = call.get("function", {}) if isinstance(call, Mapping) else {}
        name, arguments = function.get("name"), function.get("arguments")
        parts.append({"type": "tool_call", "id": call.get("id"), "name": name, "arguments": arguments})
    return {"role": role, "parts": parts}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a message; of what is not text, its type alone."""
    text = part.get("text")
    return {"type": "text", "content": text} if isinstance(text, str) else {"type": str(part.get("type", "other"))}


def output_messages(text: str, reasoning: str, calls: Sequence[ToolCall], finish_reason: str | None) -> str:
    """An answer, as JSON in the form of ``gen_ai.output.messages``."""
    parts: list[dict[str, Any]] = [{"type": "reasoning", "content": reasoning}] if reasoning else []
    parts += [{"type": "text", "content": text}] if text else []
    parts += [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments_raw} for call in calls
    ]
    return _json([{"role": "assistant", "parts": parts, "finish_reason": finish_reason or "error"}])


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
