"""The calls of one round at work: who runs, who waits for a place or for approval, whose result is next to be told.

Part of an agent's process, and used by nobody else. No foreign code runs here but a tool's check of its arguments, and
what it has called when it is cancelled; everything that may block runs in a task of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.actors.agent.record import Advance, AgentRecord
from penstock.actors.agent.results import cut_text, describe_failure, describe_parse_error
from penstock.actors.agent.task import Job, TaskDone
from penstock.actors.agent.turn import ToolRun, Turn
from penstock.actors.runtime.process import Process
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
    ToolEvent,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
    ToolResultStatus,
)
from penstock.ports import Tool, ToolContext

__all__ = ["Decide", "Progressed", "ToolRound"]


class Decide(msgspec.Struct, frozen=True):
    """Approve a call that waits for it, or deny it; the answer is whether one of that id waited."""

    call_id: str
    approved: bool
    reason: str | None = None


class Progress:
    """The last thing that a tool has reported and nobody has read yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: list[Any] = []

    def put(self, progress: Any) -> bool:
        """Note it; whether whoever reads is to be told. The tool's thread."""
        with self._lock:
            is_news = not self._said
            self._said = [progress]
            return is_news

    def take(self) -> list[Any]:
        """What there is, which is nothing or one thing."""
        with self._lock:
            said, self._said = self._said, []
            return said


class Progressed(Ephemeral, msgspec.Struct, frozen=True):
    """A tool has reported."""

    job: Job
    progress: Progress


class ToolRound:
    """See the module's docstring. Every method runs in the agent's process, but for `abandon`."""

    def __init__(self, process: Process, agent: AgentRecord, turn: Turn, calls: list[ToolRun]) -> None:
        self._runtime = process.runtime
        self._ref = process.ref
        self._agent = agent
        self._turn = turn
        self._calls = calls
        self._told = 0  # of how many results the stream has been told

    def begin(self) -> list[Action]:
        """Tell that it begins, and see which calls can be run at all, and of which somebody is to be asked."""
        self._push(ToolExecutionStarted(round=len(self._turn.rounds) + 1, calls=tuple(one.call for one in self._calls)))
        actions: list[Action] = []
        for call in self._calls:
            tool, told = call.tool, call.call
            if tool is None:
                known = ", ".join(self._agent.tools) or "none"
                self._conclude(call, "unknown_tool", f"There is no tool {told.name!r}. There are: {known}.")
            elif told.arguments is None:
                self._conclude(call, "invalid_arguments", describe_parse_error(told.arguments_raw))
            elif tool.needs_approval and self._agent.approve is None:
                self._request_approval(call, actions)
        return actions

    def refuse(self, content: str) -> None:
        """None of them is run."""
        for call in self._calls:
            self._conclude(call, "cancelled", content)

    def handle(self, event: Event) -> list[Action] | None:
        """Take what concerns a call; None: it does not concern one of these."""
        match event:
            case Cast(message=TaskDone(job=job) as done) if (call := self._at_work(job)) is not None:
                return self._task_done(call, done)
            case Info(message=Down(process=task)) if (call := self._run_by(task)) is not None:
                call.job = None
                self._conclude(call, "error", "The call was stopped before it was done.")
                return [cancel_timeout(call)]
            case Cast(message=Progressed(job=job, progress=progress)) if (call := self._at_work(job)) is not None:
                for said in progress.take():
                    self._push(ToolProgress(call_id=call.call.id, name=call.call.name, progress=said))
                return []
            case NamedTimeout(name=ToolRun() as call) if call in self._calls:
                self._timed_out(call)
                return []
            case Call(message=Decide() as decision):
                return self._decided(event, decision)
            case Cast(message=Advance()) if not self._turn.stream.is_over:
                return []  # there may be a place for a call now
        return None

    def go_on(self, actions: list[Action]) -> bool:
        """Start what may start, and tell the results that are next in order; whether all are told."""
        self._start_calls(actions)
        calls = self._calls
        while self._told < len(calls) and (result := calls[self._told].result) is not None:
            self._push(result)
            self._told += 1
        return self._told == len(calls)

    def abandon(self) -> list[Action]:
        """Nobody waits for any of them: end what runs. Any thread, when the agent's process is dead."""
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
            self._let_wait(call, actions, for_place=is_full)
            if free <= 0 or is_full:
                continue
            if self._start(call, actions):
                free -= 1
            else:
                agent.quota.release()

    def _let_wait(self, call: ToolRun, actions: list[Action], *, for_place: bool) -> None:
        """Have its time run while tools that do not end hold all the threads there are for tools, and only then."""
        if for_place and not call.wants_place:
            actions.append(timeout(call, self._agent.options.tool_timeout))
        elif call.wants_place and not for_place:
            actions.append(cancel_timeout(call))
        call.wants_place = for_place

    def _start(self, call: ToolRun, actions: list[Action]) -> bool:
        """Start a task for it, in the place that has been taken; whether there was need of one."""
        agent, tool, told = self._agent, call.tool, call.call
        assert tool is not None
        approve = agent.approve
        if approve is not None and not call.is_approved:
            call.state = "deciding"
            self._launch(call, f"approve/{told.name}", lambda: approve(told), lambda: None)
            actions.append(timeout(call, agent.options.approval_timeout))
            return True
        try:
            arguments = tool.check(told.arguments)
        except ToolArgumentsError as error:
            self._conclude(call, "invalid_arguments", str(error))
            return False
        except Exception as error:
            self._conclude(call, "error", describe_failure(error))
            return False
        call.state = "running"  # first: whatever happens from here on, it may have taken effect
        call.asked_at = self._runtime.clock.monotonic()
        self._run(call, tool, arguments)
        actions.append(timeout(call, agent.options.tool_timeout if tool.timeout is None else tool.timeout))
        return True

    def _run(self, call: ToolRun, tool: Tool, arguments: Any) -> None:
        tell = self._ref.tell
        progress = Progress()

        def report(said: Any) -> None:
            # Only the last of what it says in a hurry is told: progress is a state, and nothing else bounds it.
            job = call.job
            if job is not None and progress.put(said):
                tell(Progressed(job, progress))

        context = ToolContext(call.call.id, tool.name, report)
        self._launch(call, f"tool/{tool.name}", lambda: tool.run(arguments, context), context.cancel)

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

    # --- what comes of them --------------------------------------------------------------------------------------

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
            error = done.error or TypeError(f"the tool gave {type(done.value).__name__}, not str")
            self._conclude(call, "error", describe_failure(error))
        return actions

    def _answered(self, call: ToolRun, done: TaskDone, actions: list[Action]) -> None:
        """The agent's ``approve`` has spoken; what is neither True nor None is a no."""
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
            seconds = self._runtime.clock.monotonic() - call.asked_at
            self._conclude(call, "timeout", f"There was no result within {seconds:.3g} s. The call was stopped.")
        elif call.state == "pending":
            self._conclude(call, "timeout", "Too many tools run already. The call was not run.")
        else:
            self._deny(call, "nobody approved it in time")
        self._kill(job)

    def _deny(self, call: ToolRun, reason: str | None) -> None:
        self._conclude(call, "denied", f"The user did not approve this call{f': {reason}' if reason else '.'}")

    def _conclude(self, call: ToolRun, status: ToolResultStatus, content: str) -> None:
        """That is what has come of it."""
        ran = call.state == "running"
        result = ToolResult(
            call_id=call.call.id,
            name=call.call.name,
            status=status,
            content=cut_text(content, self._agent.options.max_result_bytes),
            duration_s=self._runtime.clock.monotonic() - call.asked_at if ran else 0.0,
        )
        self._agent.set_result(self._turn, call, result, self._ref)

    def _kill(self, job: Job | None) -> None:
        if job is not None:
            job.cancel()
            if job.task is not None:
                self._runtime.exit(job.task, KILL)

    def _push(self, event: ToolEvent) -> None:
        """Tell the stream; one that has ended has told the agent, or is about to."""
        self._turn.stream.intake.push_event(event)
