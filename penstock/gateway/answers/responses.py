"""OpenAI's Responses API, not streamed: the ``response`` object at the end, before the start, and of a stored one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.events import Event, TerminalEvent
from penstock.gateway.projections.frames import Opening
from penstock.gateway.projections.responses import ResponsesProjection
from penstock.gateway.projections.responses_object import response_object

__all__ = ["answer", "in_progress", "queued", "replayed"]


def answer(terminal: TerminalEvent, opening: Opening) -> dict[str, Any]:
    """The whole response of a stream that has ended, of its terminal event alone.

    The items are those that were streamed, with the same ids, if the calls came after the text. A terminal event says
    neither where calls stood between pieces of text, nor what the calls of an agent's turn gave, nor that an answer
    has begun again; `replayed` does.
    """
    return ResponsesProjection(opening).told_at_once(terminal)


def replayed(events: Iterable[Event], opening: Opening) -> dict[str, Any]:
    """The response of a stream's events, with exactly the items and ids that were streamed.

    If the last event is no terminal one, the response is in progress, with what has come of each item.
    """
    projection = ResponsesProjection(opening)
    for event in events:
        projection.feed(event)
    return projection.response


def queued(opening: Opening) -> dict[str, Any]:
    """The response of which nothing has come, in answer to a request with ``background``."""
    return response_object(opening, "queued")


def in_progress(opening: Opening) -> dict[str, Any]:
    """The response of which nothing has come but that it runs."""
    return response_object(opening, "in_progress")
