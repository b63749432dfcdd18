"""Runs the calls of one round: starts them, waits for threads and approvals, and reports the results in order.

It is part of an agent's process. The only foreign code here is a tool's check of its arguments and its callback for
cancelling; everything that may block runs in a task of its own.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from penstock.actors.agent.coroutines import AgentToolContext
from penstock.actors.agent.record import Advance, AgentRecord, Approve
from penstock.actors.agent.results import cut_text, describe_failure, describe_parse_error
from penstock.actors.agent.task import Job, TaskDone
from penstock.actors.agent.turn import ToolRun, Turn
from penstock.actors.runtime.process import Process
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import KILL, Down, Ephemeral
from penstock.actors.runtime.transitions import (
    Action,
    Call,
    Cast,
    Event,
    Info,
    NamedTimeout,
    answer,
    cancel_timeout,
    timeout,
)
from penstock.config.logs import get_logger
from penstock.errors import ToolArgumentsError
from penstock.events import (
    ToolApprovalRequested,
    ToolCall,
    ToolEvent,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
    ToolResultStatus,
)
from penstock.ports import Tool, ToolContext

__all__ = ["Decide", "Progressed", "ToolRound"]


class Decide(msgspec.Struct, frozen=True):
    """Approve or deny a call that waits for approval. The reply is whether a call with that id waited."""

    call_id: str
    approved: bool
    reason: str | None = None


class Progress:
    """The latest report of a tool that has not been read yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: list[Any] = []

    def put(self, progress: Any) -> bool:
        """Replace the report; returns whether the reader must be notified. Called in the tool's thread."""
        with self._lock:
            is_news = not self._latest
            self._latest = [progress]
            return is_news

    def take(self) -> list[Any]:
        """Take the report: a list of one item, or an empty one."""
        with self._lock:
            value, self._latest = self._latest, []
            return value


class Progressed(Ephemeral, msgspec.Struct, frozen=True):
    """A tool has reported."""

    job: Job
    progress: Progress


class ToolRound:
    """See the module's docstring. Every method but `abandon` runs in the agent's process."""

    def __init__(self, process: Process, agent: AgentRecord, turn: Turn, calls: list[ToolRun]) -> None:
        self._runtime = process.runtime
        self._ref = process.ref
        self._agent = agent
        self._turn = turn
        self._calls = calls
        self._pushed = 0  # the number of results that have been pushed to the stream

    def begin(self) -> list[Action]:
        """Push the start of the round, conclude calls that cannot be run, and request the approvals that are needed."""
        self._push(ToolExecutionStarted(round=len(self._turn.rounds) + 1, calls=tuple(one.call for one in self._calls)))
        actions: list[Action] = []
        for call in self._calls:
            tool, request = call.tool, call.call
            if tool is None:
                self._conclude(call, "unknown_tool", self._why_unknown(request))
            elif request.arguments is None:
                self._conclude(call, "invalid_arguments", describe_parse_error(request.arguments_raw))
            elif tool.needs_approval and self._agent.approve is None:
                self._request_approval(call, actions)
        return actions

    def _why_unknown(self, request: ToolCall) -> str:
        known = self._agent.tools.get(request.name)
        if known is not None:
            kind = getattr(known, "type", "function")
            return f"The tool {request.name!r} is of type {kind!r}; it cannot be called as {request.type!r}."
        return f"There is no tool {request.name!r}. Available tools: {', '.join(self._agent.tools) or 'none'}."

    def refuse(self, content: str) -> None:
        """Conclude all calls with ``content``, without running them."""
        for call in self._calls:
            self._conclude(call, "cancelled", content)

    def handle(self, event: Event) -> list[Action] | None:
        """Handle an event that concerns a call of this round; returns None if it does not."""
        match event:
            case Cast(message=TaskDone(job=job) as done) if (call := self._at_work(job)) is not None:
                return self._task_done(call, done)
            case Info(message=Down(process=task)) if (call := self._run_by(task)) is not None:
                call.job = None
                self._conclude(call, "error", "The call was stopped before it had finished.")
                return [cancel_timeout(call)]
            case Cast(message=Progressed(job=job, progress=progress)) if (call := self._at_work(job)) is not None:
                for value in progress.take():
                    self._push(ToolProgress(call_id=call.call.id, name=call.call.name, progress=value))
                return []
            case NamedTimeout(name=ToolRun() as call) if call in self._calls:
                self._timed_out(call)
                return []
            case Call(message=Decide() as decision):
                return self._decided(event, decision)
            case Cast(message=Advance()) if not self._turn.stream.is_over:
                return []  # a thread may be free now
        return None

    def go_on(self, actions: list[Action]) -> bool:
        """Start the calls that may start, and push results in the order of the calls; returns whether all are out."""
        self._start_calls(actions)
        calls = self._calls
        while self._pushed < len(calls) and (result := calls[self._pushed].result) is not None:
            self._push(result)
            self._pushed += 1
        return self._pushed == len(calls)

    def abandon(self) -> list[Action]:
        """Kill all tasks, as no result is needed now. Any thread may call this once the agent's process is dead."""
        for call in self._calls:
            job, call.job = call.job, None
            self._kill(job)
        return [cancel_timeout(call) for call in self._calls]

    # --- starting ------------------------------------------------------------------------------------------------

    def _request_approval(self, call: ToolRun, actions: list[Action]) -> None:
        call.state = "approval"
        self._push(ToolApprovalRequested(call=call.call))
        actions.append(timeout(call, self._agent.options.approval_timeout))

    def _start_calls(self, actions: list[Action]) -> None:
        agent = self._agent
        free = agent.options.max_tool_calls - sum(call.state in ("deciding", "running") for call in self._calls)
        is_full = False
        for call in self._calls:
            if call.state != "pending":
                continue
            if self._turn.stream.is_over:
                return
            if free > 0 and not is_full:
                is_full = not agent.quota.acquire(agent, lambda: agent.tell(Advance()))
            self._limit_wait(call, actions, for_thread=is_full)
            if free <= 0 or is_full:
                continue
            if self._start(call, actions):
                free -= 1
            else:
                agent.quota.release()

    def _limit_wait(self, call: ToolRun, actions: list[Action], *, for_thread: bool) -> None:
        """Run the call's time-out while it waits only because tools hold every thread of the quota."""
        if for_thread and not call.waits_for_thread:
            actions.append(timeout(call, self._agent.options.tool_timeout))
        elif call.waits_for_thread and not for_thread:
            actions.append(cancel_timeout(call))
        call.waits_for_thread = for_thread

    def _start(self, call: ToolRun, actions: list[Action]) -> bool:
        """Start a task for the call on the thread that was acquired; returns False if none is needed."""
        agent, tool, request = self._agent, call.tool, call.call
        assert tool is not None
        approve = agent.approve
        if approve is not None and not call.is_approved:
            call.state = "deciding"
            context = self._context(call, lambda value: None)
            decide = self._bound(_decide, approve, request, context)
            self._launch(call, f"approve/{request.name}", decide, context.cancel)
            actions.append(timeout(call, agent.options.approval_timeout))
            return True
        try:
            arguments = self._bound(tool.check, request.arguments)()
        except ToolArgumentsError as error:
            self._conclude(call, "invalid_arguments", str(error))
            return False
        except Exception as error:
            self._conclude(call, "error", describe_failure(error))
            return False
        call.state = "running"  # first: from here on, the call may have had an effect
        call.started_at = self._runtime.clock.monotonic()
        self._run(call, tool, arguments)
        actions.append(timeout(call, agent.options.tool_timeout if tool.timeout is None else tool.timeout))
        return True

    def _run(self, call: ToolRun, tool: Tool, arguments: Any) -> None:
        tell = self._ref.tell
        progress = Progress()

        def report(value: Any) -> None:
            # Only the latest report is delivered: progress is a state, and nothing else bounds the reports.
            job = call.job
            if job is not None and progress.put(value):
                tell(Progressed(job, progress))

        context = self._context(call, report)
        self._launch(call, f"tool/{tool.name}", self._bound(tool.run, arguments, context), context.cancel)

    def _context(self, call: ToolRun, report: Callable[[Any], None]) -> ToolContext:
        return AgentToolContext(call.call.id, call.call.name, report, self._agent.loops, self._turn.loop)

    def _bound(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        """A call of foreign code in a copy of the context in which the message was sent."""
        return partial(self._turn.stream.context.copy().run, function, *arguments)

    def _launch(self, call: ToolRun, label: str, work: Callable[[], Any], cancel: Callable[[], None]) -> None:
        tell = self._ref.tell
        call.job = job = Job(self._ref, label, work, cancel, self._agent.quota)
        reply = self._agent.start_task(job)

        def started() -> None:
            try:
                reply.get(timeout=0)
            except Exception as error:
                job.cancel()
                tell(TaskDone(job, None, error))

        reply.when_done(started)

    # --- results -------------------------------------------------------------------------------------------------

    def _at_work(self, job: Job) -> ToolRun | None:
        return next((call for call in self._calls if call.job is job), None)

    def _run_by(self, task: object) -> ToolRun | None:
        return next((call for call in self._calls if call.job is not None and call.job.task is task), None)

    def _task_done(self, call: ToolRun, done: TaskDone) -> list[Action]:
        actions = [cancel_timeout(call)]
        call.job = None
        if call.state == "deciding":
            self._answered(call, done, actions)
        elif done.error is None and isinstance(done.value, str):
            self._conclude(call, "ok", done.value)
        else:
            error = done.error or TypeError(f"the tool returned {type(done.value).__name__}, not str")
            self._conclude(call, "error", describe_failure(error))
        return actions

    def _answered(self, call: ToolRun, done: TaskDone, actions: list[Action]) -> None:
        """Handle the answer of the agent's ``approve``. A value other than True and None denies the call."""
        if done.error is not None:
            get_logger(agent=self._agent.name).warning("approve_failed", error=type(done.error).__name__)
            self._deny(call, None)
        elif done.value is True:
            call.is_approved, call.state = True, "pending"
        elif done.value is None:
            self._request_approval(call, actions)
        else:
            self._deny(call, None)

    def _decided(self, event: Call, decision: Decide) -> list[Action]:
        waiting = (one for one in self._calls if one.state == "approval" and one.call.id == decision.call_id)
        call = next(waiting, None)
        if call is None:
            return [answer(event.reply_to, False)]
        if decision.approved:
            call.is_approved, call.state = True, "pending"
        else:
            self._deny(call, decision.reason)
        return [cancel_timeout(call), answer(event.reply_to, True)]

    def _timed_out(self, call: ToolRun) -> None:
        job, call.job = call.job, None
        if call.state == "running":
            seconds = self._runtime.clock.monotonic() - call.started_at
            self._conclude(call, "timeout", f"There was no result within {seconds:.3g} s. The call was stopped.")
        elif call.state == "pending":
            self._conclude(call, "timeout", "Too many tools are running. The call was not run.")
        else:
            self._deny(call, "no answer in time")
        self._kill(job)

    def _deny(self, call: ToolRun, reason: str | None) -> None:
        self._conclude(call, "denied", f"The user did not approve this call{f': {reason}' if reason else '.'}")

    def _conclude(self, call: ToolRun, status: ToolResultStatus, content: str) -> None:
        """Set the result of a call."""
        ran = call.state == "running"
        result = ToolResult(
            call_id=call.call.id,
            name=call.call.name,
            status=status,
            content=cut_text(content, self._agent.options.max_result_bytes),
            duration_s=self._runtime.clock.monotonic() - call.started_at if ran else 0.0,
        )
        self._agent.set_result(self._turn, call, result, self._ref)

    def _kill(self, job: Job | None) -> None:
        if job is not None:
            job.cancel()
            if job.task is not None:
                self._runtime.exit(job.task, KILL)

    def _push(self, event: ToolEvent) -> None:
        """Push an event to the stream. One that has ended is ignored: it notifies the agent itself."""
        self._turn.stream.intake.push_event(event)


def _decide(approve: Approve, request: ToolCall, context: ToolContext) -> Any:
    """Ask ``approve``. If it is async, this waits for it."""
    decision: Any = approve(request)
    if inspect.isawaitable(decision) and not isinstance(decision, Reply):  # the task waits for a reply
        assert context.run_coroutine is not None
        decision = context.run_coroutine(decision)
    return decision
