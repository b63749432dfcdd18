"""Reading the prompts of a batch: an iterable that may block, read ahead by a process of its own."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from penstock.actors.runtime.dispatcher import blocking
from penstock.actors.runtime.process import Process
from penstock.errors import ProcessDead

__all__ = ["Exhausted", "PromptReader", "Read"]


class Exhausted(msgspec.Struct, frozen=True):
    """There are no more prompts; ``error``: what the iterable raised."""

    error: BaseException | None = None


class Read(msgspec.Struct, frozen=True):
    """Read one more prompt."""


_READ: Final = Read()


class PromptReader(Process):
    """Reads an iterator that may block, in a copy of the caller's context. It is told `Read` for each prompt.

    Args:
        iterator: closed at the end, if it can be.
        give: called with each prompt, and once with `Exhausted`; any thread.
    """

    in_pykka_registry = False

    def __init__(self, iterator: Iterator[Any], give: Callable[[Any], None], context: contextvars.Context) -> None:
        super().__init__()
        self._iterator = iterator
        self._give = give
        self._context = context
        self._has_ended = False

    def on_receive(self, message: Any) -> None:
        """Accepts `Read`."""
        if not isinstance(message, Read):
            super().on_receive(message)
            return
        if self._has_ended:
            return
        try:
            with blocking():
                found = self._context.run(next, self._iterator)
        except StopIteration:
            self._give_end(Exhausted())
        except BaseException as error:  # whatever the user's code raises is raised where the results are read
            self._give_end(Exhausted(error))
        else:
            self._give(found)
            return
        self.exit()

    def _give_end(self, exhausted: Exhausted) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._give(exhausted)

    def terminate(self, reason: object) -> None:
        """Close a generator in the thread that drove it."""
        close = getattr(self._iterator, "close", None)
        if callable(close):
            self._context.run(close)

    def dispose(self, reason: object) -> None:
        """Say that no more will come, if the process dies of something else. Any thread."""
        super().dispose(reason)
        self._give_end(Exhausted(ProcessDead("the reader of the prompts")))
