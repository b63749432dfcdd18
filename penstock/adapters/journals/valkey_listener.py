"""The subscriptions of `ValkeyJournal`: one thread and one connection for each primary that has some.

Only that thread uses its connection, as TLS needs. Another thread that has something for it puts it into a queue, and
wakes it by a message over the server itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import deque
from typing import Any, Final, Protocol

from penstock.adapters.journals.valkey_engine import Engine
from penstock.config.logs import get_logger
from penstock.errors import StoreError, StoreUnavailable

__all__ = ["Listener", "Subscriber"]

_WAIT: Final = 1.0  # seconds for a message before the thread looks around
_RETRY: Final = 0.25  # seconds until a subscriber that could not read is asked again
_SILENCE: Final = 5.0  # seconds without a message before the server is asked whether it is there
_LONGEST_PAUSE: Final = 1.0


class Subscriber(Protocol):
    """What listens to a channel. Called by one thread of the listener at a time."""

    def ready(self) -> bool:
        """The channel is subscribed to, for the first time or again; messages may have been missed. False: ask again
        in a moment.
        """

    def message(self, data: bytes) -> bool:
        """Take a message. False: call `ready` in a moment."""

    def lost(self, error: StoreError) -> None:
        """Note that no message can come now."""


class Listener:
    """All subscriptions of a store."""

    def __init__(self, engine: Engine, prefix: str) -> None:
        self._engine = engine
        self._prefix = prefix
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    def add(self, channel: bytes, subscriber: Subscriber) -> None:
        """Subscribe. `Subscriber.ready` is called when that is done."""
        try:
            home = self._engine.home_of(channel)
        except StoreError:
            home = self._engine.homes()[0]  # it will be told where the channel is
        with self._lock:
            self._engine.check_open()
            line = self._lines.get(home)
            if line is None:
                line = self._lines[home] = _Line(self._engine, home, f"{self._prefix}:wake:{uuid.uuid4().hex}", self)
                line.start()
            line.tasks.append((channel, subscriber, True))
        line.wake()

    def remove(self, channel: bytes, subscriber: Subscriber) -> None:
        """Unsubscribe. A call that is under way may still finish."""
        with self._lock:
            lines = list(self._lines.values())
            for line in lines:
                line.tasks.append((channel, subscriber, False))
        for line in lines:
            line.wake()

    def retire(self, line: _Line) -> bool:
        """Forget a line whose primary is gone, unless it has something to do."""
        with self._lock:
            if line.tasks or self._lines.get(line.home) is not line:
                return False
            del self._lines[line.home]
            return True

    def close(self) -> None:
        """End all threads. The engine has been closed."""
        with self._lock:
            lines = list(self._lines.values())
            self._lines.clear()
        for line in lines:
            line.end()


class _Line(threading.Thread):
    """The subscriptions at one primary."""

    def __init__(self, engine: Engine, home: str, wake: str, listener: Listener) -> None:
        super().__init__(name="penstock-valkey", daemon=True)
        self._engine = engine
        self.home = home
        self._wake = wake
        self._listener = listener
        self.tasks: deque[tuple[bytes, Subscriber, bool]] = deque()
        self._subscribers: dict[bytes, list[Subscriber]] = {}
        self._leaving: dict[bytes, Subscriber] = {}  # gets what comes until the server has confirmed
        self._confirmed: set[bytes] = set()
        self._again: dict[Subscriber, float] = {}
        self._heard_at = 0.0

    # --- any thread ----------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the thread look at its tasks."""
        if threading.current_thread() is not self:
            with contextlib.suppress(Exception):  # it looks by itself within a second
                self._engine.client_at(self.home).execute_command("PUBLISH", self._wake, b"")

    def end(self) -> None:
        """Wait for the thread's end."""
        if threading.current_thread() is not self:
            self.join(2 * _WAIT)

    # --- the thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        pause = 0.02
        while not self._engine.closed.is_set():
            began = time.monotonic()
            try:
                self._listen()
            except Exception as error:
                if self._engine.closed.is_set():
                    break
                self._note_loss(error)
                if self._engine.is_cluster and not self._subscribers and self._listener.retire(self):
                    break
            pause = 0.02 if time.monotonic() - began > _SILENCE else min(2 * pause, _LONGEST_PAUSE)
            self._engine.closed.wait(pause)

    def _note_loss(self, error: Exception) -> None:
        self._confirmed.clear()
        self._leaving.clear()
        self._take_tasks(None)
        try:
            found = error if isinstance(error, StoreError) else self._engine.translated(error)
        except Exception:  # a fault of ours; the thread must go on
            found = StoreUnavailable(self._engine.name, error)
        if not isinstance(found, StoreUnavailable) or found.reason is error:
            get_logger().error("store_subscription_failed", error=type(error).__name__, exc_info=error)
        for subscribers in self._subscribers.values():
            for subscriber in subscribers:
                self._call(subscriber.lost, found)
        if self._engine.is_cluster:
            self._engine.refresh()
            for channel in list(self._subscribers):
                self._move(channel)

    def _move(self, channel: bytes) -> None:
        """Let the line of the primary that has a channel now subscribe to it."""
        with contextlib.suppress(StoreError):
            if self._engine.home_of(channel) != self.home:
                for subscriber in self._subscribers.pop(channel, ()):
                    self._listener.add(channel, subscriber)

    def _listen(self) -> None:
        """Connect, subscribe to everything, and give out messages until the connection fails."""
        pubsub: Any = self._engine.client_at(self.home).pubsub()
        try:
            pubsub.subscribe(self._wake)
            for channel in list(self._subscribers):
                pubsub.ssubscribe(channel)
            self._heard_at = time.monotonic()
            is_asked = False
            while not self._engine.closed.is_set():
                message = pubsub.get_message(timeout=_RETRY if self._again else _WAIT)
                now = time.monotonic()
                if message is not None:
                    self._heard_at, is_asked = now, False
                    self._take(message)
                elif now - self._heard_at > _SILENCE + self._engine.timeout:
                    raise StoreUnavailable(self._engine.name, "the server does not answer")
                elif now - self._heard_at > _SILENCE and not is_asked:
                    pubsub.ping()
                    is_asked = True
                self._take_tasks(pubsub)
                if self._again:
                    self._ask_again(now)
        finally:
            with contextlib.suppress(Exception):
                pubsub.close()

    def _take(self, message: dict[str, Any]) -> None:
        kind, channel = message["type"], message["channel"]
        if kind == "smessage":
            leaving = self._leaving.get(channel)
            for subscriber in self._subscribers.get(channel) or ((leaving,) if leaving is not None else ()):
                if not self._call(subscriber.message, message["data"]):
                    self._again[subscriber] = time.monotonic() + _RETRY
        elif kind == "ssubscribe":
            self._confirmed.add(channel)
            for subscriber in self._subscribers.get(channel, ()):
                self._make_ready(subscriber)
        elif kind == "sunsubscribe":
            self._confirmed.discard(channel)
            self._leaving.pop(channel, None)
            if self._subscribers.get(channel):  # the cluster has moved it
                self._engine.refresh()
                self._move(channel)

    def _take_tasks(self, pubsub: Any) -> None:
        """Note which subscribers need which channels; send that to the server if there is a connection."""
        while self.tasks:
            channel, subscriber, is_wanted = self.tasks.popleft()
            found = self._subscribers.get(channel)
            if not is_wanted:
                self._again.pop(subscriber, None)
                if found and subscriber in found:
                    found.remove(subscriber)
                    if not found:
                        del self._subscribers[channel]
                        if pubsub is not None:
                            self._leaving[channel] = subscriber
                            pubsub.sunsubscribe(channel)
                continue
            if not found:
                self._subscribers[channel] = [subscriber]
                self._confirmed.discard(channel)
                if pubsub is not None:
                    pubsub.ssubscribe(channel)
            else:
                found.append(subscriber)
                if channel in self._confirmed:
                    self._make_ready(subscriber)

    def _make_ready(self, subscriber: Subscriber) -> None:
        self._again.pop(subscriber, None)
        if not self._call(subscriber.ready):
            self._again[subscriber] = time.monotonic() + _RETRY

    def _ask_again(self, now: float) -> None:
        for subscriber in [one for one, at in self._again.items() if at <= now]:
            self._make_ready(subscriber)

    def _call(self, work: Any, *arguments: object) -> bool:
        try:
            return work(*arguments) is not False
        except Exception as error:  # of one subscriber; the others go on
            get_logger().error("store_subscriber_failed", error=type(error).__name__, exc_info=error)
            return True
