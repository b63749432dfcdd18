"""What the gateway shows of an event as a whole: what it has, and of errors only what clients may see. Pure."""

from __future__ import annotations

from typing import Any, Final

from penstock.events import Event, OriginEnded, StreamFailed, StreamSnapshot, to_dict
from penstock.gateway.projections.frames import shown_error

__all__ = ["brief_fields", "shown_fields"]

_HIDDEN: Final = ("stream_id", "metadata", "tokens")
_OF_AN_END: Final = (
    *("type", "finish_reason", "raw_finish_reason", "reason", "error"),
    *("model", "provider", "usage", "cost"),
)
"""What a brief event says of the end of an input. Its text has been sent before."""


def shown_fields(event: Event) -> dict[str, Any]:
    """The fields of an event as `to_dict` gives them, without ``stream_id``, ``metadata``, ``tokens`` and no origin."""
    fields = to_dict(event)
    for name in _HIDDEN:
        fields.pop(name, None)
    if fields.get("origin", "") is None:
        del fields["origin"]
    if isinstance(event, StreamFailed):
        fields["error"] = shown_error(event.error)
    elif isinstance(event, OriginEnded):
        fields["outcome"] = shown_fields(event.outcome)
    elif isinstance(event, StreamSnapshot):
        fields["notices"] = [shown_fields(notice) for notice in event.notices]
    return fields


def brief_fields(event: Event) -> dict[str, Any]:
    """The fields that an event of a foreign protocol carries: without its type, number and time.

    Of how an input has ended, it has the kind of the end, the reason, the error and what it used.
    """
    fields = shown_fields(event)
    for name in ("type", "seq", "timestamp"):
        fields.pop(name, None)
    if isinstance(event, OriginEnded):
        outcome = fields["outcome"]
        fields["outcome"] = {name: outcome[name] for name in _OF_AN_END if outcome.get(name) is not None}
    return fields
