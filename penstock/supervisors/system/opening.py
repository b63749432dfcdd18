"""Opens streams, in the thread that asks for one.

Nothing is sent and nothing is waited for: the record enters the table, and the stream's actor and the integration of
its call start as children of their supervisors. So opening a stream does not queue behind the work of the streams that
run. While a supervisor is being restarted, the handler opens the stream instead, as soon as it is back.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.actors.runtime.node import Node
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.stream.messages import Cancel
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.table import StreamTable
from penstock.errors import StartError, StreamExists, SupervisorError, SystemStopped
from penstock.events import StreamCompleted
from penstock.supervisors.calls import StartChild
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
            make: makes a record; called again if the first stream, one without a call, was ended with its supervisor
                before it was returned.
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
            try:
                self._table.add(record)
                if not self._start(record):
                    left = max(0.0, deadline - self._runtime.clock.monotonic())
                    self._ask(record, left, check_running)
            except StreamExists:
                raise
            except StartError:
                terminal = record.log.terminal
                if terminal is None:
                    raise
                if record.feed is None and not isinstance(terminal, StreamCompleted):
                    continue  # it was ended with its supervisor while it started
                # The handler had started it and it has ended since; a call is not made twice.
            except BaseException:
                self._give_up(record)
                raise
            return record

    def _start(self, record: StreamRecord) -> bool:
        """Start its processes here; returns whether its actor has been started."""
        runtime = self._runtime
        streams = _supervisor(runtime, STREAMS)
        if streams is None:
            return False
        try:
            streams.start_here(stream_child(record, runtime))
        except SupervisorError:  # the handler has been restarted, found the record, and starts it now
            return False
        except StartError as error:
            # The name is that of an actor which is ending, or the supervisor has ended and its child with it.
            if error.code == "already_started" or not streams.is_alive:
                return False
            raise
        call, sources = record.feed, _supervisor(runtime, SOURCES)
        # Without their supervisor, a new handler finds the call without an integration, as after a crash of one.
        if call is not None and sources is not None:
            _start_call(sources, call_child(record, call, runtime))
        return True

    def _give_up(self, record: StreamRecord) -> None:
        """Cancel a stream that its caller will not get."""
        ending = Cancel("the caller stopped waiting")
        record.propose(ending)
        ref = record.ref
        if ref is None or not ref.is_alive():  # no actor may ever be there to do it
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


def _start_call(sources: DynamicSupervisor, child: Child) -> None:
    """Start the integration of a call. If it cannot start, the handler is told, as of a crash, and ends the stream."""
    try:
        sources.start_here(child)
    except SupervisorError:  # the handler has been restarted, and starts it now
        return
    except StartError as error:
        if error.code == "already_started":  # its name is that of one which is ending: the supervisor waits for that
            sources.ref.tell(StartChild(child.own_spec()))
    except Exception:
        return  # the handler is told


def _supervisor(runtime: Node, name: str) -> DynamicSupervisor | None:
    """The supervisor with that name; None while it is being restarted."""
    ref = runtime.whereis(name)
    process = None if ref is None else ref._actor_weakref()
    return process if isinstance(process, DynamicSupervisor) else None
