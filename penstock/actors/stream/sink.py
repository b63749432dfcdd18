"""The writing end of a stream: see `penstock.ports.Sink`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.actors.runtime.dispatcher import check_process
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.stream.messages import Cancel, Complete, Fail, Reset
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.record import StreamRecord
from penstock.errors import PenstockError
from penstock.events import FrozenDict, Phase, SideEvent, TerminalEvent, TokenKind

__all__ = ["StreamSink"]


class StreamSink:
    """Feeds one stream without blocking. Implements `penstock.ports.Sink`."""

    def __init__(self, record: StreamRecord) -> None:
        self._record = record

    @property
    def is_over(self) -> bool:
        """See `Sink.is_over`."""
        return self._record.is_over

    def push_now(
        self, tokens: Sequence[tuple[str, TokenKind]], on_room: Callable[[], None], *, whole: bool = False
    ) -> int:
        """See `Sink.push_now`."""
        return self._record.intake.push_now(tokens, on_room, whole=whole)

    def push_event(self, event: SideEvent) -> bool:
        """See `Sink.push_event`."""
        return self._record.intake.push_event(event)

    def offer_event(self, event: SideEvent, on_room: Callable[[], None]) -> bool:
        """See `Sink.offer_event`."""
        return self._record.intake.offer_event(event, on_room)

    def start_part(self, part: int, phase: Phase | None = None, origin: str | None = None) -> bool:
        """See `Sink.start_part`."""
        return self._record.intake.start_part(part, phase, origin)

    def annotate(self, changes: Mapping[str, Any]) -> None:
        """See `Sink.annotate`."""
        self._record.metadata = FrozenDict({**self._record.metadata, **changes})

    def reset(self, reason: str, on_done: Callable[[bool], None], origin: str | None = None) -> None:
        """See `Sink.reset`."""
        check_process(self._record.runtime.dispatcher)
        ref = self._record.ref
        if self._record.is_over or ref is None:
            on_done(self._record.is_over)
            return
        reply = ref.ask(Reset(reason, origin), block=False)

        def answered() -> None:
            try:
                reply.get(timeout=0)
            except PenstockError:
                on_done(self._record.is_over)
            else:
                on_done(True)

        reply.when_done(answered)

    def end(
        self,
        error: PenstockError | None = None,
        *,
        like: TerminalEvent | None = None,
        at_once: bool = False,
    ) -> None:
        """See `Sink.end`."""
        check_process(self._record.runtime.dispatcher)
        outcome = None if like is None else _outcome_of(like)
        if error is None:
            self._record.propose(Complete(outcome))
        else:
            self._record.propose(Cancel(None, error, outcome) if at_once else Fail(error, outcome))

    def attach(
        self,
        feeder: object | None,
        let_go: Callable[[], None],
        *,
        kind: str,
        parents: Sequence[str] = (),
        counters: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """See `Sink.attach`."""
        record = self._record
        assert feeder is None or isinstance(feeder, ProcessRef)
        record.feeder, record.kind, record.parents, record.let_go = feeder, kind, tuple(parents), let_go
        record.source_counters = counters
        if record.is_over:  # before it had a feeder
            let_go()

    def note_parent(self, stream_id: str) -> None:
        """See `Sink.note_parent`."""
        self._record.parents = (*self._record.parents, stream_id)

    def cancel(self, reason: str | None = None) -> None:
        """See `Sink.cancel`."""
        check_process(self._record.runtime.dispatcher)
        self._record.propose(Cancel(reason))


def _outcome_of(terminal: TerminalEvent) -> Outcome:
    """What a terminal event says beside the text."""
    facts = {
        name: getattr(terminal, name)
        for name in Outcome.__struct_fields__
        if name not in ("text", "reasoning") and hasattr(terminal, name)
    }
    return Outcome(**facts)
