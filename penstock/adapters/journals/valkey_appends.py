"""How `ValkeyJournal` appends: all entries of a frame in one pipeline, and what makes them certain."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from penstock.adapters.journals.valkey_engine import Engine, Pauses
from penstock.adapters.journals.valkey_entries import news_of
from penstock.errors import StoreError, StoreUnavailable
from penstock.ports import Append, EntryId, StoreStatistics

__all__ = ["Appender"]

_AT_ONCE: Final = 64  # entries in one call, which stops the server for that long: about 10 µs each
_Answer = EntryId | StoreError


class Appender:
    """Appends entries.

    Args:
        engine: the server.
        key_of: the key of a log.
        confirm: at the level ``sync``, how many replicas, whether the disk, and within how many seconds.
        keep: seconds for which a log is kept after its end.
        open_and_close: what is done once an entry is stored that opens or closes a request.
    """

    def __init__(
        self,
        engine: Engine,
        key_of: Callable[[str], bytes],
        confirm: tuple[int, bool, float] | None,
        keep: float,
        open_and_close: Callable[[Append], None],
    ) -> None:
        self._engine = engine
        self._key_of = key_of
        self._is_sync = confirm is not None
        self._replicas, self._on_disk, self._within = confirm if confirm is not None else (0, False, 0.0)
        self._at_once = 1 if engine.is_cluster else _AT_ONCE  # a call may have keys of one slot only
        self._keep = b"%d" % round(keep * 1000)
        self._open_and_close = open_and_close
        self._lock = threading.Lock()
        self.counts = StoreStatistics()

    def append_all(self, appends: Sequence[Append]) -> list[_Answer]:
        """Append entries; see `LogStore.append_all`."""
        self._engine.check_open()
        answers: list[_Answer | None] = [None] * len(appends)
        keys = [self._key_of(append.log) for append in appends]
        pauses = Pauses(self._engine.patience, self._engine.closed)
        todo = list(range(len(appends)))
        while True:
            broken = self._append_some(todo, appends, keys, answers)
            failed = {keys[index] for index in todo if self._may_repeat(answers[index])}
            if not failed or not pauses.wait():
                break
            self._engine.check_open()
            todo = [index for index in todo if keys[index] in failed]  # the others of those logs expected them
        found = [answer for answer in answers if answer is not None]
        self._count(appends, found)
        if broken is not None and all(isinstance(answer, StoreError) for answer in found):
            raise broken
        return found

    def _may_repeat(self, answer: _Answer | None) -> bool:
        return isinstance(answer, StoreError) and answer.retryable

    def _append_some(
        self, todo: Sequence[int], appends: Sequence[Append], keys: Sequence[bytes], answers: list[_Answer | None]
    ) -> StoreError | None:
        """Append some of them, and note the answers; returns the error of a connection."""
        broken: StoreError | None = None
        homes: dict[str, list[int]] = {}
        for index in todo:
            try:
                homes.setdefault(self._engine.home_of(keys[index]), []).append(index)
            except StoreError as error:
                answers[index] = broken = error
        for home, indices in homes.items():
            batch = [appends[index] for index in indices]
            try:
                found = self._at_home(home, batch, [keys[index] for index in indices])
            except Exception as error:
                self._engine.repair(error)
                broken = error if isinstance(error, StoreError) else self._engine.translated(error)
                found = [broken] * len(batch)
            for index, append, answer in zip(indices, batch, found, strict=True):
                if answer == append.entry.id and (append.opens is not None or append.closes):
                    answer = self._opened_and_closed(append)
                answers[index] = answer
        return broken

    def _opened_and_closed(self, append: Append) -> _Answer:
        try:
            self._open_and_close(append)
        except StoreError as error:
            return error  # the append is repeated, and this with it
        return append.entry.id

    def _at_home(self, home: str, batch: Sequence[Append], keys: Sequence[bytes]) -> list[_Answer]:
        """Append entries at one primary."""
        messages = [news_of(append.expected, append.entry) for append in batch]
        function = self._engine.function("append")
        ending = (b"0" if self._is_sync else b"1", self._keep)
        commands: list[tuple[Any, ...]] = []
        for first in range(0, len(batch), self._at_once):
            some, of = keys[first : first + self._at_once], batch[first : first + self._at_once]
            lapses = [b"%d" % round(append.lapses * 1000) for append in of] if any(one.lapses for one in of) else []
            sent = messages[first : first + self._at_once]
            commands.append(("FCALL", function, len(some), *some, *sent, *ending, *lapses))
        if self._is_sync:
            commands.append(self._waiting)
        answered = self._engine.pipeline(home, commands)
        unconfirmed = self._unconfirmed(answered.pop()) if self._is_sync else None
        results: list[Any] = []
        for command, answer in zip(commands, answered, strict=False):
            results += answer if isinstance(answer, list) else [answer] * command[2]
        answers = [self._answer(append, result) for append, result in zip(batch, results, strict=True)]
        for answer in answers:
            if isinstance(answer, StoreError) and self._may_repeat(answer):
                self._engine.repair(next(result for result in results if isinstance(result, Exception)))
                break
        if not self._is_sync:
            return answers
        stored = [index for index, append in enumerate(batch) if answers[index] == append.entry.id]
        if unconfirmed is not None:
            for index in stored:
                answers[index] = unconfirmed
        elif stored:
            self._publish(home, [(keys[index], messages[index]) for index in stored])
        return answers

    def _answer(self, append: Append, result: object) -> _Answer:
        if result == 1:
            return append.entry.id
        if isinstance(result, bytes):
            return EntryId.parse(result.decode())
        assert isinstance(result, Exception), type(result)
        return self._engine.translated(result)

    def _publish(self, home: str, news: Sequence[tuple[bytes, bytes]]) -> None:
        """Publish what is stored. If it fails, all of it is repeated."""
        commands: list[tuple[Any, ...]] = []
        for first in range(0, len(news), self._at_once):
            keys, messages = zip(*news[first : first + self._at_once], strict=True)
            commands.append(("FCALL", self._engine.function("publish"), len(keys), *keys, *messages))
        for result in self._engine.pipeline(home, commands):
            if isinstance(result, Exception):
                raise self._engine.translated(result)

    # --- the level sync ------------------------------------------------------------------------------------------

    @property
    def _waiting(self) -> tuple[Any, ...]:
        within = max(1, round(self._within * 1000))
        if self._on_disk:
            return ("WAITAOF", 1, self._replicas, within)
        return ("WAIT", self._replicas, within)

    def _unconfirmed(self, result: Any) -> StoreError | None:
        """The error that the answer to `_waiting` means, if any."""
        if isinstance(result, Exception):
            return self._engine.translated(result)
        disks, replicas = result if self._on_disk else (1, result)
        if replicas >= self._replicas and disks >= 1:
            return None
        within = f"within {self._within:g} s"
        if disks < 1:
            return StoreUnavailable(self._engine.name, f"the disk has not confirmed an append {within}")
        reason = f"{replicas} of {self._replicas} replicas have confirmed an append {within}"
        return StoreUnavailable(self._engine.name, reason)

    def confirm(self, key: bytes) -> None:
        """At the level ``sync``, wait until what is in a log now is confirmed.

        Raises:
            StoreUnavailable: it is not.
        """
        if not self._is_sync:
            return
        home = self._engine.home_of(key)
        try:
            touched, confirmed = self._engine.pipeline(
                home, [("FCALL", self._engine.function("touch"), 1, key), self._waiting]
            )
        except StoreError:
            raise
        except Exception as error:
            raise self._engine.translated(error) from error
        if isinstance(touched, Exception):
            raise self._engine.translated(touched)
        unconfirmed = self._unconfirmed(confirmed)
        if unconfirmed is not None:
            raise unconfirmed

    # --- counting ------------------------------------------------------------------------------------------------

    def _count(self, appends: Sequence[Append], answers: Sequence[_Answer]) -> None:
        stored = sum(answer == append.entry.id for answer, append in zip(answers, appends, strict=True))
        failed = sum(isinstance(answer, StoreError) for answer in answers)
        with self._lock:
            counts = self.counts
            self.counts = msgspec.structs.replace(
                counts,
                appends=counts.appends + stored,
                refused=counts.refused + len(appends) - stored - failed,
                transactions=counts.transactions + 1,
                failures=counts.failures + failed,
            )
