"""Routes about agents: conversations that the server keeps."""

from __future__ import annotations

from penstock.gateway import agents
from penstock.gateway.call import HttpCall
from penstock.gateway.opener import created
from penstock.gateway.projections.frames import encode
from penstock.gateway.protocols import variant_in
from penstock.gateway.serving import serve_new

__all__ = ["create", "decide", "delete", "list_agents", "send", "show"]


async def create(call: HttpCall) -> None:
    """Start an agent."""
    hosted = await agents.create_agent(call, await call.exchange.json())
    location = f"{call.exchange.scope.get('root_path', '')}/v1/agents/{hosted.agent_id}"
    await call.exchange.respond(201, encode(agents.shown_agent(hosted)), [("location", location)])


async def list_agents(call: HttpCall) -> None:
    """The agents that this key may use, newest first."""
    found = [
        hosted for hosted in reversed(call.gateway.agents.all()) if hosted.owner == call.key.id or call.key.may("admin")
    ]
    await call.exchange.respond(200, encode({"agents": [agents.shown_agent(hosted) for hosted in found]}))


async def show(call: HttpCall) -> None:
    """One agent with its history."""
    hosted = agents.find_agent(call, call.exchange.params["agent_id"])
    await call.exchange.respond(200, encode(agents.shown_agent(hosted, with_history=True)))


async def send(call: HttpCall) -> None:
    """Send a message. The answer is a stream: its events, for a client that accepts them, else its address."""
    body = await call.exchange.json()
    variant = call.protocol.closed(variant_in(call.exchange.query))
    is_streamed = "text/event-stream" in call.exchange.headers.get("accept", "")
    if is_streamed:
        call.gateway.admit_reader()
    channel = await agents.send_message(call, call.exchange.params["agent_id"], body)
    if is_streamed:
        await serve_new(call, channel, variant)
    else:
        headers = [("x-penstock-stream-id", channel.stream_id)]
        await call.exchange.respond(201, encode(created(call, channel)), headers)


async def decide(call: HttpCall) -> None:
    """Approve or deny a tool call that waits."""
    hosted = agents.find_agent(call, call.exchange.params["agent_id"])
    call_id = call.exchange.params["call_id"]
    waited = await agents.decide(call, hosted.agent, call_id, await call.exchange.json())
    await call.exchange.respond(200, encode({"call_id": call_id, "waited": waited}))


async def delete(call: HttpCall) -> None:
    """End an agent; its running answers are cancelled."""
    await agents.stop_agent(call, agents.find_agent(call, call.exchange.params["agent_id"]))
    await call.exchange.respond(204, b"")
