"""The templates in ``docs/templates`` do what the page on contributing says: they are copied, so they must be right."""

from __future__ import annotations

import doctest
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.ports import ReasoningDelta, ToolCallFragment
from penstock.testing import ScriptedAttempt, ScriptedProvider, SimulatedSystem, check_log, kill

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "docs" / "templates"
SMALL = penstock.StreamOptions(batch_size=1, rate_limit=None, max_buffer_size=2)


def template(name: str) -> dict[str, Any]:
    return runpy.run_path(str(TEMPLATES / f"{name}.py"), run_name=name)


# --- source ----------------------------------------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_the_source_feeds_a_stream_and_ends_it(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = template("source")["stream_from"](system, ["a", "b", "c"])
        assert stream.result(60).text == "abc"
        check_log(stream)
        assert not system.tree().children[-1].children


def test_the_source_reads_no_more_than_there_is_room_for() -> None:
    read: list[int] = []

    def texts() -> Iterator[str]:
        for number in range(10_000):
            read.append(number)
            yield "x"

    settings = penstock.Settings(stream=SMALL)
    with SimulatedSystem(settings=settings) as system:
        stream = template("source")["stream_from"](system, texts())
        stream.pause()
        system.advance(5)
        assert len(read) < 20
        stream.cancel()
        system.advance(5)
        assert len(read) < 20
        assert not system.tree().children[-1].children


def test_the_source_fails_the_stream_with_the_cause() -> None:
    def texts() -> Iterator[str]:
        yield "a"
        raise OSError("the file is gone")

    with SimulatedSystem() as system:
        stream = template("source")["stream_from"](system, texts())
        with pytest.raises(penstock.StreamCrashed) as caught:
            stream.result(60)
        assert isinstance(caught.value.__cause__, OSError)
        assert stream.text == "a"


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_a_source_that_is_killed_fails_its_stream(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = template("source")["stream_from"](system, iter(lambda: "x", None))
        for _ in range(seed):
            system.simulation.dispatcher.step()
        for ref in system.runtime.processes():
            if ref.actor_class.__name__ == "_Source":
                kill(system, ref)
        with pytest.raises(penstock.StreamCrashed):
            stream.result(60)


def test_the_source_works_on_threads_and_ends_with_the_system() -> None:
    with penstock.System() as system:
        stream = template("source")["stream_from"](system, (str(number % 10) for number in range(1_000)))
        assert len(stream.result(30).text) == 1_000
        endless = template("source")["stream_from"](system, iter(lambda: "x", None))
    assert endless.is_over


# --- combinator ------------------------------------------------------------------------------------------------------


def thinking() -> ScriptedProvider:
    call = ToolCallFragment(index=0, id="c1", name="f", arguments="{}")
    return ScriptedProvider(ScriptedAttempt((ReasoningDelta("hm"), "a", call, "b")))


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_the_combinator_passes_all_on_but_reasoning_and_ends_alike(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        first = system.chat("any", "Hi", provider=thinking())
        second = template("combinator")["without_reasoning"](system, first)
        end = second.result(60)
        assert (end.text, end.reasoning) == ("ab", "")
        assert [call.id for call in end.tool_calls] == ["c1"]
        assert first.result(60).reasoning == "hm"
        check_log(second)


def test_the_combinator_passes_backpressure_on_and_leaves_when_the_new_stream_ends() -> None:
    settings = penstock.Settings(stream=SMALL)
    with SimulatedSystem(settings=settings) as system:
        first = system.open_stream("first", SMALL.replace(overflow="error"), on_orphan="cancel")
        second = template("combinator")["without_reasoning"](system, first)
        second.pause()

        def push_many() -> None:
            for _ in range(50):
                first.process_token("x")
                system.advance(0.1)

        with pytest.raises(penstock.BufferFull):
            push_many()
        second.cancel()
        system.advance(1)
        assert first.is_over


@pytest.mark.parametrize("how", ["stop", "cancel", "reset"])
def test_the_combinator_passes_on_ends_and_resets(how: str) -> None:
    with SimulatedSystem() as system:
        first = system.open_stream("first", SMALL)
        second = template("combinator")["without_reasoning"](system, first)
        first.process_token("x")
        system.advance(1)
        if how == "reset":
            first.reset("again")
            first.process_token("y")
        if how == "cancel":
            first.cancel("enough")
            with pytest.raises(penstock.StreamCancelledError, match="enough"):
                second.result(60)
        else:
            first.stop()
            assert second.result(60).text == ("y" if how == "reset" else "x")


def test_a_combinator_that_is_killed_fails_the_new_stream() -> None:
    with SimulatedSystem() as system:
        first = system.open_stream("first", SMALL)
        second = template("combinator")["without_reasoning"](system, first)
        for ref in system.runtime.processes():
            if ref.actor_class.__name__ == "_Relay":
                kill(system, ref)
        with pytest.raises(penstock.StreamCrashed):
            second.result(60)


# --- projection ------------------------------------------------------------------------------------------------------


def test_the_projection_is_deterministic_and_has_one_end() -> None:
    projection = template("projection")["JsonLines"]
    with SimulatedSystem() as system:
        stream = system.open_stream("s", SMALL)
        stream.process_tokens(["a", "ü"])
        stream.reset("again")
        stream.process_token("b")
        stream.stop()
        events = list(stream.events())
    first, second = projection(), projection()
    frames = [frame for event in events for frame in first.feed(event)]
    assert frames == [frame for event in events for frame in second.feed(event)]
    assert frames[0] == b'{"text": "a", "seq": 1}\n'
    assert frames[-1].startswith(b'{"end": "completed"')
    assert sum(b'"end"' in frame for frame in frames) == 1


def test_the_example_in_the_projection_is_right() -> None:
    names = template("projection")
    (case,) = doctest.DocTestFinder().find(names["JsonLines"], "JsonLines", module=False, globs=names)[:1]
    assert doctest.DocTestRunner().run(case).failed == 0


# --- where things go -------------------------------------------------------------------------------------------------


def test_every_file_that_the_page_on_contributing_names_exists() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = page[page.index("## Where things go") : page.index("## Style")]
    named = set(re.findall(r"`((?:penstock|docs|tests)/[\w/.*-]+)`", table))
    assert len(named) > 20
    first_of_their_kind = {"penstock/adapters/sources", "penstock/gateway/projections"}
    assert not [path for path in sorted(named - first_of_their_kind) if not list(ROOT.glob(path))]
