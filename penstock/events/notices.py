"""Events about a stream itself: what its source, or the code that watches it, has noticed.

The stream they are pushed into sets ``stream_id``, ``seq``, ``timestamp`` and ``metadata``. Like tool events, they wait
for no batch, count as no token, and are never merged. A late reader does not get old `Progress` and `StallDetected`.
"""

from __future__ import annotations

from penstock.events.envelope import Envelope

__all__ = ["LoopDetected", "Progress", "StallDetected"]


class Progress(Envelope, frozen=True, kw_only=True):
    """The source reports how far it is. While the buffer is full, only the last report is kept.

    Attributes:
        message: the source's own words, such as DSPy's status messages; not in the repr.
        position: what has been done, in ``unit``; None if the source does not count.
        total: the same for all there is to do; None if it is not known.
        unit: what is counted: ``"characters"``, ``"bytes"``, ``"lines"`` …
    """

    message: str = ""
    position: float | None = None
    total: float | None = None
    unit: str | None = None


class StallDetected(Envelope, frozen=True, kw_only=True):
    """No token has come for longer than is usual for this stream.

    Attributes:
        seconds: since the last token, or since the opening.
        limit: the time, in seconds, after which this stream counts as stalled.
    """

    seconds: float
    limit: float


class LoopDetected(Envelope, frozen=True, kw_only=True):
    """The answer repeats itself, character by character.

    Attributes:
        kind: of the text that repeats: ``"text"``, ``"reasoning"`` or ``"arguments"``.
        period: characters after which it repeats.
        repeats: how often it has repeated so far.
        start: where in the text of that kind what repeats begins for the first time, in characters since the last
            reset.
    """

    kind: str
    period: int
    repeats: int
    start: int
