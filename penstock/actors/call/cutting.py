"""Runs an application's tokenizer for a reader that serves other calls in the same thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from penstock.actors.runtime.dispatcher import blocking
from penstock.actors.runtime.node import Node
from penstock.actors.runtime.process import Process
from penstock.errors import SystemStopped

__all__ = ["Cutting", "cut_with"]


def cut_with(tokenizer: Callable[[str], Iterable[str]], items: list[Any]) -> list[Any]:
    """Cut the tokens among the items, which are bare tuples of a text and its kind. Everything else stays."""
    cut: list[Any] = []
    for item in items:
        if item.__class__ is tuple:
            text, kind = item
            cut += [(token, kind) for token in tokenizer(text)]
        else:
            cut.append(item)
    return cut


class Cutting:
    """Items of a read that a worker cuts into tokens.

    Args:
        items: as they are.
        cut: returns them as tokens. May block and raise.
    """

    def __init__(self, items: list[Any], cut: Callable[[list[Any]], list[Any]]) -> None:
        self._items = items
        self._cut = cut
        self._failure: BaseException | None = None
        self._is_over = False
        self._lock = threading.Lock()

    def begin(self, runtime: Node, on_end: Callable[[], None]) -> bool:
        """Begin; returns False if the system has stopped.

        ``on_end`` is called when `take` is to be called, in any thread, and may do no more than send a message.
        """
        try:
            runtime.spawn(TokenCutter, self._run, on_end)
        except SystemStopped:
            return False
        return True

    def _run(self) -> None:
        cut, failure = self._items, None
        try:
            cut = self._cut(self._items)
        except BaseException as error:
            failure = error
        with self._lock:
            if not self._is_over:
                self._items, self._failure = cut, failure

    def take(self) -> list[Any]:
        """Return the tokens, or the items as they are if the worker was killed. Raises what the tokenizer raised."""
        with self._lock:
            self._is_over = True
        if self._failure is not None:
            raise self._failure
        return self._items


class TokenCutter(Process):
    """Calls a function on a worker, once, and ends.

    Args:
        cut: what it calls.
        on_end: called when it has ended, also if it was killed. Any thread.
    """

    in_pykka_registry = False

    def __init__(self, cut: Callable[[], None], on_end: Callable[[], None]) -> None:
        super().__init__()
        self._cut = cut
        self._on_end = on_end

    def on_start(self) -> None:
        self.ref.tell(None)

    def on_receive(self, message: Any) -> None:
        with blocking():
            self._cut()
        self.exit()

    def dispose(self, reason: object) -> None:
        """Say that it has ended. Any thread."""
        super().dispose(reason)
        self._on_end()
