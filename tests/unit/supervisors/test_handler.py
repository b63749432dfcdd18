"""The handler's decisions, one at a time, on streams and processes that only note what is done to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest

from penstock.actors.runtime.ref import ProcessRef
from penstock.actors.runtime.reply import Reply
from penstock.actors.runtime.signals import Down
from penstock.actors.runtime.transitions import Call as Call_
from penstock.actors.runtime.transitions import Cast, Info, Keep, NamedTimeout, UnknownCall
from penstock.actors.stream.messages import Cancel, Fail
from penstock.actors.stream.subscribers.push import PushSubscription
from penstock.config.options import StreamOptions
from penstock.errors import ProcessDead, StreamCrashed, StreamExists
from penstock.supervisors.calls import ReportChild, StartChild
from penstock.supervisors.spec import ChildExited, ChildSpec
from penstock.supervisors.system import handler as module
from penstock.supervisors.system.handler import (
    HANDLER,
    SOURCES,
    STREAMS,
    Abandoned,
    HandlerNotices,
    OpenStream,
    Orphaned,
    StartSource,
    StreamHandler,
    Watch,
)
from penstock.supervisors.system.rounds import Rounds
from penstock.supervisors.system.watching import SuccessorAnswered


class Peer:
    """Any other process."""

    def __init__(self, *, alive: bool = True) -> None:
        self.alive = alive
        self.told: list[Any] = []

    def tell(self, message: Any) -> None:
        self.told.append(message)


class Hub:
    def __init__(self) -> None:
        self.subscriptions: list[Any] = []
        self.is_orphaned = self.had_subscriber = False
        self.sweeps = 0
        self.removed: list[Any] = []

    def sweep(self) -> None:
        self.sweeps += 1

    def remove(self, subscription: Any) -> None:
        self.removed.append(subscription)


class Call:
    def __init__(self, ref: Peer | None = None) -> None:
        self.ref = ref
        self.round = 2
        self.is_handed_over = False
        self.abandoned = 0
        self.ends: list[Any] = []

    def is_settled(self, record: Any) -> bool:
        return self is not record.feed or self.is_handed_over or record.ending is not None or record.is_over

    def abandon(self) -> None:
        self.abandoned += 1

    def end(self, record: Any, error: Any) -> None:
        self.ends.append(error)


class Record:
    """A stream's record."""

    def __init__(self, **more: Any) -> None:
        self.stream_id, self.serial, self.restart = "s", 7, "temporary"
        self.options = StreamOptions()
        self.hub = Hub()
        self.feed: Any = None
        self.ref: Any = Peer()
        self.remote: Any = None
        self.ending: Any = None
        self.ended_at: float | None = None
        self.is_over = self.is_announced = False
        self.counters = SimpleNamespace(last_activity=100.0)
        self.proposed: list[Any] = []
        self.announced = 0
        vars(self).update(more)

    def propose(self, ending: Any) -> None:
        self.proposed.append(ending)

    def announce_end(self) -> None:
        self.announced += 1


class Table:
    def __init__(self, *records: Any) -> None:
        self.records = records
        self.added: list[Any] = []
        self.forgotten_at: list[float] = []

    def all(self) -> tuple[Any, ...]:
        return self.records

    def running(self) -> list[Any]:
        return [record for record in self.records if record.ended_at is None]

    def add(self, record: Any) -> None:
        self.added.append(record)

    def forget_ended(self, now: float) -> None:
        self.forgotten_at.append(now)


class Desk:
    """A handler that has not been started, in a house of its own."""

    def __init__(self, *records: Any) -> None:
        self.now = 100.0
        self.names: dict[str, Any] = {STREAMS: Peer(), SOURCES: Peer()}
        self.own = Peer()
        self.watched: list[Any] = []
        self.ended: list[Any] = []
        self.sweeps = 0
        self.table = Table(*records)
        handler: Any = object.__new__(StreamHandler)
        handler.runtime = SimpleNamespace(
            clock=SimpleNamespace(monotonic=lambda: self.now),
            whereis=self.names.get,
            is_alive=lambda ref: ref.alive,
        )
        handler._actor_ref = self.own
        handler._table = self.table
        handler._rounds = Rounds()
        handler._notices = HandlerNotices(handler.runtime)
        handler._watching = SimpleNamespace(watch=self.watched.append, ended=self.ended.append, sweep=self._note_sweep)
        self.handler = handler

    def _note_sweep(self) -> None:
        self.sweeps += 1

    def told(self, name: str) -> list[tuple[Any, ...]]:
        """The kind of each message to a supervisor, and the id of its child."""
        return [(type(message), message.spec.id) for message in self.names[name].told]


# --- ends ------------------------------------------------------------------------------------------------------------


def test_a_stream_whose_actor_has_ended_cleanly_is_cancelled_and_otherwise_it_has_failed() -> None:
    error = LookupError("x")
    cancelled = module._ending("s", "shutdown")
    assert cancelled == Cancel("shutdown")
    for reason in (error, "crash"):
        failed = module._ending("s", reason)
        assert isinstance(failed, Fail)
        assert isinstance(failed.error, StreamCrashed)
        assert failed.error.stream_id == "s"
        assert failed.error.__cause__ is (error if reason is error else None)


@pytest.mark.parametrize("is_over", [True, False])
def test_a_stream_whose_actor_is_gone_is_announced_or_ended_and_logged(
    monkeypatch: pytest.MonkeyPatch, is_over: bool
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(module, "finish", lambda record, ending: done.append(ending))
    monkeypatch.setattr(module, "log_failure", lambda record: done.append("logged"))
    record = Record(is_over=is_over)
    desk = Desk(record)
    spec = ChildSpec(id="s", cls=StreamHandler, args=(record,))
    desk.handler._child_exited(ChildExited(spec, None, "shutdown", STREAMS))
    assert done == (["logged"] if is_over else [Cancel("shutdown")])
    assert record.announced == is_over
    assert desk.ended == [record]


@pytest.mark.parametrize("why", ["replaced", "handed over", "ending", "over"])
@pytest.mark.parametrize("at_work", ["nobody", "dead", "alive"])
def test_a_call_that_no_longer_matters_lets_go_of_all_unless_another_integration_is_at_work(
    why: str, at_work: str
) -> None:
    call: Any = Call({"nobody": None, "dead": Peer(alive=False), "alive": Peer()}[at_work])
    record: Any = Record(feed=Call() if why == "replaced" else call)
    call.is_handed_over = why == "handed over"
    record.ending = "it ends" if why == "ending" else None
    record.is_over = why == "over"
    desk = Desk(record)
    spec = ChildSpec(id="s", cls=StreamHandler, args=(record, call))
    desk.handler._child_exited(ChildExited(spec, None, "crash", SOURCES))
    assert call.abandoned == (at_work != "alive")
    assert (call.ends, desk.told(SOURCES), desk.ended) == ([], [], [])


@pytest.mark.parametrize("reason", ["noproc", "crash", LookupError("noproc"), ANY])
def test_a_call_whose_integration_is_gone_is_continued_if_its_supervisor_died_and_fails_otherwise(reason: Any) -> None:
    call: Any = Call()
    record: Any = Record(feed=call)
    desk = Desk(record)
    desk.handler._call_exited(record, call, reason)
    if reason is not ANY and reason == "noproc":
        assert (desk.told(SOURCES), call.abandoned, call.ends) == ([(StartChild, "s#7.2")], 0, [])
    else:
        assert (desk.told(SOURCES), call.abandoned) == ([], 1)
        (error,) = call.ends
        assert isinstance(error, StreamCrashed)
        assert error.reason == ("integration", reason)


# --- after a crash of the handler ------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_started", [True, False])
@pytest.mark.parametrize("has_call", [True, False])
@pytest.mark.parametrize("is_orphaned", [True, False])
def test_a_new_handler_continues_a_stream_that_runs(has_started: bool, has_call: bool, is_orphaned: bool) -> None:
    call = Call() if has_call else None
    record = Record(ref=Peer() if has_started else None, feed=call)
    record.hub.is_orphaned = is_orphaned
    desk = Desk(record)
    desk.handler._adopt(record)
    assert desk.told(STREAMS) == [(ReportChild if has_started else StartChild, "s#7")]
    assert desk.told(SOURCES) == ([(ReportChild, "s#7.2")] if has_call else [])
    assert desk.own.told == ([Orphaned(record)] if is_orphaned else [])  # type: ignore[arg-type]
    assert call is None or call.abandoned == 0


@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("at_work", [None, True, False])
def test_a_new_handler_ends_what_a_stream_that_is_over_has_left(is_announced: bool, at_work: bool | None) -> None:
    call = None if at_work is None else Call(Peer(alive=at_work))
    record = Record(is_over=True, is_announced=is_announced, feed=call)
    record.hub.is_orphaned = True
    desk = Desk(record)
    desk.handler._adopt(record)
    assert desk.told(STREAMS) == ([] if is_announced else [(ReportChild, "s#7")])
    assert (desk.told(SOURCES), desk.own.told) == ([], [])
    assert call is None or call.abandoned == (not at_work)


def test_a_new_handler_watches_the_actors_that_subscribe_and_removes_ended_subscriptions() -> None:
    active, ended = (object.__new__(PushSubscription) for _ in range(2))
    active.is_active, ended.is_active = True, False
    iterator = SimpleNamespace(is_active=True)
    record = Record()
    record.hub.subscriptions = [active, ended, iterator]
    desk = Desk(record)
    desk.handler._adopt(record)
    assert (desk.watched, record.hub.removed) == ([active], [ended])


@pytest.mark.parametrize("is_over", [True, False])
def test_a_stream_whose_actor_is_on_another_node_is_left_to_that_node(is_over: bool) -> None:
    record = Record(remote=object(), is_over=is_over, feed=Call(), options=StreamOptions(time_to_live=5.0))
    record.counters.last_activity = 0.0
    record.hub.is_orphaned = True
    desk = Desk(record)
    desk.handler._adopt(record)
    desk.handler._sweep()
    assert (desk.told(STREAMS), desk.told(SOURCES), desk.own.told) == ([], [], [])
    assert (record.proposed, record.feed.abandoned, record.hub.sweeps) == ([], 0, 1)


def test_without_its_supervisors_a_handler_tells_nobody() -> None:
    record = Record(feed=Call())
    desk = Desk(record)
    del desk.names[STREAMS], desk.names[SOURCES]
    desk.handler._adopt(record)


# --- sweeping --------------------------------------------------------------------------------------------------------


def test_a_sweep_has_ended_streams_forgotten_and_looks_at_those_that_run() -> None:
    ended, running = Record(ended_at=90.5), Record()
    desk = Desk(ended, running)
    desk.handler._sweep()
    assert desk.table.forgotten_at == [100.0]
    assert [record.hub.sweeps for record in (ended, running)] == [0, 1]
    assert desk.sweeps == 1


def test_of_many_streams_a_sweep_looks_at_a_tenth_and_ten_sweeps_at_all() -> None:
    records = [Record() for _ in range(30_000)]
    desk = Desk(*records)
    for number in range(1, 11):
        desk.handler._sweep()
        assert sum(record.hub.sweeps for record in records) == number * 3000
    assert all(record.hub.sweeps == 1 for record in records)
    desk.handler._sweep()
    assert sum(record.hub.sweeps for record in records) == 33_000


@pytest.mark.parametrize(
    ("limit", "activity", "had_subscriber", "is_cancelled"),
    [(5.0, 95.0, False, True), (5.0, 95.5, False, False), (5.0, 50.0, True, False), (None, 0.0, False, False)],
)
def test_a_sweep_cancels_streams_to_which_nobody_has_come_in_their_time(
    limit: float | None, activity: float, had_subscriber: bool, is_cancelled: bool
) -> None:
    record = Record(options=StreamOptions(time_to_live=limit))
    record.counters.last_activity = activity
    record.hub.had_subscriber = had_subscriber
    Desk(record).handler._sweep()
    assert record.proposed == ([Cancel("time_to_live")] if is_cancelled else [])


# --- children --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "auto_restart", "wanted"),
    [("transient", False, "transient"), ("temporary", True, "transient"), ("temporary", False, "temporary")],
)
def test_a_streams_actor_is_restarted_if_it_is_to_be(restart: str, auto_restart: bool, wanted: str) -> None:
    record = Record(restart=restart, options=StreamOptions(auto_restart=auto_restart))
    desk = Desk(record)
    spec = desk.handler._stream_spec(record)
    assert (spec.id, spec.restart, spec.args, spec.name) == ("s#7", wanted, (record,), "stream/s")
    desk.names["stream/s"] = Peer()  # of an earlier stream
    assert desk.handler._stream_spec(record).name == "stream/s#7"


def test_an_integration_is_restarted_if_it_crashes() -> None:
    record, call = Record(), Call()
    desk = Desk(record)
    spec = desk.handler._call_spec(record, call)
    assert (spec.id, spec.restart, spec.args, spec.name) == ("s#7.2", "transient", (record, call), "source/s")
    desk.names["source/s"] = Peer()
    assert desk.handler._call_spec(record, call).name == "source/s#7"


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("is_over", "has_call"), [(False, True), (True, True), (False, False)])
def test_a_call_is_started_for_a_stream_that_runs_and_has_one(is_over: bool, has_call: bool) -> None:
    record: Any = Record(is_over=is_over, feed=Call() if has_call else None)
    desk = Desk(record)
    assert desk.handler.serving(Cast(StartSource(record))) is None
    assert desk.told(SOURCES) == ([(StartChild, "s#7.2")] if has_call and not is_over else [])


def test_a_stream_is_not_opened_while_the_supervisor_of_streams_is_dead() -> None:
    record: Any = Record(feed=Call())
    desk = Desk(record)
    del desk.names[STREAMS]
    transition: Any = desk.handler.serving(Call_(OpenStream(record), Reply()))
    (answer,) = transition.actions
    assert isinstance(answer.error, ProcessDead)
    assert desk.told(SOURCES) == []


def test_a_stream_whose_id_is_taken_is_not_opened() -> None:
    record: Any = Record(feed=Call())
    desk = Desk(record)
    error = StreamExists("s")

    def refuse(_record: Any) -> None:
        raise error

    desk.handler._table = SimpleNamespace(add=refuse)
    transition: Any = desk.handler.serving(Call_(OpenStream(record), Reply()))
    (answer,) = transition.actions
    assert answer.error is error
    assert (desk.told(STREAMS), desk.told(SOURCES)) == ([], [])


def test_a_stream_is_opened_and_reported_on_and_its_supervisor_answers_the_caller() -> None:
    record: Any = Record(feed=Call())
    desk, reply = Desk(record), Reply()
    requests: list[Any] = []
    desk.names[STREAMS].actor_inbox = SimpleNamespace(put=requests.append)
    assert desk.handler.serving(Call_(OpenStream(record), reply)) is None
    assert desk.table.added == [record]
    (request,) = requests
    assert (type(request.message), request.message.spec.id) == (StartChild, "s#7")
    assert request.reply_to is reply
    assert desk.told(SOURCES) == [(StartChild, "s#7.2")]


def test_what_happens_to_subscribers_is_left_to_the_watcher_and_done_as_it_says() -> None:
    record, process = Record(), object.__new__(ProcessRef)
    answered = SuccessorAnswered(process, Reply())
    desk = Desk(record)
    asked: list[tuple[Any, ...]] = []
    decision = Keep()

    def decides(name: str) -> Any:
        def decide(*arguments: Any) -> Keep:
            asked.append((name, *arguments))
            return decision

        return decide

    names = ("orphaned", "lingered", "look_for_successor", "successor_answered", "actor_died")
    vars(desk.handler._watching).update({name: decides(name) for name in names})
    events: list[Any] = [
        Cast(Orphaned(record)),  # type: ignore[arg-type]
        NamedTimeout("linger"),
        NamedTimeout(process),
        Cast(answered),
        Info(Down(1, process, "crash")),
    ]
    assert [desk.handler.serving(event) for event in events] == [decision] * 5
    assert asked == [
        ("orphaned", record),
        ("lingered",),
        ("look_for_successor", process),
        ("successor_answered", answered),
        ("actor_died", process),
    ]


def test_an_actor_is_watched_and_an_iterator_that_was_dropped_is_removed() -> None:
    record, subscription = Record(), object.__new__(PushSubscription)
    desk = Desk(record)
    assert desk.handler.serving(Cast(Watch(subscription))) is None
    assert desk.watched == [subscription]
    assert desk.handler.serving(Cast(Abandoned(record, subscription))) is None  # type: ignore[arg-type]
    assert record.hub.removed == [subscription]


def test_a_call_that_the_handler_does_not_know_gets_an_error() -> None:
    transition: Any = Desk().handler.serving(Call_("what?", Reply()))
    (answer,) = transition.actions
    assert isinstance(answer.error, UnknownCall)


def test_a_record_reports_to_the_handler_of_that_time() -> None:
    record: Any = Record()
    seat: Any = "it"
    desk = Desk(record)
    notices = HandlerNotices(desk.handler.runtime)
    notices.orphaned(record)  # there is none just now
    desk.names[HANDLER] = first = Peer()
    notices.orphaned(record)
    desk.names[HANDLER] = second = Peer()
    notices.abandoned(record, seat)
    assert (first.told, second.told) == ([Orphaned(record)], [Abandoned(record, seat)])
