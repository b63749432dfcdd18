"""What a snapshot has besides the events that a projection was fed."""

from __future__ import annotations

from heapq import merge

import msgspec

from penstock.events import (
    AnswerEvent,
    AnswerPart,
    Event,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamSnapshot,
    TokenEvent,
    TokenKind,
    ToolCallCompleted,
)
from penstock.gateway.projections.sent import Sent

__all__ = ["Emitted"]


class Emitted:
    """What a projection has made frames of since the last reset.

    Attributes:
        seq: the number of the last event.
        calls: how many calls are complete.
        add: notes a piece of text, see `Sent.add`.
    """

    __slots__ = ("_sent", "add", "calls", "seq")

    def __init__(self) -> None:
        self.seq = 0
        self.calls = 0
        self._sent = Sent()
        self.add = self._sent.add

    def clear(self) -> None:
        """Forget everything: the answer starts again."""
        self.calls = 0
        self._sent.clear()

    def beyond(self, snapshot: StreamSnapshot) -> list[Event] | None:
        """The events to feed in the place of a snapshot: each part of the text that is new, calls, results and others.

        None: the snapshot is of another answer, since the stream was reset in between. A snapshot does not say what
        came between which texts. If calls were answered, or the provider used its own tools, the last part of the text
        comes after them; else all text comes first.
        """
        parts = self._new_parts(snapshot)
        if parts is None or len(snapshot.tool_calls) < self.calls:
            return None
        seq = snapshot.seq
        others = [event for event in snapshot.answer_events if not self.seq or event.seq > self.seq]
        blocks = [event for event in others if isinstance(event, ReasoningBlockClosed)]
        texts: list[list[Event]] = []
        for part, text in parts:
            token = TokenEvent(
                *(snapshot.stream_id, seq, (text,), text, part.kind, snapshot.timestamp, {}),
                part=part.index,
                phase=part.phase,
                origin=part.origin,
            )
            closed: list[Event] = [_at(blocks.pop(0), seq)] if part.kind == "reasoning" and blocks else []
            texts.append([token, *closed])
        calls = [
            ToolCallCompleted(stream_id=snapshot.stream_id, seq=seq, timestamp=snapshot.timestamp, index=-1, call=call)
            for call in snapshot.tool_calls[self.calls :]
        ]
        new = [one for one in snapshot.tool_results if not self.seq or one.seq > self.seq]
        results = [msgspec.structs.replace(one, seq=seq) for one in new]
        answered = {result.call_id for result in snapshot.tool_results}
        is_answered = bool(calls) and all(call.id in answered or call.is_server for call in snapshot.tool_calls)
        used_tools = any(isinstance(event, (ServerToolCall, ServerToolResult)) for event in others)
        last = texts.pop() if texts and (is_answered or used_tools) else []
        rest = [_at(event, seq) for event in others if not isinstance(event, ReasoningBlockClosed) or event in blocks]
        return [*(event for text in texts for event in text), *rest, *calls, *results, *last]

    def _new_parts(self, snapshot: StreamSnapshot) -> list[tuple[AnswerPart, str]] | None:
        whole: dict[TokenKind, str] = {
            "text": snapshot.text,
            "reasoning": snapshot.reasoning,
            "refusal": snapshot.refusal,
        }
        found: list[list[tuple[AnswerPart, str]]] = []
        for kind, text in whole.items():
            if self._sent.rest(kind, text) is None:
                return None
            at = self._sent.length(kind)
            parts = [part for part in snapshot.parts if part.kind == kind]
            new = (part for part in parts if max(part.start, at) < part.end)
            pieces = [(part, text[max(part.start, at) : part.end]) for part in new]
            covered = max([at, *(part.end for part in parts)])
            if covered < len(text):
                part = AnswerPart(index=0, kind=kind, start=covered, end=len(text))
                pieces.append((part, text[covered:]))
            found.append(pieces)
        # Not sorted: of several origins, a lower part may follow.
        return list(merge(*found, key=lambda pair: (pair[0].index, pair[0].kind != "reasoning")))


def _at(event: AnswerEvent, seq: int) -> AnswerEvent:
    return msgspec.structs.replace(event, seq=seq)
