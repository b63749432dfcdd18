"""Waits for any of many sockets to be readable: epoll where there is one, `selectors` elsewhere."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
from typing import Final, Protocol

__all__ = ["Poll", "make_poll", "scales"]

_MOST_AT_ONCE: Final = 128
"""Sockets that one wait returns: with more, thousands of busy streams would be read for seconds at a stretch."""


class Poll(Protocol):
    """A set of sockets to read. Only `wake` may be called from another thread than the one that waits."""

    def add(self, fd: int) -> None:
        """Watch a socket for bytes, the end of the stream, or an error."""

    def remove(self, fd: int) -> None:
        """Stop watching a socket that is still open."""

    def wait(self, timeout: float | None) -> list[int]:
        """Return up to 128 readable sockets. None waits for ever, 0 not at all.

        A `wake` before or during the wait ends it; it is then reset, after which the caller must look for news.
        """

    def wake(self) -> None:
        """End the present or next wait. Any thread; never blocks."""

    def close(self) -> None:
        """Close its own descriptors, not the sockets."""


def scales() -> bool:
    """Whether thousands of sockets can be watched here: Windows' ``select`` takes at most 512."""
    return sys.platform != "win32"


if sys.platform == "linux":
    import select

    class _Epoll:
        """Implements `Poll` with level-triggered epoll. The kernel turns the list of ready sockets: all have a turn."""

        def __init__(self) -> None:
            self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                self._epoll = select.epoll()
            except OSError:
                os.close(self._event)
                raise
            self._epoll.register(self._event, select.EPOLLIN)

        def add(self, fd: int) -> None:
            self._epoll.register(fd, select.EPOLLIN)

        def remove(self, fd: int) -> None:
            self._epoll.unregister(fd)

        def wait(self, timeout: float | None) -> list[int]:
            ready = []
            for fd, _ in self._epoll.poll(timeout, _MOST_AT_ONCE):
                if fd == self._event:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(fd)
                else:
                    ready.append(fd)
            return ready

        def wake(self) -> None:
            with contextlib.suppress(BlockingIOError):  # it is awake
                os.eventfd_write(self._event, 1)

        def close(self) -> None:
            self._epoll.close()
            os.close(self._event)


class _Selector:
    """Implements `Poll` with the best selector of the platform."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        try:
            self._here, self._there = socket.socketpair()
        except OSError:
            self._selector.close()
            raise
        self._here.setblocking(False)
        self._there.setblocking(False)
        self._selector.register(self._here, selectors.EVENT_READ)
        self._rest: list[int] = []

    def add(self, fd: int) -> None:
        self._selector.register(fd, selectors.EVENT_READ)

    def remove(self, fd: int) -> None:
        self._selector.unregister(fd)
        if fd in self._rest:  # its number may be used again
            self._rest.remove(fd)

    def wait(self, timeout: float | None) -> list[int]:
        if not self._rest:
            for key, _ in self._selector.select(timeout):
                if key.fileobj is self._here:
                    with contextlib.suppress(BlockingIOError):
                        while self._here.recv(4096):
                            pass
                else:
                    self._rest.append(key.fd)
        ready = self._rest[:_MOST_AT_ONCE]
        del self._rest[:_MOST_AT_ONCE]
        return ready

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake
            self._there.send(b"\0")

    def close(self) -> None:
        self._selector.close()
        self._here.close()
        self._there.close()


def make_poll() -> Poll:
    """Make the best `Poll` of this platform.

    Raises:
        OSError: no file descriptors are left.
    """
    if sys.platform == "linux":
        return _Epoll()
    return _Selector()
