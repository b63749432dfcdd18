"""The topics ``$stream:<id>``: all about one stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.states import TOKEN_STREAM
from penstock.events import (
    Event,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TerminalEvent,
    TokenEvent,
    ToolExecutionStarted,
    ToolResult,
)
from penstock.gateway.board.listing import outcome_of
from penstock.gateway.board.pace import short
from penstock.gateway.board.sheets import changed
from penstock.gateway.board.topics import Topic
from penstock.gateway.core import GatewayCore
from penstock.gateway.problems import problem_of
from penstock.inspection import stream_info
from penstock.telemetry.propagation import caller_traceparent

__all__ = ["StreamTopic", "machine"]

_TEXT_EVERY: Final = 0.05  # seconds
_FACTS_EVERY: Final = 0.5
_MOST_DOTS: Final = 512
_MOST_LINES: Final = 200
_MOST_TEXT: Final = 20_000  # characters that a page gets when it is opened
_MOST_EVENTS: Final = 2_000  # that are read in one step
_HIDDEN: Final = frozenset({"stream_id", "state", "usage", "cost"})


def machine() -> dict[str, Any]:
    """The table of the state machine of streams: states, and moves as lists of from, to and when."""
    moves: dict[tuple[str, str], str] = {}
    for move in TOKEN_STREAM.moves:
        for source, target in move.pairs():
            moves.setdefault((source, target), move.when)
    return {
        "states": [[state.name, state.meaning] for state in TOKEN_STREAM.states],
        "moves": [[source, target, when] for (source, target), when in moves.items()],
    }


class StreamTopic(Topic):
    """One stream: facts, readers, a timeline, when tokens came, and with ``dashboard.show_text`` its text.

    It reads the log without subscribing: being looked at keeps no stream alive, and ends none.
    """

    def __init__(self, gateway: GatewayCore, record: StreamRecord) -> None:
        super().__init__(f"$stream:{record.stream_id}")
        self._gateway = gateway
        self.record = record
        self._shows_text = gateway.system.settings.dashboard.show_text
        self.interval = _TEXT_EVERY if self._shows_text else _FACTS_EVERY
        self.begin()

    def begin(self) -> None:
        self._seq = 0
        self._changes = 0
        self._facts: dict[str, Any] = {}
        self._facts_at = -1.0
        self._dots: list[list[Any]] = []
        self._lines: list[list[Any]] = []
        self._text: list[list[str]] = []
        self._text_size = 0
        self._last_token: float | None = None

    async def step(self) -> Mapping[str, Any] | None:
        now = self.record.runtime.clock.monotonic()
        made = self._read()
        if now - self._facts_at >= _FACTS_EVERY or self.record.is_over:
            self._facts_at = now
            facts = self._look()
            if changes := changed(self._facts, facts):
                made["facts"] = changes
            self._facts = facts
        return made or None

    def whole(self) -> Mapping[str, Any]:
        return {
            "machine": machine(),
            "facts": self._facts,
            "lines": self._lines,
            "dots": self._dots,
            "shows_text": self._shows_text,
            "text": self._text,
        }

    # --- the log -------------------------------------------------------------------------------------------------

    def _read(self) -> dict[str, Any]:
        """Read what the log has got; returns the new lines, dots and pieces of text."""
        lines: list[list[Any]] = []
        dots: list[list[Any]] = []
        text: list[list[str]] = []
        log, made = self.record.log, {}
        if self._seq + 1 < log.first_seq:  # the beginning has been folded
            self._seq = log.first_seq - 1
            snapshot = log.snapshot()
            if snapshot is not None:
                self._seq = snapshot.seq
                self._tell(snapshot, text)
        for _ in range(_MOST_EVENTS):
            event = log.get(self._seq + 1)
            if event is None:
                break
            self._seq += 1
            if isinstance(event, TokenEvent):
                dots.append(self._dot(event))
                self._tell(event, text)
            elif (line := _line(event)) is not None:
                lines.append(line)
                if isinstance(event, StreamReset):
                    text.append(["reset", ""])
        lines = self._new_changes() + lines  # read last: a stream is "ended" before its last event can be seen
        if lines:
            lines.sort(key=lambda line: (line[1] == "end", line[0]))  # the end is the last line
            self._lines = [*self._lines, *lines][-_MOST_LINES:]
            made["lines"] = lines
        if dots:
            self._dots = [*self._dots, *dots][-_MOST_DOTS:]
            made["dots"] = dots
        if text:
            self._keep(text)
            made["text"] = text
        return made

    def _new_changes(self) -> list[list[Any]]:
        count = self.record.changes.count
        new = count - self._changes
        self._changes = count
        found = self.record.state_changes()[-new:] if new else ()
        return [[round(one.time, 3), "state", f"{one.before} → {one.after}", one.cause] for one in found]

    def _dot(self, event: TokenEvent) -> list[Any]:
        """When tokens came, how long they took, each, in milliseconds, and how many they are."""
        before, self._last_token = self._last_token, event.timestamp
        count = len(event.tokens)
        gap = None if before is None or not count else short((event.timestamp - before) / count * 1000)
        return [round(event.timestamp, 3), gap, count]

    def _tell(self, event: TokenEvent, text: list[list[str]]) -> None:
        if not self._shows_text:
            return
        if isinstance(event, StreamSnapshot):
            text.append(["reset", ""])
            if event.reasoning:
                text.append(["reasoning", event.reasoning[-_MOST_TEXT:]])
            if event.text:
                text.append(["text", event.text[-_MOST_TEXT:]])
        elif text and text[-1][0] == event.kind:
            text[-1][1] += event.text
        else:
            text.append([event.kind, event.text])

    def _keep(self, text: list[list[str]]) -> None:
        for kind, piece in text:
            if kind == "reset":
                self._text, self._text_size = [], 0
            elif self._text and self._text[-1][0] == kind:
                self._text[-1] = [kind, (self._text[-1][1] + piece)[-_MOST_TEXT:]]
            else:
                self._text.append([kind, piece[-_MOST_TEXT:]])
        self._text = self._text[-20:]

    # --- facts ---------------------------------------------------------------------------------------------------

    def _look(self) -> dict[str, Any]:
        record, info = self.record, stream_info(self.record)
        statistics = msgspec.to_builtins(info.statistics, enc_hook=repr)
        numbers = {name: _rounded(value) for name, value in statistics.items() if name not in _HIDDEN}
        provider, model = record.source()
        usage, cost = info.statistics.usage, info.statistics.cost
        return numbers | {
            "id": record.stream_id,
            "state": outcome_of(record),
            "machine_state": "ended" if record.is_over else record.state,
            "provider": provider,
            "model": model,
            "trace": record.context.get(caller_traceparent, ""),
            "source": info.source,
            "attempts": info.attempts,
            "rounds": 0 if record.feed is None else record.feed.round,
            "on_orphan": record.on_orphan,
            "options": msgspec.to_builtins(info.options, enc_hook=repr),
            "usage": None if usage is None else {k: v for k, v in msgspec.structs.asdict(usage).items() if v},
            "cost": None if cost is None else [round(cost.amount, 6), cost.currency],
            "first_seq": record.log.first_seq,
            "last_seq": record.log.last_seq,
            "kept_bytes": record.log.kept_bytes,
            "subscribers_list": [
                [one.target, one.slow, one.seq, one.pending, one.lag_bytes, one.dropped] for one in info.subscribers
            ],
            "readers_list": [
                [one.protocol, one.key, one.seq, one.lag_bytes]
                for one in self._gateway.reader_infos()
                if one.stream_id == record.stream_id
            ],
            "error": _error_of(record.log.terminal),
        }


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _error_of(terminal: TerminalEvent | None) -> dict[str, Any] | None:
    if not isinstance(terminal, StreamFailed):
        return None
    problem = problem_of(terminal.error)
    return {"type": type(terminal.error).__name__, "code": problem.code, "message": problem.message}


def _line(event: Event) -> list[Any] | None:
    """A line of the timeline: when, the kind, what, and more. None: the event is none for it."""
    when = round(getattr(event, "timestamp", 0.0), 3)
    match event:
        case StreamReset():
            return [when, "reset", "the answer starts again", event.reason]
        case ToolExecutionStarted():
            return [when, "tools", ", ".join(call.name for call in event.calls), f"round {event.round}"]
        case ToolResult():
            return [when, "tool", event.name, f"{event.status} in {event.duration_s * 1000:.0f} ms"]
        case StreamFailed():
            return [when, "end", "failed", type(event.error).__name__]
        case _ if isinstance(event, TerminalEvent):
            return [when, "end", type(event).__name__.removeprefix("Stream").lower(), ""]
        case _:
            return None
