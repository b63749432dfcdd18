"""What is said to streams, integrations and the handler: small frozen values.

Imperatives are requests, facts are news. Who answers a request is written at the actor that accepts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.actors.stream.log import Outcome
from penstock.errors import PenstockError

if TYPE_CHECKING:  # the record knows these messages
    from penstock.actors.stream.record import StreamRecord

__all__ = [
    "Cancel",
    "Complete",
    "Fail",
    "Flush",
    "GetState",
    "GetStatistics",
    "Pause",
    "Reset",
    "Resume",
    "RoundEnded",
    "SetOptions",
    "StopStream",
]


class Flush(msgspec.Struct, frozen=True):
    """Emit what is buffered now. ``force=False`` respects a pause, the rate limit and slow subscribers."""

    force: bool = True


class Pause(msgspec.Struct, frozen=True):
    """Let nothing out until `Resume`."""


class Resume(msgspec.Struct, frozen=True):
    """Go on where `Pause` found you."""


class StopStream(msgspec.Struct, frozen=True):
    """Flush, then end well."""


class Cancel(msgspec.Struct, frozen=True):
    """End now; what is buffered is thrown away."""

    reason: str | None = None


class SetOptions(msgspec.Struct, frozen=True):
    """Change options while running."""

    changes: Mapping[str, Any]


class GetState(msgspec.Struct, frozen=True):
    """Say the state's name."""


class GetStatistics(msgspec.Struct, frozen=True):
    """Say the statistics."""


class Complete(msgspec.Struct, frozen=True):
    """The source has ended well: let out what is buffered at the stream's pace, then end."""

    outcome: Outcome


class Fail(msgspec.Struct, frozen=True):
    """The source has failed: let out what is buffered at the stream's pace, then end with ``error``."""

    error: PenstockError
    outcome: Outcome


class Reset(msgspec.Struct, frozen=True):
    """The source starts again from the beginning: what came so far is void."""

    reason: str


class RoundEnded(msgspec.Struct, frozen=True):
    """To whoever conducts a stream: the source of ``record`` has ended so, and the stream has not been told."""

    record: StreamRecord
    ending: Complete | Fail
