"""An attempt, without a reader and without an integration: what it took, and what comes too late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from penstock.actors.call.attempt import Attempt
from penstock.actors.call.record import CallRecord, Candidate
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.stream.record import StreamRecord
from penstock.config.options import RequestOptions, StreamOptions
from penstock.events import Citation, ProviderEvent, ServerToolResult, Usage
from penstock.ports import (
    BlockStart,
    ChatCall,
    CitationDelta,
    Delta,
    EventDelta,
    FinishDelta,
    FinishHeld,
    KeepAlive,
    ProviderRequest,
    Reader,
    ReaderSink,
    ReasoningDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
)
from penstock.testing import ScriptedProvider, Simulation


class Job:
    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


class Idle:
    """Owns a mailbox that nothing reads."""

    def run(self, limit: int) -> int:
        return 0


class Nothing:
    """A reader that is not asked."""

    def start(self, provider: Any, request: ProviderRequest, options: RequestOptions, sink: ReaderSink) -> Job:
        raise AssertionError("nothing is read here")

    def statistics(self) -> Mapping[str, int]:
        return {}

    def close(self, timeout: float) -> int:
        return 0


class Decoded:
    """A decoder that has ended."""

    def __init__(self, model: str | None = None) -> None:
        self.model = model
        self.skipped = 0
        self.finished = self.done = True


class Scene:
    """A call and its attempt, into a stream that has no actor."""

    def __init__(self, simulation: Simulation, **options: Any) -> None:
        self.record = StreamRecord(
            simulation.runtime,
            "s",
            StreamOptions(**options),
            metadata={},
            on_orphan="continue",
            restart="temporary",
            journal=None,
        )
        self.record.intake.attach(lambda: None, 0, self.record.log.new_epoch())
        provider = ScriptedProvider(["unused"])
        call = ChatCall(model="asked", input="Hello", parameters={})
        candidate = Candidate(provider=provider, call=call, request=provider.request(call))
        reader: Reader = Nothing()
        self.call = CallRecord([candidate], RequestOptions(), reader)
        self.call.begin_attempt()
        self.attempt = Attempt(self.record, self.call, 1, Mailbox(Idle(), lambda mailbox: None), simulation.clock)
        self.rooms = 0

    def offer(self, *deltas: Delta) -> bool | None:
        return self.attempt.offer(deltas, self._room)

    def _room(self) -> None:
        self.rooms += 1

    @property
    def waiting(self) -> Sequence[Any]:
        """What the stream has taken, and not delivered."""
        return [token.text for token in self.record.intake.undelivered(0)]


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        yield simulation


def test_an_attempt_that_ended_with_everything_in_the_buffer_took_all(simulation: Simulation) -> None:
    scene = Scene(simulation)
    assert scene.offer(TextDelta("a")) is True
    assert not scene.attempt.took_all
    scene.attempt.ended(Decoded(), None)  # type: ignore[arg-type]
    assert scene.attempt.took_all


@pytest.mark.parametrize("way", ["deltas", "offer"])
def test_an_attempt_that_refused_deltas_did_not_take_all(simulation: Simulation, way: str) -> None:
    scene = Scene(simulation)
    assert scene.offer(TextDelta("a")) is True
    scene.attempt.abandon()
    refused = scene.offer(TextDelta("b")) if way == "offer" else scene.attempt.deltas([TextDelta("b")])
    assert refused is False
    scene.attempt.ended(Decoded(), None)  # type: ignore[arg-type]
    assert not scene.attempt.took_all
    assert scene.waiting == ["a"]


def test_an_answer_without_a_delta_has_the_events_that_came() -> None:
    with Simulation() as simulation:
        scene = Scene(simulation)
        assert scene.offer(EventDelta(ProviderEvent(type="", payload="[DONE]"))) is True
        assert scene.record.intake.events == 0
        assert not scene.attempt.has_progressed
        scene.attempt.push_completed_calls()
        scene.attempt.push_completed_calls()
        assert scene.record.intake.events == 1


def test_an_attempt_whose_items_wait_for_room_did_not_take_all(simulation: Simulation) -> None:
    scene = Scene(simulation, max_buffer_size=1, batch_size=1)
    assert scene.offer(TextDelta("a"), TextDelta("b")) is None
    scene.attempt.ended(Decoded(), None)  # type: ignore[arg-type]
    assert not scene.attempt.took_all


def test_a_job_that_comes_after_the_attempt_was_abandoned_is_cancelled(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.attempt.abandon()
    job = Job()
    scene.attempt.take_job(job)
    assert job.cancelled == 1


def test_the_job_of_an_attempt_under_way_is_cancelled_once_by_abandoning_it(simulation: Simulation) -> None:
    scene = Scene(simulation)
    job = Job()
    scene.attempt.take_job(job)
    assert job.cancelled == 0
    scene.attempt.abandon()
    scene.attempt.abandon()
    assert job.cancelled == 1


def test_a_tokenizer_cuts_the_text_and_leaves_the_events_between_it(simulation: Simulation) -> None:
    scene = Scene(simulation, tokenizer=str.split)
    call = ToolCallFragment(index=0, id="c", name="f", arguments="{}")
    assert scene.offer(TextDelta("one two"), call, TextDelta("three four")) is True
    intake = scene.record.intake
    taken = []
    for seq in range(1, 10):
        batch, _ = intake.take(5, seq, 1)
        if batch is None:
            break
        taken.append(getattr(batch, "tokens", None) or type(batch.event).__name__)  # type: ignore[union-attr]
        intake.commit(batch)
    assert (taken[0], taken[-1]) == (("one", "two"), ("three", "four"))
    assert "ToolCallStarted" in taken


def test_an_event_that_comes_after_the_attempt_was_abandoned_ends_the_reading(simulation: Simulation) -> None:
    scene = Scene(simulation, max_buffer_size=1, batch_size=1)
    call = ToolCallFragment(index=0, id="c", name="f", arguments="{}")
    assert scene.offer(TextDelta("a"), TextDelta("b"), call) is None
    batch, _ = scene.record.intake.take(1, 1, 1)
    assert batch is not None
    scene.record.intake.commit(batch)
    assert scene.rooms == 1
    scene.attempt.abandon()
    assert scene.attempt.offer((), scene._room) is False
    assert scene.waiting == []


def test_events_alone_are_refused_by_a_stream_that_has_ended(simulation: Simulation) -> None:
    scene = Scene(simulation)
    assert scene.offer(TextDelta("a")) is True
    scene.record.intake.close()
    assert scene.offer(ToolCallFragment(index=0, id="c", name="f", arguments="{}")) is False
    scene.attempt.ended(Decoded(), None)  # type: ignore[arg-type]
    assert not scene.attempt.took_all


@pytest.mark.parametrize("models", [("named", None), (None, "named"), ("before", "named")])
def test_a_decoder_that_names_no_model_leaves_the_one_that_is_known(
    simulation: Simulation, models: Sequence[str | None]
) -> None:
    scene = Scene(simulation)
    for model in models:
        scene.attempt.ended(Decoded(model), None)  # type: ignore[arg-type]
    assert scene.call.outcome().model == "named"


@pytest.mark.parametrize(
    ("delta", "is_progress"),
    [
        (KeepAlive(), False),
        (UsageDelta(Usage(input_tokens=1)), False),
        (FinishDelta("stop", "stop"), True),
        (ToolCallFragment(index=0, id="c", name="f", arguments="{}"), True),
        (TextDelta("a"), True),
    ],
)
def test_only_what_the_model_says_counts_as_progress(simulation: Simulation, delta: Delta, is_progress: bool) -> None:
    scene = Scene(simulation)
    begun = scene.attempt.last_progress
    simulation.advance(5)
    assert scene.offer(delta) is True
    assert scene.attempt.has_progressed is is_progress
    assert scene.call.started is is_progress
    assert scene.attempt.last_progress - begun == pytest.approx(5.0 if is_progress else 0.0)


@pytest.mark.parametrize(
    ("reads", "is_reasoning"),
    [
        ([[ReasoningDelta("a")]], True),
        ([[ReasoningDelta("a")], [TextDelta("b")]], False),
        ([[ReasoningDelta("a"), TextDelta("b")]], False),
        ([[TextDelta("b"), ReasoningDelta("a")]], True),
        ([[Thinking()]], True),
        ([[Thinking()], [KeepAlive()]], True),
        ([[Thinking()], [TextDelta("b")]], False),
        ([[Thinking(), TextDelta("b")]], False),
        ([[TextDelta("b"), Thinking()]], True),
        ([[ReasoningDelta("a")], [ToolCallFragment(index=0, id="c", name="f", arguments="{}")]], False),
        ([[ReasoningDelta("a")], [TextDelta("b")], [ReasoningDelta("c")]], True),
        ([[ReasoningDelta("a")], [UsageDelta(Usage(input_tokens=1))]], True),
    ],
)
def test_the_model_reasons_until_something_else_comes_after_it(
    simulation: Simulation, reads: Sequence[Sequence[Delta]], is_reasoning: bool
) -> None:
    scene = Scene(simulation)
    for deltas in reads:
        assert scene.offer(*deltas) is True
    assert scene.attempt.is_reasoning is is_reasoning


RESULT = EventDelta(ServerToolResult(id="s", name="x"))


@pytest.mark.parametrize(
    ("reads", "is_held"),
    [
        ([[FinishHeld()]], True),
        ([[RESULT, FinishHeld()]], True),
        ([[FinishHeld()], [KeepAlive()]], True),
        ([[FinishHeld()], [UsageDelta(Usage(input_tokens=1))]], True),
        ([[FinishHeld()], [TextDelta("a")]], False),
        ([[FinishHeld()], [RESULT]], False),
        ([[FinishHeld()], [RESULT, FinishHeld()], [KeepAlive()]], True),
        ([[FinishHeld()], [RESULT, FinishHeld()], [TextDelta("a")]], False),
    ],
)
def test_a_finish_is_held_until_something_comes_after_it(
    simulation: Simulation, reads: Sequence[Sequence[Delta]], is_held: bool
) -> None:
    scene = Scene(simulation)
    for deltas in reads:
        assert scene.offer(*deltas) is True
    assert scene.attempt.has_held_finish is is_held


class Measured(str):
    """A text that counts how often its length is asked for."""

    asked = 0

    def __len__(self) -> int:
        Measured.asked += 1
        return super().__len__()


@pytest.mark.parametrize("placed", [CitationDelta(Citation(kind="url"), is_of_block=True), BlockStart("text")])
def test_the_text_of_a_read_is_measured_once_however_many_places_in_it_are_told(
    simulation: Simulation, placed: Delta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Measured, "asked", 0)
    scene = Scene(simulation, max_buffer_size=10_000)
    assert scene.offer(*(delta for _ in range(500) for delta in (TextDelta(Measured("ab")), placed))) is True
    assert 0 < Measured.asked <= 3 * 500
    if isinstance(placed, CitationDelta):
        told = scene.record.intake.undelivered_events(0)
        assert [one.end for one in told if isinstance(one, Citation)] == list(range(2, 1001, 2))
