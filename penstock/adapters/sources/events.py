"""Foreign events as a source: a callback that other event systems call, or an iterable of their events."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from penstock.adapters.sources.codecs import items_of
from penstock.config.checks import type_of
from penstock.config.options import RequestOptions
from penstock.errors import OptionError
from penstock.ports import Reader

__all__ = ["EventSource", "from_events"]


def from_events(fn: Callable[[Any, Any], Any]) -> EventSource:
    """Foreign events as a source of a stream.

    What it returns is a function of an event and a context: give it to the other event system as its callback. Events
    that come before the stream is opened are kept. Call `EventSource.end` after the last one.

    Args:
        fn: what an event is to the stream. It gets the event and the context, and returns None, a text, several, or a
            pair of texts and metadata, such as ``(["Hi"], {"custom": {"user": 7}})``.

    >>> import penstock
    >>> handle = penstock.sources.from_events(lambda event, context: ([event["text"]], {"custom": context}))
    >>> with penstock.System() as system:
    ...     stream = system.stream_from(handle)
    ...     handle({"text": "Hello"}, {"user": 7})
    ...     handle.end()
    ...     end = stream.result()
    ...     end.text, end.metadata["custom"]
    ('Hello', {'user': 7})

    Raises:
        OptionError: ``fn`` is no function.
    """
    if not callable(fn):
        raise OptionError("fn", type_of(fn), "a function of an event and a context")
    return EventSource(fn)


class EventSource:
    """Made by `from_events`. Implements `penstock.ports.PushedSource`."""

    kind = "events"

    def __init__(self, fn: Callable[[Any, Any], Any]) -> None:
        self.limits: RequestOptions | None = None
        self._fn = fn
        self._lock = threading.RLock()  # keeps the events in order
        self._early: deque[Iterable[Any]] | None = deque()  # None: the stream is open
        self._push: Callable[[Any], bool] = lambda item: True
        self._end: Callable[[BaseException | None], None] = lambda error: None
        self._how: tuple[BaseException | None] | None = None
        self.is_over = False

    def __call__(self, event: Any, context: Any = None) -> None:
        """Push what ``fn`` finds in the event. Waits while the stream has no room; after its end, does nothing.

        If ``fn`` raises, the stream fails with `SourceError`.
        """
        if self.is_over:
            return
        try:
            items = items_of(self._fn(event, context))
        except Exception as error:
            self.end(error)
            return
        with self._lock:
            if self._early is not None:
                self._early.append(items)
                return
            for item in items:
                if not self._push(item):
                    self.is_over = True

    def end(self, error: BaseException | None = None) -> None:
        """End the stream, once everything is out: with `SourceError` if there is an ``error``. Harmless if repeated."""
        with self._lock:
            if self.is_over:
                return
            self.is_over = True
            self._how = (error,)
            if self._early is None:
                self._end(error)

    def start(
        self,
        reader: Reader,
        push: Callable[[Any], bool],
        end: Callable[[BaseException | None], None],
    ) -> None:
        """See `PushedSource.start`."""
        self._push, self._end = push, end
        threading.Thread(target=self._catch_up, name="penstock-events", daemon=True).start()

    def _catch_up(self) -> None:
        with self._lock:
            assert self._early is not None
            for items in self._early:
                for item in items:
                    self._push(item)
            self._early = None
            if self._how is not None:
                self._end(*self._how)

    def cancel(self) -> None:
        """See `PushedSource.cancel`."""
        self.is_over = True

    def counters(self) -> Mapping[str, Any]:
        """See `PushedSource.counters`."""
        return {}
