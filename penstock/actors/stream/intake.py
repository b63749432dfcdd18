"""The way into a stream: a bounded buffer that any thread may push into, and that wakes the stream when it must look.

The stream says at which level it wants to be woken (``wait_for``); below it, a push is an append under a lock and
nothing else. There is no lock on the way of a token but this one and the mailbox's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.stream.buffer import Batch, EventBatch, TokenBuffer
from penstock.config.options import StreamOptions
from penstock.errors import BufferFull, OptionError, StreamClosed
from penstock.events import TokenKind, ToolEvent
from penstock.ports import Clock

__all__ = ["Intake"]

_NEVER: Final = 1 << 62
_FOREVER: Final = float("inf")


class Intake:
    """Pushed by anybody, emptied by one stream. It outlives the stream's actor, and so do the tokens in it."""

    __slots__ = (
        "_clock",
        "_dispatcher",
        "_epoch",
        "_lock",
        "_options",
        "_waiters",
        "_wake",
        "_wake_at",
        "accepted",
        "backpressure_events",
        "buffer",
        "closed",
        "stream_id",
    )

    def __init__(self, stream_id: str, options: StreamOptions, dispatcher: Dispatcher, clock: Clock) -> None:
        self.stream_id = stream_id
        self.buffer = TokenBuffer(options.max_buffer_size)
        self.accepted = 0
        self.backpressure_events = 0  # how often somebody had to wait for room
        self.closed = False
        self._options = options
        self._dispatcher = dispatcher
        self._clock = clock
        self._lock = threading.Lock()
        self._epoch = 0  # of the actor that empties it; one that was given up must not disturb its successor
        self._wake: Callable[[], None] = _nobody
        self._wake_at = _NEVER
        self._waiters: list[threading.Lock | _Notice] | None = None

    # --- pushing, any thread -------------------------------------------------------------------------------------

    def push(self, text: str, timeout: float | None = None) -> None:
        """Take one text token, or do what ``overflow`` says.

        Raises:
            BufferFull: no room within ``timeout`` seconds (None: the stream's ``push_timeout``).
            StreamClosed: the stream has ended.
        """
        if text.__class__ is not str:
            text = _plain("text", text, "a str")
        with self._lock:
            buffer = self.buffer
            if not self.closed and buffer.offer(text):
                self.accepted += 1
                if buffer.size >= self._wake_at:
                    self._wake()  # first: an interrupted push must not leave the stream asleep
                    self._wake_at = _NEVER
                return
        self._push_rest(((text, "text"),), timeout)

    def push_all(self, texts: Iterable[str], timeout: float | None = None) -> None:
        """Take several text tokens in order, as many at a time as there is room for; see `push`."""
        tokens: list[tuple[str, TokenKind]] = [
            (text if text.__class__ is str else _plain("texts", text, "str items"), "text") for text in texts
        ]
        self._push_rest(tokens, timeout)

    def push_blocking(self, tokens: Sequence[tuple[str, TokenKind]], is_void: Callable[[], bool] | None = None) -> bool:
        """Take what a provider sent, waiting for room for as long as the stream lives; returns whether it does.

        Drop policies apply to a provider as to anybody; ``"error"`` cannot be told to one and waits. Nothing is taken
        any more, and nobody waits, once ``is_void()`` (see `wake_waiters`).
        """
        try:
            self._push_rest(tokens, _FOREVER, is_void, is_provider=True)
        except StreamClosed:
            return False
        return True

    def push_event(self, event: ToolEvent, *, is_void: Callable[[], bool] | None = None) -> bool:
        """Put a tool event behind what was pushed before it; returns whether the stream lives.

        It never waits for room, and no ``overflow`` drops it; of a tool's reports only the last waits while there is no
        room. It counts as one that waits, so that whoever pushes
        tokens is held back by it, and it makes the stream let out at once what stands before it (see `TokenStream`).
        ``is_void`` as for `push_blocking`.
        """
        with self._lock:
            if self.closed or (is_void is not None and is_void()):
                return False
            self.buffer.put_event(event)
            if self._wake_at < _NEVER:
                self._wake()  # first, as in `push`
                self._wake_at = _NEVER
            return True

    def push_now(
        self,
        tokens: Sequence[tuple[str, TokenKind]],
        on_room: Callable[[], None],
        is_void: Callable[[], bool] | None = None,
    ) -> int:
        """Take what there is room for, without waiting; returns how many tokens that were.

        If these are not all, ``on_room`` is called once when it is worth trying again, or the stream has ended. It is
        called under a lock, in any thread, and must only send a message.

        Raises:
            StreamClosed: the stream has ended, or ``is_void()``.
        """
        with self._lock:
            if self.closed or (is_void is not None and is_void()):
                raise StreamClosed(self.stream_id)
            done = self._fill(tokens, 0)
            if done < len(tokens):
                self._wait_for_room(_Notice(on_room))
            return done

    def _wait_for_room(self, latch: threading.Lock | _Notice) -> None:
        self.backpressure_events += 1
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(latch)

    def wake_waiters(self) -> None:
        """Let those who wait for room look whether they still want to."""
        with self._lock:
            self._release()

    def _push_rest(
        self,
        tokens: Sequence[tuple[str, TokenKind]],
        timeout: float | None,
        is_void: Callable[[], bool] | None = None,
        *,
        is_provider: bool = False,
    ) -> None:
        if timeout is None:
            timeout = self._options.push_timeout
        limit = None if timeout == _FOREVER else timeout
        deadline = None if limit is None else self._clock.monotonic() + limit
        done = 0
        while True:
            with self._lock:
                if self.closed or (is_void is not None and is_void()):
                    raise StreamClosed(self.stream_id)
                done = self._fill(tokens, done)
                if done == len(tokens):
                    return
                if self._options.overflow == "error" and not is_provider:
                    raise BufferFull(self.stream_id, self.buffer.max_size, 0, done)
                left = None if deadline is None else deadline - self._clock.monotonic()
                if left is not None and not left > 0:  # it has had its last look
                    raise BufferFull(self.stream_id, self.buffer.max_size, limit, done)
                latch = threading.Lock()
                latch.acquire()
                self._wait_for_room(latch)
            try:
                self._dispatcher.wait(latch, left)
            finally:
                with self._lock:
                    if self._waiters and latch in self._waiters:
                        self._waiters.remove(latch)

    def _fill(self, tokens: Sequence[tuple[str, TokenKind]], done: int) -> int:
        """Take tokens from ``done`` on, under the lock; returns how many are taken or dropped then."""
        buffer, overflow = self.buffer, self._options.overflow
        if overflow == "drop_oldest" or overflow == "drop_newest":
            for text, kind in tokens[done:]:
                self.accepted += buffer.force(text, kind, overflow)
            done = len(tokens)
        else:
            first = done
            while done < len(tokens) and buffer.offer_kind(*tokens[done]):
                done += 1
            self.accepted += done - first
        if buffer.size >= self._wake_at:
            self._wake()  # first: an interrupted push must not leave the stream asleep
            self._wake_at = _NEVER
        return done

    # --- the stream's side ---------------------------------------------------------------------------------------

    def attach(self, wake: Callable[[], None], last_event: int, epoch: int) -> None:
        """Let a (new) stream actor be woken from now on; an unfinished batch of an earlier one goes back.

        ``epoch`` is the one the log gave it. What an actor of another epoch does here has no effect.
        """
        with self._lock:
            self._epoch = epoch
            self._wake = wake
            self._wake_at = _NEVER
            self.buffer.recover(last_event)

    def wait_for(self, level: int, epoch: int) -> bool:
        """Ask to be woken when ``level`` tokens are there, or an event; False if they are there already."""
        with self._lock:
            if epoch != self._epoch:
                return True
            self._offer_room()
            if self.buffer.size >= level or self.buffer.events:
                return False
            self._wake_at = level
            return True

    def do_not_wake(self, epoch: int) -> None:
        """Whatever comes, it can wait."""
        with self._lock:
            if epoch == self._epoch:
                self._wake_at = _NEVER
                self._offer_room()

    def _offer_room(self) -> None:
        """The stream rests: let those who wait have what room there is, even if it is less than half."""
        if self._waiters and self.buffer.size < self.buffer.max_size:
            self._release()

    @property
    def size(self) -> int:
        """Tokens and tool events that wait."""
        return self.buffer.size

    @property
    def events(self) -> int:
        """Tool events that wait."""
        return self.buffer.events

    def due(self, limit: int) -> int:
        """How many of ``limit`` tokens stand before the next tool event; 0 if that is the first."""
        with self._lock:
            return self.buffer.due(limit)

    def take(self, limit: int, event_number: int, epoch: int) -> tuple[Batch | EventBatch | None, int]:
        """The next batch and the number of tokens dropped before it; to be committed or restored."""
        with self._lock:
            if epoch != self._epoch:
                return None, 0
            buffer = self.buffer
            return buffer.take(limit, event_number), buffer.dropped

    def commit(self, batch: Batch | EventBatch | None = None) -> None:
        """The batch is in the log: let those who wait for room have it.

        With ``batch``, only if nobody else has taken one meanwhile: the actor may have been given up in between.
        """
        with self._lock:
            self.buffer.commit(batch)
            if self._waiters and self.buffer.size * 2 <= self.buffer.max_size:
                self._release()

    def restore(self, batch: Batch | EventBatch | None = None) -> None:
        """The batch could not be delivered. ``batch`` as for `commit`."""
        with self._lock:
            self.buffer.restore(batch)

    def take_dropped(self, epoch: int | None = None) -> int:
        """Tokens dropped since the last batch."""
        with self._lock:
            if epoch is not None and epoch != self._epoch:
                return 0
            dropped, self.buffer.dropped = self.buffer.dropped, 0
            return dropped

    def clear(self, *, but_start: bool = False) -> int:
        """Throw away what waits, but for a `StreamStarted` if asked to spare it; returns how many tokens that were."""
        with self._lock:
            count = self.buffer.clear(but_start=but_start)
            self._release()
            return count

    def change(self, options: StreamOptions) -> None:
        """Go on with other options; nothing that is in the buffer is lost, even if it is more than the new bound."""
        with self._lock:
            self._options = options
            self.buffer.max_size = options.max_buffer_size
            self._release()

    def close(self, epoch: int | None = None) -> None:
        """Take nothing any more; who waits for room gets `StreamClosed`."""
        with self._lock:
            if epoch is not None and epoch != self._epoch:
                return
            self.closed = True
            self._wake = _nobody
            self._release()

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, None
        for latch in waiters or ():
            latch.release()


class _Notice:
    """Stands among the waiting threads' locks for somebody who is told instead."""

    __slots__ = ("release",)

    def __init__(self, on_room: Callable[[], None]) -> None:
        self.release = on_room


def _plain(field: str, text: object, allowed: str) -> str:
    """A subclass's instance as a bare str, which is all that the buffer knows."""
    if not isinstance(text, str):
        raise OptionError(field, type(text).__name__, allowed)  # not what it says: that may be token text
    return str.__str__(text)


def _nobody() -> None:
    """Who is woken when nobody is there."""
