"""Events that no summary repeats: they stay in the log until the subscribers have had them, within bounds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from penstock.actors.stream.hub import Hub
from penstock.actors.stream.log import LogOwner, StreamLog
from penstock.config.options import StreamOptions
from penstock.events import (
    Event,
    Logprobs,
    MediaPart,
    ProviderEvent,
    SideEvent,
    StreamSnapshot,
    TokenEvent,
    TokenLogprob,
    ToolCallDelta,
    ToolProgress,
)
from penstock.ports import EventDelta, FinishDelta
from penstock.testing import Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from tests.conformance.common import FAST

BIG = "QUJD" * 400_000
TOKEN = TokenLogprob(token="a", logprob=-1.0, top=(("a", -1.0),) * 20)
PASSING: dict[str, Any] = {
    "preview": MediaPart(kind="image", data=BIG, is_partial=True),
    "raw": ProviderEvent(type="x", payload={"x": BIG}),
    "raw_in_pieces": ProviderEvent(type="x", payload={"x": ["abc"] * 20_000}),
    "logprobs": Logprobs(tokens=(TOKEN,) * 600),
    "arguments": ToolCallDelta(index=0, text=BIG),
    "progress": ToolProgress(call_id="c", name="f", progress=1),
}


def names(events: Any) -> list[str]:
    return [type(event).__name__ for event in events]


@pytest.mark.parametrize("retain_bytes", [0, 1_048_576])
@pytest.mark.parametrize("name", PASSING)
def test_each_present_subscriber_gets_it_though_it_is_larger_than_what_is_retained(
    name: str, retain_bytes: int
) -> None:
    event = PASSING[name]
    with SimulatedSystem(1) as system:
        stream = system.open_stream(options=FAST.replace(retain_bytes=retain_bytes))
        told, slow = Collector(stream), Collector(stream, slow="coalesce")
        iterator, later = stream.events(), None
        stream.process_token("a")
        system.advance(0.1)
        later = stream.events(after=stream._record.log.last_seq)
        stream._record.intake.push_event(event)
        system.advance(0.1)
        stream.process_token("b")
        system.advance(0.1)
        stream.stop()
        system.settle()
        for events in (told.events, slow.events, list(iterator), ["the first one", *later]):
            assert names(events)[1:] == [type(event).__name__, "TokenEvent", "StreamCompleted"]


def test_all_previews_reach_an_iterator_that_is_read_at_the_end() -> None:
    preview = EventDelta(PASSING["preview"])
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(
            ScriptedAttempt(("a", preview, preview, preview, FinishDelta("stop", "")), finish=None)
        )
        stream = system.chat("m", "x", provider=provider, options=FAST)
        iterator = stream.events()
        stream.result(timeout=20)
        assert names(iterator) == ["TokenEvent", *["MediaPart"] * 3, "StreamCompleted"]


def _log(retain_bytes: int, read: int) -> StreamLog:
    log = StreamLog("s", {}, retain_bytes)

    class Owner(LogOwner):
        def read_by_all(self, last_seq: int) -> int:
            return read

    log.owner = Owner()
    return log


def _fill(log: StreamLog, count: int, event: SideEvent) -> list[int]:
    """Append the event ``count`` times; returns the bytes kept after each."""
    epoch = log.new_epoch()
    kept = []
    for seq in range(1, count + 1):
        assert log.append(epoch, msgspec.structs.replace(event, seq=seq))
        kept.append(log.kept_bytes)
    return kept


def test_unread_events_are_kept_up_to_a_bound() -> None:
    kept = _fill(_log(1000, read=0), 40, ProviderEvent(type="x", payload="x" * 1_000_000))
    assert max(kept) <= 16 * 1_048_576 + 1000
    folded = [after for before, after in pairwise(kept) if after < before]
    assert folded
    assert all(12 * 1_048_576 - 1_000_000 < after <= 12 * 1_048_576 + 1000 for after in folded)


def test_the_newest_event_is_kept_however_large_it_is() -> None:
    log = _log(1000, read=0)
    _fill(log, 3, MediaPart(kind="image", data="x" * 20_000_000, is_partial=True))
    assert [event.seq for event in log] == [3]


def test_events_that_were_read_are_folded_at_once() -> None:
    log = _log(0, read=40)
    _fill(log, 40, ProviderEvent(type="x", payload="x" * 1000))
    assert list(log) == []


def test_folding_stays_linear_while_an_unread_event_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event is weighed when it comes and when it is folded, and a stopped fold is not tried with each append."""
    log = _log(10_000, read=0)
    tries = 0
    fold = StreamLog._fold

    def counted(self: StreamLog) -> None:
        nonlocal tries
        tries += 1
        fold(self)

    monkeypatch.setattr(StreamLog, "_fold", counted)
    _fill(log, 2000, ProviderEvent(type="x", payload="x" * 1000))
    assert 0 < tries < 40


def test_a_subscriber_keeps_no_more_than_its_window() -> None:
    class _One:
        is_active = True

        def __init__(self, seq: int, window: int) -> None:
            self.seq, self.window = seq, window

    hub = Hub()
    assert hub.read_by_all(100) == 100
    hub._few = (_One(99, 4), _One(10, 16))  # type: ignore[assignment]
    assert hub.read_by_all(100) == 84
    hub.subscriptions[1].is_active = False
    assert hub.read_by_all(100) == 99


def test_what_a_summary_repeats_is_folded_as_ever() -> None:
    with SimulatedSystem(1) as system:
        stream = system.open_stream(options=StreamOptions(batch_size=1, rate_limit=None, retain_bytes=0))
        iterator = stream.events(window=1)
        for token in ("a", "b", "c"):
            stream.process_token(token)
            system.advance(0.1)
        assert not list(stream._record.log)
        stream.stop()
        events: list[Event] = list(iterator)
        assert [event.text for event in events if isinstance(event, TokenEvent)] == ["abc"]
        assert not any(isinstance(event, StreamSnapshot) for event in events)
