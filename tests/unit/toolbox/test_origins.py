"""Origins: no event, fold, merge or snapshot joins two of them, and a reset may void one alone."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock import StreamReset, StreamSnapshot, TokenEvent
from penstock.events import to_dict
from penstock.testing import Collector, SimulatedSystem, check_log


def say(stream: penstock.Stream, *said: tuple[str, str]) -> None:
    sink = stream.sink()
    for origin, text in said:
        sink.start_part(0, None, origin)
        assert sink.push_now([(text, "text")], lambda: None) == 1


def told(events: list[Any]) -> list[tuple[str | None, str]]:
    return [(event.origin, event.text) for event in events if isinstance(event, TokenEvent)]


SAID = (("a", "A1 "), ("b", "B1 "), ("b", "B2 "), ("a", "A2 "))


@pytest.mark.parametrize("retain", [0, 1_048_576], ids=["folded", "kept"])
@pytest.mark.parametrize("is_reset", [True, False])
@pytest.mark.seeds(4)
def test_the_terminal_event_and_a_late_reader_have_the_text_by_origin(seed: int, retain: int, is_reset: bool) -> None:
    with SimulatedSystem(seed) as system:
        stream = system.open_stream("s", penstock.SAFE.replace(retain_bytes=retain))
        say(stream, *SAID)
        system.settle()
        done: list[bool] = []
        if is_reset:
            stream.sink().reset("again", done.append, "a")
            system.settle()
            assert done == [True]
            say(stream, ("a", "A3 "))
            system.settle()
        wanted = {"b": "B1 B2 ", "a": "A3 "} if is_reset else {"a": "A1 A2 ", "b": "B1 B2 "}
        late = Collector(stream)
        system.settle()
        if retain == 0:
            (snapshot,) = late.events
            assert isinstance(snapshot, StreamSnapshot)
            texts: dict[str | None, str] = {}
            for part in snapshot.parts:
                texts[part.origin] = texts.get(part.origin, "") + snapshot.text[part.start : part.end]
            assert texts == wanted
        stream.stop()
        end = stream.result()
        assert dict(end.texts) == wanted
        assert end.text == ("B1 B2 A3 " if is_reset else "A1 B1 B2 A2 ")
        assert stream.text == end.text
        check_log(stream)


def test_neither_the_buffer_nor_a_slow_reader_joins_two_origins() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", penstock.SAFE)
        reader = stream.events(slow="coalesce", window=1)
        stream.pause()
        say(stream, *SAID)
        stream.resume()
        stream.stop()
        events = list(reader)
        assert told(events) == [("a", "A1 "), ("b", "B1 B2 "), ("a", "A2 ")]
        assert to_dict(events[0])["origin"] == "a"


def test_a_reset_of_one_origin_discards_what_is_buffered_of_it() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", penstock.SAFE.replace(flush_interval=10))
        collector = Collector(stream)
        say(stream, *SAID)
        sink = stream.sink()
        sink.push_event(penstock.Citation(kind="url", url="u", origin="a"))
        system.simulation.dispatcher.step()
        stream.pause()
        say(stream, ("a", "A4 "), ("b", "B4 "))
        done: list[bool] = []
        sink.reset("again", done.append, "a")
        system.settle()
        stream.resume()
        stream.stop()
        end = collector.wait_for_terminal()
        assert dict(end.texts)["b"] == "B1 B2 B4 "
        assert "a" not in end.texts
        assert end.citations == ()
        assert [event.origin for event in collector.events if isinstance(event, StreamReset)] == ["a"]


def test_a_stream_without_origins_has_none() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", penstock.SAFE)
        stream.process_token("x")
        stream.stop()
        end = stream.result()
        assert (dict(end.texts), dict(end.costs), end.parts[0].origin) == ({}, {}, None)


def test_a_buffer_without_a_bound_warns_once_and_takes_everything(caplog: pytest.LogCaptureFixture) -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", penstock.QUICK)
        stream.pause()
        for _ in range(4):
            stream.process_tokens(["a"] * 60_000)
        assert stream.statistics().buffer_size == 240_000
        assert caplog.text.count("buffer_is_large") == 1
        stream.resume()
        stream.stop()
        assert len(stream.result().text) == 240_000
