"""Routes for ``penstock doctor``, which looks at what is between a client and the gateway."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any, Final

from penstock.gateway.call import HttpCall
from penstock.gateway.probes import Probe
from penstock.gateway.problems import RequestRefused
from penstock.gateway.projections.frames import encode, sse
from penstock.gateway.protocols import STREAM_HEADERS

__all__ = ["probe", "seen"]

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NUMBER: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_MOST_FRAMES: Final = 10_000
_LOOK: Final = 0.25  # seconds between two looks whether the gateway ends its readers


async def probe(call: HttpCall) -> None:
    """For ``seconds``, send a frame with its time each ``interval`` seconds; what is seen of it is kept for `seen`.

    The frames go the way of a stream's, but are never compressed: if they arrive compressed, something else did it.
    """
    exchange, gateway = call.exchange, call.gateway
    await exchange.body(0)
    seconds = _number(exchange.query.get("seconds", "2"), "seconds", 0.0, 3600.0)
    interval = _number(exchange.query.get("interval", "0.2"), "interval", 0.01, 3600.0)
    if seconds / interval > _MOST_FRAMES:
        raise RequestRefused.bad_request(f"A probe has at most {_MOST_FRAMES} frames.", "interval")
    probe_id = _probe_id(exchange.query.get("id") or f"probe_{secrets.token_hex(8)}")
    gateway.admit_reader()
    loop = gateway.ticker.loop
    found = gateway.probes.begin(call.key.id, probe_id, loop.time())
    first = {"id": probe_id, "seconds": seconds, "interval": interval, "heartbeat": gateway.options.heartbeat}
    leaving = loop.create_task(exchange.until_left())
    try:
        await exchange.start(200, (*STREAM_HEADERS, ("x-penstock-probe-id", probe_id)))
        for number in range(int(seconds / interval + 1e-9) + 1):
            if not await _wait(call, leaving, found, found.began + number * interval):
                break
            await exchange.send(_frame("probe", number, loop.time() - found.began, {} if number else first))
            found.sent += 1
        await _wait(call, leaving, found, found.began + seconds)
        if leaving.done():
            found.end("left", loop.time())
            return
        if found.state == "running":
            found.end("complete", loop.time())
        await exchange.end(_frame("end", found.sent, loop.time() - found.began, {"state": found.state}))
    finally:
        found.end("cut", loop.time())
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


async def _wait(call: HttpCall, leaving: asyncio.Task[None], found: Probe, until: float) -> bool:
    """Wait for the time of the next frame. False: the client has left, or the gateway ends."""
    gateway = call.gateway
    loop = gateway.ticker.loop
    while not leaving.done():
        if gateway.is_ending:
            found.end("cut", loop.time())
            return False
        left = until - loop.time()
        if left <= 0:
            return True
        await asyncio.wait({leaving}, timeout=min(left, _LOOK))
    return False


def _frame(name: str, number: int, at: float, more: dict[str, Any]) -> bytes:
    return sse(encode({"n": number, "at": round(at, 6), **more}), event=name)


async def seen(call: HttpCall) -> None:
    """What the gateway has seen of a probe: whether the client left it, and after how many seconds."""
    probe_id = _probe_id(call.exchange.query.get("id", ""))
    found = call.gateway.probes.find(call.key.id, probe_id)
    fields = {"id": probe_id, "state": found.state, "sent": found.sent, "after": found.after}
    await call.exchange.respond(200, encode(fields), (("cache-control", "no-store"),))


def _probe_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise RequestRefused.bad_request("id must be 1 to 64 letters, digits, - and _.", "id")
    return text


def _number(text: str, field: str, low: float, high: float) -> float:
    if not _NUMBER.fullmatch(text) or not low <= float(text) <= high:
        raise RequestRefused.bad_request(f"{field} must be a number from {low:g} to {high:g}.", field)
    return float(text)
