"""RemoteCommands between the processes that share a `ValkeyJournal`: a message to the owner, and one back."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final

from penstock.adapters.journals.command_threads import CommandThreads
from penstock.adapters.journals.valkey_engine import Engine, Pauses
from penstock.adapters.journals.valkey_listener import Listener
from penstock.config.checks import check_number
from penstock.config.logs import get_logger
from penstock.errors import CallTimeout, NoOwner, StoreError

__all__ = ["RemoteCommands"]

_DONE, _FAILED, _NOBODY, _BUSY = b"d", b"f", b"n", b"b"
_KNOWN: Final = 64  # commands of one log that are remembered
_SUBSCRIBING: Final = 1.0  # seconds to wait for the server's confirmation; without it, it goes on in the background


class RemoteCommands:
    """Sends commands, and carries them out.

    Args:
        engine: the server.
        listener: its subscriptions.
        channel_of: the channel of a log's commands.
        replies: the channel of the replies to this process.
        owner_wait: seconds for which a log may be without an owner before `NoOwner` is raised.
    """

    def __init__(
        self,
        engine: Engine,
        listener: Listener,
        channel_of: Callable[[str], bytes],
        replies: bytes,
        owner_wait: float,
    ) -> None:
        self._engine = engine
        self._listener = listener
        self._channel_of = channel_of
        self._replies = replies
        self._owner_wait = owner_wait
        self._lock = threading.Lock()
        self._served: dict[str, _Serving] = {}
        self._waiting: dict[bytes, SimpleQueue[bytes]] = {}
        self._are_replies_on: threading.Event | None = None
        self.threads = CommandThreads()

    # --- carrying out --------------------------------------------------------------------------------------------

    def serve(self, log: str, carry_out: Callable[[bytes], bytes]) -> _Serving:
        """Carry out the commands to a log from now on, instead of a function that did so before."""
        served = _Serving(self, log, carry_out)
        with self._lock:
            before = self._served.get(log)
            self._served[log] = served
        self._listener.add(self._channel_of(log), served)
        served.confirmed.wait(_SUBSCRIBING)
        if before is not None:
            self._listener.remove(self._channel_of(log), before)
        return served

    def remove(self, served: _Serving) -> None:
        """Stop, unless another function serves the log by now."""
        with self._lock:
            if self._served.get(served.log) is not served:
                return
            del self._served[served.log]
        self._listener.remove(self._channel_of(served.log), served)

    def server_of(self, log: str) -> _Serving | None:
        """What serves a log in this process."""
        return self._served.get(log)

    def reply(self, data: bytes, kind: bytes, said: bytes = b"") -> None:
        """Answer a command; ``data`` is the message it came with."""
        id, channel, _ = data.split(b" ", 2)
        message = b"%b %b%b" % (id, kind, said)
        try:
            self._engine.run(channel, lambda client: client.execute_command("SPUBLISH", channel, message))
        except StoreError as error:  # the caller's time runs out
            get_logger().warning("reply_not_sent", store=self._engine.name, error=type(error).__name__)

    # --- sending -------------------------------------------------------------------------------------------------

    def send(self, log: str, command: bytes, timeout: float) -> bytes:
        """Have a command carried out; see `LogStore.command`."""
        check_number("timeout", timeout, 0, 86_400)
        self._engine.check_open()
        end = time.monotonic() + timeout
        what = f"a command to stream {log!r}"
        if not self._replies_on().wait(max(timeout, _SUBSCRIBING)):
            raise CallTimeout(what, timeout)
        id = uuid.uuid4().hex.encode()
        message = b"%b %b %b" % (id, self._replies, command)
        replies = self._waiting[id] = SimpleQueue()
        unowned = Pauses(min(self._owner_wait, timeout), self._engine.closed)
        busy = Pauses(timeout, self._engine.closed)
        try:
            while True:
                said = self._try(self._channel_of(log), message, replies, end)
                if said[:1] == _DONE:
                    return said[1:]
                if said[:1] == _FAILED:
                    raise CallTimeout(what, timeout)
                if said[:1] == _BUSY:
                    if not busy.wait():
                        raise CallTimeout(what, timeout)
                elif not unowned.wait():
                    raise NoOwner(log)
        except Empty:
            raise CallTimeout(what, timeout) from None
        finally:
            del self._waiting[id]

    def _try(self, channel: bytes, message: bytes, replies: SimpleQueue[bytes], end: float) -> bytes:
        count = self._engine.run(channel, lambda client: client.execute_command("SPUBLISH", channel, message))
        for _ in range(count):
            said = replies.get(timeout=max(end - time.monotonic(), 0.001))
            if said[:1] != _NOBODY:
                return said
        return _NOBODY

    def _replies_on(self) -> threading.Event:
        with self._lock:
            found = self._are_replies_on
            if found is None:
                found = self._are_replies_on = threading.Event()
                self._listener.add(self._replies, _Replies(self._waiting, found))
        return found


class _Serving:
    """What carries out the commands to one log. Implements `Subscriber` and `penstock.ports.Registration`."""

    def __init__(self, commands: RemoteCommands, log: str, carry_out: Callable[[bytes], bytes]) -> None:
        self.log = log
        self.confirmed = threading.Event()
        self._commands = commands
        self._carry_out = carry_out
        self._known: deque[bytes] = deque(maxlen=_KNOWN)  # a command whose sending was repeated comes twice

    def ready(self) -> bool:
        self.confirmed.set()
        return True

    def message(self, data: bytes) -> bool:
        current = self._commands.server_of(self.log)
        id = data.partition(b" ")[0]
        if current is None:
            self._commands.reply(data, _NOBODY)
        elif current is self and id not in self._known:
            if self._commands.threads.start(self.log, partial(self._work, data)):
                self._known.append(id)
            else:
                self._commands.reply(data, _BUSY)
        return True

    def lost(self, error: StoreError) -> None:
        pass  # the caller finds nothing to talk to, and tries again

    def _work(self, data: bytes) -> None:
        try:
            said = self._carry_out(data.split(b" ", 2)[2])
        except Exception as error:
            get_logger().warning("command_failed", stream_id=self.log, error=type(error).__name__)
            self._commands.reply(data, _FAILED)
        else:
            self._commands.reply(data, _DONE, said)

    def close(self) -> None:
        """Carry out nothing more."""
        self._commands.remove(self)


class _Replies:
    """Listens to the replies to this process."""

    def __init__(self, waiting: dict[bytes, SimpleQueue[bytes]], is_on: threading.Event) -> None:
        self._waiting = waiting
        self._is_on = is_on

    def ready(self) -> bool:
        self._is_on.set()
        return True

    def message(self, data: bytes) -> bool:
        id, _, said = data.partition(b" ")
        replies = self._waiting.get(id)
        if replies is not None:
            replies.put(said)
        return True

    def lost(self, error: StoreError) -> None:
        pass  # the callers' times run out
