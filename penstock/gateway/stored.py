"""Responses of OpenAI's Responses API that can be had again, or continued, after their end."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from penstock.actors.stream.cursor import Cursor
from penstock.config.logs import get_logger
from penstock.errors import describe_reason
from penstock.events import TerminalEvent, ToolResult
from penstock.gateway.channels import Channel
from penstock.gateway.projections.frames import encode
from penstock.gateway.projections.responses import ResponsesProjection
from penstock.gateway.projector import SLICE, UNMERGED
from penstock.gateway.protocols import PROTOCOLS

__all__ = ["StoredResponse", "StoredResponses", "response_of"]

_MOST: Final = 10_000
_LARGEST: Final = 256 * 1_048_576
"""Bytes of all inputs and answers that are kept, as JSON."""


class StoredResponse:
    """A response. While its stream is known to the system, it is read from there.

    Args:
        channel: of its stream.
        given: its whole input, with that of the responses it continues.
        is_stored: whether it can be had again after its end.
    """

    __slots__ = (
        "_given_size",
        "channel",
        "counted",
        "given",
        "is_stored",
        "owner",
        "response",
        "results",
        "size",
        "terminal",
    )

    def __init__(self, channel: Channel, given: Any, *, is_stored: bool) -> None:
        self.channel: Channel | None = channel
        self.given = given
        self.is_stored = is_stored
        self.owner = channel.owner
        self.terminal: TerminalEvent | None = None
        self.results: tuple[ToolResult, ...] = ()
        self.response: dict[str, Any] = {}
        self.size = self._given_size = len(encode(given))
        self.counted = 0  # of it, by `StoredResponses`

    @property
    def has_moved(self) -> bool:
        """Whether its stream goes on elsewhere, so that the end that it has here is not its own."""
        return self.channel is not None and self.channel.record.is_displaced

    async def settle(self) -> None:
        """Once the stream has ended, note what is needed of it."""
        channel = self.channel
        if self.terminal is not None or channel is None or (terminal := channel.record.log.terminal) is None:
            return
        response = await response_of(channel)
        self.results = tuple(event for event in channel.record.log if isinstance(event, ToolResult))
        self.response = response
        self.size = self._given_size + len(encode(response))
        self.terminal = terminal

    async def now(self) -> dict[str, Any]:
        """The response as it is now."""
        await self.settle()
        return self.response if self.terminal is not None or self.channel is None else await response_of(self.channel)


class StoredResponses:
    """All responses by id, the oldest first; bounded in number and bytes. Used on the gateway's loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, StoredResponse] = OrderedDict()
        self._size = 0

    def add(self, response_id: str, stored: StoredResponse) -> None:
        """Enter a response that has begun."""
        self.forget(response_id)
        self._kept[response_id] = stored
        self._count(stored)
        self._bound()

    def find(self, response_id: str, owner: str, *, is_admin: bool = False) -> StoredResponse | None:
        """A stored response of a key; None: there is none."""
        stored = self._kept.get(response_id)
        if stored is None or not stored.is_stored or stored.has_moved:
            return None
        return stored if is_admin or stored.owner == owner else None

    def of(self, channel: Channel) -> StoredResponse | None:
        """The response of a stream, whether or not it can be had again after its end; None: there is none."""
        stored = self._kept.get(channel.stream_id)
        return stored if stored is not None and stored.channel is channel else None

    def forget(self, response_id: str) -> bool:
        """Remove a response; returns whether there was one."""
        stored = self._kept.pop(response_id, None)
        if stored is not None:
            self._size -= stored.counted
            stored.counted = 0
        return stored is not None

    def is_others(self, response_id: str, owner: str) -> bool:
        """Whether a response with that id is another key's."""
        stored = self._kept.get(response_id)
        return stored is not None and stored.owner != owner

    async def sweep(self, is_known: Callable[[Channel], bool]) -> None:
        """Note the ends, let streams go that the system has forgotten, and forget the oldest if there are too many.

        A response that is not stored goes with its stream.
        """
        for response_id, stored in list(self._kept.items()):
            if stored.channel is None:
                continue
            try:
                if stored.has_moved:  # it is in the store
                    self.forget(response_id)
                    continue
                await stored.settle()
            except Exception as error:  # a fault of ours, which must not keep the others from being looked after
                get_logger(stream_id=response_id).error(
                    "response_failed", reason=describe_reason(error), exc_info=error
                )
                self.forget(response_id)
                continue
            if self._kept.get(response_id) is not stored:  # it was deleted meanwhile
                continue
            self._count(stored)
            if not is_known(stored.channel):
                stored.channel = None
                if not stored.is_stored or stored.terminal is None:
                    self.forget(response_id)
        self._bound()

    def _count(self, stored: StoredResponse) -> None:
        self._size += stored.size - stored.counted
        stored.counted = stored.size

    def _bound(self) -> None:
        while len(self._kept) > _MOST or self._size > _LARGEST:
            self.forget(next(iter(self._kept)))


async def response_of(channel: Channel) -> dict[str, Any]:
    """The response of a stream as it is now, with the ids that are streamed.

    A long log is read in slices, between which the loop does its other work.
    """
    projection = ResponsesProjection(channel.opening(PROTOCOLS["responses"], {}))
    cursor = Cursor(channel.record.log, 0, "coalesce", UNMERGED)
    read = 0
    while (event := cursor.take()) is not None:
        projection.feed(event)
        read += 1
        if read % SLICE == 0:
            await asyncio.sleep(0)
    return projection.response
