"""Tools: functions that a model may ask for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from penstock.config.logs import get_logger

__all__ = ["Tool", "ToolContext"]


class ToolContext:
    """One call of a tool while it runs, as the tool sees it. Any thread may use it.

    A tool gets it by a parameter annotated ``ToolContext``. A tool that works long looks at ``is_cancelled`` now and
    then, or waits on it: nobody waits for its result any more once that is set.

    Attributes:
        call_id: the call's id.
        name: the tool's name.
        cancelled: set when the call's time is over or its stream has ended.
    """

    def __init__(self, call_id: str, name: str, report: Callable[[Any], None]) -> None:
        self.call_id = call_id
        self.name = name
        self.cancelled = threading.Event()
        self._report = report
        self._lock = threading.Lock()
        self._on_cancel: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"ToolContext(call_id={self.call_id!r}, name={self.name!r})"

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the result any more."""
        return self.cancelled.is_set()

    def report(self, progress: Any) -> None:
        """Tell the stream's subscribers how far it is (a `ToolProgress` event). Plain values; never blocks."""
        if not self.is_cancelled:
            self._report(progress)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once when the call is cancelled, at once if it has been. It must not block.

        What it raises when it is called later is logged by its type, and stops nobody.
        """
        with self._lock:
            if not self.is_cancelled:
                self._on_cancel.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Tell the tool to stop. Harmless if it has been told, or is done."""
        with self._lock:
            self.cancelled.set()
            callbacks, self._on_cancel = self._on_cancel, []
        for callback in callbacks:
            try:
                callback()
            except Exception as error:  # whoever cancels is not who wrote it
                get_logger(tool=self.name).error("on_cancel_failed", error=type(error).__name__)


class Tool(Protocol):
    """A function that a model may ask for.

    Attributes:
        name: as the model calls it: letters, digits, ``_`` and ``-``, at most 64.
        description: tells the model what it does and when to use it.
        parameters: the JSON schema of its arguments, an object.
        timeout: seconds it may take; None leaves that to the agent.
        needs_approval: whether the user is asked before it runs.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    timeout: float | None
    needs_approval: bool

    def check(self, arguments: Any) -> Mapping[str, Any]:
        """The arguments, validated and converted, as `run` takes them.

        Raises:
            ToolArgumentsError: they do not fit the schema; its text is for the model.
        """

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Call it and give its result as text. Blocks; an async function is run to its end, or until cancelled.

        Raises:
            ToolError: the result cannot be told.
            Exception: whatever the function raises.
        """
