"""The streams that the judges see, as their events. A request's model names the case."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from penstock.errors import IncompleteStream
from penstock.events import (
    Citation,
    Event,
    MediaPart,
    ProviderBlock,
    ReasoningBlock,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamStarted,
    TokenEvent,
    TokenKind,
    ToolApprovalRequested,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
    Usage,
)

__all__ = ["CASES", "STREAM_ID", "numbered", "token"]

STREAM_ID: Final = "st-1"
NOW: Final = 1_790_000_000.25
USAGE: Final = Usage(input_tokens=11, output_tokens=7, reasoning_tokens=2, cached_tokens=0)
SEARCH_BLOCK: Final = ProviderBlock(
    provider="anthropic", data={"type": "web_search_tool_result", "tool_use_id": "s1", "content": None}, at=3
)


def token(text: str, kind: TokenKind = "text", part: int = 0) -> TokenEvent:
    """A token event without a number."""
    return TokenEvent(STREAM_ID, 0, (text,), text, kind, NOW, {}, 0, part)


def numbered(events: Iterable[Event]) -> list[Event]:
    """The events with the numbers and times that a stream gives them."""
    made: list[Event] = []
    for number, event in enumerate(events, 1):
        made.append(msgspec.structs.replace(event, stream_id=STREAM_ID, seq=number, timestamp=NOW + number / 100))
    return made


def call(call_id: str, name: str, index: int, pieces: tuple[str, ...], **fields: Any) -> list[Event]:
    """A call as it is written."""
    raw = "".join(pieces)
    made = ToolCall(id=call_id, name=name, arguments=msgspec.json.decode(raw), arguments_raw=raw, **fields)
    return [
        ToolCallStarted(id=call_id, name=name, index=index),
        *(ToolCallDelta(index=index, text=piece) for piece in pieces),
        ToolCallCompleted(index=index, call=made),
    ]


def completed(text: str = "", **fields: Any) -> StreamCompleted:
    """A good end."""
    common: dict[str, Any] = {"model": "m-1", "provider": "openai", "usage": USAGE}
    return StreamCompleted(stream_id=STREAM_ID, seq=0, text=text, **(common | fields))


def text() -> list[Event]:
    return [*map(token, ("Hel", "lo ", "wörld", "\u2028!")), completed("Hello wörld\u2028!")]


def reasoning() -> list[Event]:
    block = ReasoningBlock(kind="thinking", text="Let me think.", signature="c2ln", provider="anthropic")
    sealed = ProviderBlock(provider="anthropic", data={"type": "thinking", "thinking": "Let me think."})
    return [
        token("Let me ", "reasoning"),
        token("think.", "reasoning"),
        ReasoningBlockClosed(index=0, kind="thinking", signature="c2ln", provider="anthropic"),
        ReasoningBlockClosed(index=1, kind="redacted_thinking", signature="cmVk", provider="anthropic"),
        token("Four", part=1),
        token(".", part=1),
        completed(
            "Four.",
            reasoning="Let me think.",
            reasoning_blocks=(block,),
            provider="anthropic",
            provider_blocks=(sealed,),
        ),
    ]


def rounds() -> list[Event]:
    """Two rounds of calls with ids that the provider repeats, and an answer."""
    first = [*call("call_0", "weather", 0, ('{"city":', '"Oslo"}')), *call("call_1", "add", 1, ("{}",))]
    second = call("call_0", "weather", 0, ('{"city":"Rome"}',), signature="sig")
    asked = [event.call for event in first if isinstance(event, ToolCallCompleted)]
    again = [event.call for event in second if isinstance(event, ToolCallCompleted)]
    return [
        StreamStarted(model="m-1"),
        token("Let me look."),
        *first,
        ToolExecutionStarted(round=1, calls=tuple(asked)),
        ToolProgress(call_id="call_0", name="weather", progress={"percent": 50}),
        ToolResult(call_id="call_0", name="weather", content='{"degrees":3}'),
        ToolResult(call_id="call_1", name="add", status="error", content="TypeError: a is missing"),
        *second,
        ToolExecutionStarted(round=2, calls=tuple(again)),
        ToolResult(call_id="call_0", name="weather", content="warm"),
        token("Cold and", part=1),
        token(" warm.", part=1),
        completed("Let me look.Cold and warm.", tool_calls=(*asked, *again)),
    ]


def pending() -> list[Event]:
    """A call that is the client's to run."""
    asked = call("call_9", "pick_colour", 0, ('{"of":["red","blue"]}',))
    calls = tuple(event.call for event in asked if isinstance(event, ToolCallCompleted))
    return [token("Which?"), *asked, completed("Which?", finish_reason="tool_calls", tool_calls=calls)]


def approval() -> list[Event]:
    """A call that waits for the user; the rest comes when it is decided."""
    asked = call("call_5", "delete_file", 0, ('{"name":"a.txt"}',))
    waiting = next(event.call for event in asked if isinstance(event, ToolCallCompleted))
    return [
        StreamStarted(model="m-1"),
        *asked,
        ToolExecutionStarted(round=1, calls=(waiting,)),
        ToolApprovalRequested(call=waiting),
        ToolResult(call_id="call_5", name="delete_file", content="deleted"),
        token("It is gone.", part=1),
        completed("It is gone.", tool_calls=(waiting,)),
    ]


def denied() -> list[Event]:
    events = approval()
    text = "The user did not approve this call: too dangerous"
    events[-3] = ToolResult(call_id="call_5", name="delete_file", status="denied", content=text)
    return [*events[:-2], token("As you wish.", part=1), completed("As you wish.")]


def broken_arguments() -> list[Event]:
    bad = ToolCall(id="call_0", name="add", arguments=None, arguments_raw='{"a": ')
    return [
        ToolCallStarted(id="call_0", name="add", index=0),
        ToolCallDelta(index=0, text='{"a": '),
        ToolCallCompleted(index=0, call=bad),
        completed(finish_reason="length", tool_calls=(bad,)),
    ]


def reset() -> list[Event]:
    return [
        token("VOID thought", "reasoning"),
        token("VOID text", part=1),
        ToolCallStarted(id="call_0", name="void", index=0),
        ToolCallDelta(index=0, text='{"a'),
        StreamReset(STREAM_ID, 0, "the provider broke off", NOW, {}),
        token("Good "),
        token("text."),
        completed("Good text."),
    ]


def early_reset() -> list[Event]:
    return [StreamReset(STREAM_ID, 0, "the provider broke off", NOW, {}), token("Good."), completed("Good.")]


def failed() -> list[Event]:
    error = IncompleteStream("the provider closed the connection")
    return [token("Half an ans"), StreamFailed(stream_id=STREAM_ID, seq=0, error=error, partial="Half an answer")]


def cancelled() -> list[Event]:
    end = StreamCancelled(stream_id=STREAM_ID, seq=0, reason="user", partial="Half")
    return [token("Half"), end]


def extras() -> list[Event]:
    """A refusal's words, sources, pictures and the provider's own tools."""
    return [
        ServerToolCall(id="s1", name="web_search", input={"query": "x"}),
        ServerToolResult(id="s1", name="web_search", output=[{"url": "https://a.example"}]),
        token("One.", part=1),
        Citation(kind="url", url="https://a.example", title="A", start=0, end=4, part=1),
        Citation(kind="document", title="Report", cited_text="one", location={"document_index": 0}),
        MediaPart(kind="image", mime="image/png", data="QUJD"),
        token("No.", "refusal", part=2),
        completed(
            "One.", refusal="No.", finish_reason="refusal", provider="anthropic", provider_blocks=(SEARCH_BLOCK,)
        ),
    ]


def endless() -> list[Event]:
    """Text without an end; the server waits for the client to leave."""
    return [token("And then"), token(" some")]


CASES: Final[dict[str, Callable[[], list[Event]]]] = {
    made.__name__: made
    for made in (
        *(text, reasoning, rounds, pending, approval, denied, broken_arguments, reset, early_reset, failed, cancelled),
        *(extras, endless),
    )
}
