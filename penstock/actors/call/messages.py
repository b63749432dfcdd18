"""The messages about a provider call: what an attempt reports to its integration, and how a round ended."""

from __future__ import annotations

import msgspec

from penstock.actors.runtime.signals import Ephemeral
from penstock.actors.stream.outcome import Outcome
from penstock.actors.stream.record import StreamRecord
from penstock.errors import PenstockError

__all__ = ["Connecting", "Ended", "Finished", "FirstDelta", "RoundEnded", "Waiting"]


class Connecting(Ephemeral, msgspec.Struct, frozen=True):
    """The reader has taken the request and opens a connection."""

    attempt: int


class Waiting(Ephemeral, msgspec.Struct, frozen=True):
    """The request is sent."""

    attempt: int


class FirstDelta(Ephemeral, msgspec.Struct, frozen=True):
    """The first delta has come."""

    attempt: int


class Finished(Ephemeral, msgspec.Struct, frozen=True):
    """A finish reason or an error has come. Usage and the end marker may follow."""

    attempt: int


class Ended(Ephemeral, msgspec.Struct, frozen=True):
    """The connection is closed. ``is_complete``: the answer had its finish reason or its end marker."""

    attempt: int
    is_complete: bool
    error: PenstockError | None


class RoundEnded(Ephemeral, msgspec.Struct, frozen=True):
    """The call of the stream ``record`` has ended. Sent to the stream's conductor, in place of the stream.

    ``error`` is None if the answer is complete. ``outcome`` is that of this round.
    """

    record: StreamRecord
    outcome: Outcome
    error: PenstockError | None
