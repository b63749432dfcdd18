"""The operations of the native WebSocket that carry out something. Each answers with the fields it returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from penstock.gateway.agents import send_message
from penstock.gateway.call import HttpCall
from penstock.gateway.channels import Channel
from penstock.gateway.commands import COMMANDS, prepare
from penstock.gateway.keys import Scope
from penstock.gateway.opener import open_native
from penstock.gateway.problems import RequestRefused
from penstock.gateway.protocols import events_in
from penstock.gateway.requests.own_fields import whole_field
from penstock.gateway.steering import steer

__all__ = ["OPERATIONS", "SocketCall"]


class SocketCall(msgspec.Struct, frozen=True):
    """The connection's request, and the function by which the socket reads a stream from an event on."""

    call: HttpCall
    read: Callable[[Channel, int, int, Mapping[str, str]], None]


Operation = Callable[[SocketCall, dict[str, Any]], Awaitable[dict[str, Any]]]


async def _start(socket: SocketCall, message: dict[str, Any]) -> dict[str, Any]:
    """Open a stream, as ``POST /v1/streams`` does, and read it."""
    body = {name: value for name, value in message.items() if name not in ("op", "ref", "window", "events")}
    window, variant = _window(socket, message), events_in(message)
    return _reads(socket, await open_native(socket.call, body), window, variant)


async def _stream_chat(socket: SocketCall, message: dict[str, Any]) -> dict[str, Any]:
    """Send a message to an agent, and read its answer."""
    agent = message.get("agent")
    if not isinstance(agent, str):
        raise RequestRefused.bad_request("agent must be the id of an agent.", "agent")
    window, variant = _window(socket, message), events_in(message)
    channel = await send_message(socket.call, agent, {"message": message.get("message")})
    return _reads(socket, channel, window, variant)


async def _steer(socket: SocketCall, message: dict[str, Any]) -> dict[str, Any]:
    """Add input to an answer under way, and read the one that follows."""
    channel = await _channel(socket, message)
    window, variant = _window(socket, message), events_in(message)
    successor = await steer(socket.call, channel, message.get("input"))
    return _reads(socket, successor, window, variant) | {"steered": channel.stream_id}


async def _channel(socket: SocketCall, message: Mapping[str, Any]) -> Channel:
    stream_id = message.get("sid")
    if not isinstance(stream_id, str):
        raise RequestRefused.bad_request("sid must be the id of a stream.", "sid")
    return await socket.call.gateway.find(socket.call.key, stream_id)


def _window(socket: SocketCall, message: Mapping[str, Any]) -> int:
    return whole_field(message, "window", 1_000, socket.call.gateway.options.reader_bytes)


def _reads(socket: SocketCall, channel: Channel, window: int, variant: Mapping[str, str]) -> dict[str, Any]:
    try:
        socket.read(channel, 0, window, variant)
    except RequestRefused:
        channel.abandon_unread()
        raise
    return {"sid": channel.stream_id, "epoch": channel.epoch, "state": channel.stream.state}


def _command(name: str) -> Operation:
    async def run(socket: SocketCall, message: dict[str, Any]) -> dict[str, Any]:
        channel = await _channel(socket, message)
        body = {key: value for key, value in message.items() if key not in ("op", "ref", "sid")}
        result = await socket.call.gateway.where_it_runs(channel, prepare(name, channel, body))
        return {"sid": channel.stream_id, "state": channel.stream.state, **(result or {})}

    return run


OPERATIONS: Final[dict[str, tuple[Scope, Operation]]] = {
    "start": ("write", _start),
    "stream_chat": ("write", _stream_chat),
    "steer": ("write", _steer),
    **{name: ("write", _command(name)) for name in COMMANDS},
}
"""By name: the scope that the key needs, and what is done."""
