"""`Agent`: the user's handle of one conversation with a model and its tools."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import pykka

from penstock.actors.agent.history import History, Message, read_turns, user_message
from penstock.actors.agent.keeping import AgentKeeper
from penstock.actors.agent.record import AgentRecord, AgentStatistics, Approve
from penstock.actors.agent.toolround import Decide
from penstock.actors.agent.turn import Turn
from penstock.actors.runtime.dispatcher import check_process
from penstock.actors.runtime.loop_ticker import running_loop
from penstock.actors.stream.messages import Cancel
from penstock.adapters.providers.call_options import take_call_options
from penstock.adapters.tools import check_names, check_tools, name_of, to_tool
from penstock.config.agents import AgentOptions
from penstock.config.checks import check_metadata, check_number
from penstock.config.options import OnOrphan, RequestOptions, StreamOptions
from penstock.config.surrogates import replace_surrogates
from penstock.errors import AgentStopped, OptionError, ProcessDead, SystemForked
from penstock.events import StreamCompleted
from penstock.ports import ChatCall, Provider, Tool
from penstock.services import HasServices, Services
from penstock.stream import Stream, await_or_cancel, wait_or_cancel
from penstock.supervisors.system.agents import start_agent, start_call, start_task

__all__ = ["Agent", "agent_with", "create_agent"]

UserMessage: TypeAlias = str | Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""A text, a list of content parts, or a whole message of the role ``user``."""

_NOT_ACCEPTED: Final = "the agent did not accept the message"


class Agent:
    """One conversation. All methods may be called from any thread.

    It keeps its history, runs the tools that the model calls, and answers one message after the other. It need not be
    stopped: when the handle is dropped, the agent ends after it has answered all messages.
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

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._record.name

    def stream_chat(
        self,
        message: UserMessage,
        subscriber: pykka.ActorRef[Any] | Callable[[Any], object] | None = None,
        *,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_orphan: OnOrphan = "cancel",
    ) -> Stream:
        """Send a message, and stream the answer. Returns at once.

        Messages are answered in order. While an earlier one is being answered, the stream is open without events. If it
        is cancelled before its answer begins, the message does not become part of the history; nor if the provider
        refuses it (`BadRequestError`, `ContentFilterError`) or no request can be made of it, and nothing was answered.

        Tools run in a copy of the caller's context (`contextvars`). Async tools run on the caller's event loop if there
        is one. While that loop is blocked, and without one, they share the system's own loop.

        Args:
            message: a text, a list of content parts, or a whole message of the role ``user``. Lone surrogates in it
                become U+FFFD.
            subscriber: an actor or a function that gets all events, as by `Stream.subscribe`.
            stream_id: as for `System.open_stream`.
            options: None takes the agent's.
            metadata: as for `System.open_stream`; added to the agent's.
            on_orphan: as for `System.chat`; when the stream is cancelled, its running tools are cancelled too.

        Raises:
            AgentBusy: too many messages wait.
            AgentStopped: the agent has been stopped.
            OptionError: an argument is not allowed, or the message is not JSON: it has NaN or infinity in it …
            StreamExists, SystemStopped: as for `System.open_stream`.
        """
        record = self._record
        check_process(record.runtime.dispatcher)
        content = user_message(message)
        check_metadata(metadata)
        record.reserve()
        turn: Turn | None = None
        try:
            extra = {**self._metadata, **(metadata or {})}
            opened = self._services.open_stream(
                stream_id, options or self._options, metadata=extra, on_orphan=on_orphan
            )
            opened.is_turn = True
            stream = Stream(opened, self._call_timeout)
            try:
                if subscriber is not None:
                    stream.subscribe(subscriber)
                turn = Turn(opened, content, asyncio._get_running_loop())
                if record.keeper is not None and opened.stored is not None:
                    opened.stored.note(agent={"name": record.name, "message": content})
            except BaseException:
                opened.propose(Cancel(_NOT_ACCEPTED))
                raise
        finally:
            if turn is None:
                record.submit(None)
        try:
            record.submit(turn)
        except AgentStopped:
            opened.propose(Cancel(_NOT_ACCEPTED))
            raise
        return stream

    def chat(
        self,
        message: UserMessage,
        *,
        timeout: float | None = None,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> StreamCompleted:
        """Send a message, wait for the answer and return it.

        Args:
            message: as for `stream_chat`.
            timeout: seconds after which the answer is cancelled; None waits without limit.
            stream_id: as for `stream_chat`.
            options: as for `stream_chat`.
            metadata: as for `stream_chat`.

        Raises:
            PenstockError: the answer failed; as for `Stream.result`, and as for `stream_chat`.
            CallTimeout: it was not complete within ``timeout`` seconds.
        """
        check_number("timeout", timeout, 0, 86_400, optional=True)
        stream = self.stream_chat(message, stream_id=stream_id, options=options, metadata=metadata)
        return wait_or_cancel(stream, timeout)

    async def achat(
        self,
        message: UserMessage,
        *,
        timeout: float | None = None,
        stream_id: str | None = None,
        options: StreamOptions | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> StreamCompleted:
        """The same as `chat`, without blocking the event loop. Cancelling the task cancels the answer."""
        check_number("timeout", timeout, 0, 86_400, optional=True)
        stream = self.stream_chat(message, stream_id=stream_id, options=options, metadata=metadata)
        return await await_or_cancel(stream, timeout)

    # --- calls that wait for approval --------------------------------------------------------------------------------

    def approve(self, call_id: str, *, timeout: float | None = None) -> bool:
        """Run a call that a `ToolApprovalRequested` event has announced; returns whether it still waited."""
        return self._decide(Decide(call_id, approved=True), timeout)

    def deny(self, call_id: str, reason: str | None = None, *, timeout: float | None = None) -> bool:
        """Deny a call; the model gets the reason. Returns whether the call still waited."""
        return self._decide(Decide(call_id, approved=False, reason=reason), timeout)

    def _decide(self, decision: Decide, timeout: float | None) -> bool:
        check_process(self._record.runtime.dispatcher)
        check_number("timeout", timeout, 0, 1e9, optional=True)
        ref = self._record.ref
        try:
            waited: bool = ref is not None and ref.ask(
                decision, timeout=self._call_timeout if timeout is None else timeout
            )
        except ProcessDead:  # the calls that waited have ended with it
            return False
        return waited

    # --- inspection --------------------------------------------------------------------------------------------------

    @property
    def history(self) -> tuple[Message, ...]:
        """The conversation as it is sent to the model, instructions first, as a copy.

        It has the turns whose streams have ended, each from the moment of its stream's end.

        Setting it replaces all of it, instructions included, by messages of the same form. A turn that is being
        answered goes on and is added when it ends; its further rounds, and queued messages, have the new history.

        Raises:
            OptionError: when it is set: a message is not allowed. The history is unchanged.
        """
        check_process(self._record.runtime.dispatcher)
        return self._record.messages()

    @history.setter
    def history(self, messages: Iterable[Mapping[str, Any]]) -> None:
        check_process(self._record.runtime.dispatcher)
        self._record.set_history(*read_turns(messages))

    def forget(self, turns: int = 1) -> int:
        """Drop the newest turns from the history; returns how many were dropped, fewer if there are not so many.

        A turn is a message with everything up to its answer. Instructions stay. A turn that is being answered does not
        count and is added when it ends; its further rounds, and queued messages, are asked without the dropped turns.

        Raises:
            OptionError: ``turns`` is not a whole number from 1.
        """
        check_number("turns", turns, 1, 1e9, whole=True)
        check_process(self._record.runtime.dispatcher)
        return self._record.forget(turns)

    @property
    def state(self) -> str:
        """``idle``, ``asking``, ``working`` (tools), ``ending`` (the stream emits what is buffered), or ``ended``."""
        return self._record.state

    @property
    def is_alive(self) -> bool:
        """Whether the agent takes messages."""
        return not self._record.is_closed

    def statistics(self) -> AgentStatistics:
        """The counters of the agent. Never blocks on its process."""
        check_process(self._record.runtime.dispatcher)
        return self._record.statistics()

    # --- the end -----------------------------------------------------------------------------------------------------

    def stop(self, timeout: float | None = None) -> None:
        """End the agent. All its running and waiting streams end in `StreamCancelled`; running tools are cancelled.

        Returns when that is done; harmless if it has ended. The history stays readable.

        Raises:
            CallTimeout: it has not ended within ``timeout`` seconds (default: the setting ``call_timeout``).
        """
        record = self._record
        check_process(record.runtime.dispatcher)
        check_number("timeout", timeout, 0, 1e9, optional=True)
        clock = record.runtime.clock
        deadline = clock.monotonic() + (self._call_timeout if timeout is None else timeout)
        ends = [turn.stream.over for turn in record.cancel_all("the agent was stopped")]
        for over in (*ends, record.over):
            over.get(timeout=max(0.0, deadline - clock.monotonic()))

    async def __aenter__(self) -> Self:
        running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(SystemForked):
            await asyncio.to_thread(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(SystemForked):
            self.stop()

    def __del__(self) -> None:
        # A `weakref.finalize` would keep the record, and its tools, which may be methods of what keeps this handle.
        if not sys.is_finalizing():
            self._record.abandon()

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
        name: its name in the tree and in errors, unique among running agents; None generates one.
        model: the model's name, as for `chat`.
        tools: functions, `tool`\ s, or pairs of a schema and a function that the model may call. A dict is a tool that
            the provider runs itself, in the provider's own form.
        system_prompt: instructions, sent first; replaces those in ``history``.
        provider: as for `chat`.
        base_url: as for `chat`.
        api_key: as for `chat`.
        options: of its streams; None takes the settings' ``chat`` group.
        request_options: as for `chat`.
        agent_options: the agent's limits; None takes the settings' ``agent`` group.
        max_tool_rounds: instead of the one in ``agent_options``.
        history: messages of a conversation to continue, as in another agent's ``history``. Where the system has a log
            store, an agent with a ``name`` and without these continues the stored conversation of that name.
        approve: called with each `ToolCall` before it runs, in a thread of its own, or awaited as async tools are.
            True runs it, False denies it, None asks by a `ToolApprovalRequested` event. Without it, only tools with
            ``needs_approval`` ask by that event.
        metadata: is part of every event of its streams.
        **request_parameters: as for `chat`; added to each request.

    Raises:
        OptionError: an argument is not allowed, or there is no key.
        AgentExists: a running agent has that name.
        SystemStopped: the system has been stopped.
    """
    return agent_with(
        self,
        request_parameters,
        name,
        model=model,
        tools=tools,
        system_prompt=system_prompt,
        provider=provider,
        base_url=base_url,
        api_key=api_key,
        options=options,
        request_options=request_options,
        agent_options=agent_options,
        max_tool_rounds=max_tool_rounds,
        history=history,
        approve=approve,
        metadata=metadata,
    )


def agent_with(
    self: HasServices,
    request_parameters: dict[str, Any],
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
) -> Agent:
    """The same as `create_agent`, with the model's parameters as one mapping: none can have an argument's name."""
    services = self._services
    services.check_running()
    runtime, settings = services.runtime, services.settings
    is_unnamed, name = name is None, _agent_name(name)
    if not isinstance(model, str) or not model:
        raise OptionError("model", model, "a model's name")
    limits = _limits(agent_options if agent_options is not None else settings.agent, max_tool_rounds)
    check_metadata(metadata)
    known, foreign = _tools(tools)
    if approve is not None and not callable(approve):
        raise OptionError("approve", type(approve).__name__, "a function of a ToolCall, or None")
    if known or foreign:
        request_parameters["tools"] = [*map(_described, known.values()), *foreign]
    chosen = services.catalogue.find(provider, model, base_url, api_key)
    # Checked here, so that the first message does not fail; every call takes them again.
    take_call_options(
        ChatCall(model=chosen.model, input=[], parameters=request_parameters), request_options or settings.request
    )
    keeper = None if is_unnamed else _keeper(services, name)
    if keeper is not None and not history:
        history = keeper.messages
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
        loops=services.tool_loops,
        keeper=keeper,
    )
    stream_options = _checked(options if options is not None else settings.chat)
    _start(services, record)
    if keeper is not None and history is not keeper.messages:
        keeper.replace(record.past_messages())
    return Agent(record, services, stream_options, dict(metadata or {}))


def _start(services: Services, record: AgentRecord) -> None:
    services.agents.add(record)
    try:
        start_agent(services.runtime, record, services.call_timeout)
    except BaseException:
        record.close()
        services.agents.forget(record)
        raise


def _limits(options: object, max_tool_rounds: int | None) -> AgentOptions:
    if not isinstance(options, AgentOptions):
        raise OptionError("agent_options", type(options).__name__, "an AgentOptions or None")
    return options if max_tool_rounds is None else options.replace(max_tool_rounds=max_tool_rounds)


def _checked(options: object) -> StreamOptions:
    if not isinstance(options, StreamOptions):
        raise OptionError("options", type(options).__name__, "a StreamOptions or None")
    return options


def _keeper(services: Services, name: str) -> AgentKeeper | None:
    """What keeps the agent's history in the log store, if there is one.

    Raises:
        AgentExists: a running agent has that name.
        StoreError: the stored history cannot be read.
    """
    services.agents.check(name)
    return None if services.writer is None else AgentKeeper(services.writer, name, services.call_timeout)


def _agent_name(name: str | None) -> str:
    if name is None:
        return f"a-{uuid.uuid4().hex[:12]}"
    if not isinstance(name, str) or not 0 < len(name) <= 256 or not name.isprintable():
        raise OptionError("name", name, "1 to 256 printable characters, or None")
    return name


def _tools(things: Iterable[Any]) -> tuple[dict[str, Tool], list[Message]]:
    """The tools that the agent runs, by name, and those that the provider runs."""
    tools: dict[str, Tool] = {}
    foreign: list[Message] = []
    for thing in check_tools(things):
        if isinstance(thing, Mapping):
            if thing.get("type") in ("function", "custom"):
                raise OptionError("tools", "a schema alone", "a pair of a schema and the function to call")
            foreign.append(dict(thing))
            continue
        tool = to_tool(thing)
        check_names((*tools, tool.name))
        tools[tool.name] = tool
    check_names((*tools, *map(name_of, foreign)))
    return tools, foreign


def _described(tool: Tool) -> Message:
    kind = getattr(tool, "type", "function")
    if kind == "custom":
        custom = {"name": tool.name, "description": tool.description}
        grammar = getattr(tool, "format", None)
        return {"type": "custom", "custom": custom | ({"format": dict(grammar)} if grammar else {})}
    if kind != "function":
        return {"type": kind}
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _history(given: Iterable[Mapping[str, Any]], system_prompt: str | None, limits: AgentOptions) -> History:
    system, turns = read_turns(given)
    if system_prompt is not None:
        if not isinstance(system_prompt, str):
            raise OptionError("system_prompt", type(system_prompt).__name__, "a text, or None")
        system = [{"role": "system", "content": replace_surrogates(system_prompt)}] if system_prompt else []
    return History(system, turns, max_messages=limits.max_history_messages, max_bytes=limits.max_history_bytes)
