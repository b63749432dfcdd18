"""`penstock.testing.kill` finds every process that the tree shows, whether it is registered or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import penstock
from penstock.testing import HANG, Collector, SimulatedSystem, kill
from tests.conformance.agents import Bench, agent_on, ask, results, say, until
from tests.conformance.common import FAST, assert_nothing_is_left

pytestmark = pytest.mark.seeds(3)


@pytest.fixture
def system(seed: int) -> Iterator[SimulatedSystem]:
    with SimulatedSystem(seed) as system:
        yield system
    assert_nothing_is_left(system)


def names(tree: penstock.Tree) -> list[str]:
    return [tree.name, *(name for child in tree.children for name in names(child))]


def test_a_running_tool_is_killed_by_the_name_that_the_tree_shows(system: SimulatedSystem) -> None:
    bench = Bench(system)
    agent, _ = agent_on(system, ask(("x", "wait", '{"seconds": 30}')), say("So."), tools=bench.tools())
    collector = Collector(agent.stream_chat("Go."))
    until(system, lambda: "tool/wait" in names(system.tree()))
    assert system.runtime.whereis("tool/wait") is None
    ref = kill(system, "tool/wait")
    assert (ref.label, ref.is_alive(), system.runtime.exit_reason(ref)) == ("tool/wait", False, "killed")
    assert collector.wait_for_terminal(10).text == "So."
    [(call_id, status, _)] = results(collector.events)
    assert (call_id, status) == ("x", "error")
    with pytest.raises(LookupError, match="tool/wait"):
        kill(system, "tool/wait")


def test_every_name_that_the_tree_shows_can_be_killed(system: SimulatedSystem) -> None:
    bench = Bench(system)
    agent, _ = agent_on(system, ask(("x", "wait", '{"seconds": 30}')), say("So."), ["a", HANG], tools=bench.tools())
    answer = agent.stream_chat("Go.")
    pushed = system.open_stream("mine", options=FAST)
    until(system, lambda: "tool/wait" in names(system.tree()))
    shown = names(system.tree())
    assert {"system", "handler", "streams", "stream/mine", "tool/wait"} <= set(shown)
    for name in reversed(shown):  # the leaves first
        ref = next((one for one in system.runtime.processes() if one.label == name), None)
        if ref is not None:  # it may have ended with one that was killed before
            assert kill(system, name) is ref
            assert not ref.is_alive()
    system.advance(5)
    assert pushed.is_over
    assert answer.is_over


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_a_stream_that_is_over_has_no_process(system: SimulatedSystem, how: str) -> None:
    stream = system.open_stream("mine", options=FAST)
    assert stream._record.ref is not None
    getattr(stream, how)()
    system.settle()
    assert stream._record.ref is None
    for target in ("mine", stream):
        with pytest.raises(LookupError, match="mine"):
            kill(system, target)
    stream.stop()  # harmless, as before
    stream.cancel()
