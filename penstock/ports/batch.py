"""The prompts and the results of a batch (`System.batch`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias

import msgspec

from penstock.errors import PenstockError
from penstock.events import Cost, FinishReason, FrozenDict, TerminalEvent, ToolCall, Usage

__all__ = ["BatchProgress", "BatchPrompt", "BatchResult", "BatchResults", "Identifier", "PromptForm"]

Identifier: TypeAlias = str | int


class BatchPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt of a batch.

    Attributes:
        id: names the result. None: the prompt's number.
        input: a text, a list of messages, or the input of a Responses API request.
        model: None takes the batch's.
        parameters: of the request; they replace those of the batch.
        metadata: is part of the result, and of the stream's events.
        responses: whether to use the Responses API where the provider has it.
        number: of the line that it was read from; None: its place among the prompts, from 1.
        sha256: of that line, in hexadecimal; not sent anywhere.
    """

    input: Any
    id: Identifier | None = None
    model: str | None = None
    parameters: Mapping[str, Any] = FrozenDict()
    metadata: Mapping[str, Any] = FrozenDict()
    responses: bool = False
    number: int | None = None
    sha256: str = ""

    def __repr__(self) -> str:
        return f"BatchPrompt(id={self.id!r}, model={self.model!r})"


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one prompt.

    Attributes:
        id: the prompt's own, or its number.
        number: of the prompt, from 1, in the order read.
        status: ``"completed"`` or ``"failed"``.
        text: the whole answer; of a failed one, what came of it in the last attempt.
        reasoning: the same for the model's reasoning.
        tool_calls: the calls that the model asks for.
        finish_reason: None if it failed.
        usage: of the last attempt; None if it is not known.
        cost: of all attempts together; None if it is not known.
        model, provider: the ones that answered, or were asked last.
        attempts: requests made, retries and fallbacks included; 0 if none could be made.
        first_token_s: from the start of the last attempt to its first token; None if none came.
        seconds: from the start of the first attempt to the end.
        error: why it failed.
        metadata: the prompt's.
        sha256: the prompt's.
        finished_at: seconds since the epoch.
        end: the terminal event of the last attempt; None if no request could be made.
    """

    id: Identifier
    number: int
    status: Literal["completed", "failed"]
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    cost: Cost | None = None
    model: str | None = None
    provider: str | None = None
    attempts: int = 0
    first_token_s: float | None = None
    seconds: float = 0.0
    error: PenstockError | None = None
    metadata: Mapping[str, Any] = FrozenDict()
    sha256: str = ""
    finished_at: float = 0.0
    end: TerminalEvent | None = None

    def __repr__(self) -> str:
        problem = "" if self.error is None else f", error={type(self.error).__name__}"
        return f"BatchResult(id={self.id!r}, status={self.status!r}, chars={len(self.text)}{problem})"


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch is. Times are in seconds.

    Attributes:
        completed, failed: prompts that have ended so.
        running: calls under way.
        waiting: prompts that have been read and wait for their turn, or for another attempt.
        total: prompts altogether; None if that is not known.
        tokens: input and output, as the providers report them, else estimated; of all attempts.
        output_tokens: the output among them.
        cost: of all attempts that have ended; None if none is known. An estimate if one of them is not known.
        unpriced: answers the cost of which is not known.
        retries: further attempts.
        paused_s: until the next start, because the provider asks for a pause; 0.0: there is none.
        seconds: since the first call.
        tokens_per_second: output tokens in a second.
        eta_s: until the end, at the present rate; None if that is not known.
        stopped: why no more prompts are started, if so.
    """

    completed: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    total: int | None = None
    tokens: int = 0
    output_tokens: int = 0
    cost: Cost | None = None
    unpriced: int = 0
    retries: int = 0
    paused_s: float = 0.0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    eta_s: float | None = None
    stopped: PenstockError | str | None = None

    @property
    def done(self) -> int:
        """Prompts that have ended."""
        return self.completed + self.failed


PromptForm: TypeAlias = str | Mapping[str, Any] | Sequence[Mapping[str, Any]] | BatchPrompt
"""A text; a mapping as a line of ``penstock batch``; a list of messages; a `BatchPrompt`."""


class BatchResults(Iterator[BatchResult], Protocol):
    """The results of a batch in the order of their ends; made by `System.batch`. For ``for`` and ``async for``.

    Prompts are asked while the next result is waited for: further ones are started when one has ended and the next
    result is asked for. One thread, or one task, reads the results; the other methods may be called from any thread.
    Closing it, or dropping it, cancels the calls under way; so does leaving a ``with`` block.
    """

    @property
    def progress(self) -> BatchProgress:
        """How far it is, at this moment."""

    @property
    def stopped(self) -> PenstockError | str | None:
        """Why no more prompts are started, though there may be more: an error of the provider, or in words."""

    def drain(self, reason: str = "drained") -> None:
        """Start nothing more. The calls under way go on, and their results come."""

    def close(self) -> None:
        """Cancel the calls under way, and start nothing more; no further result comes. Harmless if it is over."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> BatchResult: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
