"""Opens streams, in the thread that asks for one.

Nothing is sent and nothing is waited for: the record enters the table, and the stream's actor and the integration of
its call start as children of their supervisors. So opening a stream does not queue behind the work of the streams that
run. While a supervisor is being restarted, the handler opens the stream instead, as soon as it is back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from penstock.actors.runtime.node import Node
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.messages import Cancel
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.table import StreamTable
from penstock.errors import ProcessDead, StartError, SupervisorError, SystemStopped
from penstock.supervisors.children import Child
from penstock.supervisors.dynamic import DynamicSupervisor
from penstock.supervisors.system.asking import ask_until_back
from penstock.supervisors.system.finishing import finish
from penstock.supervisors.system.handler import HANDLER, HandlerNotices, OpenStream
from penstock.supervisors.system.stream_children import SOURCES, STREAMS, call_child, stream_child

__all__ = ["StreamOpener"]


class StreamOpener:
    """Opens the streams of one system. Any thread may use it.

    Args:
        runtime: the streams run on it.
        table: their records.
    """

    def __init__(self, runtime: Runtime, table: StreamTable) -> None:
        self._runtime = runtime
        self._table = table
        self._notices = HandlerNotices(runtime)

    def open(self, make: Callable[[], StreamRecord], timeout: float, check_running: Callable[[], None]) -> StreamRecord:
        """Open a stream, and return its record when its actor runs.

        Args:
            make: makes a record; called again if the first stream was ended with its supervisor before it was returned.
            timeout: seconds to wait for a supervisor that is being restarted.
            check_running: raises if the system has been stopped.

        Raises:
            StreamExists: a running stream has its id.
            CallTimeout: it took too long. If the stream starts later, it is cancelled at once.
            PenstockError: the system has been stopped, or the supervisor refused.
        """
        check_running()
        deadline = self._runtime.clock.monotonic() + timeout
        while True:
            record = make()
            record.notices = self._notices
            self._table.add(record)
            try:
                if not self._start(record):
                    left = max(0.0, deadline - self._runtime.clock.monotonic())
                    self._ask(record, left, check_running)
            except StartError:
                if not record.is_over:
                    raise
                continue  # it was ended with its supervisor while it started
            except BaseException:
                self._give_up(record)
                raise
            return record

    def _start(self, record: StreamRecord) -> bool:
        """Start its processes here; returns whether its actor has been started."""
        runtime = self._runtime
        try:
            if _start_child(runtime, STREAMS, stream_child(record, runtime)) is None:
                return False
        except SupervisorError:  # the handler has been restarted, found the record, and starts it now
            return False
        except StartError as error:
            if isinstance(error.code, ProcessDead) or error.code == "already_started":  # of an actor that is ending
                return False
            raise
        call = record.feed
        if call is not None:
            # If this fails, a new handler finds the call without an integration, as after a crash of one.
            with contextlib.suppress(StartError, SupervisorError):
                _start_child(runtime, SOURCES, call_child(record, call, runtime))
        return True

    def _give_up(self, record: StreamRecord) -> None:
        """Cancel a stream that its caller will not get."""
        ending = Cancel("the caller stopped waiting")
        record.propose(ending)
        if record.ref is None:  # no actor may ever be there to do it
            try:
                finish(record, ending)
            except SystemStopped:
                record.finish(ending)

    def _ask(self, record: StreamRecord, timeout: float, check_running: Callable[[], None]) -> None:
        """Have the handler start it."""
        runtime = self._runtime

        def find() -> ProcessRef | None:
            check_running()
            return runtime.whereis(HANDLER)

        try:
            ask_until_back(runtime, find, OpenStream(record), timeout, "the handler")
        except SupervisorError as error:
            if error.code != "already_started":  # by a request without an answer
                raise


def _start_child(runtime: Node, name: str, child: Child) -> ProcessRef | None:
    """Start a child of the supervisor with that name; None if that is being restarted."""
    ref = runtime.whereis(name)
    supervisor: Any = None if ref is None else ref._actor_weakref()
    if not isinstance(supervisor, DynamicSupervisor):
        return None
    return supervisor.start_here(child)
