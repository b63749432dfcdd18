"""Requests that are carried out once, however often they are sent (``Idempotency-Key``)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from penstock.config.logs import get_logger
from penstock.errors import StoreDamaged, StoreError, describe_reason
from penstock.events.codec import CodecError, decode_value, encode_value
from penstock.gateway.problems import Problem, RequestRefused
from penstock.ports import EMPTY, Append, Entry, EntryId, LogFrame, LogStore, OwnerMark, next_epoch

__all__ = ["Once", "SharedOnce"]

T = TypeVar("T")
_KEPT: Final = 10_000
_SECONDS: Final = 86_400.0
_PATIENCE: Final = 30.0
_BEGUN, _TAKEN_BACK, _LEFT = "open", "failed", "left"  # reasons of marks
_TAKEN_BACK_FOR: Final = 60.0  # seconds that a log is kept of which nothing is left but this
_LOOK: Final = 0.05  # seconds between two looks whether another node has opened the stream
_MOST_OWED: Final = 1_000


class _KeyedRequest(msgspec.Struct, Generic[T]):
    digest: bytes
    result: asyncio.Task[T]
    at: float


class Once(Generic[T]):
    """Results by key, for a day and for the last 10,000 keys. Used on one loop."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, _KeyedRequest[T]] = OrderedDict()
        self._running: set[asyncio.Task[T]] = set()  # also those that were forgotten

    async def once(self, key: Hashable, body: bytes, run: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """Run it, unless it has been under this key. Returns the result, and whether this call has made it.

        A caller that is cancelled ends neither the run nor the other callers that wait for it. A run that fails is
        forgotten.

        Raises:
            RequestRefused: the key was used with another body (422).
        """
        loop = asyncio.get_running_loop()
        digest = hashlib.sha256(body).digest()
        self._forget(loop.time())
        known = self._entries.get(key)
        if known is not None:
            if known.digest != digest:
                raise _reused()
            return await asyncio.shield(known.result), False
        task = loop.create_task(run())
        self._entries[key] = _KeyedRequest(digest, task, loop.time())
        self._running.add(task)
        task.add_done_callback(lambda task: self._ended(key, task))
        return await asyncio.shield(task), True

    def _ended(self, key: Hashable, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        if task.cancelled() or task.exception() is not None:
            known = self._entries.get(key)
            if known is not None and known.result is task:
                del self._entries[key]

    def _forget(self, now: float) -> None:
        while self._entries:
            key, first = next(iter(self._entries.items()))
            if len(self._entries) <= _KEPT and now - first.at < _SECONDS:
                return
            del self._entries[key]


class _Begun(msgspec.Struct, frozen=True):
    """The request is made by this node. ``tail``: of its log, its own mark. ``stream_id``: of the stream, also if it is
    repeated.

    ``is_left``: it was begun before, by a node that may have opened the stream.
    """

    tail: EntryId
    stream_id: str
    is_left: bool


class SharedOnce:
    """Requests that are carried out once by all nodes of a cluster: the first entry of a log decides which one does.

    A node that dies meanwhile is followed by one that waits; it finds the stream by its id, or opens it. An answer
    expires as the logs of ended streams do, a day after the request at the latest if no node has answered it. A node
    takes back only its own mark, and only if no other one has followed it. What it cannot take back since the store is
    away, it owes: `settle` does it when the store is back.

    Args:
        store: that the nodes share.
        node: the name of this node.
        number: its number.
        patience: seconds for another node that lives, and has begun the request, to open the stream.

    Attributes:
        given_up: marks that were owed and will not be taken back, as there were more than 1,000. Other nodes answer 503
            to their requests until they lapse.
    """

    def __init__(self, store: LogStore, node: str, number: int, patience: float = _PATIENCE) -> None:
        self._store = store
        self._node = node
        self._number = number
        self._patience = patience
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()  # the logs of the requests that are being made here
        # By log: the own mark, and the reason of the one that takes it back.
        self._owed: OrderedDict[str, tuple[EntryId, str]] = OrderedDict()
        self._is_settling = threading.Lock()
        self.given_up = 0

    async def once(
        self,
        key: tuple[str, str],
        body: bytes,
        stream_id: str,
        run: Callable[[str], Coroutine[Any, Any, bytes]],
        find: Callable[[str], Coroutine[Any, Any, bytes | None]],
        in_thread: Callable[..., Coroutine[Any, Any, Any]],
    ) -> tuple[str, bytes, bool]:
        """Carry out a request, unless a node has or does.

        Args:
            key: the id of the API key, and the key of the request.
            body: of the request; another one under the same key is refused.
            stream_id: the id that the request's stream gets, if this node is the one.
            run: opens the stream with an id; returns the answer.
            find: returns the answer for a stream that has been opened; None: there is none.
            in_thread: calls a function that waits for the store.

        Returns the id of the stream, the answer, and whether this call has opened the stream.

        Raises:
            RequestRefused: the key was used with another body (422), or a node has begun the request, and neither ends
                it nor dies (503).
            StoreError: the store does not work.
        """
        log = f"once\x1f{hashlib.sha256(chr(31).join(key).encode()).hexdigest()}"
        said = {"digest": hashlib.sha256(body).digest(), "stream_id": stream_id}
        until = time.monotonic() + self._patience
        while True:
            found = await in_thread(self._look, log, said)
            if isinstance(found, tuple):
                return *found, False
            if isinstance(found, _Begun):
                break
            if (known := await find(found)) is not None:
                return found, known, False
            if time.monotonic() > until:
                raise RequestRefused(_IN_USE)
            await asyncio.sleep(_LOOK)
        try:
            return await self._make(log, found, run, find, in_thread)
        finally:
            self._leave(log)

    async def _make(
        self,
        log: str,
        found: _Begun,
        run: Callable[[str], Coroutine[Any, Any, bytes]],
        find: Callable[[str], Coroutine[Any, Any, bytes | None]],
        in_thread: Callable[..., Coroutine[Any, Any, Any]],
    ) -> tuple[str, bytes, bool]:
        """Make a request that is this node's. Another one may have opened its stream before it died."""
        reason = _LEFT if found.is_left else _TAKEN_BACK
        try:
            data = await find(found.stream_id) if found.is_left else None
            is_new = data is None
            if data is None:
                reason = _TAKEN_BACK
                data = await run(found.stream_id)
        except BaseException:  # which is raised, whatever comes of taking back
            try:
                await asyncio.shield(asyncio.ensure_future(in_thread(self._take_back, log, found.tail, reason)))
            except Exception as error:  # the gateway's threads have ended, or a fault of ours
                self._owe(log, found.tail, reason)
                get_logger().warning("mark_not_taken_back", reason=describe_reason(error))
            raise
        await in_thread(self._end, log, found, data)
        return found.stream_id, data, is_new

    def _look(self, log: str, said: Mapping[str, Any]) -> _Begun | tuple[str, bytes] | str:
        """What has become of a request: it is this node's now; or its stream and answer; or the stream it will have."""
        entries = self._store.read(log)
        if not entries or _is_taken_back(entries[-1]):
            tail = entries[-1].id if entries else EMPTY
            return self._begin(log, tail, said, is_left=False) or str(said["stream_id"])
        first, last = self._said(log, entries), entries[-1]
        if first["digest"] != said["digest"]:
            raise _reused()
        if isinstance(last, LogFrame):
            return str(first["stream_id"]), last.data
        if last.reason == _LEFT or self._is_left(log, last.node):
            return self._begin(log, last.id, first, is_left=True) or str(first["stream_id"])
        return str(first["stream_id"])

    def _said(self, log: str, entries: Sequence[Entry]) -> Mapping[str, Any]:
        """What the node has said that has begun the request as it is now."""
        marks = [entry for entry in entries if isinstance(entry, OwnerMark) and entry.reason == _BEGUN]
        try:
            found = decode_value(marks[-1].data)
            return {"digest": found["digest"], "stream_id": found["stream_id"]}
        except (CodecError, LookupError, TypeError) as error:
            raise StoreDamaged(self._store.name, f"log {log!r} is not that of a request") from error

    def _is_left(self, log: str, node: str) -> bool:
        """Whether nothing makes a request any more: its node has died, or could not say that it has failed."""
        if node == self._node:
            with self._lock:
                return not self._running[log]
        return node not in self._store.view().nodes

    def _begin(self, log: str, tail: EntryId, said: Mapping[str, Any], *, is_left: bool) -> _Begun | None:
        mark = self._mark(tail, _BEGUN, encode_value(said))
        with self._lock:  # before the entry is there for another thread
            self._running[log] += 1
        is_ours = False
        try:
            is_ours = self._append(log, tail, mark, _SECONDS)
        except StoreError:
            self._owe(log, mark.id, _LEFT if is_left else _TAKEN_BACK)  # it may be there, and the answer be lost
            raise
        finally:
            if not is_ours:
                self._leave(log)
        if is_ours and not is_left and tail != EMPTY:
            with contextlib.suppress(StoreError):  # the next one does so
                self._store.trim(log, mark.id)  # what was taken back, so that the log does not grow
        return _Begun(mark.id, str(said["stream_id"]), is_left) if is_ours else None

    def _mark(self, tail: EntryId, reason: str, data: bytes = b"") -> OwnerMark:
        return OwnerMark(EntryId(next_epoch(tail, time.time(), self._number), 0), self._node, reason, data)

    def _append(self, log: str, tail: EntryId, entry: Entry, lapses: float = 0.0) -> bool:
        """Append an entry, if nothing has come after ``tail``; returns whether it is there."""
        (answer,) = self._store.append_all([Append(log, tail, entry, lapses=lapses)])
        if isinstance(answer, StoreError):
            raise answer
        return answer == entry.id

    def _take_back(self, log: str, tail: EntryId, reason: str) -> None:
        """Let others make a request that has failed here, unless one does already: now, or when the store is back.

        With the reason ``left``, they look first whether its stream has been opened.
        """
        append = self._taking_back(log, tail, reason)
        try:
            self._append(append.log, append.expected, append.entry, append.lapses)
        except StoreError:
            self._owe(log, tail, reason)

    def _taking_back(self, log: str, tail: EntryId, reason: str) -> Append:
        lapses = _TAKEN_BACK_FOR if reason == _TAKEN_BACK else _SECONDS
        return Append(log, tail, self._mark(tail, reason), lapses=lapses)

    def _owe(self, log: str, tail: EntryId, reason: str) -> None:
        with self._lock:
            self._owed[log] = tail, reason
            is_too_much = len(self._owed) > _MOST_OWED
            if is_too_much:
                self._owed.popitem(last=False)
                self.given_up += 1
        if is_too_much:
            get_logger().warning("idempotency_key_not_released", given_up=self.given_up)

    @property
    def is_owing(self) -> bool:
        """Whether there are marks that could not be taken back. Any thread; never waits."""
        return bool(self._owed)

    def settle(self) -> None:
        """Take back what could not be taken back while the store was away. Waits for the store, once.

        What fails again is still owed. If another thread is doing so, it returns at once.
        """
        if not self._is_settling.acquire(blocking=False):
            return
        try:
            with self._lock:
                owed = list(self._owed.items())
            with contextlib.suppress(StoreError):  # it is still away
                answers = self._store.append_all([self._taking_back(log, *owing) for log, owing in owed])
                for (log, owing), answer in zip(owed, answers, strict=True):
                    if not (isinstance(answer, StoreError) and answer.retryable):
                        self._settled(log, owing)
        finally:
            self._is_settling.release()

    def _settled(self, log: str, owing: tuple[EntryId, str]) -> None:
        with self._lock:
            if self._owed.get(log) == owing:
                del self._owed[log]

    def _leave(self, log: str) -> None:
        with self._lock:
            self._running[log] -= 1
            if not self._running[log]:
                del self._running[log]

    def _end(self, log: str, begun: _Begun, data: bytes) -> None:
        with contextlib.suppress(StoreError):  # the stream is there, and others find it by its id
            self._append(log, begun.tail, LogFrame(EntryId(begun.tail.epoch, 1), 1, data, is_last=True))


def _is_taken_back(entry: Entry) -> bool:
    return isinstance(entry, OwnerMark) and entry.reason == _TAKEN_BACK


_IN_USE: Final = Problem(
    status=503,
    type="server_error",
    code="idempotency_key_in_use",
    message="The first request with this Idempotency-Key has not been answered yet. Try again.",
    retry_after=1.0,
)


def _reused() -> RequestRefused:
    text = "This Idempotency-Key was used with another body."
    return RequestRefused(
        Problem(status=422, type="invalid_request_error", code="idempotency_key_reused", message=text)
    )
