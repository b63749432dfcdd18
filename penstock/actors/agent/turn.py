"""One turn of a conversation: a message, its answer's rounds and calls, and what that is in the history."""

from __future__ import annotations

from typing import Literal, TypeAlias

from penstock.actors.agent.history import (
    INTERRUPTED,
    NO_ANSWER,
    NOT_RUN,
    UNKNOWN_END,
    Message,
    PastTurn,
    Round,
    answer_message,
)
from penstock.actors.agent.task import Job
from penstock.actors.call.record import CallRecord
from penstock.actors.stream.messages import Complete, Fail
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.record import StreamRecord
from penstock.events import StreamCompleted, ToolCall, ToolResult
from penstock.ports import Tool

__all__ = ["ToolRun", "Turn", "end_stream"]

RunState: TypeAlias = Literal["pending", "deciding", "approval", "running", "done"]


class ToolRun:
    """One call of the round under way."""

    __slots__ = ("asked_at", "call", "is_approved", "job", "kept", "result", "state", "tool", "wants_place")

    def __init__(self, call: ToolCall, kept: ToolCall, tool: Tool | None) -> None:
        self.call = call  # as the stream told it
        self.kept = kept  # as it stands in the history, maybe under another id
        self.tool = tool
        self.state: RunState = "pending"
        self.is_approved = False
        self.wants_place = False  # pending, and there is no thread for it; its time runs
        self.job: Job | None = None  # what is at work for it
        self.asked_at = 0.0  # when it began to run
        self.result: ToolResult | None = None

    def __repr__(self) -> str:
        return f"ToolRun({self.call.name}, {self.state})"

    def content(self) -> str:
        """What the model is told, also if it was cut off."""
        if self.result is not None:
            return self.result.content
        return UNKNOWN_END if self.state == "running" else NOT_RUN


class Turn:
    """One message and its answer, from the queue into the history. Written by the agent's process only."""

    __slots__ = ("answer", "call", "calls", "has_begun", "is_settled", "message", "rounds", "stream", "used_ids")

    def __init__(self, stream: StreamRecord, message: Message) -> None:
        self.stream = stream
        self.message = message
        self.has_begun = False  # the stream has been told that it starts
        self.call: CallRecord | None = None  # of the present round, or the last one
        self.rounds: list[Round] = []  # those whose calls have all their results
        self.calls: list[ToolRun] = []  # of the round whose calls have not
        self.answer: Outcome | None = None  # of the last round, which ends the turn
        self.used_ids: set[str] = set()
        self.is_settled = False

    def messages(self) -> list[Message]:
        """What the model is to go on from."""
        return [self.message, *(message for one in self.rounds for message in one.messages())]

    def round_under_way(self) -> Round:
        """Its calls and what they have come to by now."""
        asked = self.stream.rounds[-1]
        calls = tuple(call.kept for call in self.calls)
        return Round(calls, tuple(call.content() for call in self.calls), asked.text, asked.reasoning_blocks)

    def past(self) -> PastTurn:
        """What goes into the history, now that its stream is over, however that has ended."""
        terminal = self.stream.log.terminal
        assert terminal is not None
        messages = self.messages()
        if self.calls:
            messages += self.round_under_way().messages()
        if self.answer is not None and isinstance(terminal, StreamCompleted):
            words = self.answer.text or terminal.refusal
            return PastTurn([*messages, answer_message(words, NO_ANSWER, self.answer.reasoning_blocks)])
        words = terminal.text[sum(len(outcome.text) for outcome in self.stream.rounds) :]
        fallback = NO_ANSWER if isinstance(terminal, StreamCompleted) else INTERRUPTED
        return PastTurn([*messages, answer_message(words, fallback)])


def end_stream(stream: StreamRecord, ending: Complete | Fail) -> None:
    """Let a turn's stream end like this once its buffer is empty, and cancel its call if one is under way."""
    stream.propose(ending)
    if stream.feed is not None:
        stream.feed.cancel()
