"""Turns of agents behind every protocol: a request with one of the host's agents as its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.agent import Agent
from penstock.config.options import OnOrphan
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.projections.frames import encode
from penstock.gateway.requests.approvals import Approval
from penstock.gateway.requests.asked import Asked
from penstock.stream import Stream

__all__ = ["answer_approvals", "open_turn"]

_UNASKED: Final = "There is no way to ask over this protocol."
ASKING: Final = ("native", "socket", "ui", "agui")
"""Protocols in which a client can be asked whether a call may run."""


async def open_turn(call: HttpCall, asked: Asked, request: Mapping[str, Any], on_orphan: OnOrphan) -> Channel:
    """Have one of the host's agents answer the last message of a conversation, and enter the stream of its answer.

    Raises:
        RequestRefused: the last message is not the user's.
        PenstockError: the agent cannot be started, or does not take the message.
    """
    gateway = call.gateway
    messages = [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else list(asked.input)
    if not messages or messages[-1].get("role") != "user":
        text = f"The agent {asked.model} runs its own tools: the last message must be the user's."
        raise RequestRefused.bad_request(text, "messages")
    *history, last = messages
    template = dict(gateway.templates[asked.model])
    before = [*template.pop("history", ()), *history]
    metadata = {**template.pop("metadata", {}), **asked.metadata, "traceparent": call.trace.headers["traceparent"]}

    def run() -> tuple[Agent, Stream]:
        agent = gateway.system.agent(**template, history=before)
        stream = agent.stream_chat(last, stream_id=asked.stream_id, metadata=metadata, on_orphan=on_orphan)
        return agent, stream

    key, protocol = call.key, call.protocol.name

    def channel_of(opened: tuple[Agent, Stream]) -> Channel:
        agent, stream = opened
        channel = Channel(stream, owner=key.id, protocol=protocol, request=request, model=asked.model, asked=asked)
        channel.agent = agent
        if protocol not in ASKING and not asked.waits_for_approval:
            channel.deny = lambda call_id: gateway.later(agent.deny, call_id, _UNASKED)
        return channel

    return await gateway.enter(key, run, channel_of)


async def answer_approvals(
    call: HttpCall, channel: Channel | None, decisions: tuple[Approval, ...]
) -> dict[str, str] | None:
    """Carry out what the user has decided about calls that wait.

    Returns the variant of the answer that goes on after the event at which the last one ended to ask, and asks again
    if further calls wait. None: nothing waits.

    Raises:
        RequestRefused: none of the calls waits (409).
    """
    if channel is None or channel.agent is None or channel.record.is_over or not decisions:
        return None
    last = channel.asked_until(call.protocol)
    agent = channel.agent
    is_known = False
    for one in decisions:
        if one.is_approved:
            waited = await call.gateway.in_thread(agent.approve, one.call_id)
        else:
            waited = await call.gateway.in_thread(agent.deny, one.call_id, one.reason)
        is_known = is_known or waited or one.call_id in channel.decided
        if waited:
            channel.decided.append(one.call_id)
    if not is_known:
        text = "No call with such an id waits for approval."
        raise RequestRefused(
            Problem(status=409, type="invalid_request_error", code="approval_not_waiting", message=text)
        )
    channel.record.on_orphan = channel.on_orphan
    return {"from": str(last), "decided": encode(channel.decided).decode()}
