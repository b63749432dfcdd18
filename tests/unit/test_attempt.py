"""An attempt, without a reader and without an integration: what it took, and what comes too late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from penstock.actors.call.answer import OutcomeBuilder
from penstock.actors.call.attempt import Attempt
from penstock.actors.call.messages import Ended
from penstock.actors.call.record import CallRecord, Candidate
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.signals import KILL
from penstock.actors.stream.buffer import EventBatch
from penstock.actors.stream.record import StreamRecord
from penstock.config.options import RequestOptions, StreamOptions
from penstock.config.tokenizers import words
from penstock.errors import ProtocolError, SystemStopped
from penstock.events import Citation, Logprobs, ProviderEvent, ReasoningBlock, ServerToolResult, Usage
from penstock.ports import (
    BlockDelta,
    BlockStart,
    ChatCall,
    ChoiceDelta,
    CitationDelta,
    Delta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    FinishHeld,
    KeepAlive,
    ProviderRequest,
    Reader,
    ReaderSink,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
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

    def __init__(self, simulation: Simulation, account: str = "", **options: Any) -> None:
        self.record = StreamRecord(
            simulation.runtime,
            "s",
            StreamOptions(**options),
            metadata={},
            on_orphan="continue",
            restart="temporary",
            journal=None,
        )
        self.record.intake.attach(SimpleQueue(), 0, self.record.log.new_epoch())
        provider = ScriptedProvider(["unused"])
        call = ChatCall(model="asked", input="Hello", parameters={})
        candidate = Candidate(provider=provider, call=call, request=provider.request(call), account=account)
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


def test_a_job_that_has_ended_is_not_kept_even_if_it_was_over_before_it_was_noted(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.attempt.take_job(job := Job())
    assert scene.attempt.job is job
    scene.attempt.ended(Decoded(), None)  # type: ignore[arg-type]
    assert scene.attempt.job is None
    scene.attempt.take_job(job)
    assert scene.attempt.job is None
    scene.attempt.abandon()
    assert job.cancelled == 0


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


@pytest.mark.parametrize("way", ["deltas", "offer"])
def test_events_alone_are_refused_by_a_stream_that_has_ended(simulation: Simulation, way: str) -> None:
    scene = Scene(simulation)
    assert scene.offer(TextDelta("a")) is True
    scene.record.intake.close()
    call = ToolCallFragment(index=0, id="c", name="f", arguments="{}")
    assert (scene.offer(call) if way == "offer" else scene.attempt.deltas([call])) is False
    scene.attempt.ended(Decoded(), None)  # type: ignore[arg-type]
    assert not scene.attempt.took_all


@pytest.mark.parametrize("way", ["deltas", "offer"])
def test_a_read_in_which_nothing_is_said_is_not_refused(simulation: Simulation, way: str) -> None:
    scene = Scene(simulation)
    scene.record.intake.close()
    silent: list[Delta] = [KeepAlive(), UsageDelta(Usage(input_tokens=1))]
    assert (scene.offer(*silent) if way == "offer" else scene.attempt.deltas(silent)) is True


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("skipped", [0, 3])
def test_an_answer_with_a_finish_reason_or_an_end_marker_is_complete_and_what_was_skipped_is_logged(
    simulation: Simulation, finished: bool, done: bool, skipped: int, caplog: pytest.LogCaptureFixture
) -> None:
    scene, decoder = Scene(simulation), Decoded()
    decoder.finished, decoder.done, decoder.skipped = finished, done, skipped
    with caplog.at_level("DEBUG", "penstock"):
        scene.attempt.ended(decoder, None)  # type: ignore[arg-type]
    assert scene.attempt._inbox.get().message == Ended(1, finished or done, None)
    assert len(caplog.records) == (skipped > 0)


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
        (RefusalDelta("a"), True),
        (ReasoningDelta("a"), True),
        (EventDelta(ProviderEvent(type="x", payload=None)), False),
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
        (
            [[ReasoningDelta("a")], [ToolCallFragment(index=0, arguments="{")]],
            False,
        ),  # of which nothing is reported yet
        ([[ToolCallFragment(index=0, arguments="{")]], False),
        ([[ReasoningDelta("a")], [EventDelta(ProviderEvent(type="x", payload=None))]], True),
        ([[ReasoningDelta("a"), EventDelta(ProviderEvent(type="x", payload=None))]], True),
        ([[ReasoningDelta("a")], [EventDelta(ProviderEvent(type="x", payload=None)), TextDelta("b")]], False),
        ([[ReasoningDelta("a")], [TextDelta("b"), EventDelta(ProviderEvent(type="x", payload=None))]], False),
    ],
)
def test_the_model_reasons_until_something_else_comes_after_it(
    simulation: Simulation, reads: Sequence[Sequence[Delta]], is_reasoning: bool
) -> None:
    scene = Scene(simulation)
    for deltas in reads:
        assert scene.offer(*deltas) is True
    assert scene.attempt.is_reasoning is is_reasoning


def news(attempt: Attempt) -> list[str]:
    """What the integration has been told, in order."""
    box = attempt._inbox
    told = []
    while not box.empty():
        told.append(type(box.get().message).__name__)
    return told


def parts(scene: Scene) -> list[tuple[str, int]]:
    return [(token.text, token.part) for token in scene.record.intake.undelivered(0)]


def test_the_integration_is_told_each_step_once_and_of_the_finish_when_all_is_in_the_buffer(
    simulation: Simulation,
) -> None:
    scene = Scene(simulation, max_buffer_size=1, batch_size=1)
    attempt = scene.attempt
    attempt.connecting()
    attempt.waiting()
    assert news(attempt) == ["Connecting", "Waiting"]
    assert scene.offer(TextDelta("a"), TextDelta("b"), FinishDelta("stop", "stop")) is None
    assert (news(attempt), attempt.is_finished) == (["FirstDelta"], False)
    batch, _ = scene.record.intake.take(1, 1, 1)
    scene.record.intake.commit(batch)
    assert attempt.offer((), scene._room) is True
    assert (news(attempt), attempt.is_finished) == (["Finished"], True)
    attempt.ended(Decoded(), None)  # type: ignore[arg-type]
    assert news(attempt) == ["Ended"]


def test_the_time_for_which_the_stream_is_waited_for_is_not_the_providers_silence(simulation: Simulation) -> None:
    scene = Scene(simulation, max_buffer_size=1, batch_size=1)
    begun = simulation.clock.monotonic()
    assert scene.offer(TextDelta("a"), TextDelta("b")) is None
    assert scene.attempt.is_pushing
    simulation.advance(2)
    assert scene.attempt.offer((), scene._room) is None
    simulation.advance(3)
    batch, _ = scene.record.intake.take(1, 1, 1)
    scene.record.intake.commit(batch)
    assert scene.attempt.offer((), scene._room) is True
    assert not scene.attempt.is_pushing
    assert scene.attempt.last_progress - begun == pytest.approx(5.0)
    simulation.advance(4)
    assert scene.attempt.offer((), scene._room) is True
    assert scene.attempt.last_progress - begun == pytest.approx(5.0)


@pytest.mark.parametrize("way", ["deltas", "offer"])
def test_the_text_of_a_second_answer_is_a_part_of_its_own(simulation: Simulation, way: str) -> None:
    scene = Scene(simulation)
    assert scene.offer(TextDelta("a")) is True
    first = scene.call.candidate
    scene.call = CallRecord([first], RequestOptions(), Nothing())
    scene.call.begin_attempt()
    scene.attempt = Attempt(scene.record, scene.call, 2, scene.attempt._inbox, simulation.clock)
    assert scene.call.builder.provider == "scripted"
    assert scene.call.builder.extras.part == 1
    if way == "offer":
        assert scene.offer(TextDelta("b")) is True
    else:
        assert scene.attempt.deltas([TextDelta("b")]) is True
    assert parts(scene) == [("a", 0), ("b", 1)]


def test_a_block_without_text_before_it_in_its_part_begins_no_part(simulation: Simulation) -> None:
    scene = Scene(simulation)
    block = BlockStart("text")
    assert scene.offer(block, TextDelta("a"), block, block, TextDelta("b")) is True
    assert scene.offer(block) is True
    assert scene.offer(block, TextDelta("c")) is True
    assert parts(scene) == [("a", 0), ("b", 1), ("c", 2)]


def test_a_citation_is_placed_behind_the_text_of_the_first_choice_and_nothing_else(simulation: Simulation) -> None:
    scene = Scene(simulation)
    whole = CitationDelta(Citation(kind="url", url="u"), is_of_block=True)
    assert scene.offer(TextDelta("ab"), ReasoningDelta("hm"), RefusalDelta("no")) is True
    assert scene.offer(TextDelta("cd"), ReasoningDelta("hm"), whole, TextDelta("e")) is True
    assert scene.offer(ChoiceDelta(1, TextDelta("other")), whole) is True
    spans = []
    while (batch := scene.record.intake.take(100, 1, 1)[0]) is not None:
        scene.record.intake.commit(batch)
        if isinstance(batch, EventBatch) and isinstance(batch.event, Citation):
            spans.append((batch.event.start, batch.event.end))
    assert spans == [(0, 4), (0, 5)]


def test_a_finish_that_is_held_back_is_no_finish_and_no_progress(simulation: Simulation) -> None:
    scene = Scene(simulation)
    assert scene.offer(FinishHeld()) is True
    assert (scene.attempt.has_held_finish, scene.attempt.is_finished, scene.attempt.has_progressed) == (
        True,
        False,
        False,
    )


def test_the_first_error_of_a_stream_counts_and_ends_the_answer(simulation: Simulation) -> None:
    scene = Scene(simulation)
    first, second = ProtocolError("first"), ProtocolError("second")
    assert scene.offer(ErrorDelta(first), ErrorDelta(second)) is True
    assert scene.attempt.error is first
    assert news(scene.attempt) == ["Finished"]
    assert not scene.attempt.has_progressed


@pytest.mark.parametrize("last", ["block", "text"])
@pytest.mark.parametrize(("more", "is_taken"), [(0, True), (1, False)])
def test_an_answer_may_be_as_long_as_its_limit_and_no_longer(
    simulation: Simulation, more: int, is_taken: bool, last: str
) -> None:
    scene = Scene(simulation)
    scene.call.options = RequestOptions().replace(max_answer_bytes=1000)
    block = ReasoningBlockDelta(ReasoningBlock(kind="thinking", signature="123"))
    alone = OutcomeBuilder()
    alone.note(block)
    assert 3 <= alone.tally.total < 500
    text = TextDelta("x" * (1000 - len("efgh") - alone.tally.total + more))
    assert scene.offer(ReasoningDelta("efg"), TextDelta("h")) is True
    first, then = (text, block) if last == "block" else (block, text)
    assert scene.offer(first) is True
    assert scene.offer(then) is is_taken
    assert (scene.attempt.error is None) is is_taken


def test_reasoning_that_a_block_repeats_counts_once_into_the_length(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.call.options = RequestOptions().replace(max_answer_bytes=1500)
    text = "x" * 1000
    assert scene.offer(ReasoningDelta(text), ReasoningBlockDelta(ReasoningBlock(kind="thinking", text=text))) is True


def test_an_attempt_that_is_abandoned_while_it_waits_for_room_is_woken(simulation: Simulation) -> None:
    scene = Scene(simulation, max_buffer_size=1, batch_size=1)
    assert scene.offer(TextDelta("a"), TextDelta("b")) is None
    scene.attempt.abandon()
    assert scene.rooms == 1
    scene.attempt.connecting()
    assert "Connecting" not in news(scene.attempt)


@pytest.mark.parametrize(
    "about",
    [
        EventDelta(ProviderEvent(type="x", payload="y")),
        CitationDelta(Citation(kind="url", url="u")),
        EventDelta(Logprobs(tokens=())),
    ],
)
def test_what_is_about_the_answer_keeps_its_place_before_and_after_the_first_delta(
    simulation: Simulation, about: Delta
) -> None:
    scene = Scene(simulation)
    assert scene.offer(about) is True
    assert scene.offer(about, TextDelta("a"), about) is True
    intake, taken = scene.record.intake, []
    for seq in range(1, 10):
        batch, _ = intake.take(5, seq, 1)
        if batch is None:
            break
        taken.append(type(batch).__name__)
        intake.commit(batch)
    assert taken == ["EventBatch", "EventBatch", "Batch", "EventBatch"]


def test_a_tokenizer_cuts_text_and_reasoning_each_into_its_kind(simulation: Simulation) -> None:
    scene = Scene(simulation, tokenizer=str.split)
    assert scene.offer(TextDelta("one two"), ReasoningDelta("three four")) is True
    undelivered = scene.record.intake.undelivered(0)
    assert [(token.kind, token.text) for token in undelivered] == [
        ("text", "one"), ("text", "two"), ("reasoning", "three"), ("reasoning", "four"),
    ]  # fmt: skip


RESULT = EventDelta(ServerToolResult(id="s", name="x"))
RAW = EventDelta(ProviderEvent(type="x", payload=None))


@pytest.mark.parametrize(
    ("reads", "is_held"),
    [
        ([[KeepAlive()]], False),
        ([[FinishHeld()]], True),
        ([[RESULT, FinishHeld()]], True),
        ([[FinishHeld()], [KeepAlive()]], True),
        ([[FinishHeld()], [UsageDelta(Usage(input_tokens=1))]], True),
        ([[FinishHeld()], [TextDelta("a")]], False),
        ([[FinishHeld()], [RESULT]], False),
        ([[FinishHeld(), RESULT]], False),
        ([[FinishHeld(), TextDelta("a")]], False),
        ([[TextDelta("a"), FinishHeld(), ReasoningDelta("hm")]], False),
        ([[TextDelta("a"), FinishHeld()]], True),
        ([[TextDelta("a"), FinishHeld(), RESULT, FinishHeld()]], True),
        ([[RESULT, RAW, FinishHeld(), RAW, UsageDelta(Usage(input_tokens=1))]], True),
        ([[RESULT, RAW, FinishHeld(), RAW, TextDelta("a")]], False),
        ([[FinishHeld()], [FinishHeld(), RESULT], [KeepAlive()]], False),
        ([[FinishHeld(), RESULT], [FinishHeld()]], True),
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


class Cutting:
    """An application's tokenizer that notes what it was called with."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure
        self.calls: list[str] = []
        self.before: Callable[[], None] = lambda: None

    def __call__(self, text: str) -> list[str]:
        self.calls.append(text)
        self.before()
        if self.failure is not None:
            raise self.failure
        return text.split()


def set_tokenizer(scene: Scene, tokenizer: Callable[[str], Any]) -> None:
    """As the application does while a reader reads whose thread must not run its code."""
    assert not scene.attempt.may_block
    scene.record.options = scene.record.options.replace(tokenizer=tokenizer)


def test_a_tokenizer_that_is_set_while_the_answer_is_read_runs_in_a_process_of_its_own(simulation: Simulation) -> None:
    scene, cutting = Scene(simulation), Cutting()
    assert scene.offer(TextDelta("a b")) is True
    set_tokenizer(scene, cutting)
    called = BlockStart("text")
    assert scene.offer(TextDelta("c d"), ReasoningDelta("e f"), called) is None
    assert (cutting.calls, scene.rooms, scene.attempt.is_pushing) == ([], 0, True)
    simulation.settle()
    assert (len(cutting.calls), scene.rooms) == (2, 1)
    assert scene.waiting == ["a b"]
    assert scene.offer() is True
    assert (scene.waiting, scene.attempt.is_pushing) == (["a b", "c", "d", "e", "f"], False)
    assert scene.offer(TextDelta("g h")) is None
    simulation.settle()
    assert scene.offer() is True
    assert scene.waiting[-2:] == ["g", "h"]
    assert scene.offer(KeepAlive()) is True  # there is nothing to cut


def test_what_such_a_tokenizer_raises_is_raised_in_the_reader(simulation: Simulation) -> None:
    scene = Scene(simulation)
    set_tokenizer(scene, Cutting(ZeroDivisionError("cut")))
    assert scene.offer(TextDelta("a b")) is None
    simulation.settle()
    assert scene.rooms == 1
    with pytest.raises(ZeroDivisionError):
        scene.offer()
    scene.attempt.ended(Decoded(), None)  # type: ignore[arg-type]
    assert not scene.attempt.took_all


def test_text_of_which_the_cutting_was_killed_is_neither_lost_nor_doubled(simulation: Simulation) -> None:
    scene, cutting = Scene(simulation), Cutting()
    set_tokenizer(scene, cutting)

    def kill() -> None:
        for process in simulation.runtime.processes():
            simulation.runtime.exit(process, KILL)
        assert scene.offer() is True

    cutting.before = kill
    assert scene.offer(TextDelta("a b")) is None
    simulation.settle()
    assert (len(cutting.calls), scene.waiting) == (1, ["a b"])
    set_tokenizer(scene, words)
    assert scene.offer(TextDelta("c")) is True
    assert scene.waiting == ["a b", "c"]


def test_an_attempt_that_is_abandoned_while_its_text_is_cut_takes_nothing(simulation: Simulation) -> None:
    scene = Scene(simulation)
    set_tokenizer(scene, Cutting())
    assert scene.offer(TextDelta("a b")) is None
    scene.attempt.abandon()
    simulation.settle()
    assert (scene.offer(), scene.waiting) == (False, [])


def test_a_cutting_that_cannot_begin_ends_the_reading(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise SystemStopped

    scene = Scene(simulation)
    set_tokenizer(scene, Cutting())
    monkeypatch.setattr(simulation.runtime, "spawn", refuse)
    assert scene.offer(TextDelta("a b")) is False


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("delta", [TextDelta("c d"), ReasoningDelta("c d")])
def test_of_an_abandoned_attempt_nothing_is_cut_and_no_answer_begins(
    simulation: Simulation, begun: bool, delta: Delta
) -> None:
    cutting = Cutting()
    scene = Scene(simulation, tokenizer=cutting)
    if begun:
        assert scene.offer(TextDelta("a b")) is True
    calls = len(cutting.calls)
    scene.attempt.abandon()
    assert scene.offer(delta) is False
    assert (len(cutting.calls), scene.call.started) == (calls, begun)


# --- progress --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deltas", "is_progress"),
    [
        ([TextDelta("a")], True),
        ([KeepAlive(), TextDelta("a")], True),
        ([RAW], False),
        ([RAW, RAW, TextDelta("a")], True),
        ([BlockStart("text")], False),
        ([BlockDelta({"type": "x"})], True),
        ([CitationDelta(Citation(kind="url", url="u"))], True),
        ([UsageDelta(Usage(input_tokens=1))], False),
        ([Thinking()], True),
    ],
)
def test_once_the_answer_has_begun_what_is_about_it_is_progress_too(
    simulation: Simulation, deltas: Sequence[Delta], is_progress: bool
) -> None:
    scene = Scene(simulation)
    assert scene.offer(TextDelta("a")) is True
    assert scene.offer(RAW, RAW) is True  # of earlier reads nothing is counted again
    begun = scene.attempt.last_progress
    simulation.advance(5)
    assert scene.offer(*deltas) is True
    assert scene.attempt.last_progress - begun == pytest.approx(5.0 if is_progress else 0.0)


def test_that_the_model_thinks_is_progress_only_when_it_begins(simulation: Simulation) -> None:
    scene = Scene(simulation)
    begun = scene.attempt.last_progress
    for seconds in (5, 3):
        simulation.advance(seconds)
        assert scene.offer(Thinking()) is True
    assert scene.attempt.last_progress - begun == pytest.approx(5.0)


@pytest.mark.parametrize("way", ["deltas", "offer"])
def test_the_first_delta_and_the_finish_are_reported_once(simulation: Simulation, way: str) -> None:
    scene = Scene(simulation)
    began: list[float] = []
    scene.call.has_started = lambda now, seconds: began.append(seconds)  # type: ignore[method-assign]
    simulation.advance(5)
    stop = FinishDelta("stop", "stop")
    for deltas in ([TextDelta("a")], [ReasoningDelta("b")], [stop], [KeepAlive()], [TextDelta("c")], [stop]):
        assert (scene.offer(*deltas) if way == "offer" else scene.attempt.deltas(deltas)) is True
    assert news(scene.attempt) == ["FirstDelta", "Finished"]
    assert began == [pytest.approx(5.0)]


class Noting:
    """A stream's mailbox that notes whether the attempt is pushing, and lets time pass."""

    def __init__(self, scene: Scene, simulation: Simulation) -> None:
        self.scene = scene
        self.simulation = simulation
        self.notes: list[bool] = []

    def put(self, message: Any) -> None:
        self.notes.append(self.scene.attempt.is_pushing)
        self.simulation.clock.move_to(self.simulation.clock.monotonic() + 5)


@pytest.mark.parametrize("delta", [TextDelta("a"), ToolCallFragment(index=0, id="c", name="f")])
def test_while_a_blocking_reader_pushes_the_provider_is_not_silent(simulation: Simulation, delta: Delta) -> None:
    scene = Scene(simulation)
    inbox, epoch = Noting(scene, simulation), scene.record.log.new_epoch()
    scene.record.intake.attach(inbox, 0, epoch)
    scene.record.intake.wait_for(1, epoch)
    begun = scene.attempt.last_progress
    assert scene.attempt.deltas([delta]) is True
    assert (inbox.notes, scene.attempt.is_pushing) == ([True], False)
    assert scene.attempt.last_progress - begun == pytest.approx(5.0)


def test_an_attempt_that_waits_for_nothing_wakes_no_other_producer(simulation: Simulation) -> None:
    scene = Scene(simulation, max_buffer_size=1, batch_size=1)
    assert scene.offer(TextDelta("a")) is True
    assert scene.record.intake.push_now([("b", "text")], scene._room) == 0
    scene.attempt.abandon()
    assert scene.rooms == 0


def test_events_of_calls_do_not_wait_for_room_and_text_is_kept_only_where_it_is_asked_for(
    simulation: Simulation,
) -> None:
    scene = Scene(simulation, max_buffer_size=2, batch_size=1)
    assert scene.offer(TextDelta("a"), RAW) is True
    assert scene.offer(ToolCallFragment(index=0, id="c", name="f")) is True
    assert scene.record.intake.events == 2
    assert scene.call.outcome().text == ""
    assert scene.offer(RAW) is None


@pytest.mark.parametrize("account", ["", "mine"])
def test_an_answer_is_of_the_account_or_without_one_of_the_dialect(simulation: Simulation, account: str) -> None:
    assert Scene(simulation, account).call.builder.provider == (account or "scripted")


def test_a_block_begins_no_part_because_of_text_of_an_earlier_one_that_came_with_a_held_event(
    simulation: Simulation,
) -> None:
    scene, block = Scene(simulation), BlockStart("text")
    for deltas in ([RAW], [TextDelta("a"), block], [block, TextDelta("b")]):
        assert scene.offer(*deltas) is True
    assert parts(scene) == [("a", 0), ("b", 1)]


def test_an_answer_does_not_go_on_in_the_phase_of_an_earlier_one_that_said_nothing(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.record.intake.start_part(0, "commentary")
    call = CallRecord([scene.call.candidate], RequestOptions(), Nothing())
    call.begin_attempt()
    scene.attempt = Attempt(scene.record, call, 1, scene.attempt._inbox, simulation.clock)
    assert scene.offer(TextDelta("a")) is True
    (token,) = scene.record.intake.undelivered(0)
    assert (token.part, token.phase) == (0, None)


class Foreign(ScriptedProvider):
    """A provider of the application."""


@pytest.mark.parametrize("provider", [ScriptedProvider, Foreign])
@pytest.mark.parametrize("tokenizer", [None, words, str.split])
def test_a_reader_may_be_blocked_by_a_provider_or_a_tokenizer_of_the_application(
    simulation: Simulation, provider: type[ScriptedProvider], tokenizer: Any
) -> None:
    scene = Scene(simulation, tokenizer=tokenizer)
    call = ChatCall(model="asked", input="Hello", parameters={})
    asked = provider(["unused"])
    record = CallRecord(
        [Candidate(provider=asked, call=call, request=asked.request(call))], RequestOptions(), Nothing()
    )
    attempt = Attempt(scene.record, record, 1, scene.attempt._inbox, simulation.clock)
    assert attempt.may_block is (provider is Foreign or tokenizer is str.split)
