"""`Agent`: one conversation with a model and its tools, in the hands of its user."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import pykka

from penstock.actors.agent.history import History, Message, read_turns, user_message
from penstock.actors.agent.record import AgentRecord, AgentStatistics, Approve
from penstock.actors.agent.toolround import Decide
from penstock.actors.agent.turn import Turn
from penstock.actors.stream.messages import Cancel
from penstock.adapters.tools import check_tools, to_tool
from penstock.config.agents import AgentOptions
from penstock.config.checks import check_metadata, check_number
from penstock.config.options import OnOrphan, RequestOptions, StreamOptions
from penstock.errors import AgentStopped, OptionError, ProcessDead
from penstock.ports import Provider, Tool
from penstock.services import HasServices, Services
from penstock.stream import Stream
from penstock.supervisors.system.agents import start_agent, start_call, start_task

__all__ = ["Agent", "create_agent"]

_UNSAID: Final = "its message was not accepted"


class Agent:
    """One conversation. All methods may be called from any thread.

    It keeps its history, runs the tools the model calls for, and answers one message after the other. Whoever loses it
    need not stop it: it ends when it has answered what it was asked.
    """

    __slots__ = ("__weakref__", "_call_timeout", "_metadata", "_options", "_record", "_services")

    def __init__(
        self,
        record: AgentRecord,
        services: Services,
        options: StreamOptions,
        metadata: Mapping[str, Any],
    ) -> None:
        self._record = record
        self._services = services
        self._options = options
        self._metadata = metadata
        self._call_timeout = services.call_timeout
        weakref.finalize(self, record.abandon).atexit = False

    @property
    def name(self) -> str:
        """Its name."""
        return self._record.name

    def stream_chat(
        self,
        message: str | Sequence[Mapping[str, Any]] | Mapping[str, Any],
        subscriber: pykka.ActorRef[Any] | Callable[[Any], object] | None = None,
        *,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_orphan: OnOrphan = "cancel",
    ) -> Stream:
        """Say something, and stream the answer. Returns at once.

        Messages are answered in the order in which they were said: while another one is being answered, the stream
        is open and silent. If it is cancelled before its turn comes, the message has not been said.

        Args:
            message: a text, a list of content parts, or a whole message of the role ``user``.
            subscriber: an actor, or a function, that is told all events, as by `Stream.subscribe`.
            stream_id: as for `System.open_stream`.
            options: None takes the agent's.
            metadata: as for `System.open_stream`; added to the agent's.
            on_orphan: as for `System.chat`; with the answer, the tools that run for it are cancelled.

        Raises:
            AgentBusy: too many messages wait.
            AgentStopped: it has been stopped.
            OptionError: an argument is not allowed.
            StreamExists, SystemStopped: as for `System.open_stream`.
        """
        said = user_message(message)
        check_metadata(metadata)
        record = self._record
        record.reserve()
        turn: Turn | None = None
        try:
            told = {**self._metadata, **(metadata or {})}
            opened = self._services.open_stream(stream_id, options or self._options, metadata=told, on_orphan=on_orphan)
            stream = Stream(opened, self._call_timeout)
            try:
                if subscriber is not None:
                    stream.subscribe(subscriber)
                turn = Turn(opened, said)
            except BaseException:
                opened.propose(Cancel(_UNSAID))
                raise
        finally:
            if turn is None:
                record.submit(None)
        try:
            record.submit(turn)
        except AgentStopped:
            opened.propose(Cancel(_UNSAID))
            raise
        return stream

    # --- calls that wait for approval ----------------------------------------------------------------------------

    def approve(self, call_id: str, *, timeout: float | None = None) -> bool:
        """Let a call run that a `ToolApprovalRequested` event has told of; whether it still waited."""
        return self._decide(Decide(call_id, approved=True), timeout)

    def deny(self, call_id: str, reason: str | None = None, *, timeout: float | None = None) -> bool:
        """Do not let it run; the model is told, with the reason. Returns whether it still waited."""
        return self._decide(Decide(call_id, approved=False, reason=reason), timeout)

    def _decide(self, decision: Decide, timeout: float | None) -> bool:
        check_number("timeout", timeout, 0, 1e9, optional=True)
        ref = self._record.ref
        try:
            waited: bool = ref is not None and ref.ask(
                decision, timeout=self._call_timeout if timeout is None else timeout
            )
        except ProcessDead:  # whatever waited has gone with it
            return False
        return waited

    # --- looking -------------------------------------------------------------------------------------------------

    @property
    def history(self) -> tuple[Message, ...]:
        """What the model is told of the conversation, instructions first, as a copy.

        Of the turns whose streams have ended: who has seen a stream's end finds it here.
        """
        return self._record.messages()

    @property
    def state(self) -> str:
        """``idle``, ``asking``, ``working`` (tools), ``ending`` (the stream lets out what it has), or ``ended``."""
        return self._record.state

    @property
    def is_alive(self) -> bool:
        """Whether it takes messages."""
        return not self._record.is_closed

    def statistics(self) -> AgentStatistics:
        """What it has done so far. Waits for nobody."""
        return self._record.statistics()

    # --- the end -------------------------------------------------------------------------------------------------

    def stop(self, timeout: float | None = None) -> None:
        """End it. The answer under way, and those that wait, end in `StreamCancelled`; tools that run are cancelled.

        Returns when that is done; harmless if it has ended. The history stays readable.

        Raises:
            CallTimeout: it has not ended within ``timeout`` seconds (default: the setting ``call_timeout``).
        """
        check_number("timeout", timeout, 0, 1e9, optional=True)
        record = self._record
        clock = record.runtime.clock
        deadline = clock.monotonic() + (self._call_timeout if timeout is None else timeout)
        ends = [turn.stream.over for turn in record.cancel_all("the agent was stopped")]
        for over in (*ends, record.over):
            over.get(timeout=max(0.0, deadline - clock.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Agent {self.name!r}, {self.state}>"


def create_agent(
    self: HasServices,
    name: str | None = None,
    *,
    model: str,
    tools: Iterable[Any] = (),
    system_prompt: str | None = None,
    provider: str | Provider | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    options: StreamOptions | None = None,
    request_options: RequestOptions | None = None,
    agent_options: AgentOptions | None = None,
    max_tool_rounds: int | None = None,
    history: Iterable[Mapping[str, Any]] = (),
    approve: Approve | None = None,
    metadata: Mapping[str, Any] | None = None,
    **request_parameters: Any,
) -> Agent:
    r"""Start an agent: a conversation that keeps its history and runs tools.

    Args:
        self: the system.
        name: what it is called in the tree and in errors; unique among those that run. None makes one up.
        model: the model's name, as for `chat`.
        tools: functions, `tool`\ s, or pairs of a schema and a function that the model may call; a dict is a tool that
            the provider runs itself, in the provider's own form.
        system_prompt: instructions, before everything else; takes the place of those in ``history``.
        provider: as for `chat`.
        base_url: as for `chat`.
        api_key: as for `chat`.
        options: of its streams; None takes the settings' ``chat`` group.
        request_options: as for `chat`.
        agent_options: how far it may go by itself; None takes the settings' ``agent`` group.
        max_tool_rounds: in the place of the one in ``agent_options``.
        history: messages of a conversation to go on with, as another agent's ``history`` gives them.
        approve: asked before each call, with the `ToolCall`, in a thread of its own: True runs it, False denies it,
            None asks by a `ToolApprovalRequested` event. Without it, tools with ``needs_approval`` ask by that event.
        metadata: comes back in every event of its streams.
        **request_parameters: go into each request as they are.

    Raises:
        OptionError: an argument is not allowed, or there is no key.
        AgentExists: an agent of that name runs.
        SystemStopped: the system has been stopped.
    """
    services = self._services
    services.check_running()
    runtime, settings = services.runtime, services.settings
    name = _agent_name(name)
    if not isinstance(model, str) or not model:
        raise OptionError("model", model, "a model's name")
    limits = agent_options if agent_options is not None else settings.agent
    if not isinstance(limits, AgentOptions):
        raise OptionError("agent_options", type(limits).__name__, "an AgentOptions or None")
    if max_tool_rounds is not None:
        limits = limits.replace(max_tool_rounds=max_tool_rounds)
    check_metadata(metadata)
    known, foreign = _tools(tools)
    if approve is not None and not callable(approve):
        raise OptionError("approve", type(approve).__name__, "a function of a ToolCall, or None")
    if known or foreign:
        request_parameters["tools"] = [*map(_described, known.values()), *foreign]
    chosen = services.catalogue.find(provider, model, base_url, api_key)
    record = AgentRecord(
        runtime,
        name,
        model=chosen.model,
        tools=known,
        parameters=request_parameters,
        options=limits,
        history=_history(history, system_prompt, limits),
        approve=approve,
        make_call=lambda call, conductor: services.call(chosen, call, request_options, conductor=conductor),
        start_call=partial(start_call, runtime),
        start_task=partial(start_task, runtime),
        quota=services.quota,
    )
    stream_options = options if options is not None else settings.chat
    if not isinstance(stream_options, StreamOptions):
        raise OptionError("options", type(stream_options).__name__, "a StreamOptions or None")
    services.agents.add(record)
    try:
        start_agent(runtime, record, services.call_timeout)
    except BaseException:
        record.close()
        services.agents.forget(record)
        raise
    return Agent(record, services, stream_options, dict(metadata or {}))


def _agent_name(name: str | None) -> str:
    if name is None:
        return f"a-{uuid.uuid4().hex[:12]}"
    if not isinstance(name, str) or not 0 < len(name) <= 256 or not name.isprintable():
        raise OptionError("name", name, "1 to 256 printable characters, or None")
    return name


def _tools(things: Iterable[Any]) -> tuple[dict[str, Tool], list[Message]]:
    """Our tools by name, and those that the provider runs."""
    tools: dict[str, Tool] = {}
    foreign: list[Message] = []
    for thing in check_tools(things):
        if isinstance(thing, Mapping):
            if thing.get("type") == "function":
                raise OptionError("tools", "a schema alone", "a pair of a schema and the function to call")
            foreign.append(dict(thing))
            continue
        tool = to_tool(thing)
        if tool.name in tools:
            raise OptionError("tools", tool.name, "tools of different names")
        tools[tool.name] = tool
    return tools, foreign


def _described(tool: Tool) -> Message:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _history(given: Iterable[Mapping[str, Any]], system_prompt: str | None, limits: AgentOptions) -> History:
    system, turns = read_turns(given)
    if system_prompt is not None:
        if not isinstance(system_prompt, str):
            raise OptionError("system_prompt", type(system_prompt).__name__, "a text, or None")
        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return History(system, turns, max_messages=limits.max_history_messages, max_bytes=limits.max_history_bytes)
