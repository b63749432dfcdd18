"""`Stream.tee`: a copy of a stream in a file, beside the readers of the stream."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Collection, Generator, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

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
from penstock.toolbox.copies import Copy, CopyGuard, TeeTarget, open_copy
from penstock.toolbox.kinds import check_kinds
from penstock.toolbox.pump import derive
from penstock.toolbox.stage import Await, Output, Run, Stage, Steps, failed

__all__ = ["OnTeeError", "Tee", "TeeMode", "tee"]

TeeMode: TypeAlias = Literal["text", "jsonl"]
OnTeeError: TypeAlias = Literal["fail", "detach"]


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
        return derive(stage, [stream], stream_id=stream_id, options=options)
    except BaseException:
        copy.discard()
        raise


class Tee(Stage):
    """Passes everything on, once it has been written to the copy.

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
        self._pending: list[tuple[str | None, str]] = []
        self._errors = 0

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """See `Stage.feed`."""
        if self._guard is None or not self._note(event):
            return (event,)
        return self._copied(event)

    def reset(self, reset: StreamReset, place: int = 0) -> Steps:
        """See `Stage.reset`."""
        if self._guard is None:
            return (reset,)
        if not self._is_text:
            self._note(reset)
            return self._copied(reset)
        origin = reset.origin
        self._pending = [] if origin is None else [one for one in self._pending if one[0] != origin]
        return self._then(reset, partial(self._copy.void, origin))

    def end(self, terminal: TerminalEvent, place: int = 0) -> Steps:
        """See `Stage.end`. The copy gets its name only if the stream has completed."""
        if self._guard is None:
            return (terminal,)
        if not self._is_text:
            self._note(terminal)
        return self._ended(terminal)

    def counters(self) -> Mapping[str, Any]:
        """See `Stage.counters`."""
        return {"tee_errors": self._errors}

    def close(self) -> None:
        """See `Stage.close`."""
        if self._guard is not None:
            self._guard.close()

    # --- writing -------------------------------------------------------------------------------------------------

    def _note(self, event: Event) -> bool:
        """Keep what is to be written of an event; returns whether there is something."""
        if isinstance(event, TokenEvent) and event.kind not in self._kinds:
            return False
        if not self._is_text:
            self._pending.append((None, json_line(event)))
        elif isinstance(event, TokenEvent):
            self._pending.append((event.origin, event.text))
        else:
            return False
        return True

    def _copied(self, event: TokenEvent | SideEvent | StreamReset) -> Generator[Output, Any, None]:
        if len(self._pending) >= self._flush_every:
            yield from self._flush()
        yield event

    def _then(self, event: StreamReset, function: Callable[[], None]) -> Generator[Output, Any, None]:
        yield from self._do(function)
        yield event

    def _ended(self, terminal: TerminalEvent) -> Generator[Output, Any, None]:
        if self._pending:
            yield from self._flush(terminal)
        if isinstance(terminal, StreamCompleted):
            yield from self._do(self._copy.complete, terminal)
        yield terminal

    def _flush(self, terminal: TerminalEvent | None = None) -> Generator[Output, Any, None]:
        pieces, self._pending = self._pending, []
        yield from self._do(partial(self._copy.write, pieces), terminal)

    def _do(self, function: Callable[[], Any], terminal: TerminalEvent | None = None) -> Generator[Output, Any, None]:
        """Have a function called that uses the copy. If it fails, end the stream or give the copy up."""
        guard = self._guard
        if guard is None:
            return
        try:
            result = yield Run(partial(guard.run, function))
            if inspect.isawaitable(result):
                yield Await(result)
        except (Exception, asyncio.CancelledError) as error:
            self._errors += 1
            self._pending = []
            if self._on_error == "detach":
                self._guard = None
                guard.close()
            else:
                yield self._failure(error, terminal)

    def _failure(self, cause: BaseException, terminal: TerminalEvent | None) -> StreamFailed:
        end = failed(TeeError(self.stream_id, cause), like=terminal)
        return end if terminal is not None else msgspec.structs.replace(end, usage=self._usage())


def json_line(event: Event) -> str:
    """An event as one line of JSON, with its line end; see `to_dict`."""
    return json.dumps(to_dict(event), ensure_ascii=False, separators=(",", ":")) + "\n"
