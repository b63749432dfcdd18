"""About how many bytes of memory events and JSON-like data take. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.events import (
    Citation,
    Event,
    Logprobs,
    MediaPart,
    OriginEnded,
    Progress,
    ProviderEvent,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    TokenEvent,
    TokenLogprob,
    ToolApprovalRequested,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
)

__all__ = ["cost_of", "text_weight", "weight_of"]

_EVENT_COST: Final = 160  # bytes of a TokenEvent and its place in the list
_TOKEN_COST: Final = 60  # bytes of a short str and its place in the tuple
_TERMINAL: Final = frozenset({StreamCompleted, StreamFailed, StreamCancelled})
_LOGPROB_COST: Final = 100  # bytes of a token with its probability, or of an alternative


def text_weight(text: str) -> int:
    """About how many bytes of memory a text takes."""
    return 50 + (len(text) if text.isascii() else 2 * len(text))


def weight_of(value: Any, weigh: Callable[[str], int] = text_weight) -> int:
    """About how many bytes of memory JSON-like data takes; ``weigh`` is for the texts in it."""
    weight = 0
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            weight += weigh(one)
        elif isinstance(one, Mapping):
            weight += 100 + 50 * len(one)
            rest += one.values()
        elif isinstance(one, (list, tuple)):
            weight += 60
            rest += one
        else:
            weight += 30
    return weight


def cost_of(event: Event, weigh: Callable[[str], int] = text_weight) -> int:
    """About how many bytes of memory an event takes; ``weigh`` is for the long texts in it."""
    if event.__class__ in _TERMINAL:
        return _EVENT_COST
    match event:
        case TokenEvent(text=text, tokens=tokens):
            return _EVENT_COST + 2 * len(text) + _TOKEN_COST * len(tokens)
        case Logprobs(tokens=logprobs):  # as frequent as tokens
            return _EVENT_COST + sum(map(_cost_of_logprob, logprobs))
        case ToolCallDelta(text=text) | ToolResult(content=text):
            return _EVENT_COST + 2 * len(text)
        case ToolCallCompleted(call=call) | ToolApprovalRequested(call=call):
            return _EVENT_COST + _cost_of_call(call)
        case ToolExecutionStarted(calls=calls):
            return _EVENT_COST + sum(map(_cost_of_call, calls))
        case ToolCallStarted(id=identifier, name=name):
            return _EVENT_COST + 2 * (len(identifier) + len(name))
        case ToolProgress(progress=value):
            return _EVENT_COST + weight_of(value, weigh)
        case _:
            return _cost_of_answer_event(event, weigh)


def _cost_of_answer_event(event: Event, weigh: Callable[[str], int]) -> int:
    match event:
        case MediaPart(data=data, url=url, transcript=transcript):
            return _EVENT_COST + weigh(data) + weigh(transcript) + weigh(url or "") + _length(event.id, event.mime)
        case Citation(cited_text=text, title=title, url=url, location=location):
            texts = weigh(text or "") + weigh(title or "") + weigh(url or "")
            return _EVENT_COST + texts + _length(event.id) + weight_of(location, weigh)
        case ServerToolCall(id=identifier, name=name, input=value, status=status):
            return _EVENT_COST + _length(identifier, name, status) + weight_of(value, weigh)
        case ServerToolResult(id=identifier, name=name, output=value, status=status):
            return _EVENT_COST + _length(identifier, name, status) + weight_of(value, weigh)
        case ProviderEvent(type=name, payload=value):
            return _EVENT_COST + _length(name) + weight_of(value, weigh)
        case Progress(message=text):
            return _EVENT_COST + weigh(text)
        case OriginEnded(outcome=outcome):
            return _EVENT_COST + 2 * len(outcome.text) + 2 * len(outcome.reasoning)
        case ReasoningBlockClosed(signature=signature, id=identifier):
            return _EVENT_COST + weigh(signature) + _length(identifier)
    return _EVENT_COST


def _cost_of_logprob(one: TokenLogprob) -> int:
    return _LOGPROB_COST * (1 + len(one.top)) + 2 * (len(one.token) + sum(len(text) for text, _ in one.top))


def _cost_of_call(call: ToolCall) -> int:
    return _EVENT_COST + 4 * len(call.arguments_raw) + _length(call.id, call.name, call.signature)  # raw and parsed


def _length(*texts: str | None) -> int:
    return 2 * sum(len(text) for text in texts if text)
