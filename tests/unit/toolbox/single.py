"""What the tests of combinators of one stream have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

import penstock
from penstock.events import Event, TokenKind
from penstock.testing import SimulatedSystem
from penstock.toolbox.stage import Output, Stage, Steps

__all__ = ["feed_all", "shown", "text_of", "token", "tokens_of"]


@pytest.fixture
def system() -> Iterator[SimulatedSystem]:
    with SimulatedSystem(seed=5) as system:
        yield system


def token(*tokens: str, kind: TokenKind = "text", origin: str | None = None, part: int = 0) -> penstock.TokenEvent:
    return penstock.TokenEvent("p", 1, tokens, "".join(tokens), kind, 0.0, {}, origin=origin, part=part)


def feed_all(stage: Stage, *events: penstock.TokenEvent | penstock.ToolCallStarted | penstock.Progress) -> list[Output]:
    """What a stage makes of events, if nothing has to be done for it."""
    return [output for event in events for output in stage.feed(event)]


def shown(outputs: Steps | Sequence[Event]) -> list[object]:
    """Token events as their tokens, terminal events as their outcome, others as the names of their classes."""
    found: list[object] = []
    for one in outputs:
        if isinstance(one, penstock.TokenEvent):
            found.append(list(one.tokens))
        elif isinstance(one, penstock.StreamCompleted):
            found.append(one.finish_reason)
        elif isinstance(one, penstock.StreamFailed):
            found.append(type(one.error).__name__)
        else:
            found.append(type(one).__name__)
    return found


def tokens_of(stream: penstock.Stream) -> list[object]:
    """All events of an ended stream, as `shown`."""
    return shown(list(stream.events()))


def text_of(outputs: Steps) -> str:
    return "".join(one.text for one in outputs if isinstance(one, penstock.TokenEvent))
