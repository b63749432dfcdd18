"""`Loop`: one thread that reads many sockets, runs what others post to it, and fires timers.

Each turn runs what has been posted, then the timers that are due, then reads up to 128 sockets, each once. A post
therefore never waits for more than the reads of one turn, however many bytes have arrived.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from penstock.adapters.http.alarms import Alarm, Alarms
from penstock.adapters.http.polling import Poll, make_poll
from penstock.adapters.http.reporting import report_failure

__all__ = ["Loop", "Readable"]


class Readable(Protocol):
    """What a `Loop` watches a socket for."""

    def ready(self) -> None:
        """Read once what has arrived. Called in the loop's thread, again and again while there is something to read.

        It must neither block nor raise; if it does raise, the socket is not watched any more.
        """

    def lost(self, error: BaseException) -> None:
        """Learn that nothing is watched any more, since the poll has failed. Called in the loop's thread, once."""


def _nothing() -> None:
    return


class Loop:
    """A daemon thread around a `Poll`. Only `post`, `close` and `join` may be called from other threads.

    Args:
        name: of the thread.
        poll: None makes one.
        before_reads: called in the loop's thread before the reads of each turn that has some. Must not raise.
        after_reads: the same, after them.

    Raises:
        OSError: no file descriptors are left.
    """

    def __init__(
        self,
        name: str,
        poll: Poll | None = None,
        before_reads: Callable[[], None] = _nothing,
        after_reads: Callable[[], None] = _nothing,
    ) -> None:
        self._poll = poll if poll is not None else make_poll()
        self._before_reads = before_reads
        self._after_reads = after_reads
        self._watched: dict[int, Readable] = {}
        self._posted: deque[Callable[[], None]] = deque()
        self._timers = Alarms()
        self._is_awake = False  # a wake-up is under way, or the thread is about to look for posts
        self._is_closing = False
        self._is_over = False
        self._waking = threading.Lock()  # the poll is not closed during a wake-up: its descriptor may be used again
        self._ident: int | None = None
        self.now = time.monotonic()
        """When the present turn began; for the loop's own thread."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the operating system has no more threads. The loop is then closed.
        """
        try:
            self._thread.start()
        except RuntimeError:
            self._poll.close()
            raise

    @property
    def is_over(self) -> bool:
        """Whether nothing can be watched any more: the loop was closed, or its poll has failed."""
        return self._is_over

    @property
    def thread(self) -> threading.Thread:
        """The loop's thread."""
        return self._thread

    def post(self, call: Callable[[], None]) -> None:
        """Run ``call`` in the loop's thread, in the order of the posts; once the loop is over, in the caller's.

        Never blocks, so that it may be called with locks held.
        """
        self._posted.append(call)
        if not self._is_awake and threading.get_ident() != self._ident:
            with self._waking:
                if not self._is_over:
                    self._is_awake = True
                    self._poll.wake()
        if self._is_over:  # after the append: either the loop's last look has seen it, or this does
            self._run_posted()

    def close(self) -> None:
        """End the thread, after everything that was posted before. Sockets that are watched stay open. Idempotent."""
        if not self._is_over:
            self.post(self._close)

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread; returns whether it has ended. Its own thread does not wait."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # --- the loop's thread -----------------------------------------------------------------------------------------

    def watch(self, fd: int, reader: Readable) -> None:
        """Call ``reader.ready`` whenever the socket has something to read. It must not be watched.

        Raises:
            OSError: the system has no memory left for it.
        """
        self._poll.add(fd)
        self._watched[fd] = reader

    def unwatch(self, fd: int) -> None:
        """Stop watching a socket, which must still be open. Harmless if it is not watched."""
        if self._watched.pop(fd, None) is not None:
            self._poll.remove(fd)

    def call_at(self, due: float, call: Callable[[], None]) -> Alarm:
        """Run ``call`` at the monotonic time ``due``."""
        return self._timers.add(due, call)

    def cancel_timer(self, timer: Alarm) -> None:
        """Forget a timer. Harmless if it has fired."""
        self._timers.cancel(timer)

    def _close(self) -> None:
        self._is_closing = True

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            self._turn()
        except BaseException as error:
            report_failure()
            self._lose_all(error)
        with self._waking:
            self._is_over = True
        self._run_posted()
        self._poll.close()

    def _turn(self) -> None:
        """Do one turn after the other until the loop is closed. Only the poll may raise, which ends the loop."""
        posted, poll = self._posted, self._poll
        while not self._is_closing or posted:
            ready = poll.wait(self._patience())
            # After the wake-up was reset and before the posts are looked at, so that none is missed.
            self._is_awake = False
            self.now = time.monotonic()
            if posted:
                self._run_posted()
            self._fire_timers()
            if ready:
                self._read(ready)

    def _read(self, ready: list[int]) -> None:
        """Read each socket once. A method of its own, so that no reader is kept alive while the loop waits."""
        watched = self._watched
        self._before_reads()
        try:
            for fd in ready:
                reader = watched.get(fd)  # it may have been unwatched in this turn
                if reader is not None:
                    try:
                        reader.ready()
                    except BaseException:  # a bug: the other streams must not suffer from it
                        report_failure()
                        self._drop(fd)
        finally:
            self._after_reads()

    def _drop(self, fd: int) -> None:
        """Stop watching a socket that may have been closed."""
        try:
            self.unwatch(fd)
        except BaseException:
            report_failure()

    def _lose_all(self, error: BaseException) -> None:
        """Tell each exchange that has a socket watched that it is not any more."""
        lost = list(self._watched.values())
        self._watched.clear()
        for reader in lost:
            try:
                reader.lost(error)
            except BaseException:
                report_failure()

    def _patience(self) -> float | None:
        """How long the next wait may last; None: until something happens."""
        if self._posted or self._is_closing:
            return 0
        due = self._timers.next_due()
        return None if due is None else max(0.0, due - time.monotonic())

    def _run_posted(self) -> None:
        """Run what has been posted so far; once the loop is over, everything."""
        posted = self._posted
        left = len(posted)
        while posted and (left > 0 or self._is_over):
            left -= 1
            try:
                call = posted.popleft()
            except IndexError:  # another thread has taken it, after the loop's end
                return
            try:
                call()
            except BaseException:
                report_failure()

    def _fire_timers(self) -> None:
        while (call := self._timers.take_due(self.now)) is not None:
            try:
                call()
            except BaseException:
                report_failure()
