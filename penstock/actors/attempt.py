"""One attempt of an integration: what its reader tells, and who may still hear of it.

Text goes from here straight into the stream's intake; the integration is told what happens around it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from penstock.actors.flow.log import Outcome
from penstock.actors.flow.toolcalls import ToolCallAccumulator
from penstock.actors.record import StreamRecord
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.transitions import Cast
from penstock.actors.source import Source
from penstock.config.logs import get_logger
from penstock.errors import PenstockError, ProtocolError, ProviderError, StreamClosed
from penstock.events import FinishReason, TokenKind, Usage
from penstock.ports import (
    Clock,
    Decoder,
    Delta,
    ErrorDelta,
    FinishDelta,
    KeepAlive,
    ReaderJob,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

__all__ = ["Attempt", "Connecting", "Ended", "Finished", "FirstDelta", "Waiting"]


class Connecting(msgspec.Struct, frozen=True):
    attempt: int


class Waiting(msgspec.Struct, frozen=True):
    attempt: int


class FirstDelta(msgspec.Struct, frozen=True):
    attempt: int


class Finished(msgspec.Struct, frozen=True):
    """A finish reason, or an error, has come; usage and the end marker may follow."""

    attempt: int


class Ended(msgspec.Struct, frozen=True):
    attempt: int
    is_complete: bool
    error: PenstockError | None


class Attempt:
    """One try; the `OfferSink` of its reader. What the ports name runs in the reader's thread, the rest elsewhere.

    What it takes and its being abandoned exclude each other: whoever has abandoned it and then sees that the source
    has not ``started`` can be sure that the stream gets nothing of it.
    """

    def __init__(self, record: StreamRecord, source: Source, number: int, inbox: Mailbox, clock: Clock) -> None:
        self.number = number
        self.job: ReaderJob | None = None
        self.last_progress = clock.monotonic()
        self.is_pushing = False  # it waits for the stream, not for the provider
        self.keep_alives = 0
        self.error: ProviderError | None = None  # reported inside the stream
        self._record = record
        self._source = source
        self._inbox = inbox
        self._clock = clock
        self.has_progressed = False
        self._abandoned = False
        self._lock = threading.Lock()  # guards these two, and the source's `started`
        self._rest: list[tuple[str, TokenKind]] = []  # offered, and there was no room
        self._to_tell: Finished | None = None
        self._size = 0
        self._tool_calls = ToolCallAccumulator()
        self._usage: Usage | None = None
        self._finish: FinishReason | None = None
        self._raw_finish: str | None = None
        self._model: str | None = None

    def take_job(self, job: ReaderJob) -> None:
        """Its reader has it."""
        self.job = job
        if self._abandoned:  # meanwhile, by whoever took over from a killed integration
            job.cancel()

    def abandon(self) -> None:
        """Close its socket and hear nothing of it any more. Any thread; harmless if it has been."""
        with self._lock:
            self._abandoned = True
        if self.job is not None:
            self.job.cancel()
        if self.is_pushing:
            self._record.intake.wake_waiters()

    @property
    def is_finished(self) -> bool:
        """Whether the model has said that it is done, and everything it said is in the stream's buffer."""
        return self._finish is not None and self._to_tell is None

    def outcome(self) -> Outcome:
        """What the provider has said so far beside the text."""
        calls = self._tool_calls.finish()
        return Outcome(
            finish_reason=self._finish or "stop",
            raw_finish_reason=self._raw_finish,
            tool_calls=calls,
            usage=self._usage,
            model=self._model,
        )

    def connecting(self) -> None:
        self._tell(Connecting(self.number))

    def waiting(self) -> None:
        self._tell(Waiting(self.number))

    def answered(self, headers: Mapping[str, str]) -> None:
        pass

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        tokens = self._read(deltas)
        return tokens is not None and (not tokens or self._push(tokens)) and self._tell_finish()

    def offer(self, deltas: Sequence[Delta], on_room: Callable[[], None]) -> bool | None:
        tokens = self._read(deltas)
        if tokens is None:
            return False
        self._rest += self._cut(tokens)
        if self._rest:
            try:
                done = self._record.intake.push_now(self._rest, on_room, self._is_abandoned)
            except StreamClosed:
                return False
            del self._rest[:done]
            self.last_progress = self._clock.monotonic()
            self.is_pushing = bool(self._rest)
            if self._rest:
                return None
        return self._tell_finish()

    def _read(self, deltas: Sequence[Delta]) -> list[tuple[str, TokenKind]] | None:
        """Note what they say, and give the tokens; None: nobody wants them."""
        tokens: list[tuple[str, TokenKind]] = []
        progress = False
        for delta in deltas:
            kind = delta.__class__
            if kind is TextDelta:
                tokens.append((delta.text, "text"))  # type: ignore[union-attr]
            elif kind is not KeepAlive:
                progress = self._note(delta, tokens) or progress
            else:
                self.keep_alives += 1
        if tokens or progress:
            self.last_progress = self._clock.monotonic()
            if not self.has_progressed:
                with self._lock:
                    if self._abandoned:
                        return None
                    self.has_progressed = self._source.started = True
                self._tell(FirstDelta(self.number))
        self._size += sum(len(text) for text, _ in tokens)
        if self._size > self._source.options.max_answer_bytes:
            self.error = ProtocolError(f"the answer is longer than {self._source.options.max_answer_bytes} bytes")
            return None
        return None if self._abandoned else tokens

    def _tell_finish(self) -> bool:
        """Tell that it is finished, now that everything before is in the buffer."""
        if self._to_tell is not None:
            self._tell(self._to_tell)
            self._to_tell = None
        return not self._abandoned

    def _note(self, delta: Delta, tokens: list[tuple[str, TokenKind]]) -> bool:
        """Whatever is not text; returns whether it is progress."""
        match delta:
            case ReasoningDelta(text=text):
                tokens.append((text, "reasoning"))
            case RefusalDelta(text=text):
                tokens.append((text, "refusal"))
            case ToolCallFragment():
                self._size += len(delta.arguments) + len(delta.name or "") + len(delta.id or "")
                self._tool_calls.feed(delta)
            case UsageDelta(usage=usage):
                self._usage = usage
                return False
            case FinishDelta(reason=reason, raw=raw):
                if self._finish is None:
                    self._to_tell = Finished(self.number)  # first, see `is_finished`
                if self._finish != "tool_calls" or reason != "stop":
                    self._finish, self._raw_finish = reason, raw
            case ErrorDelta(error=error):
                self.error = self.error or error
                self._to_tell = Finished(self.number)
                return False
        return True

    def _cut(self, tokens: list[tuple[str, TokenKind]]) -> list[tuple[str, TokenKind]]:
        tokenizer = self._record.options.tokenizer
        if tokenizer is None:
            return tokens
        return [(token, kind) for text, kind in tokens for token in tokenizer(text)]

    def _is_abandoned(self) -> bool:
        return self._abandoned

    def _push(self, tokens: list[tuple[str, TokenKind]]) -> bool:
        tokens = self._cut(tokens)
        self.is_pushing = True
        try:
            return self._record.intake.push_blocking(tokens, self._is_abandoned)
        finally:
            self.last_progress = self._clock.monotonic()
            self.is_pushing = False

    def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
        complete = decoder is not None and (decoder.finished or decoder.done)
        if decoder is not None:
            self._model = decoder.model
            if decoder.skipped:
                get_logger(stream_id=self._record.stream_id).debug("not_understood", count=decoder.skipped)
        self._tell(Ended(self.number, complete, error))

    def _tell(self, news: Any) -> None:
        if not self._abandoned:
            self._inbox.put(Cast(news))
