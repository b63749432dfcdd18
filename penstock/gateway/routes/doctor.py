"""Routes for ``penstock doctor``, which looks at what is between a client and the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from penstock.gateway.call import HttpCall
from penstock.gateway.exchange import Left
from penstock.gateway.probes import Probe
from penstock.gateway.problems import RequestRefused
from penstock.gateway.projections.frames import encode, sse
from penstock.gateway.protocols import STREAM_HEADERS
from penstock.gateway.reader import ResponseReader
from penstock.telemetry.gateway import ReaderInfo

__all__ = ["probe", "seen"]

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NUMBER: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_MOST_FRAMES: Final = 10_000


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
    loop = gateway.ticker.loop
    with gateway.place():
        found = gateway.probes.begin(call.key.id, probe_id, loop.time())
        about = {"id": probe_id, "seconds": seconds, "interval": interval, "heartbeat": gateway.options.heartbeat}
        probing = _Probing(call, found)
        gateway.readers.add(probing)
        try:
            await probing.run(about)
        except asyncio.CancelledError:
            if not probing.is_own_end():
                raise
            raise Left from None  # by us: the client does not read
        finally:
            found.end("cut", loop.time())
            gateway.readers.discard(probing)
            await probing.close()


class _Probing(ResponseReader):
    """The connection of one probe. It is a reader, but of no stream."""

    __slots__ = ("_found",)

    is_reading = False  # a drain does not wait for it
    protocols = ()  # of no stream

    def __init__(self, call: HttpCall, found: Probe) -> None:
        super().__init__(call.exchange)
        self.key = call.key
        self._found = found

    def infos(self) -> tuple[ReaderInfo, ...]:
        """What is reported to telemetry about it: nothing, since it reads no stream."""
        return ()

    async def run(self, about: Mapping[str, Any]) -> None:
        """Send the frames, until all are sent, the client has left, or it must end."""
        found = self._found
        seconds, interval = about["seconds"], about["interval"]
        self.watch()
        await self.start((*STREAM_HEADERS, ("x-penstock-probe-id", about["id"])))
        for number in range(int(seconds / interval + 1e-9) + 1):
            if not await self._waited(found.began + number * interval):
                break
            await self.send(_frame("probe", number, self._age, {} if number else about))
            found.sent += 1
        await self._waited(found.began + seconds)
        if self.has_left:
            found.end("left", self._loop.time())
            return
        problem = self.must_end
        found.end("complete" if problem is None else "cut", self._loop.time())
        why = {} if problem is None else {"code": problem.code}
        await self.end(_frame("end", found.sent, self._age, {"state": found.state, **why}))

    async def _waited(self, until: float) -> bool:
        """Wait for the time of the next frame. False: the client has left, or the probe must end."""
        while not (self.has_left or self.must_end) and self._loop.time() < until:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self.wait()
        return not (self.has_left or self.must_end)

    @property
    def _age(self) -> float:
        return self._loop.time() - self._found.began


def _frame(name: str, number: int, at: float, more: Mapping[str, Any]) -> bytes:
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
