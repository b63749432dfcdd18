"""The loop by itself: posts, timers, sockets, budgets, and its end."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from penstock.adapters.http.alarms import Alarms
from penstock.adapters.http.loop import Loop
from penstock.adapters.http.polling import Poll, _Selector, make_poll

PATIENCE = 10.0
POLLS: list[Callable[[], Poll]] = [make_poll, _Selector]


@pytest.fixture(params=POLLS)
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    loop = Loop("penstock-test-loop", request.param())
    loop.start()
    yield loop
    loop.close()
    assert loop.join(PATIENCE)


class Reader:
    """Reads a socket pair's end by the loop."""

    def __init__(self, loop: Loop, step: Callable[[bytes], None]) -> None:
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self._step = step
        self.losses: list[BaseException] = []
        loop.post(lambda: loop.watch(self.here.fileno(), self))

    def ready(self) -> None:
        self._step(self.here.recv(4))

    def lost(self, error: BaseException) -> None:
        self.losses.append(error)

    def close(self) -> None:
        self.here.close()
        self.there.close()


def post_all(loop: Loop, events: list[threading.Event]) -> None:
    for event in events:
        loop.post(event.set)


def done(loop: Loop) -> None:
    """Wait until everything that was posted has run."""
    event = threading.Event()
    loop.post(event.set)
    assert event.wait(PATIENCE)


def test_posts_run_in_their_order_in_the_loops_thread(loop: Loop) -> None:
    seen: list[int] = []
    threads: set[threading.Thread] = set()
    for number in range(1000):
        loop.post(lambda number=number: seen.append(number))  # type: ignore[misc]
    loop.post(lambda: threads.add(threading.current_thread()))
    done(loop)
    assert seen == list(range(1000))
    assert threads == {loop.thread}


class Once:
    """Reads once, and is not watched afterwards."""

    def __init__(self, loop: Loop, here: socket.socket, read: threading.Event) -> None:
        self._loop, self._here, self._read = loop, here, read

    def ready(self) -> None:
        self._here.recv(4)
        self._loop.unwatch(self._here.fileno())
        self._read.set()

    def lost(self, error: BaseException) -> None:
        raise AssertionError(error)


def test_a_reader_that_is_not_watched_any_more_is_not_kept_while_the_loop_waits(loop: Loop) -> None:
    here, there = socket.socketpair()
    with here, there:
        read = threading.Event()
        reader = Once(loop, here, read)
        loop.post(partial(loop.watch, here.fileno(), reader))
        there.send(b"1")
        assert read.wait(PATIENCE)
        left = weakref.ref(reader)
        del reader
        done(loop)  # the turn of the read is over
        assert left() is None


def test_no_post_of_many_threads_is_missed(loop: Loop) -> None:
    done_by = [threading.Event() for _ in range(2000)]
    parts = (done_by[:500], done_by[500:1000], done_by[1000:1500], done_by[1500:])
    threads = [threading.Thread(target=post_all, args=(loop, part)) for part in parts]
    for thread in threads:
        thread.start()
    assert all(event.wait(PATIENCE) for event in done_by)
    for thread in threads:
        thread.join()


def test_a_socket_is_read_until_it_is_not_watched_any_more(loop: Loop) -> None:
    came: list[bytes] = []
    all_came = threading.Event()

    def step(data: bytes) -> None:
        came.append(data)
        if b"".join(came) == b"abcdefgh":
            all_came.set()

    reader = Reader(loop, step)
    reader.there.sendall(b"abcdefgh")
    assert all_came.wait(PATIENCE)
    assert came == [b"abcd", b"efgh"]  # one read a turn
    loop.post(lambda: loop.unwatch(reader.here.fileno()))
    done(loop)
    reader.there.sendall(b"more")
    done(loop)
    assert len(came) == 2
    reader.close()


def test_a_post_does_not_wait_for_streams_that_are_always_ready(loop: Loop) -> None:
    """With 300 sockets that always have bytes, a post runs between two turns, after at most 128 reads."""
    reads: list[None] = []
    at: list[int] = []
    readers: list[Reader] = []
    try:
        for _ in range(300):
            reader = Reader(loop, lambda _: reads.append(None))
            reader.there.sendall(b"x" * 4000)
            readers.append(reader)
        done(loop)
        for _ in range(3):
            came = threading.Event()

            def again(came: threading.Event = came) -> None:
                at.append(len(reads))
                came.set()

            def first(again: Callable[[], None] = again) -> None:
                at.append(len(reads))
                loop.post(again)

            loop.post(first)
            assert came.wait(PATIENCE)
        between = [later - earlier for earlier, later in zip(at[::2], at[1::2], strict=True)]
        assert 0 < max(between) <= 128
    finally:
        for reader in readers:
            loop.post(lambda reader=reader: loop.unwatch(reader.here.fileno()))  # type: ignore[misc]
        done(loop)
        for reader in readers:
            reader.close()


def test_a_timer_fires_once_and_a_cancelled_one_never(loop: Loop) -> None:
    fired: list[str] = []
    came = threading.Event()

    def arm() -> None:
        cancelled = loop.call_at(loop.now, lambda: fired.append("cancelled"))
        loop.cancel_timer(cancelled)
        loop.call_at(loop.now + 0.002, came.set)
        loop.call_at(loop.now + 0.001, lambda: fired.append("first"))

    loop.post(arm)
    assert came.wait(PATIENCE)
    assert fired == ["first"]


def test_a_bug_in_one_reader_post_or_timer_harms_no_other(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))

    def fail(*_: object) -> None:
        raise ValueError

    reader = Reader(loop, fail)
    reader.there.sendall(b"xxxxxxxx")
    loop.post(fail)
    fired = threading.Event()

    def arm() -> None:
        loop.call_at(loop.now, fail)
        loop.call_at(loop.now, fired.set)

    loop.post(arm)
    assert fired.wait(PATIENCE)
    while len(reported) < 3:
        done(loop)
    done(loop)
    assert reported == [ValueError] * 3  # the socket is not read again
    reader.close()


def test_a_reader_that_fails_after_it_has_closed_its_socket_harms_no_other(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))

    def fail(_: bytes) -> None:
        bad.here.close()
        raise ZeroDivisionError

    got = threading.Event()
    bad, good = Reader(loop, fail), Reader(loop, lambda _: got.set())
    bad.there.sendall(b"xxxx")
    while not reported:
        done(loop)
    good.there.sendall(b"yyyy")
    assert got.wait(PATIENCE)
    assert reported[0] is ZeroDivisionError
    for reader in (bad, good):
        reader.close()


def test_a_loop_that_can_wait_no_more_tells_its_readers_and_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    poll = make_poll()
    wait, is_broken = poll.wait, threading.Event()

    def waiting(timeout: float | None) -> list[int]:
        if is_broken.is_set():
            raise OSError(9, "Bad file descriptor")
        return wait(timeout)

    monkeypatch.setattr(poll, "wait", waiting)
    loop = Loop("penstock-test-loop", poll)
    loop.start()
    readers = [Reader(loop, lambda _: None) for _ in range(2)]
    loop.post(lambda: loop.unwatch(readers[1].here.fileno()))
    done(loop)
    assert not loop.is_over
    is_broken.set()
    done(loop)
    assert loop.join(PATIENCE)
    assert loop.is_over
    assert [[type(error) for error in reader.losses] for reader in readers] == [[OSError], []]
    assert reported == [OSError]
    done(loop)  # in this thread
    for reader in readers:
        loop.unwatch(reader.here.fileno())
        reader.close()


def test_what_is_posted_after_the_end_runs_in_the_callers_thread() -> None:
    loop = Loop("penstock-test-loop")
    loop.start()
    loop.close()
    assert loop.join(PATIENCE)
    seen: list[threading.Thread] = []
    loop.post(lambda: seen.append(threading.current_thread()))
    assert seen == [threading.current_thread()]
    loop.close()


def test_every_post_before_and_during_the_end_runs() -> None:
    for _ in range(50):
        loop = Loop("penstock-test-loop")
        loop.start()
        events = [threading.Event() for _ in range(50)]
        poster = threading.Thread(target=post_all, args=(loop, events))
        poster.start()
        loop.close()
        poster.join(PATIENCE)
        assert loop.join(PATIENCE)
        assert all(event.is_set() for event in events)


def test_the_end_of_a_loop_leaves_no_descriptor() -> None:
    with socket.socket() as probe:
        lowest = probe.fileno()
    for make in POLLS:
        loop = Loop("penstock-test-loop", make())
        loop.start()
        loop.close()
        assert loop.join(PATIENCE)
    with socket.socket() as probe:
        assert probe.fileno() == lowest


def test_a_loop_without_a_thread_closes_its_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    closed: list[None] = []

    class Counting:
        def close(self) -> None:
            closed.append(None)

    monkeypatch.setattr(threading, "Thread", Refused)
    poll: Any = Counting()
    with pytest.raises(RuntimeError):
        Loop("penstock-test-loop", poll).start()
    assert closed == [None]


# --- waiting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", POLLS)
def test_a_wait_returns_at_most_128_sockets_and_in_turn_all(make: Callable[[], Poll]) -> None:
    with contextlib.ExitStack() as held:
        poll = make()
        held.callback(poll.close)
        fds = set()
        for _ in range(200):
            here, there = socket.socketpair()
            held.callback(here.close)
            held.callback(there.close)
            there.send(b"x")
            poll.add(here.fileno())
            fds.add(here.fileno())
        first = poll.wait(0)
        assert len(first) == 128
        assert set(first) | set(poll.wait(0)) == fds


@pytest.mark.parametrize("make", POLLS)
def test_a_wake_up_ends_one_wait_however_often_it_is_given(make: Callable[[], Poll]) -> None:
    poll: Any = make()
    for _ in range(100_000):
        poll.wake()
    assert poll.wait(None) == []
    signal = poll._here if hasattr(poll, "_here") else poll._event
    assert select.select([signal], [], [], 0)[0] == []  # the next wait has nothing to end it
    poll.close()


def test_a_removed_socket_is_not_returned_from_what_was_found_before() -> None:
    poll = _Selector()
    pairs = [socket.socketpair() for _ in range(200)]
    for here, there in pairs:
        there.send(b"x")
        poll.add(here.fileno())
    seen = set(poll.wait(0))
    (gone,) = [here.fileno() for here, _ in pairs if here.fileno() not in seen][:1]
    poll.remove(gone)
    assert gone not in poll.wait(0)
    poll.close()
    for pair in pairs:
        for sock in pair:
            sock.close()


# --- timers --------------------------------------------------------------------------------------------------------


def test_alarms_are_due_in_the_order_of_their_times() -> None:
    alarms = Alarms()
    fired: list[int] = []
    for due in (3, 1, 2):
        alarms.add(due, lambda due=due: fired.append(due))  # type: ignore[misc]
    assert alarms.next_due() == 1
    assert alarms.take_due(0.5) is None
    while call := alarms.take_due(2):
        call()
    assert (fired, alarms.next_due(), len(alarms)) == ([1, 2], 3, 1)


def test_cancelled_alarms_take_no_more_room_than_the_others() -> None:
    alarms = Alarms()
    alarms.add(1e9, lambda: None)
    for _ in range(10_000):
        alarms.cancel(alarms.add(1e9 - 1, lambda: None))
    assert len(alarms) == 1
    assert len(alarms._heap) < 200
    assert alarms.next_due() == 1e9


def test_an_alarm_that_has_fired_can_be_cancelled_without_effect() -> None:
    alarms = Alarms()
    alarm = alarms.add(1, lambda: None)
    assert alarms.take_due(1) is not None
    alarms.cancel(alarm)
    assert (len(alarms), alarms.next_due()) == (0, None)


def test_reads_are_enclosed_by_the_calls_before_and_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    seen: list[Any] = []
    came = threading.Event()
    loop = Loop("penstock-test-loop", None, lambda: seen.append("before"), lambda: seen.append("after"))
    loop.start()

    def take(data: bytes) -> None:
        seen.append(data)
        loop.post(came.set)
        if data == b"bad":
            raise RuntimeError("read")

    reader = Reader(loop, take)
    try:
        for data in (b"one", b"bad"):
            came.clear()
            reader.there.send(data)
            assert came.wait(PATIENCE)
    finally:
        loop.close()
        assert loop.join(PATIENCE)
        reader.close()
    assert seen == ["before", b"one", "after", "before", b"bad", "after"]
