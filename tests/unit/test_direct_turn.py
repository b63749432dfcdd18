"""The direct turn: when a stream's tokens go into its log at once, and that it is a turn of its actor all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pykka
import pytest

from penstock.actors.call.answer import OutcomeBuilder
from penstock.actors.call.attempt import Attempt
from penstock.actors.call.record import CallRecord, Candidate
from penstock.actors.runtime import inspect
from penstock.actors.runtime.bounded import MailboxOptions
from penstock.actors.runtime.mailbox import Mailbox
from penstock.actors.runtime.process import Process, ProcessRef
from penstock.actors.runtime.signals import KILL
from penstock.actors.stream.actor import TokenStream
from penstock.actors.stream.cursor import Cursor
from penstock.actors.stream.direct import deliver
from penstock.actors.stream.hub import Subscription
from penstock.actors.stream.messages import Cancel, Flush, Pause, Resume, SetOptions, StopStream
from penstock.actors.stream.record import StreamRecord
from penstock.actors.stream.subscribers.callback import CallbackSubscription
from penstock.actors.stream.subscribers.polled import StreamReader
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.config.options import RequestOptions, StreamOptions
from penstock.events import ProviderEvent, StreamCancelled, TokenEvent, ToolProgress, Usage
from penstock.ports import (
    BlockDelta,
    ChatCall,
    Delta,
    EventDelta,
    KeepAlive,
    ReasoningDelta,
    TextDelta,
    Thinking,
    UsageDelta,
)
from penstock.testing import ScriptedProvider, Simulation


class Idle:
    """Owns a mailbox that nothing reads."""

    def run(self, limit: int) -> int:
        return 0


class Journal:
    """Takes everything."""

    def append(self, event: Any) -> None:
        return


class Scene:
    """A stream with its actor, and the attempt of a call that feeds it."""

    def __init__(self, simulation: Simulation, journal: Any = None, keeps_text: bool = False, **options: Any) -> None:
        self.simulation = simulation
        given = {"batch_size": 1, "rate_limit": None, "max_buffer_size": 4, **options}
        self.record = StreamRecord(
            simulation.runtime,
            "s",
            StreamOptions(**given),
            metadata={"tenant": "t"},
            on_orphan="continue",
            restart="temporary",
            journal=journal,
        )
        self.actor = self.start()
        provider = ScriptedProvider(["unused"])
        call = ChatCall(model="asked", input="Hello", parameters={})
        reader: Any = None
        self.call = CallRecord(
            [Candidate(provider=provider, call=call, request=provider.request(call))], RequestOptions(), reader
        )
        self.call.begin_attempt()
        self.call.builder = OutcomeBuilder(keeps_text=keeps_text)
        self.attempt = Attempt(self.record, self.call, 1, Mailbox(Idle(), lambda mailbox: None), simulation.clock)
        self.rooms = 0

    def start(self) -> ProcessRef:
        actor = self.simulation.spawn(TokenStream, self.record)
        self.simulation.settle()
        return actor

    def offer(self, *tokens: str | Delta) -> bool | None:
        deltas = [TextDelta(token) if isinstance(token, str) else token for token in tokens]
        return self.attempt.offer(deltas, self._room)

    def _room(self) -> None:
        self.rooms += 1

    def subscribe(self, subscription: Subscription) -> None:
        self.record.hub.add(subscription)
        subscription.wake()
        self.simulation.settle()

    def cursor(self, window: int = 100) -> Cursor:
        return Cursor(self.record.log, 0, "block", window)

    @property
    def logged(self) -> Sequence[Any]:
        """The texts of the log's events, and the names of those without a text."""
        return [event.text if isinstance(event, TokenEvent) else type(event).__name__ for event in self.record.log]

    @property
    def buffered(self) -> Sequence[str]:
        return [token.text for token in self.record.intake.undelivered(self.record.log.written)]


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        yield simulation


def collected(scene: Scene) -> list[Any]:
    """Subscribe a function that collects what it gets."""
    got: list[Any] = []
    scene.subscribe(CallbackSubscription(scene.record.hub, scene.cursor(), got.append, scene.simulation.runtime))
    return got


def test_tokens_are_in_the_log_before_the_actor_had_a_turn(simulation: Simulation) -> None:
    scene = Scene(simulation)
    assert scene.offer("a") is True
    assert scene.offer("b", ReasoningDelta("c")) is True
    assert (scene.logged, scene.buffered, scene.record.state) == (["a", "b", "c"], [], "idle")
    assert [event.seq for event in scene.record.log] == [1, 2, 3]
    assert [event.kind for event in scene.record.log if isinstance(event, TokenEvent)] == ["text", "text", "reasoning"]


def test_what_the_events_and_the_counters_say_is_as_by_the_actor(simulation: Simulation) -> None:
    direct, by_actor = Scene(simulation), Scene(simulation)
    got = [collected(scene) for scene in (direct, by_actor)]
    for token in ("a", "ä", "", "\ud800"):
        direct.offer(token)
        by_actor.record.intake.push(token)
        simulation.settle()
        simulation.advance(1)
    assert got[0] == got[1]
    assert len(got[0]) == 4
    one, other = (scene.record.statistics() for scene in (direct, by_actor))
    assert one == other
    assert one.tokens_processed == one.tokens_delivered == one.batches_flushed == 4


@pytest.mark.parametrize("journal", [None, Journal()])
def test_no_timer_runs_where_a_batch_is_one_token(simulation: Simulation, journal: Any) -> None:
    scene = Scene(simulation, journal)
    scene.offer("a")
    scene.record.intake.push("b")
    simulation.settle()
    assert (scene.logged, scene.record.state, len(simulation.timers)) == (["a", "b"], "idle", 0)


@pytest.mark.parametrize("count", [3, 5])
def test_where_no_token_waits_an_event_has_what_came_together(simulation: Simulation, count: int) -> None:
    scene = Scene(simulation, batch_size=3, flush_interval=0, max_buffer_size=100)
    scene.offer(*"abcde"[:count], ReasoningDelta("x"), "z")
    assert scene.logged == ["abc", *(["de"] if count == 5 else []), "x", "z"]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 2},
        {"rate_limit": 10.0},
        {"strategy": "time"},
        {"batch_size": "adaptive"},
        {"pacing": "adaptive"},
        {"batch_size": 2, "flush_interval": 0, "strategy": "batch"},
        {"journal": Journal()},
    ],
)
def test_a_stream_that_is_not_ordinary_buffers(simulation: Simulation, options: dict[str, Any]) -> None:
    scene = Scene(simulation, **options)
    assert scene.offer("a") is True
    assert (scene.logged, scene.buffered) == ([], ["a"])
    simulation.advance(1)
    assert scene.buffered == [] or options.get("strategy") == "batch"


def test_options_that_are_changed_count_from_then_on(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.actor.ask(SetOptions({"batch_size": 2}))
    scene.offer("a")
    assert scene.logged == []
    scene.actor.ask(SetOptions({"batch_size": 1}))
    simulation.settle()
    scene.offer("b")
    assert scene.logged == ["a", "b"]


def test_a_message_that_waits_comes_first(simulation: Simulation) -> None:
    scene = Scene(simulation)
    paused = scene.actor.ask(Pause(), block=False)
    scene.offer("a")
    assert (scene.logged, scene.buffered) == ([], ["a"])
    simulation.settle()
    assert (paused.is_done, scene.record.state, scene.logged) == (True, "paused", [])
    scene.offer("b")
    assert scene.logged == []
    scene.actor.ask(Flush())
    assert scene.logged == ["a", "b"]
    scene.offer("c")
    assert scene.logged == ["a", "b"]
    scene.actor.ask(Resume())
    simulation.settle()
    scene.offer("d")
    assert scene.logged == ["a", "b", "c", "d"]


def test_tokens_that_another_producer_has_pushed_come_first(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.record.intake.push("a")
    scene.offer("b")
    assert (scene.logged, scene.buffered) == ([], ["a", "b"])
    simulation.settle()
    assert scene.logged == ["a", "b"]


def test_a_tool_event_and_the_tokens_after_it_keep_their_order(simulation: Simulation) -> None:
    scene = Scene(simulation)
    progress = ToolProgress(stream_id="s", seq=0, call_id="1", name="f", progress=1, timestamp=0.0, metadata={})
    scene.offer("a")
    scene.record.intake.push_event(progress)
    scene.offer("b")
    simulation.settle()
    assert scene.logged == ["a", "ToolProgress", "b"]


def test_a_slow_subscriber_holds_the_stream_and_then_the_provider(simulation: Simulation) -> None:
    scene = Scene(simulation)
    reader = StreamReader(scene.record.hub, scene.cursor(2), scene.record.emptied)
    scene.subscribe(reader)
    assert scene.offer(*"abcde") is True
    assert (scene.logged, scene.buffered, scene.record.is_held) == (["a", "b", "c"], ["d", "e"], True)
    assert scene.record.statistics().backpressure_events == 1
    assert scene.offer(*"fghi") is None
    assert (scene.buffered, scene.rooms) == (["d", "e", "f", "g"], 0)
    while reader.take():
        simulation.settle()
    assert scene.rooms == 1
    assert scene.offer() is True
    simulation.settle()
    while reader.take():
        simulation.settle()
    assert "".join(scene.logged) == "abcdefghi"
    scene.offer("j")
    assert scene.logged[-1] == "j"


def foreign_reader(scene: Scene) -> Subscription:
    return StreamReader(scene.record.hub, scene.cursor(), lambda: None)


def bounded_actor(scene: Scene) -> Subscription:
    ref = scene.simulation.runtime.spawn(Process, mailbox=MailboxOptions(max_size=10))
    return PushSubscription(scene.record.hub, scene.cursor(), ref, ref)


def plain_actor(scene: Scene) -> Subscription:
    ref = scene.simulation.runtime.spawn(Process)
    return PushSubscription(scene.record.hub, scene.cursor(), ref, ref)


@pytest.mark.parametrize(("kind", "is_direct"), [(foreign_reader, False), (bounded_actor, False), (plain_actor, True)])
def test_a_subscriber_whose_code_may_block_is_woken_by_the_actor(
    simulation: Simulation, kind: Callable[[Scene], Subscription], is_direct: bool
) -> None:
    scene = Scene(simulation)
    scene.subscribe(kind(scene))
    scene.offer("a")
    assert (scene.logged == ["a"]) is is_direct
    simulation.settle()
    assert scene.logged == ["a"]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_many_subscribers_are_told_by_the_actor(simulation: Simulation, batch_size: int) -> None:
    scene = Scene(simulation, batch_size=batch_size)
    many = [Watching(scene, is_prompt=True) for _ in range(65)]
    for one in many:
        scene.record.hub.add(one)
    scene.offer(*"ab")
    assert (scene.logged, scene.buffered) == ([], ["a", "b"])
    simulation.settle()
    assert "".join(scene.logged) == "ab"
    assert [one.seen[-1] for one in many] == [scene.record.log.last_seq] * 65
    many[0].unsubscribe()
    scene.offer(*"cd")
    assert "".join(scene.logged) == "abcd"


class Listening(pykka.ThreadingActor):
    """An actor of Pykka's own."""


class Bounded(pykka.ThreadingActor):
    """Its mailbox has a bound, so that sending to it may block."""

    @staticmethod
    def _create_actor_inbox() -> Any:
        from queue import Queue

        return Queue(1)


@pytest.mark.parametrize(("kind", "is_direct"), [(Listening, True), (Bounded, False)])
def test_a_pykka_actor_is_told_at_once_unless_its_mailbox_has_a_bound(
    simulation: Simulation, kind: type[pykka.Actor], is_direct: bool
) -> None:
    scene = Scene(simulation)
    ref = kind.start()
    try:
        assert PushSubscription(scene.record.hub, scene.cursor(), ref, ref).is_prompt is is_direct
    finally:
        ref.stop()


class Broken(Subscription):
    """Raises when it is woken for the event with that number."""

    is_prompt = True

    def __init__(self, scene: Scene, seq: int) -> None:
        super().__init__(scene.record.hub, scene.cursor(), None)
        self._breaks_at = seq

    def wake(self) -> None:
        if self._cursor.log.last_seq == self._breaks_at:
            raise RuntimeError("woken")


def test_an_exception_is_a_crash_of_the_actor_and_no_token_is_lost(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.subscribe(Broken(scene, 2))
    assert scene.offer(*"abcd") is True
    assert isinstance(scene.simulation.runtime.exit_reason(scene.actor), RuntimeError)
    assert (scene.logged, scene.buffered) == (["a", "b"], ["c", "d"])
    for broken in scene.record.hub.subscriptions:
        scene.record.hub.remove(broken)
    scene.start()
    assert scene.logged == ["a", "b", "c", "d"]
    scene.offer("e")
    assert scene.logged == ["a", "b", "c", "d", "e"]
    assert scene.record.statistics().tokens_processed == 5


def test_what_the_log_did_not_take_is_neither_lost_nor_counted_twice(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(simulation)
    with monkeypatch.context() as patch:
        patch.setattr("penstock.actors.stream.direct.TokenEvent", None)
        scene.offer("a")
    assert (scene.logged, scene.buffered) == ([], ["a"])
    assert not simulation.runtime.is_alive(scene.actor)
    scene.start()
    assert (scene.logged, scene.record.statistics().tokens_processed) == (["a"], 1)


def test_a_killed_actor_takes_no_direct_turn(simulation: Simulation) -> None:
    scene = Scene(simulation)
    simulation.runtime.exit(scene.actor, KILL)
    scene.offer("a")
    assert (scene.logged, scene.buffered) == ([], ["a"])
    scene.start()
    assert scene.logged == ["a"]


def test_an_exit_signal_is_obeyed_before_the_turn(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.actor.actor_inbox.owner.trap_exit = False  # type: ignore[attr-defined]
    simulation.runtime.exit(scene.actor, "enough")
    scene.offer("a")
    assert scene.logged == []


def test_an_actor_of_an_earlier_epoch_writes_nothing(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.record.new_epoch()
    assert scene.offer("a") is True
    assert (scene.logged, scene.buffered) == ([], ["a"])
    assert scene.record.statistics().tokens_processed == 1


@pytest.mark.parametrize("ending", [Cancel("enough"), StopStream()])
def test_nothing_comes_after_the_end(simulation: Simulation, ending: Any) -> None:
    scene = Scene(simulation)
    scene.offer("a")
    scene.actor.ask(ending)
    assert scene.offer("b") is False
    assert scene.logged[0] == "a"
    assert len(scene.logged) == 2


def test_a_cancel_that_waits_in_the_mailbox_stops_the_tokens(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.record.propose(Cancel("enough"))
    scene.offer("a")
    simulation.settle()
    terminal = scene.record.log.terminal
    assert isinstance(terminal, StreamCancelled)
    assert (terminal.partial, terminal.undelivered) == ("a", 1)


def test_an_abandoned_attempt_delivers_nothing(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.offer("a")
    scene.attempt.abandon()
    assert scene.offer("b") is False
    assert (scene.logged, scene.buffered) == (["a"], [])


def test_a_traced_stream_takes_its_turns_by_messages(simulation: Simulation) -> None:
    scene = Scene(simulation)
    steps: list[tuple[str, str]] = []
    inspect.set_trace(scene.actor, lambda *step: steps.append(step))
    scene.offer("a")
    assert scene.logged == []
    simulation.settle()
    assert (scene.logged, bool(steps)) == (["a"], True)


def test_what_is_no_token_does_not_end_the_direct_turns(simulation: Simulation) -> None:
    scene = Scene(simulation)
    scene.offer("a")
    scene.offer(Thinking())
    scene.offer("b")
    assert scene.logged == ["a", "b"]


@pytest.mark.parametrize("breaks", [False, True])
def test_a_call_that_keeps_its_text_has_what_the_log_has(simulation: Simulation, breaks: bool) -> None:
    scene = Scene(simulation, keeps_text=True)
    if breaks:
        scene.subscribe(Broken(scene, 2))
    scene.offer("a", ReasoningDelta("b"), "c")
    assert scene.logged == (["a", "b"] if breaks else ["a", "b", "c"])
    outcome = scene.call.builder.outcome()
    assert (outcome.text, outcome.reasoning) == ("ac", "b")
    scene.attempt.abandon()
    assert scene.offer("d") is False
    assert scene.call.builder.outcome().text == "ac"


def test_another_turn_right_after_it_does_not_change_what_it_has_delivered(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(simulation)
    late = Attempt(scene.record, scene.call, 1, Mailbox(Idle(), lambda mailbox: None), simulation.clock)
    late.abandon()
    run_step, turns = TokenStream.run_step, []

    def then_another(self: TokenStream, step: Callable[..., object], *arguments: Any) -> None:
        run_step(self, step, *arguments)
        turns.append(step)
        if len(turns) == 1:  # as another thread may, once the mailbox is left
            assert deliver(scene.record, [("late", "text")], late) == 0

    monkeypatch.setattr(TokenStream, "run_step", then_another)
    assert scene.offer("a", "b") is True
    assert (len(turns), scene.logged, scene.buffered) == (2, ["a", "b"], [])


class Watching(Subscription):
    """Notes what the log has when it is woken. Of the application, if it is not prompt."""

    def __init__(self, scene: Scene, is_prompt: bool) -> None:
        super().__init__(scene.record.hub, scene.cursor(), None)
        self.is_prompt = is_prompt
        self.seen: list[int] = []

    def wake(self) -> None:
        self.seen.append(self._cursor.log.last_seq)


class Interrupted:
    """A lock before whose first taking something happens, as in another thread."""

    def __init__(self, before: Callable[[], None]) -> None:
        self._before = [before]

    def __enter__(self) -> None:
        if self._before:
            self._before.pop()()

    def __exit__(self, *exc_info: object) -> None:
        return


@pytest.mark.parametrize("is_prompt", [True, False])
@pytest.mark.parametrize("more", [[], ["c"]])
def test_a_subscriber_that_comes_during_the_turn_is_told_of_its_events(
    simulation: Simulation, is_prompt: bool, more: list[str]
) -> None:
    scene = Scene(simulation)
    scene.offer("a")
    watching = Watching(scene, is_prompt)

    def join() -> None:
        scene.record.hub.add(watching)
        watching.wake()

    scene.attempt.lock = Interrupted(join)  # type: ignore[assignment]
    scene.offer("b", *more)
    last = 2 + len(more)
    assert watching.seen == ([1, *range(2, last + 1)] if is_prompt else [1])  # code of the application is not run here
    assert scene.record.log.written == (last if is_prompt else 2)
    simulation.settle()
    assert watching.seen[-1] == last
    assert scene.logged == ["a", "b", *more]


def test_a_token_is_not_written_twice_if_noting_it_fails(simulation: Simulation) -> None:
    scene = Scene(simulation, keeps_text=True)
    noted: list[str] = []

    def took(tokens: Iterable[tuple[str, Any]]) -> None:
        noted.extend(text for text, _ in tokens)
        if noted == ["a"]:
            raise MemoryError

    scene.attempt.took = took
    assert scene.offer("a", "b") is True
    assert not simulation.runtime.is_alive(scene.actor)
    assert (scene.logged, scene.buffered) == (["a"], ["b"])
    scene.start()
    assert (scene.logged, noted) == (["a", "b"], ["a", "b"])


def test_events_among_the_tokens_take_the_direct_turn_with_them(simulation: Simulation) -> None:
    scene = Scene(simulation, max_buffer_size=10)
    assert scene.offer("a") is True
    assert scene.offer(KeepAlive()) is True
    assert scene.offer("b", EventDelta(ProviderEvent(type="x", payload=None)), "c") is True
    assert scene.logged == ["a", "b", "ProviderEvent", "c"]
    assert scene.offer("d") is True
    assert scene.logged[-1] == "d"


@pytest.mark.parametrize("delta", [UsageDelta(Usage(input_tokens=1)), BlockDelta({"type": "x"}), KeepAlive()])
def test_after_a_read_without_events_tokens_take_a_direct_turn(simulation: Simulation, delta: Delta) -> None:
    scene = Scene(simulation)
    for tokens in ("a", delta, "b"):
        assert scene.offer(tokens) is True
    assert scene.logged == ["a", "b"]


def test_the_part_of_a_second_answer_begins_before_its_first_token(simulation: Simulation) -> None:
    scene = Scene(simulation)
    assert scene.offer("a") is True
    call = CallRecord([scene.call.candidate], RequestOptions(), scene.call.reader)
    call.begin_attempt()
    scene.attempt = Attempt(scene.record, call, 2, scene.attempt._inbox, simulation.clock)
    assert scene.offer("b") is True
    simulation.settle()
    assert [event.part for event in scene.record.log if isinstance(event, TokenEvent)] == [0, 1]


# --- streams whose tokens wait for a batch ----------------------------------------------------------------------------


def test_full_batches_are_emitted_by_the_thread_that_brings_them(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=3, max_buffer_size=100)
    assert scene.offer(*"abcdefgh") is True
    assert (scene.logged, scene.buffered, scene.record.state) == (["abc", "def"], ["g", "h"], "streaming")
    assert scene.offer("i") is True
    assert (scene.logged, scene.buffered) == (["abc", "def", "ghi"], [])
    scene.offer("j")
    simulation.advance(1)
    assert (scene.logged, scene.record.state) == (["abc", "def", "ghi", "j"], "idle")


@pytest.mark.parametrize("keeps_text", [False, True])
def test_a_read_that_is_longer_than_the_buffer_is_taken_in_turns(simulation: Simulation, keeps_text: bool) -> None:
    scene = Scene(simulation, batch_size=2, max_buffer_size=4, keeps_text=keeps_text)
    assert scene.offer(*"abcdefghi") is True
    assert (scene.logged, scene.buffered, scene.rooms) == (["ab", "cd", "ef", "gh"], ["i"], 0)
    assert scene.record.statistics().backpressure_events == 0
    assert scene.call.builder.outcome().text == ("abcdefghi" if keeps_text else "")


@pytest.mark.parametrize("brings", ["offer", "deltas"])
@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", "fghi"), ("drop_newest", "abcd"), ("error", "abcd"), ("block", "abcd")]
)
def test_no_token_is_dropped_that_the_thread_can_emit(
    simulation: Simulation, overflow: str, kept: str, brings: str
) -> None:
    def bring(scene: Scene) -> object:
        return scene.offer(*text) if brings == "offer" else scene.attempt.deltas([TextDelta(token) for token in text])

    text = "abcdefghi"
    scene = Scene(simulation, batch_size=2, max_buffer_size=4, overflow=overflow)
    assert bring(scene) is True
    assert (scene.logged, scene.buffered) == (["ab", "cd", "ef", "gh"], ["i"])
    assert scene.record.statistics().tokens_dropped == 0
    if overflow.startswith("drop") or brings == "offer":  # else it would wait
        paused = Scene(simulation, batch_size=2, max_buffer_size=4, overflow=overflow)
        paused.actor.ask(Pause())
        assert bring(paused) is (True if overflow.startswith("drop") else None)
        assert "".join(paused.buffered) == kept


def test_the_reader_thread_takes_the_turns_too(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2, max_buffer_size=4)
    assert scene.attempt.deltas([TextDelta(text) for text in "abcdefghi"]) is True
    assert (scene.logged, scene.buffered) == (["ab", "cd", "ef", "gh"], ["i"])
    scene = Scene(simulation)
    assert scene.attempt.deltas([TextDelta(text) for text in "abcdefghi"]) is True
    assert (scene.logged, scene.buffered) == (list("abcdefghi"), [])


@pytest.mark.parametrize(
    "options",
    [
        {"rate_limit": 10.0},
        {"batch_size": "adaptive", "strategy": "hybrid"},
        {"pacing": "adaptive"},
        {"journal": Journal()},
    ],
)
def test_the_actor_emits_the_batches_of_a_stream_that_is_not_ordinary(
    simulation: Simulation, options: dict[str, Any]
) -> None:
    scene = Scene(simulation, **{"batch_size": 2, "max_buffer_size": 10, **options})
    assert scene.offer(*"abcd") is True
    assert (scene.logged, scene.buffered) == ([], list("abcd"))
    simulation.advance(30)
    assert ("".join(scene.logged), scene.buffered) == ("abcd", [])


def test_a_message_that_waits_comes_before_a_batch(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2)
    scene.actor.ask(Pause(), block=False)
    assert scene.offer(*"abcd") is True
    assert (scene.logged, scene.buffered) == ([], list("abcd"))
    simulation.settle()
    assert scene.offer(*"ef") is None
    assert (scene.logged, scene.rooms) == ([], 0)
    scene.actor.ask(Resume())
    simulation.settle()
    assert (scene.logged, scene.rooms) == (["ab", "cd"], 1)
    assert scene.offer() is True
    assert scene.logged == ["ab", "cd", "ef"]


def test_a_batch_for_a_subscriber_whose_code_may_block_is_emitted_by_the_actor(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2)
    scene.subscribe(foreign_reader(scene))
    scene.offer(*"ab")
    assert scene.logged == []
    simulation.settle()
    assert scene.logged == ["ab"]


def test_a_traced_stream_emits_its_batches_by_messages(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2)
    inspect.set_trace(scene.actor, lambda *step: None)
    scene.offer(*"ab")
    assert scene.logged == []
    simulation.settle()
    assert scene.logged == ["ab"]


def test_a_slow_subscriber_holds_the_batches(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2, max_buffer_size=4)
    reader = StreamReader(scene.record.hub, scene.cursor(1), scene.record.emptied)
    scene.subscribe(reader)
    assert scene.offer(*"abcdefghi") is None
    assert (scene.logged, scene.buffered, scene.record.is_held) == (["ab", "cd"], list("efgh"), True)
    assert scene.rooms == 0
    while reader.take():
        simulation.settle()
    assert scene.rooms == 1
    assert scene.offer() is True
    simulation.advance(1)
    while reader.take():
        simulation.settle()
    assert "".join(scene.logged) == "abcdefghi"


class Joining(Subscription):
    """Has another subscribe when it is woken for the first time."""

    is_prompt = True

    def __init__(self, scene: Scene, join: Callable[[], object]) -> None:
        super().__init__(scene.record.hub, scene.cursor(), None)
        self._join: Callable[[], object] | None = join

    def wake(self) -> None:
        if self._cursor.log.last_seq and self._join is not None:
            join, self._join = self._join, None
            join()


def test_the_code_of_a_subscriber_that_comes_during_the_turn_runs_in_the_actors(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2, max_buffer_size=20)
    woken: list[int] = []
    late = StreamReader(scene.record.hub, scene.cursor(), lambda: woken.append(scene.record.log.last_seq))
    assert late.is_prompt is False
    scene.subscribe(Joining(scene, lambda: scene.record.hub.add(late)))
    late.take()  # it listens from now on
    assert scene.offer(*"abcdef") is True
    assert (scene.logged, woken) == (["ab", "cd", "ef"], [])
    assert scene.record.intake.inbox.qsize() == 1  # type: ignore[attr-defined] # one call of the actor, not one an event
    simulation.settle()
    assert woken == [3]
    scene.offer(*"gh")
    assert woken == [3]


def test_a_slow_subscriber_that_comes_during_the_turn_holds_the_stream_after_the_same_event(
    simulation: Simulation,
) -> None:
    scene = Scene(simulation, batch_size=2, max_buffer_size=20)
    late = StreamReader(scene.record.hub, scene.cursor(1), lambda: None)
    assert late.is_prompt is False
    scene.subscribe(Joining(scene, lambda: scene.record.hub.add(late)))
    assert scene.offer(*"abcdefgh") is True
    assert (scene.logged, scene.record.is_held) == (["ab", "cd"], True)
    while late.take():
        simulation.settle()
    assert scene.logged == ["ab", "cd", "ef", "gh"]


def test_a_crash_while_a_batch_is_emitted_loses_nothing(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2, max_buffer_size=20)
    scene.subscribe(Broken(scene, 2))
    assert scene.offer(*"abcdef") is True
    assert isinstance(simulation.runtime.exit_reason(scene.actor), RuntimeError)
    assert (scene.logged, scene.buffered) == (["ab", "cd"], ["e", "f"])
    for broken in scene.record.hub.subscriptions:
        scene.record.hub.remove(broken)
    scene.start()
    assert scene.logged == ["ab", "cd", "ef"]


def test_a_turn_that_cannot_be_begun_is_left_to_the_actor(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(simulation, batch_size=2)

    def fail(self: Mailbox) -> bool:
        raise MemoryError

    scene.offer("a")
    with monkeypatch.context() as patch:
        patch.setattr(Mailbox, "borrow", fail)
        with pytest.raises(MemoryError):
            scene.offer("b")
    assert (scene.logged, scene.buffered) == ([], ["a", "b"])
    simulation.settle()
    assert scene.logged == ["ab"]


def another_actor(scene: Scene) -> None:
    scene.simulation.runtime.exit(scene.actor, KILL)
    scene.actor = scene.start()


def paused_for_a_moment(scene: Scene) -> None:
    scene.actor.ask(Pause())
    scene.simulation.advance(1)
    scene.actor.ask(Resume())


def other_options(scene: Scene) -> None:
    scene.actor.ask(SetOptions({"batch_size": 3}))


def flushed(scene: Scene) -> None:
    scene.actor.ask(Flush())


def a_message_that_waits(scene: Scene) -> None:
    scene.actor.ask(Pause(), block=False)
    scene.actor.ask(Resume(), block=False)


@pytest.mark.parametrize("brings", ["offer", "deltas"])
@pytest.mark.parametrize("turn", [0, 1, 2])
@pytest.mark.parametrize(
    "happens", [another_actor, paused_for_a_moment, other_options, flushed, a_message_that_waits, lambda scene: None]
)
def test_what_happens_between_the_push_and_its_turn_leaves_no_token_in_the_buffer(
    simulation: Simulation,
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[Scene], None],
    turn: int,
    brings: str,
) -> None:
    def borrow(self: Mailbox) -> bool:
        if self is scene.actor.actor_inbox:
            turns.append(self)
            if len(turns) == turn + 1:
                happens(scene)
                return really_borrow(scene.actor.actor_inbox) if self is scene.actor.actor_inbox else False
        return really_borrow(self)

    really_borrow = Mailbox.borrow
    scene, turns = Scene(simulation, batch_size=2, max_buffer_size=8, keeps_text=True), list[Mailbox]()
    monkeypatch.setattr(Mailbox, "borrow", borrow)
    for text in ("abc", "defg", "h"):  # with a buffer that has room for what one turn leaves, so that `deltas` returns
        if brings == "offer":
            assert scene.offer(*text) is True
        else:
            assert scene.attempt.deltas([TextDelta(token) for token in text]) is True
    simulation.advance(1)
    assert len(turns) > turn
    assert ("".join(scene.logged), scene.buffered) == ("abcdefgh", [])
    assert scene.call.builder.outcome().text == "abcdefgh"


def test_a_thread_that_finds_the_actor_at_work_is_told_when_there_is_room(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2, max_buffer_size=4)
    inbox = scene.actor.actor_inbox
    scene.offer("a")
    assert inbox.borrow()  # as the worker that runs the actor
    assert scene.offer(*"bcdefg") is None
    assert (scene.logged, scene.buffered, scene.rooms) == ([], list("abcd"), 0)
    inbox.leave()
    simulation.settle()
    assert (scene.logged, scene.rooms) == (["ab", "cd"], 1)
    assert scene.offer() is True
    simulation.advance(1)
    assert (scene.logged, scene.buffered) == (["ab", "cd", "ef", "g"], [])


def test_a_killed_actor_emits_no_batch(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2)
    simulation.runtime.exit(scene.actor, KILL)
    scene.offer(*"ab")
    assert (scene.logged, scene.buffered) == ([], ["a", "b"])
    scene.start()
    assert scene.logged == ["ab"]


def test_an_attempt_that_is_abandoned_during_a_turn_pushes_no_more(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2, max_buffer_size=2)
    scene.subscribe(Joining(scene, scene.attempt.abandon))
    assert scene.offer(*"abcd") is False
    assert (scene.logged, scene.buffered) == (["ab"], [])


@pytest.mark.parametrize("ending", [Cancel("enough"), StopStream()])
def test_no_batch_comes_after_the_end(simulation: Simulation, ending: Any) -> None:
    scene = Scene(simulation, batch_size=2)
    scene.offer(*"ab")
    scene.actor.ask(ending)
    assert scene.offer(*"cd") is False
    assert scene.logged[0] == "ab"
    assert len(scene.logged) == 2


def test_events_are_emitted_by_the_thread_that_brings_them(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=3, max_buffer_size=4)
    event = EventDelta(ProviderEvent(type="x", payload=None))
    assert scene.offer("a") is True
    assert scene.offer(event, *"bcdefg", event, "h") is True
    assert scene.logged == ["a", "ProviderEvent", "bcd", "efg", "ProviderEvent"]
    assert scene.buffered == ["h"]


def test_a_subscriber_whose_code_may_block_hears_of_every_batch(simulation: Simulation) -> None:
    scene = Scene(simulation, batch_size=2)
    woken: list[int] = []
    reader = StreamReader(scene.record.hub, scene.cursor(), lambda: woken.append(scene.record.log.last_seq))
    scene.subscribe(reader)
    for _ in range(3):
        assert reader.take() is None
        scene.offer(*"ab")
        simulation.settle()
        assert reader.take() is not None
    assert woken == [1, 2, 3]
