"""The history of an agent in a log store: one entry for each turn, and for each other change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from penstock.actors.agent.history import INTERRUPTED, Message, PastTurn, answer_message, read_turns
from penstock.actors.stream.storing import StoreWriter
from penstock.config.logs import get_logger
from penstock.errors import Fenced, StoreDamaged, StoreError
from penstock.events.codec import CodecError, decode_value, encode_value
from penstock.ports import EMPTY, Entry, EntryId, LogFrame, LogStore, OwnerMark, next_epoch

__all__ = ["AgentKeeper", "keep_interrupted", "log_of"]

_COMPACT_AT: Final = 1_000  # changes after which the whole history is written instead of them
_TURN, _ALL, _FORGET = "turn", "all", "forget"

Turns: TypeAlias = list[list[Message]]


class _Change(msgspec.Struct, frozen=True):
    """One change of a history; ``seq`` numbers the changes from 1."""

    seq: int
    what: str
    data: Any


def log_of(name: str) -> str:
    """The name of an agent's log. No stream has it, since ids of streams are printable."""
    return f"agent\x1f{name}"


class AgentKeeper:
    """Keeps the history of one agent. Any thread may use it; the agent's record serialises the calls.

    Args:
        writer: to the store.
        name: of the agent.
        timeout: seconds for what an agent of that name has left to be written.

    Raises:
        StoreError: the store cannot be read, or the log is damaged.
    """

    def __init__(self, writer: StoreWriter, name: str, timeout: float) -> None:
        writer.flush(timeout)  # an agent of that name may have ended just now
        self._name = name
        self._store = writer.store
        turns, tail, self._seq = _read(writer.store, name)
        self.messages: list[Message] = [message for turn in turns for message in turn]
        """Those that were stored; none for a new agent."""
        self._since_all = self._seq
        self._log = writer.open(log_of(name), {}, b"", tail=tail, encode=_encode)
        self._log.on_stored = self._stored
        self._all_at: int | None = None  # the number of a whole history that is not stored yet

    def add(self, turn: PastTurn, whole: Callable[[], Sequence[Message]]) -> None:
        """Keep a new turn. ``whole`` gives all messages without the instructions, where they are to be written."""
        if self._since_all >= _COMPACT_AT:
            self.replace(whole())
        else:
            self._change(_TURN, list(turn.messages))

    def replace(self, messages: Sequence[Message]) -> None:
        """Keep these messages instead of all turns."""
        self._since_all = 0
        self._all_at = self._seq + 1
        self._change(_ALL, list(messages))

    def forget(self, count: int) -> None:
        """Forget the newest turns."""
        if count:
            self._change(_FORGET, count)

    def _change(self, what: str, data: Any) -> None:
        self._since_all += 1
        try:
            self._log.append(_Change(self._seq + 1, what, data))
        except (StoreError, Fenced) as error:
            get_logger(agent=self._name).error("turn_not_stored", error=type(error).__name__)
        else:
            self._seq += 1

    def _stored(self, seq: int) -> None:
        """Remove what a whole history has made needless. Called by the writer's thread."""
        if self._all_at is not None and seq >= self._all_at:
            self._all_at = None
            try:
                self._compact()
            except (StoreError, CodecError) as error:  # the writer's thread has other logs to write
                get_logger(agent=self._name).warning("history_not_compacted", error=type(error).__name__)

    def _compact(self) -> None:
        frames = (entry for entry in self._store.read(log_of(self._name)) if isinstance(entry, LogFrame))
        first = max((frame.first for frame in frames if _ALL in _whats(frame)), default=0)
        ids = [entry.id for entry in self._store.read(log_of(self._name)) if isinstance(entry, LogFrame)]
        found = next((id for id in ids if id.seq >= first), None)
        if found is not None:
            self._store.trim(log_of(self._name), found)


def _whats(frame: LogFrame) -> list[str]:
    return [what for what, _ in decode_value(frame.data)]


def _encode(changes: Sequence[_Change]) -> bytes:
    return encode_value([[change.what, change.data] for change in changes])


def _read(store: LogStore, name: str) -> tuple[Turns, EntryId, int]:
    """The turns, the tail and the number of changes of an agent's log."""
    entries = store.read(log_of(name))
    turns: Turns = []
    try:
        for entry in entries:
            if isinstance(entry, LogFrame):
                for what, data in decode_value(entry.data):
                    _apply(turns, what, data)
    except (CodecError, TypeError, ValueError) as error:
        raise StoreDamaged(store.name, f"the history of agent {name!r} cannot be read") from error
    return turns, entries[-1].id if entries else EMPTY, _last_seq(entries)


def _last_seq(entries: Sequence[Entry]) -> int:
    return next((entry.id.seq for entry in reversed(entries) if isinstance(entry, LogFrame)), 0)


def _apply(turns: Turns, what: str, data: Any) -> None:
    if what == _TURN:
        turns.append(list(data))
    elif what == _ALL:
        turns[:] = [list(turn.messages) for turn in read_turns(data)[1]]
    elif what == _FORGET:
        del turns[max(0, len(turns) - data) :]
    else:
        raise ValueError(what)


def keep_interrupted(writer: StoreWriter, facts: Mapping[str, Any], partial: str, now: float) -> None:
    """Add the turn that a former process was answering when it ended: the message, and the words so far.

    Args:
        writer: to the store that has the agent's log; the entry is written at once.
        facts: of the turn's stream: the agent's ``name`` and the user's ``message``.
        partial: the words of the answer so far.
        now: Unix time in seconds.

    Raises:
        StoreError: the store cannot be read or written, or the log is damaged.
        Fenced: an agent of that name has written meanwhile.
    """
    name, store = facts["name"], writer.store
    _, tail, seq = _read(store, name)
    mark = OwnerMark(EntryId(next_epoch(tail, now, writer.number), 0), writer.node, "takeover")
    change = _Change(seq + 1, _TURN, [facts["message"], answer_message(partial, INTERRUPTED)])
    frame = LogFrame(EntryId(mark.id.epoch, seq + 1), seq + 1, _encode([change]))
    log = log_of(name)
    if store.append(log, tail, mark) != mark.id or store.append(log, mark.id, frame) != frame.id:
        raise Fenced(log)
