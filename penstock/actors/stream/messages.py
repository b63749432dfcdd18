"""The messages that a stream accepts: small frozen values.

Imperatives are requests; the actor that accepts one documents its reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from penstock.actors.runtime.signals import Ephemeral
from penstock.actors.runtime.transitions import Internal
from penstock.actors.stream.outcome import Outcome
from penstock.errors import PenstockError

__all__ = [
    "OVERDUE",
    "PUSHED",
    "RELEASED",
    "Cancel",
    "Complete",
    "Ending",
    "Fail",
    "Flush",
    "GetState",
    "GetStatistics",
    "Pause",
    "Reset",
    "Resume",
    "SetOptions",
    "StopStream",
]


PUSHED: Final = Internal("pushed")
"""The intake holds the number of tokens that `Intake.wait_for` asked for."""

OVERDUE: Final = Internal("overdue")
"""The buffered tokens have waited for ``flush_interval``."""

RELEASED: Final = Internal("released")
"""The last subscriber that held the stream has caught up or left."""


class Flush(msgspec.Struct, frozen=True):
    """Emit what is buffered now. ``force=False`` respects a pause, the rate limit and slow subscribers."""

    force: bool = True


class Pause(msgspec.Struct, frozen=True):
    """Emit nothing until `Resume`."""


class Resume(msgspec.Struct, frozen=True):
    """Continue in the state that `Pause` interrupted."""


class Cancel(Ephemeral, msgspec.Struct, frozen=True):
    """End now; buffered tokens and events are discarded. With an ``error``, the end is `StreamFailed`.

    ``outcome`` as for `Complete`.
    """

    reason: str | None = None
    error: PenstockError | None = None
    outcome: Outcome | None = None


class StopStream(msgspec.Struct, frozen=True):
    """Take no more tokens, emit what is buffered, then end: with the ending that the feed has proposed, if any.

    Without one, ``ending`` says how; None: with `StreamCompleted`.
    """

    ending: Cancel | None = None


class SetOptions(msgspec.Struct, frozen=True):
    """Change options while running."""

    changes: Mapping[str, Any]


class GetState(msgspec.Struct, frozen=True):
    """Reply with the name of the state."""


class GetStatistics(msgspec.Struct, frozen=True):
    """Reply with the `StreamStatistics`."""


class Complete(Ephemeral, msgspec.Struct, frozen=True):
    """The feed has finished: emit what is buffered at the stream's pace, then end with `StreamCompleted`.

    ``outcome`` None: what the feed has received when the stream ends.
    """

    outcome: Outcome | None = None


class Fail(Ephemeral, msgspec.Struct, frozen=True):
    """The feed has failed: emit what is buffered at the stream's pace, then end with `StreamFailed`.

    ``outcome`` as for `Complete`.
    """

    error: PenstockError
    outcome: Outcome | None = None


class Reset(msgspec.Struct, frozen=True):
    """The feed starts again from the beginning: void everything before, or everything of one ``origin``."""

    reason: str
    origin: str | None = None


Ending: TypeAlias = Complete | Fail | Cancel
"""How a stream is to end."""
