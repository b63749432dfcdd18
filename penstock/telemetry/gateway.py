"""What a gateway tells of itself: its counters, and its readers. Pure; importing it needs no server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from penstock.actors.stream.histograms import HistogramSnapshot

__all__ = [
    "LAG_BOUNDS",
    "OVERHEAD_BOUNDS",
    "GatewayRefusal",
    "GatewayStatistics",
    "ReaderInfo",
    "ReaderOutcome",
    "ReaderResumption",
    "TellsOfGateway",
]

ReaderOutcome: TypeAlias = Literal["finished", "left", "too_slow", "drained"]
"""How a reader ended: the stream ended; the client left; the client did not read; the server ended the connection."""
ReaderResumption: TypeAlias = Literal["exact", "snapshot", "gap"]
"""Where a reader went on: after its cursor; with a snapshot, as events were folded; in another log than the cursor."""
GatewayRefusal: TypeAlias = Literal["busy", "too_many_tickets"]
"""Why a gateway of a cluster refused a request, by the error's ``code``: as many calls waited for other nodes as may do
so; or too many tickets were looked for in the store in vain."""

LAG_BOUNDS: Final = (0.0, 1_000.0, 4_000.0, 16_000.0, 64_000.0, 256_000.0, 1_048_576.0, 4_194_304.0, 16_777_216.0)
"""Bytes."""
OVERHEAD_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds."""


class ReaderInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One connection that reads a stream. A WebSocket has one for each of its streams."""

    stream_id: str
    protocol: str
    """``native``, ``openai``, ``responses``, ``anthropic``, ``ui``, ``agui``, or ``socket``: the native WebSocket."""
    key: str
    """The id of the API key; ``"anonymous"`` without keys."""
    seq: int
    """The number of the last event that has been sent to it; 0 before the first."""
    lag_bytes: int
    """Bytes of frames that have come and have not been handed to the server for it."""
    place: int
    """How many frames have been sent to it."""
    frames: int
    """How many there are."""


class GatewayStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of a gateway, from its beginning."""

    requests: int
    """HTTP requests."""
    readers: Mapping[str, int]
    """Readers now, by protocol."""
    reader_outcomes: Mapping[tuple[str, ReaderOutcome], int]
    """Readers that are gone, by protocol and outcome."""
    resumptions: Mapping[ReaderResumption, int]
    """Readers that came with a cursor."""
    reader_lag: HistogramSnapshot
    """Bytes of lag, of each reader about once a second."""
    overhead: HistogramSnapshot
    """Seconds of a request that the gateway itself took before the first byte of a stream."""
    is_draining: bool
    refused: Mapping[GatewayRefusal, int] = msgspec.field(default_factory=dict)
    """Requests that were refused; empty without a cluster."""


class TellsOfGateway(Protocol):
    """A gateway, as telemetry sees it. `penstock.gateway.Gateway` is one."""

    def statistics(self) -> GatewayStatistics:
        """The counters. Any thread; never blocks."""

    def reader_infos(self) -> tuple[ReaderInfo, ...]:
        """The readers now. On the gateway's event loop only."""
