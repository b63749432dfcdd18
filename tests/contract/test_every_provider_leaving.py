"""Readers that leave, in every phase of every provider's answer: the server sees the connection closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, islice

import pytest

import penstock
from penstock.adapters.loopback.faults import DelayFirstByte, StallAfter
from penstock.adapters.loopback.script import Answer, Replies, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.events import ToolCallStarted
from penstock.testing import eventually
from tests.contract.providers import EVERY, HELLO, PATIENCE, SOON, House, Wire, house, serving

pytestmark = pytest.mark.usefixtures("each_reader")

CALLS = (ScriptedCall("f", '{"city":"Zürich"}', id="a"), ScriptedCall("f", '{"city":"Wien"}', id="b"))
SAYING = Answer("a b c d", reasoning="so it is", signature="c2ln", tool_calls=CALLS)
SAID = "a b c d"
LONG = ("many ", "words ")
ROOM = 4


def in_headers(here: House, wire: Wire) -> penstock.Stream:
    """The request is sent; no response has come."""
    before = here.server.statistics().requests
    stream = here.ask(wire, "headers")
    here.server.wait_for(lambda counts: counts.requests == before + 1, PATIENCE)
    return stream


def before_the_first_delta(here: House, wire: Wire) -> penstock.Stream:
    """Headers have come, in most dialects an event too; no delta."""
    before = here.server.statistics().faults_injected
    stream = here.ask(wire, "first")
    here.server.wait_for(lambda counts: counts.faults_injected == before + 1, PATIENCE)
    eventually(lambda: here.system.get_stream_info(stream.stream_id).source == "waiting")
    return stream


def in_reasoning(here: House, wire: Wire) -> penstock.Stream:
    """The model reasons."""
    stream = here.ask(wire, "reasoning")
    eventually(lambda: "so it" in "".join(event.text for event in _tokens(stream)), PATIENCE)
    return stream


def in_text(here: House, wire: Wire) -> penstock.Stream:
    """Half of the text is there."""
    stream = here.ask(wire, "text")
    eventually(lambda: stream.text == "a b", PATIENCE)
    return stream


def in_a_call(here: House, wire: Wire) -> penstock.Stream:
    """A call has begun, and maybe the other has not."""
    stream = here.ask(wire, "call")
    eventually(lambda: any(isinstance(event, ToolCallStarted) for event in stream._record.log), PATIENCE)
    return stream


def on_credit(here: House, wire: Wire) -> penstock.Stream:
    """The stream is paused and full: the reader waits for room, and does not read."""
    options = penstock.StreamOptions(max_buffer_size=ROOM, batch_size=ROOM, rate_limit=None)
    stream = here.ask(wire, "long", options=options)
    stream.pause()
    eventually(lambda: stream.statistics().buffer_size == ROOM, PATIENCE)
    eventually(lambda: stream.statistics().backpressure_events, PATIENCE)
    return stream


def after_the_finish(here: House, wire: Wire) -> penstock.Stream:
    """The answer is complete, but the end of the body does not come."""
    stream = here.ask(wire, "finished", request_options=SOON.replace(finish_grace=60))
    eventually(lambda: stream.text == SAID, PATIENCE)
    return stream


def _tokens(stream: penstock.Stream) -> list[penstock.TokenEvent]:
    return [event for event in stream._record.log if isinstance(event, penstock.TokenEvent)]


# And the text so far.
PHASES: dict[Callable[[House, Wire], penstock.Stream], str] = {
    in_headers: "",
    before_the_first_delta: "",
    in_reasoning: "",
    in_text: "a b",
    in_a_call: SAID,
    on_credit: "",
    after_the_finish: SAID,
}
MODELS: dict[str, Replies] = {
    "headers": SAYING.replace(faults=(DelayFirstByte(None),)),
    "first": SAYING.replace(faults=(StallAfter(0),)),
    "reasoning": SAYING.replace(faults=(StallAfter(2),)),
    "text": SAYING.replace(faults=(StallAfter(5),)),
    "call": SAYING.replace(faults=(StallAfter(8),)),
    "long": Answer(tokens=LONG, repeat=1_000_000),
    "finished": Answer(SAID, faults=(StallAfter(4),)),
}


@pytest.fixture(scope="module")
def server(each_reader: str) -> Iterator[LoopbackProvider]:
    with serving(MODELS) as running:
        yield running


@pytest.fixture
def here(server: LoopbackProvider) -> Iterator[House]:
    with house(server, SOON) as made:
        yield made


def cancel(here: House, stream: penstock.Stream) -> None:
    stream.cancel("enough")


def abandon(here: House, stream: penstock.Stream) -> None:
    """Its only reader leaves."""
    events = stream.events()
    del events


def stop_all(here: House, stream: penstock.Stream) -> None:
    assert here.system.stop() == 0


@EVERY
@pytest.mark.parametrize("leave", [cancel, abandon, stop_all], ids=["cancel", "abandon", "stop"])
def test_the_server_sees_the_connection_closed(
    here: House, wire: Wire, leave: Callable[[House, penstock.Stream], None]
) -> None:
    before = here.server.statistics()
    reached = {phase: phase(here, wire) for phase in PHASES}
    assert here.server.statistics().active_responses == before.active_responses + len(PHASES)
    came = reached[on_credit].statistics().tokens_delivered  # before it was paused
    for number, stream in enumerate(reached.values(), 1):
        leave(here, stream)
        if leave is not stop_all:
            left = before.client_disconnects + number
            here.server.wait_for(lambda counts, left=left: counts.client_disconnects == left, PATIENCE)  # type: ignore[misc]
    left = before.client_disconnects + len(PHASES)
    here.server.wait_for(lambda counts: counts.client_disconnects == left, PATIENCE)
    for phase, stream in reached.items():
        eventually(lambda stream=stream: stream.is_over)  # type: ignore[misc]
        end = list(stream._record.log)[-1]
        assert isinstance(end, penstock.StreamCancelled), phase
        if phase is on_credit:  # a paused stream does not deliver its buffer, unless it is stopped
            buffered = "".join(islice(cycle(LONG), came + ROOM))
            assert (end.text, end.undelivered) == (buffered, 0 if leave is stop_all else ROOM)
        else:
            assert end.text == PHASES[phase], phase
        assert end.provider == wire.name
        if leave is cancel:
            assert end.reason == "enough"
    assert here.server.statistics().requests == before.requests + len(PHASES), "nobody asks again"
    if leave is not stop_all:
        eventually(lambda: here.system.statistics().reader["active"] == 0)


@EVERY
def test_a_stream_that_is_cancelled_before_it_has_begun_may_send_nothing_and_leaves_nothing(
    here: House, wire: Wire
) -> None:
    before = here.server.statistics()
    for _ in range(20):
        here.system.chat("headers", HELLO, provider=wire.name).cancel()
    here.server.wait_for(lambda counts: counts.active_connections <= before.active_connections, PATIENCE)
    eventually(lambda: here.system.statistics().reader["active"] == 0)
