"""Topics: what boards subscribe to, and how each of them gets it.

A topic works only while a board watches it. It makes one change for all watchers at each step. A watcher that has not
taken the last change when the next one is made gets a snapshot instead of both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from penstock.config.logs import get_logger
from penstock.errors import describe_reason
from penstock.gateway.projections.frames import encode

__all__ = ["Topic", "Topics", "Viewing"]


class Topic:
    """Something that boards watch. Used on the gateway's loop.

    Attributes:
        name: the pseudo-id by which it is subscribed to: ``"$board"``.
        interval: seconds between two steps.
        viewings: one for each board that watches.
    """

    interval: float = 0.5

    def __init__(self, name: str) -> None:
        self.name = name
        self.viewings: set[Viewing] = set()
        self.is_ready = False  # whether there has been a step
        self._snapshot: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    # --- for the kinds of topics ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """A first board watches, at the beginning or again."""

    async def step(self) -> Mapping[str, Any] | None:
        """Look at the system. Returns what has changed since the last step; None: nothing."""
        raise NotImplementedError

    def whole(self) -> Mapping[str, Any]:
        """Everything, as of the last step."""
        raise NotImplementedError

    def end(self) -> None:
        """No board watches any more."""

    # --- for watchers --------------------------------------------------------------------------------------------

    def add(self, viewing: Viewing) -> None:
        """Begin to send to a watcher; the first thing that it gets is a snapshot."""
        self.viewings.add(viewing)
        if self._task is None:
            self.is_ready = False
            self.begin()
            self._task = asyncio.get_running_loop().create_task(self._work())
        elif self.is_ready:
            viewing.wake()

    def remove(self, viewing: Viewing) -> None:
        """Send no more to a watcher."""
        self.viewings.discard(viewing)
        if not self.viewings:
            self.close()

    def close(self) -> None:
        """End the work."""
        task, self._task = self._task, None
        self._snapshot = None
        if task is not None:
            task.cancel()
            self.end()

    def snapshot(self) -> bytes:
        """The frame of a snapshot, as JSON."""
        if self._snapshot is None:
            self._snapshot = encode({"sid": self.name, "type": "snapshot", **self.whole()})
        return self._snapshot

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                change = await self.step()
            except Exception as error:  # a fault of ours must not end the board
                get_logger().error("board_step_failed", topic=self.name, reason=describe_reason(error), exc_info=error)
                change = None
            is_first, self.is_ready = not self.is_ready, True
            if change or is_first:
                self._snapshot = None
                frame = b"" if is_first else encode({"sid": self.name, "type": "patch", **(change or {})})
                for viewing in list(self.viewings):
                    viewing.offer(frame)
            due = max(due + self.interval, loop.time())
            await asyncio.sleep(due - loop.time())


class Viewing:
    """One connection's subscription to one topic.

    Args:
        topic: the topic.
        wake: called when there is something to take.
    """

    def __init__(self, topic: Topic, wake: Callable[[], None]) -> None:
        self.topic = topic
        self.wake = wake
        self._next: bytes | None = None
        self._needs_snapshot = True

    def offer(self, frame: bytes) -> None:
        """Take the frame of a change, unless a snapshot is needed anyway."""
        if self._next is not None:
            self._next, self._needs_snapshot = None, True
        elif not self._needs_snapshot:
            self._next = frame
        self.wake()

    def take(self) -> bytes | None:
        """The next frame to send; None: there is none now."""
        if self._needs_snapshot:
            if not self.topic.is_ready:
                return None
            self._needs_snapshot = False
            return self.topic.snapshot()
        frame, self._next = self._next, None
        return frame


_MOST: Final = 64


class Topics:
    """The topics that one connection watches, by name.

    Args:
        wake: called when a topic has something to take.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._viewings: dict[str, Viewing] = {}

    def __len__(self) -> int:
        return len(self._viewings)

    @property
    def is_full(self) -> bool:
        """Whether it watches as many as a connection may."""
        return len(self._viewings) >= _MOST

    def open(self, topic: Topic) -> None:
        """Watch a topic; an earlier subscription to it ends."""
        self.shut(topic.name)
        made = self._viewings[topic.name] = Viewing(topic, self._wake)
        topic.add(made)

    def shut(self, name: str) -> None:
        """Watch a topic no more. Harmless if it is not watched."""
        found = self._viewings.pop(name, None)
        if found is not None:
            found.topic.remove(found)

    def frames(self) -> list[bytes]:
        """All frames to send now, as JSON."""
        return [frame for one in self._viewings.values() if (frame := one.take()) is not None]

    def close(self) -> None:
        """Watch nothing more."""
        for name in list(self._viewings):
            self.shut(name)
