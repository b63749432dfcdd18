"""`Stream.tee`: a copy of a stream in a file, beside the readers of the stream."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Collection, Generator, Mapping
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.config.checks import check_choice, check_number
from penstock.config.options import StreamOptions
from penstock.errors import TeeError
from penstock.events import (
    Event,
    SideEvent,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TerminalEvent,
    TokenEvent,
    TokenKind,
    Usage,
    to_dict,
)
from penstock.stream import Stream
from penstock.toolbox.copies import Copy, CopyGuard, TeeTarget, Writing, open_copy
from penstock.toolbox.kinds import check_kinds
from penstock.toolbox.pump import derive
from penstock.toolbox.stage import Await, Output, Run, Stage, Steps, failed

__all__ = ["OnTeeError", "Tee", "TeeMode", "tee"]

TeeMode: TypeAlias = Literal["text", "jsonl"]
OnTeeError: TypeAlias = Literal["fail", "detach"]

_MOST: Final = 16  # events that go to the other thread at once, and that may wait for it
_LARGEST: Final = 65_536  # characters of them


def tee(
    stream: Stream,
    target: TeeTarget,
    *,
    mode: TeeMode,
    kinds: TokenKind | Collection[TokenKind],
    on_error: OnTeeError,
    flush_every: int,
    stream_id: str | None,
    options: StreamOptions | None,
) -> Stream:
    """See `Stream.tee`."""
    check_choice("mode", mode, ("text", "jsonl"))
    check_choice("on_error", on_error, ("fail", "detach"))
    check_number("flush_every", flush_every, 1, 100_000, whole=True)
    wanted = check_kinds(kinds)
    copy = open_copy(target)
    try:
        stage = Tee(copy, mode, wanted, on_error, flush_every, lambda: stream.statistics().usage)
        return derive(stage, [stream], stream_id=stream_id, options=options, window=_MOST)
    except BaseException:
        copy.discard()
        raise


class Tee(Stage):
    """Passes everything on, once it has been written to the copy.

    What a write costs is for the most part the way to another thread and back, so events that wait already take it
    together: an event is held until no further one waits, or `_MOST` are held. Nothing waits for an event to come.

    Args:
        copy: where to write.
        mode: ``"text"`` writes the text, ``"jsonl"`` each event as a line of JSON.
        kinds: the kinds of text that are written.
        on_error: ``"fail"`` ends the stream, ``"detach"`` goes on without the copy.
        flush_every: how many events are written together.
        usage: returns the usage so far, for the terminal event.
    """

    kind = "tee"

    def __init__(
        self,
        copy: Copy,
        mode: TeeMode,
        kinds: frozenset[TokenKind],
        on_error: OnTeeError,
        flush_every: int,
        usage: Callable[[], Usage | None],
    ) -> None:
        self._guard: CopyGuard | None = CopyGuard(copy)  # None: given up
        self._copy = copy
        self._is_text = mode == "text"
        self._kinds = kinds
        self._on_error = on_error
        self._flush_every = flush_every
        self._usage = usage
        self._pending: list[tuple[str | None, str]] = []  # to be written
        self._held: list[tuple[TokenEvent | SideEvent, int]] = []  # to be passed on once so many of these are written
        self._size = 0  # of their text, in characters
        self._errors = 0

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """See `Stage.feed`."""
        if self._guard is None:
            return (event,)
        self._note(event)
        if len(self._pending) < self._flush_every and not self._held:
            return (event,)
        self._held.append((event, len(self._pending)))
        if not isinstance(event, TokenEvent):
            return self._pass()
        self._size += len(event.text)
        if len(self._held) < _MOST and self._size < _LARGEST:
            self.deadline = self.now  # that is, when no further event waits
            return ()
        return self._pass()

    def overdue(self) -> Steps:
        """See `Stage.overdue`."""
        return self._pass()

    def reset(self, reset: StreamReset, place: int = 0) -> Steps:
        """See `Stage.reset`."""
        if self._guard is None:
            return (reset,)
        return self._reset(reset)

    def _reset(self, reset: StreamReset) -> Steps:
        if self._held:
            yield from self._pass()
        if not self._is_text:
            self._note(reset)
            if len(self._pending) >= self._flush_every:
                yield from self._pass()
            yield reset
            return
        origin = reset.origin
        self._pending = [] if origin is None else [one for one in self._pending if one[0] != origin]
        yield from self._do(partial(self._copy.void, origin))
        yield reset

    def end(self, terminal: TerminalEvent, place: int = 0) -> Steps:
        """See `Stage.end`. The copy gets its name only if the stream has completed."""
        if self._guard is None:
            return (terminal,)
        return self._ended(terminal)

    def counters(self) -> Mapping[str, Any]:
        """See `Stage.counters`."""
        return {"tee_errors": self._errors}

    def close(self) -> None:
        """See `Stage.close`."""
        if self._guard is not None:
            self._guard.close()

    # --- writing -------------------------------------------------------------------------------------------------

    def _note(self, event: Event) -> None:
        """Keep what is to be written of an event, if anything."""
        if isinstance(event, TokenEvent) and event.kind not in self._kinds:
            return
        if not self._is_text:
            self._pending.append((None, json_line(event)))
        elif isinstance(event, TokenEvent):
            self._pending.append((event.origin, event.text))

    def _pass(self) -> Generator[Output, Any, None]:
        """Write what is pending, and then pass on what is held; if it fails, what was written before."""
        held, self._held, self._size = self._held, [], 0
        self.deadline = None
        writing = self._writing()
        failure = yield from self._write(writing)
        for event, needed in held:
            if failure is None or needed <= writing.done:
                yield event
        if failure is not None:
            yield failure

    def _ended(self, terminal: TerminalEvent) -> Generator[Output, Any, None]:
        if self._held:
            yield from self._pass()
        if not self._is_text:
            self._note(terminal)
        if self._pending:
            failure = yield from self._write(self._writing(), terminal)
            if failure is not None:
                yield failure
        if isinstance(terminal, StreamCompleted):
            yield from self._do(self._copy.complete, terminal)
        yield terminal

    def _writing(self) -> Writing:
        pieces, self._pending = self._pending, []
        return Writing(self._copy, pieces, self._flush_every)

    def _write(
        self, writing: Writing, terminal: TerminalEvent | None = None
    ) -> Generator[Output, Any, StreamFailed | None]:
        """Write all of it; returns how the stream ends if that fails and the copy is not given up."""
        while self._guard is not None and not writing.is_done:
            failure = yield from self._try(writing.go_on, terminal)
            if failure is not None:
                return failure
            writing.note()
        return None

    def _do(self, function: Callable[[], Any], terminal: TerminalEvent | None = None) -> Generator[Output, Any, None]:
        """Have a function called that uses the copy. If it fails, end the stream or give the copy up."""
        failure = yield from self._try(function, terminal)
        if failure is not None:
            yield failure

    def _try(
        self, function: Callable[[], Any], terminal: TerminalEvent | None
    ) -> Generator[Output, Any, StreamFailed | None]:
        guard = self._guard
        if guard is None:
            return None
        try:
            result = yield Run(partial(guard.run, function))
            if inspect.isawaitable(result):
                yield Await(result)
        except (Exception, asyncio.CancelledError) as error:
            self._errors += 1
            self._pending = []
            if self._on_error != "detach":
                return self._failure(error, terminal)
            self._guard = None
            guard.close()
        return None

    def _failure(self, cause: BaseException, terminal: TerminalEvent | None) -> StreamFailed:
        end = failed(TeeError(self.stream_id, cause), like=terminal)
        return end if terminal is not None else msgspec.structs.replace(end, usage=self._usage())


def json_line(event: Event) -> str:
    """An event as one line of JSON, with its line end; see `to_dict`."""
    return json.dumps(to_dict(event), ensure_ascii=False, separators=(",", ":")) + "\n"
