"""The handler, as numbered in the specification of streams, §2 (19 to 25)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pykka
import pytest

import penstock
from penstock.actors.runtime import inspect
from penstock.actors.stream.messages import StopStream
from penstock.supervisors.system.handler import HANDLER, StreamHandler
from penstock.testing import HANG, Collector, ScriptedProvider, SimulatedSystem, eventually, kill
from tests.conformance.common import FAST, TERMINAL, assert_all_is_well, assert_nothing_is_left, sink, text_of


def at_least(count: int, things: list[Any]) -> bool:
    return len(things) >= count


# --- 19 ------------------------------------------------------------------------------------------------------------


def test_H19_opening_gives_a_stream_that_runs() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("one", FAST)
        assert (stream.stream_id, stream.state, stream.is_over) == ("one", "idle", False)
        assert [info.stream_id for info in system.get_active_streams()] == ["one"]
        stream.stop()
        assert_all_is_well(system, [stream])


def test_H19_a_running_streams_id_is_refused() -> None:
    with SimulatedSystem() as system:
        first = system.open_stream("one")
        with pytest.raises(penstock.StreamExists, match="'one'") as caught:
            system.open_stream("one")
        assert caught.value.stream_id == "one"
        assert system.stream("one").stream_id == first.stream_id
        assert not first.is_over


def test_H19_two_threads_that_want_the_same_id_get_it_once() -> None:
    def attempt(_: int) -> bool:
        barrier.wait()
        try:
            system.open_stream("wanted")
        except penstock.StreamExists:
            return False
        return True

    barrier = threading.Barrier(8)
    with penstock.System(penstock.Settings()) as system, ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1
        assert system.statistics().streams_created == 1


def test_H19_an_unknown_id_is_not_found_in_any_call() -> None:
    with SimulatedSystem() as system:
        for call in (system.stream, system.get_stream_info):
            with pytest.raises(penstock.StreamNotFound, match="'nobody'"):
                call("nobody")


@pytest.mark.parametrize("stream_id", ["", "x" * 257, "a\nb", 7, b"x"])
def test_H19_an_id_that_cannot_be_shown_is_refused(stream_id: Any) -> None:
    with SimulatedSystem() as system, pytest.raises(penstock.OptionError, match="stream_id"):
        system.open_stream(stream_id)


@pytest.mark.parametrize(
    "arguments",
    [
        {"on_orphan": "sometimes"},
        {"on_orphan": -1},
        {"on_orphan": True},
        {"restart": "permanent"},
        {"options": {"batch_size": 3}},
        {"timeout": -1},
    ],
)
def test_H19_arguments_that_are_not_allowed_are_refused_by_name(arguments: dict[str, Any]) -> None:
    with SimulatedSystem() as system:
        with pytest.raises(penstock.OptionError, match=next(iter(arguments))):
            system.open_stream("x", **arguments)
        assert system.get_active_streams() == []


def test_H19_a_made_up_id_is_a_new_one_each_time() -> None:
    with SimulatedSystem() as system:
        assert len({system.open_stream().stream_id for _ in range(100)}) == 100


# --- 20 ------------------------------------------------------------------------------------------------------------


def test_H20_after_subscribing_the_events_follow_with_the_streams_id() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("mine", FAST)
        ref, events = sink(system)
        stream.subscribe(ref)
        stream.process_tokens(["a", "b", "c"])
        stream.stop()
        system.settle()
        assert text_of(events) == "abc"
        assert {event.stream_id for event in events} == {"mine"}
        assert isinstance(events[-1], penstock.StreamCompleted)


def test_H20_who_subscribes_twice_gets_everything_once() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST)
        ref, events = sink(system)
        assert stream.subscribe(ref) is stream.subscribe(ref)
        stream.process_tokens(["a", "b"])
        stream.stop()
        system.settle()
        assert [event.seq for event in events] == [1, 2]


def test_H20_two_threads_that_subscribe_the_same_actor_subscribe_it_once() -> None:
    def subscribe(stream: penstock.Stream, target: Any, _: int) -> Any:
        barrier.wait()
        return stream.subscribe(target)

    barrier = threading.Barrier(8)
    with penstock.System(penstock.Settings()) as system, ThreadPoolExecutor(8) as pool:
        for _ in range(30):
            stream = system.open_stream(options=FAST)
            got: list[Any] = []
            assert len(set(map(id, pool.map(partial(subscribe, stream, got.append), range(8))))) == 1
            stream.process_tokens(["a", "b"])
            stream.stop()
            eventually(partial(at_least, 2, got))
            assert [event.seq for event in got] == [1, 2]


def test_H20_an_actor_can_be_subscribed_by_another_and_be_a_plain_pykka_actor() -> None:
    class Plain(pykka.ThreadingActor):
        def __init__(self) -> None:
            super().__init__()
            self.events: list[Any] = []

        def on_receive(self, message: Any) -> None:
            self.events.append(message)

        def seen(self) -> list[Any]:
            return list(self.events)

    plain = Plain.start()
    try:
        with penstock.System(penstock.Settings()) as system:
            stream = system.open_stream(options=FAST)
            stream.subscribe(plain)
            stream.process_tokens(["a", "b"])
            stream.stop()
            seen = eventually(lambda: [e for e in [plain.proxy().seen().get()] if len(e) == 2])[0]
            assert [event.seq for event in seen] == [1, 2]
    finally:
        plain.stop()


def test_H20_unsubscribing_who_is_not_subscribed_is_fine() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream()
        ref, _ = sink(system)
        stream.unsubscribe(ref)
        subscription = stream.subscribe(ref)
        subscription.unsubscribe()
        subscription.unsubscribe()
        stream.unsubscribe(ref)
        assert system.get_stream_info(stream.stream_id).subscriber_count == 0


def test_H20_after_unsubscribing_nothing_comes_any_more() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST)
        ref, events = sink(system)
        subscription = stream.subscribe(ref)
        stream.process_tokens(["a", "b"])
        system.settle()
        subscription.unsubscribe()
        stream.process_tokens(["c", "d"])
        stream.stop()
        system.settle()
        assert text_of(events) == "ab"


def test_H20_a_dead_actor_cannot_be_subscribed() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream()
        ref, _ = sink(system)
        system.runtime.exit(ref, "kill")
        with pytest.raises(penstock.ProcessDead):
            stream.subscribe(ref)


@pytest.mark.parametrize("target", [7, None, str, "name"])
def test_H20_what_cannot_be_told_anything_is_refused(target: Any) -> None:
    with SimulatedSystem() as system, pytest.raises(penstock.OptionError, match="target"):
        system.open_stream().subscribe(target)


def test_H20_who_subscribes_after_the_end_gets_all_of_it() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST)
        stream.process_tokens(["a", "b", "c"])
        stream.stop()
        collector = Collector(stream)
        collector.wait_for_terminal()
        assert collector.text == "abc"
        assert system.get_stream_info(stream.stream_id).subscriber_count == 0
        assert_all_is_well(system, [stream], [collector])


@pytest.mark.sample(5)
@pytest.mark.seeds(20)
def test_H20_whoever_subscribes_while_the_stream_ends_gets_everything_once(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = system.open_stream(options=FAST)
        stream.process_tokens(list("abcde"))
        collectors = []
        assert stream._record.ref is not None
        reply = stream._record.ref.ask(StopStream(), block=False)
        for _ in range(12):
            collectors.append(Collector(stream))
            for _ in range(seed % 4):
                system.simulation.dispatcher.step()
        reply.get(timeout=1)
        for collector in collectors:
            collector.wait_for_terminal()
            assert collector.text == "abcde"
        assert_all_is_well(system, [stream], collectors)


# --- 21 ------------------------------------------------------------------------------------------------------------


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_H21_a_batch_goes_to_the_subscribers_of_its_stream_only(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        streams = [system.open_stream(f"s{n}", FAST.replace(batch_size=n + 1)) for n in range(6)]
        collectors = [Collector(stream) for stream in streams]
        for word in range(10):
            for number, stream in enumerate(streams):
                stream.process_token(f"{number}.{word} ")
        for stream in streams:
            stream.stop()
        for number, collector in enumerate(collectors):
            collector.wait_for_terminal()
            assert collector.text == "".join(f"{number}.{word} " for word in range(10))
            sizes = [len(event.tokens) for event in collector.events if isinstance(event, penstock.TokenEvent)]
            assert max(sizes) == number + 1  # each with its own options
        assert_all_is_well(system, streams, collectors)


# --- 22 ------------------------------------------------------------------------------------------------------------


def test_H22_the_list_says_id_state_subscribers_creation_and_options() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("one", FAST)
        system.open_stream("two")
        Collector(stream)
        infos = system.get_active_streams()
        assert [info.stream_id for info in infos] == ["one", "two"]
        assert [info.state for info in infos] == ["idle", "idle"]
        assert [info.subscriber_count for info in infos] == [1, 0]
        assert infos[0].options == FAST
        assert infos[0].created_at == system.simulation.clock.time()


def test_H22_the_info_of_a_stream_has_its_subscribers_and_statistics() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("one", FAST)
        ref, _ = sink(system)
        stream.subscribe(ref, "drop")
        iterator = stream.events()
        stream.process_tokens(["a", "b"])
        system.settle()
        info = system.get_stream_info("one")
        assert [(one.target, one.slow, one.seq) for one in info.subscribers] == [
            (ref.label, "drop", 1),
            ("iterator", "coalesce", 0),
        ]
        assert (info.statistics.tokens_delivered, info.statistics.subscribers) == (2, 2)
        iterator.close()


def test_H22_asking_about_streams_waits_for_nobody() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("one", FAST)
        stream.process_tokens(["a", "b"])
        messages = system.statistics().dispatcher.messages
        system.get_stream_info("one")
        system.get_active_streams()
        stream.statistics()
        assert system.statistics().dispatcher.messages == messages  # not one actor has been asked


def test_H22_a_stream_that_ended_can_be_looked_at_for_a_while() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("one", FAST.replace(keep_finished=5))
        stream.stop()
        system.settle()
        assert system.get_active_streams() == []
        assert system.get_stream_info("one").state == "ended"
        system.advance(4.5)
        assert system.get_stream_info("one").state == "ended"
        system.advance(1)  # there is a sweep every second, one of them at 5
        with pytest.raises(penstock.StreamNotFound):
            system.get_stream_info("one")


def test_H22_an_id_that_is_used_again_is_kept_as_long_as_its_last_stream() -> None:
    def end_one() -> None:
        system.open_stream("one", FAST.replace(keep_finished=5)).stop()
        system.settle()

    with SimulatedSystem() as system:
        end_one()
        system.advance(3.5)
        end_one()
        system.advance(4)
        assert system.get_stream_info("one").state == "ended"
        system.advance(2)
        with pytest.raises(penstock.StreamNotFound):
            system.get_stream_info("one")


def test_H22_a_stream_that_nobody_ever_read_is_cancelled_when_its_time_is_over() -> None:
    with SimulatedSystem() as system:
        ignored = system.open_stream(options=FAST.replace(time_to_live=5))
        read = system.open_stream(options=FAST.replace(time_to_live=5))
        Collector(read)
        system.advance(4)
        assert not ignored.is_over
        system.advance(3)
        assert not read.is_over
        with pytest.raises(penstock.StreamCancelledError, match="time_to_live"):
            ignored.result(timeout=1)


# --- 23 ------------------------------------------------------------------------------------------------------------


def test_H23_a_stream_that_dies_is_gone_its_subscribers_told_and_its_id_free() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("one", FAST)
        collector = Collector(stream)
        handler = system.runtime.whereis(HANDLER)
        kill(system, "stream/one")
        terminal = collector.wait_for_terminal()
        assert isinstance(terminal, penstock.StreamFailed)
        assert isinstance(terminal.error, penstock.StreamCrashed)
        assert system.get_active_streams() == []
        again = system.open_stream("one", FAST)
        assert system.runtime.whereis(HANDLER) is handler
        again.stop()
        assert_all_is_well(system, [stream, again], [collector])


@pytest.mark.sample(5)
@pytest.mark.seeds(40)
def test_H23_an_id_can_be_used_again_from_the_terminal_event_on(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        streams = []
        for number in range(6):
            provider = ScriptedProvider([str(number), 0.01])
            stream = system.chat("m", "Hello", provider=provider, stream_id="same")
            streams.append(stream)
            if number % 3 == 2:
                stream.cancel()
                assert isinstance(list(stream)[-1], penstock.StreamCancelled)
            else:
                assert stream.result(timeout=5).text == str(number)
        system.settle()
        statistics = system.statistics()
        assert (statistics.streams_created, statistics.streams_completed, statistics.streams_cancelled) == (6, 4, 2)
        assert statistics.streams_active == 0
        assert_all_is_well(system, streams)


@pytest.mark.sample(3)
@pytest.mark.seeds(10)
def test_H23_a_subscriber_that_dies_is_out_of_all_its_streams(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        streams = [system.open_stream(options=FAST) for _ in range(5)]
        ref, _ = sink(system)
        others = [Collector(stream) for stream in streams]
        for stream in streams:
            stream.subscribe(ref)
        system.settle()
        system.runtime.exit(ref, "kill")
        system.settle()
        assert [info.subscriber_count for info in system.get_active_streams()] == [1] * 5
        for stream in streams:
            stream.process_tokens(["a", "b", "c"])
            stream.stop()
        assert_all_is_well(system, streams, others)
        assert {other.text for other in others} == {"abc"}


def test_H23_stopping_flushes_and_ends_all_streams_in_the_order_they_were_opened() -> None:
    with SimulatedSystem() as system:
        ended: list[str] = []
        streams = [system.open_stream(f"s{n}", FAST.replace(batch_size=10)) for n in range(8)]
        collectors = [Collector(stream) for stream in streams]
        for stream in streams:
            stream._record.over.when_done(partial(ended.append, stream.stream_id))
            stream.process_token("tail")
        assert system.stop() == 0
        assert ended == [f"s{n}" for n in range(8)]
        assert [collector.text for collector in collectors] == ["tail"] * 8
        assert all(isinstance(collector.terminal, penstock.StreamCompleted) for collector in collectors)
        assert_nothing_is_left(system)


def test_H23_stopping_lets_out_what_a_provider_has_said_so_far() -> None:
    with SimulatedSystem() as system:
        stream = system.chat(
            "m", "Hello", provider=ScriptedProvider(["Hel", "lo", 100.0]), options=FAST.replace(batch_size=10)
        )
        collector = Collector(stream)
        system.settle()
        system.advance(0.001)
        assert system.scripted.open == 1
        system.stop()
        terminal = collector.terminal
        assert isinstance(terminal, penstock.StreamCancelled)
        assert (terminal.reason, terminal.partial, collector.text) == ("shutdown", "Hello", "Hello")
        assert_nothing_is_left(system)


def test_H23_a_stream_whose_call_is_given_up_fails() -> None:
    with SimulatedSystem() as system:
        stream = system.chat("m", "Hello", provider=ScriptedProvider(["a", HANG]), stream_id="one")
        for _ in range(5):
            if not stream.is_over:
                kill(system, "source/one")
                system.settle()
        terminal = stream._record.log.terminal
        assert isinstance(terminal, penstock.StreamFailed)
        assert isinstance(terminal.error, penstock.StreamCrashed)


def test_H23_a_call_whose_supervisor_has_died_is_made_anew() -> None:
    with SimulatedSystem() as system:
        provider = ScriptedProvider([HANG], ["Hello"])
        stream = system.chat("m", "Hello", provider=provider, stream_id="one")
        system.advance(0.1)
        kill(system, "sources")
        assert stream.result(timeout=30).text == "Hello"
        assert provider.requests == 2


# --- 24 ------------------------------------------------------------------------------------------------------------


def test_H24_without_a_subscriber_tokens_are_kept_and_counted() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST)
        stream.process_tokens(list("abcdef"))
        system.settle()
        assert stream.statistics().tokens_delivered == 6
        stream.stop()
        assert text_of(list(stream)) == "abcdef"


def test_H24_the_log_is_bounded_and_a_late_reader_still_gets_the_whole_text() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST.replace(retain_bytes=2_000))
        words = [f"{n} " for n in range(500)]
        for start in range(0, 500, 50):
            stream.process_tokens(words[start : start + 50])
            system.settle()
        assert stream._record.log.kept_bytes <= 2_000
        stream.stop()
        events = list(stream)
        assert isinstance(events[0], penstock.StreamSnapshot)
        assert text_of(events) == "".join(words)


# --- 25 ------------------------------------------------------------------------------------------------------------


def test_H25_the_systems_statistics_count_streams_tokens_and_subscriptions() -> None:
    with SimulatedSystem() as system:
        completed, failed, cancelled, running = (system.open_stream(options=FAST) for _ in range(4))
        Collector(running)
        for stream in (completed, failed, cancelled, running):
            stream.process_tokens(["a", "b"])
        system.settle()
        completed.stop()
        kill(system, failed)
        cancelled.cancel()
        system.settle()
        found = system.statistics()
        assert (found.streams_created, found.streams_active) == (4, 1)
        assert (found.streams_completed, found.streams_failed, found.streams_cancelled) == (1, 1, 1)
        assert (found.tokens, found.subscriptions) == (8, 1)
        assert found.processes == len(system.runtime.processes())
        assert found.dispatcher.messages > 0
        running.stop()
        assert all(isinstance(list(one)[-1], TERMINAL) for one in (completed, failed, cancelled, running))


def test_H25_the_tree_shows_every_process_of_the_house_and_nothing_else_of_it() -> None:
    with SimulatedSystem() as system:
        system.chat("m", "Hello", provider=ScriptedProvider(["secret", 9.0]), stream_id="talk")
        system.advance(0.1)
        tree = str(system.tree())
        for name in ("system", "registry", "streams", "stream/talk", "sources", "source/talk", "handler", "reaper"):
            assert f"{name}  (" in tree
        assert "streaming" in tree
        assert "secret" not in tree


# --- sweeping ------------------------------------------------------------------------------------------------------


def test_a_subscriber_that_dies_after_a_sweep_still_counts_as_gone() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("one", FAST, on_orphan="cancel")
        ref, _ = sink(system)
        stream.subscribe(ref)
        system.advance(3)  # there is a sweep every second
        assert not stream.is_over
        system.runtime.exit(ref, "kill")
        system.settle()
        assert isinstance(list(stream)[-1], penstock.StreamCancelled)


def test_a_subscriber_that_blocks_and_dies_after_a_sweep_does_not_hold_its_stream() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("one", FAST)
        ref, _ = sink(system)
        stream.subscribe(ref, "block", window=1)
        stream.subscribe(ref)  # the same again, which changes nothing
        system.advance(3)
        inspect.suspend(ref)
        for word in range(20):
            stream.process_token(f"{word} ")
        system.settle()
        assert stream.statistics().tokens_delivered < 20
        system.runtime.exit(ref, "kill")
        system.advance(1)
        assert stream.statistics().tokens_delivered == 20


class _Plain(pykka.ThreadingActor):
    """A plain Pykka actor, which is not monitored."""


def test_a_plain_pykka_subscriber_that_dies_after_a_sweep_is_found_by_the_next_one() -> None:
    plain = _Plain.start()
    try:
        with SimulatedSystem() as system:
            stream = system.open_stream("one", FAST, on_orphan="cancel")
            stream.subscribe(plain)
            system.advance(3)
            assert system.get_stream_info("one").subscriber_count == 1
            plain.stop()
            system.advance(2)
            assert isinstance(list(stream)[-1], penstock.StreamCancelled)
    finally:
        plain.stop()


# --- streams without subscribers -----------------------------------------------------------------------------------


def test_a_stream_without_subscribers_is_cancelled_when_it_has_lingered() -> None:
    with SimulatedSystem() as system:
        streams = [system.open_stream(options=FAST, on_orphan=seconds) for seconds in (5.0, 3.0, 4.0)]
        for stream in streams:
            stream.events().close()
        system.settle()
        for over in ([False, False, False], [False, True, False], [False, True, True], [True, True, True]):
            system.advance(2.9 if not any(over) else 1.0)
            assert [stream.is_over for stream in streams] == over
        for stream in streams:
            with pytest.raises(penstock.StreamCancelledError, match="no subscriber is left"):
                stream.result(timeout=1)


@pytest.mark.parametrize("on_orphan", ["cancel", 5.0])
def test_a_subscriber_that_comes_before_the_handler_has_heard_of_the_last_ones_leaving_keeps_the_stream(
    on_orphan: Any,
) -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream(options=FAST, on_orphan=on_orphan)
        stream.events().close()
        reader = stream.events()
        system.advance(10)
        assert not stream.is_over
        reader.close()
        system.advance(10)
        assert stream.is_over


def test_a_stream_lingers_from_the_last_time_that_its_last_subscriber_left() -> None:
    with SimulatedSystem() as system:
        again, kept = (system.open_stream(options=FAST, on_orphan=5.0) for _ in range(2))
        for stream in (again, kept):
            stream.events().close()
        system.advance(3)
        again.events().close()
        reader = kept.events()
        system.advance(4.9)
        assert (again.is_over, kept.is_over) == (False, False)
        system.advance(0.2)
        assert (again.is_over, kept.is_over) == (True, False)
        reader.close()
        system.advance(4.9)
        assert not kept.is_over
        system.advance(0.2)
        assert kept.is_over


def test_streams_that_linger_again_and_again_do_not_pile_up() -> None:
    with SimulatedSystem() as system:
        stream, ended = (system.open_stream(options=FAST, on_orphan=50.0) for _ in range(2))
        ended.events().close()
        ended.stop()
        handler = system.runtime.whereis(HANDLER)
        assert handler is not None
        process = handler._actor_weakref()
        assert isinstance(process, StreamHandler)
        watching = process._watching
        for _ in range(500):
            stream.events().close()
            system.advance(0.01)
            assert len(watching._linger_ends) <= 67
        assert len(watching._lingering) == 1
        system.advance(49.9)
        assert not stream.is_over
        system.advance(0.2)
        assert stream.is_over
        assert (watching._lingering, watching._linger_ends) == ({}, [])
