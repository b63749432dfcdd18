"""One turn of a conversation: a message, the rounds and calls of its answer, and its entry in the history."""

from __future__ import annotations

import asyncio
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
    instead_of_words,
)
from penstock.actors.agent.task import Job
from penstock.actors.call.record import CallRecord
from penstock.actors.stream.messages import Complete, Fail
from penstock.actors.stream.outcome import Outcome, joined
from penstock.actors.stream.record import StreamRecord
from penstock.errors import BadRequestError, ContentFilterError
from penstock.events import MediaPart, StreamCompleted, StreamFailed, TerminalEvent, ToolCall, ToolResult
from penstock.ports import Tool

__all__ = ["ToolRun", "Turn", "end_stream"]

RunState: TypeAlias = Literal["pending", "deciding", "approval", "running", "done"]


class ToolRun:
    """One call of the round under way."""

    __slots__ = ("call", "is_approved", "job", "kept", "result", "started_at", "state", "tool", "waits_for_thread")

    def __init__(self, call: ToolCall, kept: ToolCall, tool: Tool | None) -> None:
        self.call = call  # as the stream reports it
        self.kept = kept  # as it is in the history, perhaps with another id
        self.tool = tool
        self.state: RunState = "pending"
        self.is_approved = False
        self.waits_for_thread = False  # pending without a free thread; its time-out runs
        self.job: Job | None = None  # the job that runs it, or asks for its approval
        self.started_at = 0.0  # when it began to run
        self.result: ToolResult | None = None

    def __repr__(self) -> str:
        return f"ToolRun({self.call.name}, {self.state})"

    def content(self) -> str:
        """The content of the result for the model, also if the call was interrupted."""
        if self.result is not None:
            return self.result.content
        return UNKNOWN_END if self.state == "running" else NOT_RUN


class Turn:
    """One message and its answer, from the queue to the history. Only the agent's process writes it."""

    __slots__ = (
        "answer",
        "call",
        "calls",
        "cannot_be_asked",
        "has_begun",
        "is_settled",
        "loop",
        "message",
        "paused",
        "pauses",
        "rounds",
        "stream",
        "used_ids",
    )

    def __init__(self, stream: StreamRecord, message: Message, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.stream = stream
        self.message = message
        self.loop = loop  # of the code that sent the message; its async tools run there
        self.has_begun = False  # `StreamStarted` has been pushed
        self.call: CallRecord | None = None  # the call of the present or the last round
        self.rounds: list[Round] = []  # the rounds whose calls all have results
        self.calls: list[ToolRun] = []  # the calls of the round under way
        self.paused: list[Outcome] = []  # the pieces of the message under way that the provider has paused
        self.pauses = 0  # how many times the provider has paused in all
        self.answer: Outcome | None = None  # the outcome of the last round, which ends the turn
        self.cannot_be_asked = False  # no request could be made of the message
        self.used_ids: set[str] = set()
        self.is_settled = False

    def messages(self) -> list[Message]:
        """The messages of the turn so far, for the model."""
        return [self.message, *(message for one in self.rounds for message in one.messages())]

    def to_send(self) -> list[Message]:
        """The messages of the turn so far, and the message that the provider is to go on with."""
        if not self.paused:
            return self.messages()
        held = joined(self.paused)
        return [*self.messages(), answer_message(held.text, "", held.reasoning_blocks, held.provider_blocks)]

    def round_under_way(self) -> Round:
        """The round under way, with the results so far."""
        asked = joined([*self.paused, self.stream.rounds[-1]])
        calls = tuple(call.kept for call in self.calls)
        results = tuple(call.content() for call in self.calls)
        return Round(calls, results, asked.text, asked.reasoning_blocks, asked.provider_blocks, asked.provider)

    def is_refused(self) -> bool:
        """Whether the message was refused as it is and nothing was answered; call it once the stream has ended.

        It would be refused again in every later request, so it does not become part of the history. After a round of
        calls the turn stays: its tools have run.
        """
        terminal = self.stream.log.terminal
        if not isinstance(terminal, StreamFailed) or self.rounds or self.calls:
            return False
        if terminal.text or terminal.refusal or terminal.tool_calls or terminal.media or terminal.server_tools:
            return False
        return self.cannot_be_asked or isinstance(terminal.error, BadRequestError | ContentFilterError)

    def past(self) -> PastTurn:
        """The turn's entry in the history, after its stream has ended in whatever way."""
        terminal = self.stream.log.terminal
        assert terminal is not None
        messages = self.messages()
        if self.calls:
            messages += self.round_under_way().messages()
        if self.answer is not None and isinstance(terminal, StreamCompleted):
            whole = joined([*self.paused, self.answer])
            words = whole.text or terminal.refusal
            fallback = instead_of_words(self._media_of_answer(terminal))
            return PastTurn([*messages, answer_message(words, fallback, whole.reasoning_blocks, whole.provider_blocks)])
        # The pieces of a paused message are part of the words, unless the calls at its end have them.
        rounds = self.stream.rounds if self.calls else self.stream.rounds[: len(self.stream.rounds) - len(self.paused)]
        words = terminal.text[sum(len(one.text) - one.void_text for one in rounds if not one.is_void) :]
        return PastTurn([*messages, answer_message(words, _fallback(terminal))])

    def _media_of_answer(self, terminal: TerminalEvent) -> list[MediaPart]:
        """The media that came after the last results of tools."""
        snapshot = self.stream.log.snapshot()
        folded = () if snapshot is None else snapshot.tool_results
        last = max((event.seq for event in (*folded, *self.stream.log) if isinstance(event, ToolResult)), default=0)
        return [part for part in terminal.media if part.seq > last]

    def past_words(self) -> PastTurn:
        """The message and the words of the answer, without calls and blocks; see `past`."""
        terminal = self.stream.log.terminal
        assert terminal is not None
        return PastTurn([self.message, answer_message(terminal.text, _fallback(terminal))])


def _fallback(terminal: TerminalEvent) -> str:
    """What stands for the words of an answer that has none, if it ended before the model did."""
    return NO_ANSWER if isinstance(terminal, StreamCompleted) else INTERRUPTED


def end_stream(stream: StreamRecord, ending: Complete | Fail) -> None:
    """Propose how a turn's stream ends once its buffer is empty, and cancel the call under way."""
    stream.propose(ending)
    if stream.feed is not None:
        stream.feed.cancel()
