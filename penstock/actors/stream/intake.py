"""The intake of a stream: a bounded buffer that any thread may push into, and that wakes the stream's actor.

The stream sets the level at which it is woken (``wait_for``). Below it, a push is one append under a lock and nothing
else. A token passes no other lock than this one and the mailbox's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec

from penstock.actors.runtime.dispatcher import Dispatcher, check_process
from penstock.actors.stream.buffer import Batch, EventBatch, PartStart, TokenBuffer, Undelivered
from penstock.actors.stream.messages import PUSHED
from penstock.config.logs import get_logger
from penstock.config.options import StreamOptions
from penstock.errors import BufferFull, OptionError, StreamClosed
from penstock.events import Citation, Phase, SideEvent, TokenKind
from penstock.ports import Clock

__all__ = ["Inbox", "Intake"]

_NEVER: Final = 1 << 62
_FOREVER: Final = float("inf")
_WARN_AT: Final = 100_000  # tokens in a buffer without a bound
_UNBOUNDED: Final = 1 << 62


class Inbox(Protocol):
    """The mailbox of a stream's actor. It gets `PUSHED` as often as `Intake.wait_for` is used, not more often."""

    def put(self, message: Any) -> None: ...


class Intake:
    """Any thread pushes into it; one stream takes from it. It outlives the stream's actor, and so do its tokens."""

    __slots__ = (
        "_clock",
        "_dispatcher",
        "_epoch",
        "_inbox",
        "_lock",
        "_options",
        "_part",
        "_part_from",
        "_phase",
        "_waiters",
        "_wake_at",
        "accepted",
        "backpressure_events",
        "buffer",
        "closed",
        "stream_id",
        "void_parts",
        "void_text",
    )

    def __init__(self, stream_id: str, options: StreamOptions, dispatcher: Dispatcher, clock: Clock) -> None:
        self.stream_id = stream_id
        self.buffer = TokenBuffer(options.max_buffer_size or _WARN_AT)
        self.accepted = 0
        self.backpressure_events = 0  # how often a producer had to wait for room
        self.closed = False
        self.void_text = 0  # characters of text that resets have voided, with those that `overflow` dropped
        self.void_parts = 0  # the part of the answer in which the last reset came
        self._options = options
        self._dispatcher = dispatcher
        self._clock = clock
        self._part = 0  # of the next token
        self._phase: Phase | None = None  # the same
        self._part_from = 0  # how many tokens had been accepted when it began
        self._lock = threading.Lock()
        self._epoch = 0  # of the present actor; an abandoned one must not disturb its successor
        self._inbox: Inbox = _NO_INBOX  # of the present actor
        self._wake_at = _NEVER
        self._waiters: list[threading.Lock | _Notice] | None = None

    # --- pushing, any thread -------------------------------------------------------------------------------------

    def push(self, text: str, timeout: float | None = None) -> None:
        """Take one text token. Without room, ``overflow`` decides what happens.

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
                    self._inbox.put(PUSHED)  # first: an interrupted push must not leave the stream asleep
                    self._wake_at = _NEVER
                return
        self._push_rest(((text, "text"),), timeout)

    def push_all(self, texts: Iterable[str], timeout: float | None = None) -> None:
        """Take several text tokens in order, as many at once as there is room for; see `push`."""
        tokens: list[tuple[str, TokenKind]] = [
            (text if text.__class__ is str else _plain("texts", text, "str items"), "text") for text in texts
        ]
        self._push_rest(tokens, timeout)

    def push_blocking(self, tokens: Sequence[tuple[str, TokenKind]], is_void: Callable[[], bool] | None = None) -> bool:
        """Take a provider's tokens, and wait for room while the stream runs; returns False once it has ended.

        Drop policies apply as for every producer. ``"error"`` waits, since a provider cannot handle the error. Once
        ``is_void()`` is true, nothing is taken and the wait ends (see `wake_waiters`).
        """
        try:
            self._push_rest(tokens, _FOREVER, is_void, is_provider=True)
        except StreamClosed:
            return False
        return True

    def push_event(self, event: SideEvent, *, is_void: Callable[[], bool] | None = None, wakes: bool = True) -> bool:
        """Append a tool event to the buffer; returns False once the stream has ended.

        A tool event never waits for room, and no ``overflow`` drops it. While the buffer is full, only the last
        progress report of each tool is kept. A buffered event counts like a token, so it slows down the producers, and
        it makes the stream emit at once what comes before it (see `TokenStream`). ``is_void`` as for `push_blocking`.
        With ``wakes=False``, the caller asks `is_due` once it holds no lock.
        """
        with self._lock:
            if self.closed or (is_void is not None and is_void()):
                check_process(self._dispatcher)
                return False
            self.buffer.put_event(event)
            if wakes:
                self._wake_if_due()
            return True

    def offer_event(
        self,
        event: SideEvent,
        on_room: Callable[[], None],
        is_void: Callable[[], bool] | None = None,
        *,
        is_of_all: bool = False,
        wakes: bool = True,
    ) -> bool:
        """Append an event to the buffer if there is room; returns whether there was.

        If not, ``on_room`` is called once, as by `push_now`. No ``overflow`` drops an event.

        ``is_of_all``: the places and the part of a citation are those in everything that was said, as if there had been
        no reset. They are counted from the last reset here, and a citation of text before that is void. Without it,
        they are counted from the last reset already. ``wakes`` as for `push_event`.

        Raises:
            StreamClosed: the stream has ended, or ``is_void()``.
        """
        with self._lock:
            if self.closed or (is_void is not None and is_void()):
                raise self._refusal()
            if self.buffer.size >= self.buffer.max_size and self._options.max_buffer_size is not None:
                self._wait_for_room(_Notice(on_room))
                return False
            if is_of_all and event.__class__ is Citation and (self.void_text or self.void_parts):
                moved = _moved(event, self.void_text, self.void_parts)
                if moved is None:
                    return True
                event = moved
            self.buffer.put_event(event)
            if wakes:
                self._wake_if_due()
            return True

    def start_part(
        self,
        part: int,
        phase: Phase | None = None,
        origin: str | None = None,
        *,
        is_void: Callable[[], bool] | None = None,
        is_of_all: bool = False,
    ) -> bool:
        """Begin a part of the answer with the next token; returns False once the stream has ended.

        ``is_of_all``: the number is counted as if there had been no reset, like that of `part`.
        """
        with self._lock:
            if self.closed or (is_void is not None and is_void()):
                check_process(self._dispatcher)
                return False
            part = max(0, part - self.void_parts) if is_of_all else part
            self._part, self._phase, self._part_from = part + self.void_parts, phase, self.accepted
            self.buffer.start_part(PartStart(part, phase, origin))
            return True

    @property
    def part(self) -> int:
        """The part of the answer that the next token belongs to, counted as if there had been no reset."""
        return self._part

    @property
    def phase(self) -> Phase | None:
        """What that part is for."""
        return self._phase

    @property
    def next_part(self) -> int:
        """The number of the next part: that of the present one if no token has come since its start."""
        return self._part if self.accepted == self._part_from else self._part + 1

    def push_now(
        self,
        tokens: Sequence[tuple[str, TokenKind]],
        on_room: Callable[[], None],
        is_void: Callable[[], bool] | None = None,
        *,
        whole: bool = False,
    ) -> int:
        """Take as many tokens as there is room for, without waiting; returns their number.

        With ``whole``, all or none, unless they are more than an empty buffer has room for.

        If some are left, ``on_room`` is called once: when it is worth trying again, or when the stream has ended. It is
        called under a lock, in any thread, and must only send a message.

        Raises:
            StreamClosed: the stream has ended, or ``is_void()``.
        """
        with self._lock:
            if self.closed or (is_void is not None and is_void()):
                raise self._refusal()
            done = 0 if whole and self._would_split(len(tokens)) else self._fill(tokens, 0)
            self._wake_if_due()
            if done < len(tokens):
                self._wait_for_room(_Notice(on_room))
            return done

    def push_some(self, tokens: Sequence[tuple[str, TokenKind]], first: int) -> int:
        """Take tokens from index ``first`` on, as many as there is room for; returns the index of the first one left.

        It takes none once the stream has ended, and no ``overflow`` drops one: the stream may emit first. It does not
        wake the stream: the caller asks `is_due` once it holds no lock.
        """
        with self._lock:
            return first if self.closed else self._fill_room(tokens, first)

    def is_due(self) -> bool:
        """Whether the stream has something to do; the caller sees to it that it does, or calls `wake`."""
        with self._lock:
            is_due = self._has_work
            if is_due:
                self._wake_at = _NEVER
            return is_due

    def wake(self) -> None:
        """Have the stream's actor look at what is buffered."""
        with self._lock:
            self._inbox.put(PUSHED)

    def _would_split(self, count: int) -> bool:
        buffer, options = self.buffer, self._options
        if options.max_buffer_size is None or options.overflow in ("drop_oldest", "drop_newest"):
            return False
        return buffer.size > 0 and buffer.size + count > buffer.max_size

    def _wait_for_room(self, latch: threading.Lock | _Notice) -> None:
        self.backpressure_events += 1
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(latch)

    @property
    def inbox(self) -> Inbox:
        """The mailbox of the present actor."""
        return self._inbox

    def admit(self, count: int, epoch: int) -> PartStart | None:
        """Count ``count`` tokens as accepted that go into the log at once; returns the part of the answer.

        None, without a change, unless nothing is buffered and ``epoch`` is the present actor's.
        """
        with self._lock:
            if self.closed or epoch != self._epoch:
                return None
            part = self.buffer.pass_by(count)
            if part is not None:
                self.accepted += count
            return part

    def refuse(self, count: int) -> None:
        """Undo `admit`, as the log has not taken the tokens."""
        with self._lock:
            self.accepted -= count

    def wake_waiters(self) -> None:
        """Wake all producers that wait for room, so that they check ``is_void`` again."""
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
                    raise self._refusal()
                done = self._fill(tokens, done)
                self._wake_if_due()
                if done == len(tokens):
                    return
                if self._options.overflow == "error" and not is_provider:
                    raise BufferFull(self.stream_id, self.buffer.max_size, 0, done)
                left = None if deadline is None else deadline - self._clock.monotonic()
                if left is not None and not left > 0:  # the time is over, and there was no room at the last attempt
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
        """Take tokens from index ``done`` on, under the lock; returns the index of the first one left."""
        done, overflow = self._fill_room(tokens, done), self._options.overflow
        if done < len(tokens) and (overflow == "drop_oldest" or overflow == "drop_newest"):
            for text, kind in tokens[done:]:
                self.accepted += self.buffer.force(text, kind, overflow)
            done = len(tokens)
        return done

    def _fill_room(self, tokens: Sequence[tuple[str, TokenKind]], done: int) -> int:
        """The same, but drop none: take only as many as there is room for."""
        buffer = self.buffer
        if self._options.max_buffer_size is None and buffer.size + len(tokens) - done > buffer.max_size:
            self._lift_bound()
        first, done = done, buffer.offer_all(tokens, done)
        self.accepted += done - first
        return done

    @property
    def _has_work(self) -> bool:
        return self._wake_at < _NEVER and (self.buffer.size >= self._wake_at or self.buffer.events > 0)

    def _wake_if_due(self) -> None:
        if self._has_work:
            self._inbox.put(PUSHED)  # first: an interrupted push must not leave the stream asleep
            self._wake_at = _NEVER

    def _lift_bound(self) -> None:
        """Let a buffer without a bound grow on. Until now it had one, so that `push` does not have to look."""
        self.buffer.max_size = _UNBOUNDED
        get_logger(stream_id=self.stream_id).warning(
            "buffer_is_large", tokens=self.buffer.size, advice="set max_buffer_size, so that the producer waits"
        )

    # --- the stream's side ---------------------------------------------------------------------------------------

    def attach(self, inbox: Inbox, last_event: int, epoch: int) -> None:
        """Wake the actor with that mailbox from now on, and restore a batch that its predecessor did not commit.

        ``epoch`` is the actor's epoch in the log. Calls of an actor of another epoch have no effect.
        """
        with self._lock:
            self._epoch = epoch
            self._inbox = inbox
            self._wake_at = _NEVER
            self.buffer.recover(last_event)

    def wait_for(self, level: int, epoch: int) -> bool:
        """Ask to be woken when ``level`` tokens or an event are buffered; returns False if they already are."""
        with self._lock:
            if epoch != self._epoch:
                return True
            self._offer_room()
            if self.buffer.size >= level or self.buffer.events:
                return False
            self._wake_at = level
            return True

    def do_not_wake(self, epoch: int) -> None:
        """Do not wake the stream's actor until the next `wait_for`."""
        with self._lock:
            if epoch == self._epoch:
                self._wake_at = _NEVER
                self._offer_room()

    def _offer_room(self) -> None:
        """Wake waiting producers even if less than half of the buffer is free, as the stream emits nothing now."""
        if self._waiters and self.buffer.size < self.buffer.max_size:
            self._release()

    @property
    def size(self) -> int:
        """The number of buffered tokens and tool events."""
        return self.buffer.size

    @property
    def events(self) -> int:
        """The number of buffered tool events."""
        return self.buffer.events

    def due(self, limit: int) -> int:
        """How many tokens, at most ``limit``, come before the next tool event; 0 if that is first."""
        with self._lock:
            return self.buffer.due(limit)

    def before_border(self) -> tuple[int, int]:
        """See `TokenBuffer.before_border`."""
        with self._lock:
            return self.buffer.before_border()

    def portion(self, characters: int) -> tuple[int, int]:
        """How many of the first tokens, and of their characters, to take for a piece of ``characters``.

        The last one may be divided, and then counts as two. Where the buffer is full, half of it is taken.
        """
        with self._lock:
            buffer = self.buffer
            is_full = buffer.size >= buffer.max_size
            tokens, given, divided = buffer.portion(characters, buffer.size - buffer.max_size // 2 if is_full else 0)
            self._part_from += divided if self._part_from == self.accepted else 0
            self.accepted += divided
            return tokens, given

    def take(self, limit: int, event_number: int, epoch: int) -> tuple[Batch | EventBatch | None, int]:
        """The next batch and the number of tokens dropped before it; to be committed or restored."""
        with self._lock:
            if epoch != self._epoch:
                return None, 0
            buffer = self.buffer
            return buffer.take(limit, event_number), buffer.dropped

    def commit(self, batch: Batch | EventBatch | None = None) -> None:
        """Free the room of the taken batch, which is in the log, and wake producers once half of the buffer is free.

        With ``batch``, only if that is still the taken one: the actor may have been abandoned in between.
        """
        with self._lock:
            self.buffer.commit(batch)
            if self._waiters and self.buffer.size * 2 <= self.buffer.max_size:
                self._release()

    def restore(self, batch: Batch | EventBatch | None = None) -> None:
        """Put the taken batch back, as it could not be delivered. ``batch`` as for `commit`."""
        with self._lock:
            self.buffer.restore(batch)

    def take_dropped(self, epoch: int | None = None) -> int:
        """Return the number of tokens dropped since the last batch, and reset it."""
        if not self.buffer.dropped:
            return 0
        with self._lock:
            if epoch is not None and epoch != self._epoch:
                return 0
            dropped, self.buffer.dropped = self.buffer.dropped, 0
            return dropped

    def undelivered(self, last_event: int) -> list[Undelivered]:
        """The buffered tokens that no event has, in order, where the log ends with number ``last_event``."""
        with self._lock:
            return self.buffer.undelivered(last_event)

    def undelivered_events(self, last_event: int) -> list[SideEvent]:
        """The same for the events."""
        with self._lock:
            return self.buffer.undelivered_events(last_event)

    def clear(self) -> None:
        """Discard everything."""
        with self._lock:
            self.buffer.clear()
            self._release()

    def restart(self, delivered: int, last_event: int) -> None:
        """Discard everything but a `StreamStarted`, and count what is void with the reset that comes now.

        ``delivered``: how many characters of text the log has since the last reset. It ends with number ``last_event``.
        """
        with self._lock:
            buffered = sum(len(token.text) for token in self.buffer.undelivered(last_event) if token.kind == "text")
            self.void_text += delivered + buffered + self.buffer.dropped_text
            self.void_parts = self._part
            self.buffer.clear(but_start=True)
            self._phase, self._part_from = None, self.accepted
            self._release()

    def discard_origin(self, origin: str) -> None:
        """Discard the tokens and events of one origin that no event has. Its places are not counted (`void_text`)."""
        with self._lock:
            self.buffer.discard_origin(origin)
            self._release()

    def change(self, options: StreamOptions) -> None:
        """Change the options. Nothing in the buffer is lost, even if it exceeds the new bound."""
        with self._lock:
            self._options = options
            self.buffer.max_size = options.max_buffer_size or max(_WARN_AT, self.buffer.max_size)
            self._release()

    def close(self, epoch: int | None = None) -> None:
        """Take no more tokens. A producer that waits for room gets `StreamClosed`."""
        if self.closed and self._inbox is _NO_INBOX and self._waiters is None:
            return
        with self._lock:
            if epoch is not None and epoch != self._epoch:
                return
            self.closed = True
            self._inbox = _NO_INBOX
            self._release()

    def after_fork(self) -> None:
        """Refuse everything, in the child of a fork. Another thread may have held the lock at that moment."""
        self._lock = threading.Lock()
        self.closed = True
        self._inbox, self._wake_at, self._waiters = _NO_INBOX, _NEVER, None

    def _refusal(self) -> StreamClosed:
        check_process(self._dispatcher)
        return StreamClosed(self.stream_id)

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, None
        for latch in waiters or ():
            latch.release()


def _moved(citation: Citation, void_text: int, void_parts: int) -> Citation | None:
    """A citation with its places counted from the last reset; None if it is of void text."""
    start, end = citation.start, citation.end
    if start is not None and end is not None:
        if start < void_text >= end:
            return None
        start, end = max(0, start - void_text), end - void_text
    return msgspec.structs.replace(citation, start=start, end=end, part=max(0, citation.part - void_parts))


class _Notice:
    """A callback in the list of waiting threads' locks; called where a lock would be released."""

    __slots__ = ("release",)

    def __init__(self, on_room: Callable[[], None]) -> None:
        self.release = on_room


def _plain(field: str, text: object, allowed: str) -> str:
    """Convert an instance of a subclass to a bare str, the only type that the buffer handles."""
    if not isinstance(text, str):
        raise OptionError(field, type(text).__name__, allowed)  # not its value, which may be token text
    return str.__str__(text)


class _NoInbox:
    """Stands for the mailbox while no actor is attached."""

    __slots__ = ()

    def put(self, message: Any) -> None:
        """Nothing."""


_NO_INBOX: Final = _NoInbox()
