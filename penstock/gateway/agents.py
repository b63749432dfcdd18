"""The agents that clients have started, and the templates that the host offers."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, Final

import msgspec

from penstock.agent import Agent, agent_with
from penstock.errors import AgentStopped
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.core import GatewayCore
from penstock.gateway.hosted import HostedAgent
from penstock.gateway.opener import orphan_policy
from penstock.gateway.problems import Problem, RequestRefused, shown_name
from penstock.gateway.requests.own_fields import model_parameters, object_field, text_field

__all__ = ["check_agent", "create_agent", "decide", "find_agent", "send_message", "shown_agent", "stop_agent"]

_FIELDS: Final = frozenset(
    {
        *("agent", "name", "model", "provider", "system_prompt", "tools", "history", "parameters", "metadata"),
        *("max_tool_rounds",),
    }
)


async def create_agent(call: HttpCall, body: Mapping[str, Any]) -> HostedAgent:
    """Start an agent: of a template of the host's (``agent``), or of a model, with tools of the host's by name.

    Raises:
        RequestRefused: a field is unknown or malformed, or there are too many agents.
        PenstockError: it cannot be started.
    """
    gateway = call.gateway
    gateway.admit_stream(call.key)
    gateway.agents.admit()
    unknown = sorted(body.keys() - _FIELDS)
    if unknown:
        raise RequestRefused.bad_request(f"There is no field {shown_name(unknown[0])}.", shown_name(unknown[0]))
    arguments, parameters = _arguments(gateway, body)
    agent = await gateway.in_thread(lambda: agent_with(gateway.system, parameters, **arguments))
    return gateway.agents.add(HostedAgent(agent, call.key.id, arguments["model"], gateway.ticker.loop.time()))


def _arguments(gateway: GatewayCore, body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of the agent, and apart from them the model's parameters: no name of a client's means an argument.

    Raises:
        RequestRefused: a field is malformed.
    """
    arguments: dict[str, Any] = {}
    hosts: dict[str, Any] = {}
    template = body.get("agent")
    if template is not None:
        if not isinstance(template, str) or template not in gateway.templates:
            known = ", ".join(gateway.templates) or "none"
            raise RequestRefused.bad_request(f"There is no agent of this kind; there are: {known}.", "agent")
        arguments, hosts = split_template(gateway.templates[template])
    for name in ("model", "provider"):
        text_field(body, name)
    for name in ("name", "model", "provider", "system_prompt", "history", "metadata", "max_tool_rounds"):
        if body.get(name) is not None:
            if template is not None and name in ("provider", "system_prompt", "max_tool_rounds"):
                raise RequestRefused.bad_request(f"{name} is set by the agent {template}.", name)
            arguments[name] = body[name]
    if body.get("tools") is not None:
        arguments["tools"] = _tools(gateway, body["tools"])
    given = object_field(body, "parameters")
    if "tools" in given:
        raise RequestRefused.bad_request("The agent's tools are named in tools.", "parameters.tools")
    parameters = hosts | model_parameters(given, has_extra_body=True)
    if "extra_body" in hosts and "extra_body" in parameters:
        parameters["extra_body"] = {**hosts["extra_body"], **parameters["extra_body"]}
    model = arguments.get("model") or gateway.system.settings.model()
    if not model:
        raise RequestRefused.bad_request("model is missing, and the server has no default.", "model")
    return arguments | {"model": model}, parameters


def split_template(template: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A template's arguments of an agent, and its parameters of the model."""
    arguments = {name: value for name, value in template.items() if name in _ARGUMENTS}
    return arguments, {name: value for name, value in template.items() if name not in _ARGUMENTS}


_ARGUMENTS: Final = frozenset(signature(agent_with).parameters) - {"self", "request_parameters"}


def _tools(gateway: GatewayCore, names: object) -> list[Any]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestRefused.bad_request("tools must be a list of names.", "tools")
    for name in names:
        if name not in gateway.tools:
            known = ", ".join(gateway.tools) or "none"
            raise RequestRefused.bad_request(f"There is no such tool; there are: {known}.", "tools")
    return [gateway.tools[name] for name in names]


def find_agent(call: HttpCall, agent_id: str) -> HostedAgent:
    """An agent that the request's key may use.

    Raises:
        RequestRefused: there is none (404).
    """
    found = call.gateway.agents.get(agent_id)
    if found is None or not (found.owner == call.key.id or call.key.may("admin")):
        text = "There is no agent with this id."
        raise RequestRefused(Problem(status=404, type="not_found_error", code="agent_not_found", message=text))
    found.used_at = call.gateway.ticker.loop.time()
    return found


def check_agent(call: HttpCall, agent_id: str) -> None:
    """Check that an agent could be sent a message now, if it has room for one.

    Raises:
        RequestRefused: there is none that the request's key may use (404), or it has ended (410).
    """
    if not find_agent(call, agent_id).agent.is_alive:
        raise RequestRefused(_ENDED)


_ENDED: Final = Problem(status=410, type="gone", code="agent_ended", message="The agent has ended.")


async def send_message(call: HttpCall, agent_id: str, body: Mapping[str, Any]) -> Channel:
    """Send a message to an agent, and enter the stream of its answer.

    Raises:
        RequestRefused: there is no such agent, or the message is malformed.
        PenstockError: the agent does not take it.
    """
    hosted = find_agent(call, agent_id)
    message = body.get("message")
    if not isinstance(message, (str, list, dict)) or not message:
        raise RequestRefused.bad_request(
            "message must be a text, a list of content parts, or a user's message.", "message"
        )
    call.gateway.admit_stream(call.key)
    metadata = {"traceparent": call.trace.headers["traceparent"]}
    on_orphan = orphan_policy(call, None)

    def run() -> Any:
        return hosted.agent.stream_chat(message, on_orphan=on_orphan, metadata=metadata)

    key, protocol = call.key, call.protocol.name

    def channel_of(stream: Any) -> Channel:
        channel = Channel(stream, owner=key.id, protocol=protocol, request=body, model=hosted.model)
        channel.agent, channel.agent_id = hosted.agent, agent_id
        return channel

    try:
        channel = await call.gateway.enter(key, run, channel_of)
    except AgentStopped:
        raise RequestRefused(_ENDED) from None
    channel.linger_unread()
    return channel


async def decide(call: HttpCall, agent: Agent, call_id: str, body: Mapping[str, Any]) -> bool:
    """Approve or deny a tool call that waits; returns whether it still waited.

    Raises:
        RequestRefused: the body is malformed.
    """
    approve, reason = body.get("approve"), body.get("reason")
    if not isinstance(approve, bool):
        raise RequestRefused.bad_request("approve must be true or false.", "approve")
    if reason is not None and not isinstance(reason, str):
        raise RequestRefused.bad_request("reason must be a text.", "reason")
    if approve:
        return await call.gateway.in_thread(agent.approve, call_id)
    return await call.gateway.in_thread(agent.deny, call_id, reason)


async def stop_agent(call: HttpCall, hosted: HostedAgent) -> None:
    """End an agent and forget it."""
    call.gateway.agents.forget(hosted)
    await call.gateway.in_thread(hosted.agent.stop)


def shown_agent(hosted: HostedAgent, *, with_history: bool = False) -> dict[str, Any]:
    """An agent as JSON."""
    agent = hosted.agent
    fields: dict[str, Any] = {
        "agent_id": hosted.agent_id,
        "name": agent.name,
        "model": hosted.model,
        "state": agent.state,
        "is_alive": agent.is_alive,
        "statistics": msgspec.to_builtins(agent.statistics(), enc_hook=repr),
    }
    return fields | ({"history": list(agent.history)} if with_history else {})
