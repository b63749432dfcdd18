"""A second attempt where the first is slow to begin: `hedge`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from penstock.actors.call.hedging import Hedging
from penstock.actors.call.record import CallRecord
from penstock.config.checks import check_number
from penstock.config.options import OnOrphan, StreamOptions
from penstock.errors import OptionError, PenstockError, RateLimited
from penstock.events import SideEvent, StreamFailed, TokenEvent
from penstock.ports import ChatCall
from penstock.services import Services
from penstock.stream import Stream
from penstock.system import System
from penstock.toolbox.attempts import Factory, Maker, Try, calls_of, chained, is_content, open_first
from penstock.toolbox.race import Contest
from penstock.toolbox.stage import Steps, failed

__all__ = ["has_effects", "hedge"]

_MOST: Final = 10
_NO_SERVER_TOOLS: Final = (None, "function", "custom")
_FUNCTIONS: Final = frozenset({"function", "function_declarations", "functionDeclarations", "name"})


def hedge(
    factory: Factory,
    *,
    after: Literal["p95"] | float = "p95",
    most: int = 2,
    budget: float = 0.1,
    system: System | None = None,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_orphan: OnOrphan = "cancel",
) -> Stream:
    """Open a stream of the first of several equal attempts that has content; the next one is made if none has any.

    The next attempt is made once the one before it has had no content for ``after``, or at once if that has failed
    before any with an error that may pass (``retryable``). The attempt with the first token, tool event or picture
    wins, and the calls of the others are closed. After that a failure is the stream's: `with_retry` is for that.

    The attempts' own retries are off, so that ``most`` counts all requests but those to fallback models. No further
    attempt is made while requests wait for the provider's limits, after a status 429 until it has answered again, while
    its circuit is open, or where the call has effects: it runs in the background, is stored, uses tools that the
    provider runs, or is an agent's turn. ``spent`` of `Stream.statistics` has the usage of all attempts.

    If all attempts fail, the stream fails with the last error; its causes are those before.

    Args:
        factory: returns a new stream each time. If it takes one argument, it gets the attempt's number, from 1, so that
            each may ask another model.
        after: seconds, 0 … 3600; or ``"p95"``: the 95th percentile of the last 200 first-token times of that provider
            and model, within 0.2 … 30 s; 2 s until 20 are known.
        most: attempts, 1 … 10.
        budget: further attempts for each call, 0 … 1, in a bucket for each provider that holds three at most and begins
            full; 0 allows none. What it refuses is counted as ``hedges_refused`` of `Stream.statistics`.
        system: None is that of the first stream, which is then made in the caller's thread.
        stream_id: as for `System.open_stream`; so for the next three.
        options: None lets at most 100 tokens wait, and no token waits for a batch.
        metadata: is part of every event; None takes that of the first stream where there is no ``system``.
        on_orphan: by default the stream is cancelled when its last subscriber leaves.

    Raises:
        OptionError: an argument is not allowed.
        StreamExists, SystemStopped: as for `System.open_stream`.
        Exception: what the factory raised, where there is no ``system``.
    """
    if after != "p95":
        if isinstance(after, str):
            raise OptionError("after", after, "'p95' or seconds, a number from 0 to 3600")
        check_number("after", after, 0, 3600)
    check_number("most", most, 1, _MOST, whole=True)
    check_number("budget", budget, 0, 1)
    makers = [Maker(factory, number, may_retry=False) for number in range(1, most + 1)]
    stage = Hedge(makers, None if after == "p95" else float(after), budget)
    return open_first(
        stage, makers, system, stream_id=stream_id, options=options, metadata=metadata, on_orphan=on_orphan
    )


class Hedge(Contest):
    """See `hedge`. ``after`` is in seconds; None takes the percentile."""

    kind = "hedge"

    def __init__(self, makers: list[Maker], after: float | None, budget: float) -> None:
        super().__init__()
        self._makers = makers
        self._after = after
        self._budget = budget
        self._wait = 0.0  # seconds without content until the next attempt
        self._calls: list[CallRecord] = []  # of the first attempt
        self._hedging: Hedging | None = None
        self._refused = 0
        self._has_effects = False

    def begin(self) -> Steps:
        """See `Stage.begin`."""
        first = yield from self.make(self._makers[0])
        if first.stream is not None:
            self._look_at(first.stream)
        if first.error is not None:
            yield from self.ended(first)
        elif len(self._makers) > 1:
            self.deadline = first.began + self._wait

    def _look_at(self, stream: Stream) -> None:
        """Find out what feeds the first attempt."""
        self._calls = calls_of(stream)
        self._has_effects = any(call.conductor is not None or has_effects(call.call) for call in self._calls)
        gate = self._calls[0].candidate.gate if self._calls else None
        home = stream._record.home
        if gate is not None:
            self._hedging = gate.hedging
        elif isinstance(home, Services):
            self._hedging = home.gates.hedging
        if self._hedging is not None:
            self._hedging.note_call(self._budget)
        if self._after is not None:
            self._wait = self._after
        elif self._hedging is not None:
            self._wait = self._hedging.p95(self._calls[0].call.model if self._calls else "")

    def fed(self, attempt: Try, event: TokenEvent | SideEvent) -> Steps:
        """See `Contest.fed`."""
        self.keep(attempt, event)
        return self.wins(attempt) if is_content(event) else ()

    def wins(self, attempt: Try) -> Steps:
        """See `Contest.wins`. How long an earlier attempt has waited in vain is a time of its model, too."""
        for other in self.running():
            if other.number < attempt.number and other.stream is not None:
                self._note_wait(other, other.stream)
        return super().wins(attempt)

    def _note_wait(self, attempt: Try, stream: Stream) -> None:
        """Note the least first-token time that a slow attempt would have had, lest the percentile sinks."""
        calls = calls_of(stream)
        gate = calls[0].candidate.gate if calls else None
        if gate is not None and calls[0].attempts and not calls[0].started:
            gate.hedging.note_first_token(calls[0].call.model, self.now - attempt.began)

    def overdue(self) -> Steps:
        """See `Stage.overdue`."""
        self.deadline = None
        if self.winner is not None or len(self.attempts) == len(self._makers) or self._has_effects:
            return ()
        if not self._is_calm():
            self.deadline = self.now + max(self._wait, 0.1)
            return ()
        return self._another() if self._may_pay() else ()

    def ended(self, attempt: Try) -> Steps:
        """See `Contest.ended`."""
        if attempt.error is not None:
            attempt.events.clear()
        if self.running():
            return ()
        if self.completed():
            return self.wins(self.completed()[0])
        return self._another() if self._may_follow(attempt.error) else self._conclude()

    def _may_follow(self, error: PenstockError | None) -> bool:
        """Whether another attempt may be made at once, as the last one has failed."""
        is_passing = bool(getattr(error, "retryable", False)) and not isinstance(error, RateLimited)
        if not is_passing or len(self.attempts) == len(self._makers) or self._has_effects or not self._is_calm():
            return False
        return self._may_pay()

    def _is_calm(self) -> bool:
        return all(call.candidate.gate is None or call.candidate.gate.is_calm() for call in self._calls)

    def _may_pay(self) -> bool:
        """Whether the budget allows one more attempt."""
        if self._budget and self._hedging is not None and self._hedging.take():
            return True
        self._refused += 1
        return False

    def _another(self) -> Steps:
        attempt = yield from self.make(self._makers[len(self.attempts)])
        if attempt.error is not None:
            yield from self.ended(attempt)
        elif len(self.attempts) < len(self._makers):
            self.deadline = attempt.began + self._wait

    def _conclude(self) -> Steps:
        errors = [attempt.error for attempt in self.attempts if attempt.error is not None]
        terminal = self.attempts[-1].terminal
        if terminal is not None and not isinstance(terminal, StreamFailed):
            return (terminal,)  # it was cancelled
        error = chained(errors)
        return (failed(error) if terminal is None else msgspec.structs.replace(terminal, error=error),)

    def counters(self) -> Mapping[str, Any]:
        """See `Stage.counters`."""
        return {**super().counters(), "hedges_refused": self._refused}


def has_effects(call: ChatCall) -> bool:
    """Whether a request does more than to answer: it runs in the background, is stored, or uses the provider's tools.

    >>> has_effects(ChatCall(model="m", input="Hello", parameters={"store": True}))
    True
    >>> has_effects(ChatCall(model="m", input="Hello", parameters={"tools": [{"type": "function", "name": "f"}]}))
    False
    """
    parameters = call.parameters
    if call.resumable or any(parameters.get(name) for name in ("background", "store", "conversation", "mcp_servers")):
        return True
    if parameters.get("web_search_options") is not None:
        return True
    tools = parameters.get("tools") or ()
    return isinstance(tools, (list, tuple)) and any(map(_is_run_by_provider, tools))


def _is_run_by_provider(tool: object) -> bool:
    if not isinstance(tool, Mapping):
        return False
    kind = tool.get("type")
    if kind is not None:
        return kind not in _NO_SERVER_TOOLS
    return not _FUNCTIONS & tool.keys()  # Gemini names its own tools by their keys
