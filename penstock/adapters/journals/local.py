"""What a log store does within one process: watches, commands, limits and nodes."""

from __future__ import annotations

import heapq
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from penstock.adapters.journals.command_threads import CommandThreads
from penstock.config.checks import check_number
from penstock.config.logs import get_logger
from penstock.errors import CallTimeout, NoOwner, OptionError, StoreDamaged, StoreError
from penstock.ports import EMPTY, Append, Clock, Entry, EntryId, Limit, LogFrame, LogWatcher, NodeInfo, Registration

__all__ = [
    "Cancels",
    "Commands",
    "Lapses",
    "LogWatch",
    "LogWatches",
    "Nodes",
    "SharedLimits",
    "WithinProcess",
    "answer_of",
    "check_append",
]


def check_append(append: Append) -> None:
    """Raise `OptionError` if an append can never succeed."""
    if append.entry.id <= append.expected:
        raise OptionError("entry.id", str(append.entry.id), f"more than {append.expected}")
    if not 0 < len(append.log) <= 512:
        raise OptionError("log", append.log, "1 to 512 characters")


def answer_of(answers: Sequence[EntryId | StoreError]) -> EntryId:
    """The tail that is the answer to one append; raises the error that it is instead."""
    (answer,) = answers
    if isinstance(answer, StoreError):
        raise answer
    return answer


class LogWatch:
    """One watcher of one log. `pump` may be called by any thread; the watcher is called by one at a time."""

    def __init__(
        self,
        log: str,
        after: EntryId,
        watcher: LogWatcher,
        read: Callable[[str, EntryId], Sequence[Entry]],
        tail: Callable[[str], EntryId],
        close: Callable[[LogWatch], None],
    ) -> None:
        self.log = log
        self._after = after
        self._watcher = watcher
        self._read = read
        self._tail = tail
        self._close = close
        self._lock = threading.Lock()
        self._has_news = False
        self._is_closed = False

    def pump(self) -> None:
        """Give the watcher what is new. Returns at once if another thread is doing that."""
        self._has_news = True
        while self._has_news and self._lock.acquire(blocking=False):
            try:
                self._has_news = False
                if not self._is_closed:
                    self._give()
            except StoreDamaged as error:  # the log cannot be read on, however often it is tried
                self.close()
                self._watcher.failed(error)
            except StoreError as error:
                self._watcher.failed(error)
            except Exception as error:  # of one watcher; it is no fault of the thread that appends
                get_logger().error("store_subscriber_failed", error=type(error).__name__, exc_info=error)
            finally:
                self._lock.release()

    def _give(self) -> None:
        entries = self._read(self.log, self._after)
        if entries:
            self._after = entries[-1].id
            self._watcher.entries(entries)
        elif self._after != EMPTY and (tail := self._tail(self.log)) < self._after:
            self._after = tail
            self._watcher.rewound(tail)

    def close(self) -> None:
        """End the watch."""
        self._is_closed = True
        self._close(self)


class LogWatches:
    """All watches of a store, by log."""

    def __init__(self, read: Callable[[str, EntryId], Sequence[Entry]], tail: Callable[[str], EntryId]) -> None:
        self._read = read
        self._tail = tail
        self._lock = threading.Lock()
        self._watches: dict[str, list[LogWatch]] = {}

    def add(self, log: str, after: EntryId, watcher: LogWatcher) -> LogWatch:
        """Begin a watch, and give it what is there."""
        watch = LogWatch(log, after, watcher, self._read, self._tail, self._remove)
        with self._lock:
            self._watches.setdefault(log, []).append(watch)
        watch.pump()
        return watch

    def _remove(self, watch: LogWatch) -> None:
        with self._lock:
            left = [one for one in self._watches.get(watch.log, ()) if one is not watch]
            if left:
                self._watches[watch.log] = left
            else:
                self._watches.pop(watch.log, None)

    def changed(self, log: str) -> None:
        """Give the watchers of a log what is new. Call it without a lock of the store."""
        if self._watches:
            with self._lock:
                watches = list(self._watches.get(log, ()))
            for watch in watches:
                watch.pump()


class Commands:
    """Functions of the process that carry out commands, by log. Each command runs in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.threads = CommandThreads()
        self._served: dict[str, tuple[str, Callable[[bytes], bytes]]] = {}

    def serve(self, log: str, carry_out: Callable[[bytes], bytes]) -> _Served:
        """Carry out the commands to a log from now on, instead of a function that did so before."""
        token = uuid.uuid4().hex
        with self._lock:
            self._served[log] = token, carry_out
        return _Served(self, log, token)

    def remove(self, log: str, token: str) -> None:
        """Stop carrying out commands to a log, unless another function does by now."""
        with self._lock:
            found = self._served.get(log)
            if found is not None and found[0] == token:
                del self._served[log]

    def send(self, log: str, command: bytes, timeout: float) -> bytes:
        """Have a command carried out; see `LogStore.command`."""
        check_number("timeout", timeout, 0, 86_400)
        found = self._served.get(log)
        if found is None:
            raise NoOwner(log)
        until = time.monotonic() + timeout
        reply: Future[bytes] = Future()
        carry_out = found[1]

        def work() -> None:
            try:
                reply.set_result(carry_out(command))
            except Exception as error:
                reply.set_exception(error)

        if not self.threads.start(log, work, timeout):
            raise CallTimeout(f"a command to stream {log!r}", timeout)
        try:
            return reply.result(max(0.0, until - time.monotonic()))
        except FutureTimeout:
            raise CallTimeout(f"a command to stream {log!r}", timeout) from None
        except Exception as error:
            raise CallTimeout(f"a command to stream {log!r}", timeout) from error


class _Served:
    def __init__(self, commands: Commands, log: str, token: str) -> None:
        self._commands = commands
        self._log = log
        self._token = token

    def close(self) -> None:
        self._commands.remove(self._log, self._token)


class SharedLimits:
    """SharedLimits by the generic cell rate algorithm: one number for each, the time at which it is whole again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._whole_at: dict[str, float] = {}

    def take(self, limit: Limit, cost: float) -> float:
        """Take from a limit; see `LogStore.take`."""
        check_number("cost", cost, 0, limit.burst)
        with self._lock:
            now = self._clock.monotonic()
            whole_at = max(now, self._whole_at.get(limit.key, now)) + cost / limit.per_second
            wait = whole_at - now - limit.burst / limit.per_second
            if wait > 1e-9:
                return wait
            self._whole_at[limit.key] = whole_at
            if len(self._whole_at) > 10_000:
                self._whole_at = {key: at for key, at in self._whole_at.items() if at > now}
            return 0.0


class Nodes:
    """The nodes that have announced themselves in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._nodes: dict[str, tuple[NodeInfo, float]] = {}

    def announce(self, info: NodeInfo, lease: float) -> None:
        """Enter or renew a node; see `LogStore.announce`."""
        with self._lock:
            if lease > 0:
                self._nodes[info.node] = info, self._clock.monotonic() + lease
            else:
                self._nodes.pop(info.node, None)

    def living(self) -> dict[str, NodeInfo]:
        """Those that have not expired, by name."""
        with self._lock:
            now = self._clock.monotonic()
            return {node: info for node, (info, until) in sorted(self._nodes.items()) if until > now}


class Cancels:
    """The logs that were cancelled not long ago."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def add(self, log: str, lease: float) -> None:
        """Mark a log; see `LogStore.cancel`."""
        with self._lock:
            now = self._clock.monotonic()
            self._until = {one: until for one, until in self._until.items() if until > now}
            self._until[log] = now + lease

    def has(self, log: str) -> bool:
        """Whether a log is marked."""
        return self._until.get(log, 0.0) > self._clock.monotonic()


class Lapses:
    """The logs that are to be removed at a time; see `Append.lapses`. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []  # with entries that do not count any more

    def note(self, append: Append) -> None:
        """Note what an append that is stored says about the removal of its log."""
        is_end = isinstance(append.entry, LogFrame) and append.entry.is_last
        with self._lock:
            if append.lapses:
                until = self._until[append.log] = self._clock.monotonic() + append.lapses
                heapq.heappush(self._heap, (until, append.log))
            elif is_end:
                self._until.pop(append.log, None)

    def forget(self, log: str) -> None:
        """Note that a log has been removed."""
        self._until.pop(log, None)

    def take_due(self) -> list[str]:
        """The logs that are to be removed now, once."""
        found: list[str] = []
        if not self._heap:
            return found
        with self._lock:
            now = self._clock.monotonic()
            while self._heap and self._heap[0][0] <= now:
                until, log = heapq.heappop(self._heap)
                if self._until.get(log) == until:
                    del self._until[log]
                    found.append(log)
        return found


class WithinProcess:
    """The part of a log store that needs no engine, where only one process writes: watches, commands, limits, nodes.

    Args:
        clock: of the store.
        watches: of its logs.
    """

    def __init__(self, clock: Clock, watches: LogWatches) -> None:
        self._watches = watches
        self._commands = Commands()
        self._cancels = Cancels(clock)
        self._limits = SharedLimits(clock)
        self._nodes = Nodes(clock)
        self._lapses = Lapses(clock)

    def _check_open(self) -> None:
        """Raise a `StoreError` if the store has been closed, or cannot be used in this process."""
        raise NotImplementedError

    def watch(self, log: str, after: EntryId, watcher: LogWatcher) -> Registration:
        """Watch a log. The watcher is called in the threads that append."""
        self._check_open()
        return self._watches.add(log, after, watcher)

    def command(self, log: str, command: bytes, timeout: float) -> bytes:
        """Have a command carried out; see `penstock.ports.LogStore.command`."""
        self._check_open()
        return self._commands.send(log, command, timeout)

    def serve(self, log: str, carry_out: Callable[[bytes], bytes]) -> Registration:
        """Carry out commands; see `penstock.ports.LogStore.serve`."""
        self._check_open()
        return self._commands.serve(log, carry_out)

    def cancel(self, log: str, lease: float) -> None:
        """Mark a log as cancelled; see `penstock.ports.LogStore.cancel`."""
        self._check_open()
        self._cancels.add(log, lease)

    def take(self, limit: Limit, cost: float = 1.0) -> float:
        """Take from a limit; see `penstock.ports.LogStore.take`."""
        self._check_open()
        return self._limits.take(limit, cost)

    def announce(self, info: NodeInfo, lease: float) -> None:
        """Enter a node; see `penstock.ports.LogStore.announce`."""
        self._check_open()
        self._nodes.announce(info, lease)
