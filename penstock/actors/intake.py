"""The way into a stream: a bounded buffer that any thread may push into, and that wakes the stream when it must look.

The stream says at which level it wants to be woken (``wait_for``); below it, a push is an append under a lock and
nothing else. There is no lock on the way of a token but this one and the mailbox's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from penstock.actors.flow.buffer import Batch, TokenBuffer
from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.config.options import StreamOptions
from penstock.errors import BufferFull, OptionError, StreamClosed
from penstock.events import TokenKind
from penstock.ports import Clock

__all__ = ["Intake"]

_NEVER: Final = 1 << 62


class Intake:
    """Pushed by anybody, emptied by one stream. It outlives the stream's actor, and so do the tokens in it."""

    __slots__ = (
        "_clock",
        "_dispatcher",
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
        self._wake: Callable[[], None] = _nobody
        self._wake_at = _NEVER
        self._waiters: list[threading.Lock] | None = None

    # --- pushing, any thread -------------------------------------------------------------------------------------

    def push(self, text: str, timeout: float | None = None) -> None:
        """Take one text token, or do what ``overflow`` says.

        Raises:
            BufferFull: no room within ``timeout`` seconds (None: the stream's ``push_timeout``).
            StreamClosed: the stream has ended.
        """
        if text.__class__ is not str:
            raise OptionError("text", text, "a str")
        with self._lock:
            buffer = self.buffer
            if not self.closed and buffer.offer(text):
                self.accepted += 1
                if buffer.size >= self._wake_at:
                    self._wake_at = _NEVER
                    self._wake()
                return
        self._push_rest(((text, "text"),), timeout, self._options.overflow)

    def push_all(self, texts: Iterable[str], timeout: float | None = None) -> None:
        """Take several text tokens in order, as many at a time as there is room for; see `push`."""
        tokens = [(text, "text") for text in texts]
        for text, _ in tokens:
            if text.__class__ is not str:
                raise OptionError("texts", text, "str items")
        self._push_rest(tokens, timeout, self._options.overflow)  # type: ignore[arg-type]

    def push_blocking(self, tokens: Sequence[tuple[str, TokenKind]]) -> bool:
        """Take what a provider sent, waiting for room for as long as the stream lives; returns whether it does.

        Drop policies apply to a provider as to anybody; ``"error"`` cannot be told to one and waits.
        """
        overflow = self._options.overflow
        try:
            self._push_rest(tokens, float("inf"), "block" if overflow == "error" else overflow)
        except StreamClosed:
            return False
        return True

    def _push_rest(self, tokens: Sequence[tuple[str, TokenKind]], timeout: float | None, overflow: str) -> None:
        if timeout is None:
            timeout = self._options.push_timeout
        forever = timeout is None or timeout == float("inf")
        deadline = _NEVER if forever or timeout is None else self._clock.monotonic() + timeout
        done = 0
        while True:
            with self._lock:
                if self.closed:
                    raise StreamClosed(self.stream_id)
                done = self._fill(tokens, done, overflow)
                if done == len(tokens):
                    return
                if overflow == "error":
                    raise BufferFull(self.stream_id, self.buffer.max_size, 0, done)
                self.backpressure_events += 1
                latch = threading.Lock()
                latch.acquire()
                if self._waiters is None:
                    self._waiters = []
                self._waiters.append(latch)
            left = None if deadline == _NEVER else max(0.0, deadline - self._clock.monotonic())
            if not self._dispatcher.wait(latch, left):
                with self._lock:
                    if latch in (self._waiters or ()):
                        self._waiters.remove(latch)
                    done = self._fill(tokens, done, overflow) if not self.closed else done
                    if done == len(tokens):
                        return
                raise BufferFull(self.stream_id, self.buffer.max_size, timeout, done)

    def _fill(self, tokens: Sequence[tuple[str, TokenKind]], done: int, overflow: str) -> int:
        """Take tokens from ``done`` on, under the lock; returns how many are taken then."""
        buffer = self.buffer
        if overflow in ("drop_oldest", "drop_newest"):
            for text, kind in tokens[done:]:
                dropped = buffer.force(text, kind, overflow)  # type: ignore[arg-type]
                self.accepted += not (dropped and overflow == "drop_newest")
            done = len(tokens)
        else:
            first = done
            while done < len(tokens) and buffer.offer_kind(*tokens[done]):
                done += 1
            self.accepted += done - first
        if buffer.size >= self._wake_at:
            self._wake_at = _NEVER
            self._wake()
        return done

    # --- the stream's side ---------------------------------------------------------------------------------------

    def attach(self, wake: Callable[[], None], last_event: int) -> None:
        """Let a (new) stream actor be woken from now on; an unfinished batch of an earlier one goes back."""
        with self._lock:
            self._wake = wake
            self._wake_at = _NEVER
            self.buffer.recover(last_event)

    def wait_for(self, level: int) -> bool:
        """Ask to be woken when ``level`` tokens are there; False if they are there already."""
        with self._lock:
            if self.buffer.size >= level:
                return False
            self._wake_at = level
            return True

    def do_not_wake(self) -> None:
        """Whatever comes, it can wait."""
        self._wake_at = _NEVER

    @property
    def size(self) -> int:
        """Tokens that wait."""
        return self.buffer.size

    def take(self, limit: int, event_number: int) -> tuple[Batch | None, int]:
        """The next batch and the number of tokens dropped before it; to be committed or restored."""
        with self._lock:
            buffer = self.buffer
            batch = buffer.take(limit, event_number)
            dropped, buffer.dropped = buffer.dropped, 0
            return batch, dropped

    def commit(self) -> None:
        """The batch is in the log: let those who wait for room have it."""
        with self._lock:
            self.buffer.commit()
            if self._waiters and self.buffer.size * 2 <= self.buffer.max_size:
                self._release()

    def restore(self, dropped: int) -> None:
        """The batch could not be delivered."""
        with self._lock:
            self.buffer.restore()
            self.buffer.dropped += dropped

    def take_dropped(self) -> int:
        """Tokens dropped since the last batch."""
        with self._lock:
            dropped, self.buffer.dropped = self.buffer.dropped, 0
            return dropped

    def clear(self) -> int:
        """Throw away what waits; returns how many tokens."""
        with self._lock:
            count = self.buffer.clear()
            self._release()
            return count

    def change(self, options: StreamOptions) -> None:
        """Go on with other options; nothing that is in the buffer is lost, even if it is more than the new bound."""
        with self._lock:
            self._options = options
            self.buffer.max_size = options.max_buffer_size
            self._release()

    def close(self) -> None:
        """Take nothing any more; who waits for room gets `StreamClosed`."""
        with self._lock:
            self.closed = True
            self._wake = _nobody
            self._release()

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, None
        for latch in waiters or ():
            latch.release()


def _nobody() -> None:
    """Who is woken when nobody is there."""
