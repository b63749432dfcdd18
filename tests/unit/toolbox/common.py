"""What the tests of combinators have in common."""

from __future__ import annotations

from typing import Any

import penstock
from penstock.events import SideEvent, TokenEvent
from penstock.testing import Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from penstock.toolbox.pump import derive
from penstock.toolbox.stage import Stage, Steps, completed, with_tokens

BUSY = penstock.ApiError(503, "busy", retryable=True)
REFUSED = penstock.BadRequestError(400, "no such thing")
CUT = penstock.IncompleteStream("cut")
SINGLY = penstock.SAFE.replace(batch_size=1)


class Taking(Stage):
    """A short form of `Stream.take`."""

    kind = "take"

    def __init__(self, tokens: int) -> None:
        self._left = tokens

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        if not isinstance(event, TokenEvent):
            return (event,)
        taken = with_tokens(event, event.tokens[: self._left])
        self._left -= len(taken.tokens)
        return (taken,) if self._left else (taken, completed("taken"))


def take(stream: penstock.Stream, tokens: int) -> penstock.Stream:
    return derive(Taking(tokens), [stream])


def ask(system: penstock.System, *script: Any, **more: Any) -> penstock.Stream:
    """A call to a scripted provider: steps of one attempt, or whole attempts, or the provider itself."""
    if len(script) == 1 and isinstance(script[0], ScriptedProvider):
        provider = script[0]
    elif script and isinstance(script[0], (list, ScriptedAttempt)):
        provider = ScriptedProvider(*script)
    else:
        provider = ScriptedProvider(list(script))
    more = {"options": SINGLY, "request_options": penstock.RequestOptions(max_retries=0)} | more
    return system.chat("m", "Hello", provider=provider, **more)


def pushed(system: penstock.System, *tokens: str, stream_id: str | None = None) -> penstock.Stream:
    """A stream that has had these tokens, one event each, and runs on."""
    stream = system.open_stream(stream_id, SINGLY, on_orphan="cancel")
    stream.process_tokens(tokens)
    return stream


def read(stream: penstock.Stream) -> Collector:
    """Read a stream to its end."""
    collector = Collector(stream)
    collector.wait_for_terminal(600)
    collector.check()
    return collector


def shape(collector: Collector) -> list[str]:
    """What came, in short: ``A1(a)``, ``OriginEnded(a)``, ``StreamCompleted``."""
    found = []
    for event in collector.events:
        name = getattr(event, "text", "") if isinstance(event, penstock.TokenEvent) else type(event).__name__
        origin = getattr(event, "origin", None)
        found.append(f"{name}({origin})" if origin is not None else name)
    return found


def now(system: SimulatedSystem) -> float:
    return system.simulation.clock.monotonic()
