"""Tools: functions that a model may call."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from penstock.config.logs import get_logger

__all__ = ["Tool", "ToolContext"]


class ToolContext:
    """A running call, as its tool sees it. Any thread may use it.

    A tool gets it through a parameter annotated ``ToolContext``. A tool that runs for long should check
    ``is_cancelled`` regularly, or wait for ``cancelled``: after that its result is discarded.

    Attributes:
        call_id: the call's id.
        name: the tool's name.
        cancelled: set when the call has timed out or its stream has ended.
    """

    def __init__(
        self,
        call_id: str,
        name: str,
        report: Callable[[Any], None],
        run_coroutine: Callable[[Awaitable[Any]], Any] | None = None,
    ) -> None:
        self.call_id = call_id
        self.name = name
        self.cancelled = threading.Event()
        self._run_coroutine = run_coroutine
        self._report = report
        self._lock = threading.Lock()
        self._on_cancel: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"ToolContext(call_id={self.call_id!r}, name={self.name!r})"

    @property
    def run_coroutine(self) -> Callable[[Awaitable[Any]], Any] | None:
        """Runs an awaitable on the event loop of the code that called ``stream_chat``, or on the system's own.

        It waits for the result. For tools with a ``run`` of their own, which have no loop in their thread. None outside
        of an agent.
        """
        return self._run_coroutine

    @property
    def is_cancelled(self) -> bool:
        """Whether the call has been cancelled and its result will be discarded."""
        return self.cancelled.is_set()

    def report(self, progress: Any) -> None:
        """Report progress to the stream's subscribers as a `ToolProgress` event.

        ``progress`` should be plain values. Never blocks. If you report faster than the agent reads, only the latest
        report is delivered. Reports of a cancelled call are ignored.
        """
        if not self.is_cancelled:
            self._report(progress)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the call is cancelled, or now if it already is. It must not block.

        It is called in any thread, in a copy of the present context. If it raises when called later, the exception's
        type is logged and the other callbacks still run.
        """
        with self._lock:
            if not self.is_cancelled:
                self._on_cancel.append(partial(contextvars.copy_context().run, callback))
                return
        callback()

    def cancel(self) -> None:
        """Cancel the call. Has no effect if it is already cancelled or done."""
        with self._lock:
            self.cancelled.set()
            callbacks, self._on_cancel = self._on_cancel, []
        for callback in callbacks:
            try:
                callback()
            except Exception as error:  # a fault of the tool, not of the code that cancels it
                get_logger(tool=self.name).error("on_cancel_failed", error=type(error).__name__)


class Tool(Protocol):
    """A function that a model may call.

    Attributes:
        name: at most 64 letters, digits, ``_`` and ``-``.
        description: tells the model what the tool does and when to use it.
        parameters: the JSON schema of its arguments, an object.
        timeout: the longest run in seconds; None is the agent's ``tool_timeout``.
        needs_approval: whether each call must be approved before it runs.

    A tool that runs another kind of call than a function's has an attribute ``type``, which is that of the calls
    (`penstock.events.ToolCall`).
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    timeout: float | None
    needs_approval: bool

    def check(self, arguments: Any) -> Mapping[str, Any]:
        """Validate the model's arguments and convert them for `run`.

        Raises:
            ToolArgumentsError: they do not fit the schema. The message goes to the model.
        """

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """Run the function and return its result as text.

        Blocks; an async function is run until it returns or is cancelled.

        Raises:
            ToolError: the result cannot be converted to text.
            Exception: anything the function raises.
        """
