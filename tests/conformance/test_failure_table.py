"""What happens when something dies: the failure table of the plan, row by row.

Each row runs on the simulation under many seeds, with the blow at a moment that the seed decides, and once on real
threads and sockets. Whatever is hit, every stream ends in exactly one terminal event and every living subscriber gets
it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import penstock
from penstock.actors.stream import journaling
from penstock.adapters.loopback.faults import ResetAfter, StallAfter
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.options import OnOrphan, Restart
from penstock.events import to_dict
from penstock.ports import TextDelta
from penstock.testing import HANG, Collector, ScriptedProvider, SimulatedSystem, check_log, eventually, kill
from tests.conformance.common import FAST, assert_all_is_well, assert_nothing_is_left, sink

WORDS = [f"{n} " for n in range(40)]
TEXT = "".join(WORDS)
NO_RETRY = penstock.RequestOptions(max_retries=0)


def slowly(*more: Any) -> ScriptedProvider:
    """A provider that takes 0.4 s for the words."""
    return ScriptedProvider([step for word in WORDS for step in (word, 0.01)] + list(more))


def chat(system: penstock.System, provider: Any = None, **arguments: Any) -> penstock.Stream:
    arguments.setdefault("options", FAST)
    return system.chat("m", "Hello", provider=provider or slowly(), **arguments)


def anything_may_happen(system: SimulatedSystem, chance: random.Random) -> None:
    """Let a random piece of what is going on go on."""
    system.advance(chance.choice((0, 0.001, 0.02, 0.1, 0.3)) * chance.random())
    for _ in range(chance.randrange(30)):
        system.simulation.dispatcher.step()


def mixed_streams(system: SimulatedSystem, restart: Restart = "temporary") -> list[penstock.Stream]:
    pushed = system.open_stream("pushed", FAST, restart=restart)
    pushed.process_tokens(WORDS)
    return [pushed, *(chat(system, stream_id=f"chat-{n}", restart=restart) for n in range(3))]


def end_all(system: SimulatedSystem, streams: list[penstock.Stream]) -> None:
    system.advance(2)
    for stream in streams:
        if not stream.is_over:
            stream.stop()


# --- a subscriber ----------------------------------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_a_subscriber_that_crashes_or_is_killed_disturbs_nobody(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        streams = mixed_streams(system)
        others = [Collector(stream) for stream in streams]
        crashing, _ = sink(system, crash_at=chance.randrange(1, 10))
        killed, _ = sink(system)
        for stream in streams:
            stream.subscribe(crashing)
            stream.subscribe(killed)
            stream.subscribe(lambda event: 1 / 0)
        anything_may_happen(system, chance)
        system.runtime.exit(killed, "kill")
        end_all(system, streams)
        system.settle()
        assert {other.text for other in others} == {TEXT}
        assert_all_is_well(system, streams, others)


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
@pytest.mark.parametrize(("on_orphan", "survives"), [("cancel", False), ("continue", True), (0.05, False)])
def test_when_the_last_subscriber_dies_on_orphan_decides(seed: int, on_orphan: OnOrphan, survives: bool) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        stream = chat(system, slowly(2.0), on_orphan=on_orphan)
        ref, _ = sink(system)
        stream.subscribe(ref)
        anything_may_happen(system, chance)
        system.runtime.exit(ref, "kill")
        if seed % 2:
            kill(system, "handler")  # it hears of it all the same
        system.advance(1.5)
        assert stream.is_over is not survives
        assert system.scripted.open == int(survives)
        if survives:
            assert stream.result(timeout=10).text == TEXT
        else:
            with pytest.raises(penstock.StreamCancelledError, match="no subscriber is left"):
                stream.result()
        assert_all_is_well(system, [stream])


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_who_comes_back_while_it_lingers_keeps_it(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = chat(system, slowly(HANG), on_orphan=2.0)
        for _ in range(5):
            with stream.events() as events:
                next(events)
            system.advance(1.9)
            assert not stream.is_over
        collector = Collector(stream)
        system.advance(30)
        assert not stream.is_over
        collector.subscription.unsubscribe()
        system.advance(2.1)
        assert stream.is_over
        assert_all_is_well(system, [stream])


def test_who_only_waits_for_the_result_is_no_reader_and_does_not_keep_the_stream() -> None:
    with SimulatedSystem() as system:
        stream = chat(system, slowly(HANG))
        left = threading.Event()

        def leave(event: Any) -> None:
            subscription.unsubscribe()
            left.set()

        subscription = stream.subscribe(leave)
        with pytest.raises(penstock.StreamCancelledError):
            stream.result(timeout=10)
        assert left.is_set()
        assert_all_is_well(system, [stream])


def test_a_result_that_is_not_waited_for_any_longer_leaves_an_orphan() -> None:
    with SimulatedSystem() as system:
        stream = chat(system, slowly(HANG))
        iterator = stream.events()
        next(iterator)
        with pytest.raises(penstock.CallTimeout):
            stream.result(timeout=0.1)
        assert not stream.is_over
        iterator.close()
        system.settle()
        assert stream.is_over
        assert_all_is_well(system, [stream])


def test_a_stream_that_nobody_ever_subscribed_to_runs_on() -> None:
    with SimulatedSystem() as system:
        stream = chat(system)
        system.advance(5)
        assert stream.is_over
        assert stream.text == TEXT
        assert_all_is_well(system, [stream])


def fail_at_the_first_event(stream: penstock.Stream) -> None:
    for _ in stream:
        raise ZeroDivisionError


@pytest.mark.parametrize("how", ["break", "raise", "close", "drop"])
def test_leaving_a_for_loop_closes_the_providers_connection(how: str) -> None:
    stalling = Script(Answer(repeat=5, faults=(StallAfter(3),)))
    with LoopbackProvider(stalling) as provider, penstock.System(penstock.Settings()) as system:
        stream = system.chat("m", "Hello", provider="loopback", base_url=provider.base_url)
        if how == "break":
            for _ in stream:
                break
        elif how == "raise":
            with pytest.raises(ZeroDivisionError):
                fail_at_the_first_event(stream)
        else:
            events = stream.events()
            next(events)
            if how == "close":
                events.close()
            del events
        provider.wait_for(lambda counts: counts.client_disconnects == 1)
        with pytest.raises(penstock.StreamCancelledError, match="no subscriber is left"):
            stream.result(timeout=5)


# --- a stream's actor ------------------------------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_a_temporary_stream_that_is_killed_ends_in_a_failure_that_keeps_what_came(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        streams = mixed_streams(system)
        collectors = [Collector(stream) for stream in streams]
        anything_may_happen(system, chance)
        victim = chance.choice([stream for stream in streams if not stream.is_over] or streams)
        if not victim.is_over:
            kill(system, victim)
            end = next(one for one in collectors if one.subscription._hub is victim._record.hub).wait_for_terminal()
            assert isinstance(end, penstock.StreamFailed)
            assert isinstance(end.error, penstock.StreamCrashed)
            assert TEXT.startswith(end.partial)
            assert to_dict(end)["partial"] == end.partial
            with pytest.raises(penstock.StreamClosed):
                victim.process_token("x")
        end_all(system, streams)
        system.settle()
        for stream, collector in zip(streams, collectors, strict=True):
            assert collector.text == stream.text
            assert stream is victim or stream.text == TEXT
        assert_all_is_well(system, streams, collectors)


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_a_transient_stream_that_is_killed_goes_on_without_gap_or_duplicate(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        streams = mixed_streams(system, "transient")
        collectors = [Collector(stream) for stream in streams]
        for _ in range(3):
            anything_may_happen(system, chance)
            victim = chance.choice(streams)
            if not victim.is_over:
                kill(system, victim)
        end_all(system, streams)
        system.settle()
        for stream, collector in zip(streams, collectors, strict=True):
            assert isinstance(collector.terminal, penstock.StreamCompleted)
            assert collector.text == stream.text == TEXT
            assert [event.seq for event in collector.events] == list(range(1, len(collector.events) + 1))
        assert_all_is_well(system, streams, collectors)


def test_a_transient_stream_that_crashes_again_and_again_is_given_up() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", FAST, restart="transient")
        collector = Collector(stream)
        for _ in range(4):
            kill(system, stream)
            system.settle()
        assert isinstance(collector.wait_for_terminal(), penstock.StreamFailed)
        assert_all_is_well(system, [stream], [collector])


def test_a_call_to_a_stream_that_is_being_restarted_is_answered() -> None:
    with SimulatedSystem() as system:
        stream = system.open_stream("s", FAST, restart="transient")
        kill(system, stream)
        stream.pause()
        assert stream.state == "paused"
        stream.resume()
        kill(system, stream)
        stream.stop()
        assert_all_is_well(system, [stream])


def test_a_producer_that_waits_for_room_is_let_go_when_the_stream_dies() -> None:
    with penstock.System(penstock.Settings()) as system:
        stream = system.open_stream("s", penstock.StreamOptions(max_buffer_size=1, batch_size=1))
        stream.pause()
        stream.process_token("a")
        raised: list[BaseException] = []

        def push() -> None:
            try:
                stream.process_token("b", timeout=30)
            except penstock.StreamClosed as error:
                raised.append(error)

        producer = threading.Thread(target=push)
        producer.start()
        eventually(lambda: stream.statistics().backpressure_events)
        kill(system, stream)
        producer.join(10)
        assert len(raised) == 1


def test_a_killed_stream_whose_thread_is_stuck_writes_nothing_behind_its_successors_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its journal kills it in the middle of a batch; what it still does then has no effect."""
    monkeypatch.setattr(journaling, "_JOURNAL_PATIENCE", 0.001)  # the thread that has the journal is this one
    with SimulatedSystem() as system:

        class Journal:
            def append(self, event: Any) -> None:
                if event.seq == 2 and not killed:
                    killed.append(1)
                    kill(system, "stream/s")
                    system.settle()  # its successor starts, and emits

        killed: list[int] = []
        stream = system.open_stream("s", FAST, restart="transient", journal=Journal())
        collector = Collector(stream)
        stream.process_tokens(WORDS)
        system.advance(1)
        stream.stop()
        collector.wait_for_terminal()
        assert killed
        assert collector.text == TEXT
        assert stream.statistics().buffer_size == 0
        assert_all_is_well(system, [stream], [collector])


# --- an integration --------------------------------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_an_integration_that_is_killed_before_the_first_delta_tries_again(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        provider = ScriptedProvider([0.5, *WORDS])
        stream = chat(system, provider)
        collector = Collector(stream)
        system.advance(0.4 * chance.random())
        kill(system, f"source/{stream.stream_id}")
        end = collector.wait_for_terminal()
        assert isinstance(end, penstock.StreamCompleted)
        assert end.text == collector.text == TEXT
        assert provider.requests == 2
        assert_all_is_well(system, [stream], [collector])


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
@pytest.mark.parametrize("on_interrupt", ["fail", "restart"])
def test_an_integration_that_is_killed_after_it_fails_with_the_text_or_resets(seed: int, on_interrupt: Any) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        stream = chat(system, request_options=penstock.RequestOptions(on_interrupt=on_interrupt))
        collector = Collector(stream)
        next(stream.events())
        system.advance(0.2 * chance.random())
        kill(system, f"source/{stream.stream_id}")
        end = collector.wait_for_terminal(60)
        if on_interrupt == "restart":
            assert isinstance(end, penstock.StreamCompleted)
            assert sum(isinstance(event, penstock.StreamReset) for event in collector.events) == 1
            assert end.text == collector.text == TEXT
        else:
            assert isinstance(end, penstock.StreamFailed)
            assert isinstance(end.error, penstock.IncompleteStream)
            assert end.partial == collector.text
            assert TEXT.startswith(end.partial)
        assert_all_is_well(system, [stream], [collector])


def test_an_integration_that_dies_again_and_again_fails_its_stream() -> None:
    with SimulatedSystem() as system:
        stream = chat(system, ScriptedProvider([HANG]), request_options=penstock.RequestOptions(max_retries=100))
        for _ in range(5):
            if not stream.is_over:
                kill(system, f"source/{stream.stream_id}")
                system.settle()
        with pytest.raises(penstock.StreamCrashed):
            stream.result(timeout=1)
        assert_all_is_well(system, [stream])


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_when_what_joins_two_streams_is_killed_the_second_fails_and_the_first_is_released(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        first = chat(system, slowly(HANG))
        second = penstock.chain(system, first, lambda event: event.tokens, options=FAST)
        collector = Collector(second)
        anything_may_happen(system, chance)
        relay = next(ref for ref in system.runtime.processes() if ref.label.startswith("chain"))
        kill(system, relay)
        terminal = collector.wait_for_terminal()
        assert isinstance(terminal, penstock.StreamFailed)
        assert isinstance(terminal.error, penstock.StreamCrashed)
        system.settle()
        assert first.is_over
        assert_all_is_well(system, [first, second], [collector])


# --- the handler -----------------------------------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_when_the_handler_is_killed_no_stream_stops_and_no_subscriber_notices(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        streams = mixed_streams(system)
        collectors = [Collector(stream) for stream in streams]
        for number in range(4):
            anything_may_happen(system, chance)
            kill(system, "handler")
            for _ in range(chance.randrange(6)):
                system.simulation.dispatcher.step()
            # Meanwhile opening, subscribing and leaving just work.
            stream = chat(system, stream_id=f"meanwhile-{number}")
            streams.append(stream)
            collectors.append(Collector(stream))
            stream.events().close()
        end_all(system, streams)
        system.settle()
        for stream, collector in zip(streams, collectors, strict=True):
            assert isinstance(collector.terminal, penstock.StreamCompleted), stream
            assert collector.text == TEXT
        statistics = system.statistics()
        assert statistics.streams_created == statistics.streams_completed == len(streams)
        assert statistics.streams_active == 0
        assert_all_is_well(system, streams, collectors)


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_a_handler_killed_while_a_stream_is_being_opened_opens_it_once(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        countdown = chance.randrange(12)
        dispatcher = system.simulation.dispatcher
        step = dispatcher.step

        def kill_on_the_way() -> bool:
            nonlocal countdown
            countdown -= 1
            if countdown == 0:
                kill(system, "handler")
            return step()

        dispatcher.step = kill_on_the_way  # type: ignore[method-assign]
        provider = slowly()
        stream = chat(system, provider, stream_id="wanted")
        dispatcher.step = step  # type: ignore[method-assign]
        assert stream.result(timeout=10).text == TEXT
        assert provider.requests == 1
        assert system.statistics().streams_created == 1
        assert_all_is_well(system, [stream])


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_a_new_handler_knows_the_subscribers_of_the_old_one(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        stream = chat(system, slowly(HANG))
        early, _ = sink(system)
        late, _ = sink(system)
        stream.subscribe(early)
        anything_may_happen(system, chance)
        kill(system, "handler")
        for _ in range(chance.randrange(4)):
            system.simulation.dispatcher.step()
        stream.subscribe(late)
        system.settle()
        system.runtime.exit(early, "kill")
        system.settle()
        assert [one.target for one in system.get_stream_info(stream.stream_id).subscribers] == [late.label]
        system.runtime.exit(late, "kill")
        system.advance(0.1)
        assert stream.is_over
        assert_all_is_well(system, [stream])


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_an_iterator_that_is_dropped_while_there_is_no_handler_is_found_out(seed: int) -> None:
    with SimulatedSystem(seed) as system:
        stream = chat(system, slowly(HANG))
        events = stream.events()
        next(events)
        kill(system, "handler")
        for _ in range(seed % 5):
            system.simulation.dispatcher.step()
        del events
        system.advance(0.1)
        assert stream.is_over
        assert_all_is_well(system, [stream])


# --- supervisors and the rest of the house ---------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
@pytest.mark.parametrize("victim", ["streams", "sources", "registry", "reaper", "handler"])
def test_whatever_part_of_the_house_is_killed_every_stream_ends_once_and_the_house_stands(
    seed: int, victim: str
) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        streams = mixed_streams(system)
        collectors = [Collector(stream) for stream in streams]
        anything_may_happen(system, chance)
        kill(system, victim)
        for _ in range(chance.randrange(40)):
            system.simulation.dispatcher.step()
        early = chat(system, stream_id="early")  # the root may not have noticed yet: it may end with the others
        system.settle()
        later = chat(system, stream_id="later")
        streams += [early, later]
        collectors += [Collector(early), Collector(later)]
        assert later.result(timeout=10).text == TEXT
        end_all(system, streams)
        system.settle()
        for collector in collectors:
            assert collector.terminal is not None
            if victim in ("reaper", "handler"):
                assert isinstance(collector.terminal, penstock.StreamCompleted)
            if isinstance(collector.terminal, penstock.StreamCompleted):
                assert collector.text == TEXT
            assert TEXT.startswith(collector.text)
        assert system.runtime.whereis(victim) is not None
        statistics = system.statistics()
        ended = statistics.streams_completed + statistics.streams_failed + statistics.streams_cancelled
        assert statistics.streams_active == 0
        # "early" is begun again, and counted again, if it ended with its supervisor before its caller got it.
        assert ended - len(streams) in (0, 1)
        assert_all_is_well(system, streams, collectors)


@pytest.mark.sample(5)
@pytest.mark.seeds(50)
def test_when_the_root_is_killed_every_stream_ends_and_the_system_says_that_it_is_stopped(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        streams = mixed_streams(system)
        collectors = [Collector(stream) for stream in streams]
        anything_may_happen(system, chance)
        kill(system, "system")
        for _ in range(chance.randrange(10)):
            system.simulation.dispatcher.step()
        with pytest.raises(penstock.SystemStopped):
            system.open_stream("too late")
        for collector in collectors:
            collector.wait_for_terminal()
        assert_all_is_well(system, streams, collectors)


@pytest.mark.sample(5)
@pytest.mark.seeds(100)
def test_whatever_is_killed_in_whatever_order_the_promises_hold(seed: int) -> None:
    chance = random.Random(seed)
    with SimulatedSystem(seed) as system:
        streams: list[penstock.Stream] = []
        collectors: list[Collector] = []
        house = ["streams", "sources", "handler", "registry", "reaper"]
        for number in range(12):
            restart: Restart = chance.choice(("temporary", "transient"))
            provider = slowly() if number % 3 else ScriptedProvider([[TextDelta(w) for w in WORDS]])
            stream = chat(system, provider, stream_id=f"s{number % 7}-{number}", restart=restart)
            streams.append(stream)
            collectors.append(Collector(stream, slow=chance.choice(("block", "coalesce")), window=3))
            anything_may_happen(system, chance)
            names = [*chance.sample(house, chance.randrange(3)), *chance.choices([s.stream_id for s in streams], k=2)]
            for name in [*names, f"source/{chance.choice(streams).stream_id}"]:
                try:
                    kill(system, name)
                except LookupError:
                    continue
                anything_may_happen(system, chance) if chance.random() < 0.5 else None
        end_all(system, streams)
        for collector in collectors:
            collector.wait_for_terminal()
            assert TEXT.startswith(collector.text)
        assert_all_is_well(system, streams, collectors)


# --- the same on real threads and sockets ----------------------------------------------------------------------------


REAL_ROWS: dict[str, Callable[[penstock.System, penstock.Stream], object]] = {
    "the stream": lambda system, stream: kill(system, stream),
    "the integration": lambda system, stream: kill(system, f"source/{stream.stream_id}"),
    "the handler": lambda system, stream: kill(system, "handler"),
    "the streams' supervisor": lambda system, stream: kill(system, "streams"),
    "the sources' supervisor": lambda system, stream: kill(system, "sources"),
    "the registry": lambda system, stream: kill(system, "registry"),
    "the reaper": lambda system, stream: kill(system, "reaper"),
    "the root": lambda system, stream: kill(system, "system"),
}


@pytest.mark.parametrize("row", REAL_ROWS)
def test_the_rows_hold_on_real_threads_and_sockets(row: str) -> None:
    answer = Answer(tokens=tuple(WORDS), pace=0.005)
    with LoopbackProvider(Script(answer)) as provider, penstock.System(penstock.Settings()) as system:
        streams = [
            system.chat(
                "m", "Hello", provider="loopback", base_url=provider.base_url, options=FAST, request_options=NO_RETRY
            )
            for _ in range(8)
        ]
        collectors = [Collector(stream) for stream in streams]
        next(streams[0].events())
        REAL_ROWS[row](system, streams[0])
        for stream, collector in zip(streams, collectors, strict=True):
            collector.wait_for_terminal(20)
            collector.check()
            check_log(stream)
            if row in ("the handler", "the reaper"):
                assert isinstance(collector.terminal, penstock.StreamCompleted)
            if isinstance(collector.terminal, penstock.StreamCompleted):
                assert collector.text == TEXT
        if row in ("the stream", "the integration"):
            assert [stream.text == TEXT for stream in streams] == [False] + [True] * 7
        if row == "the root":
            with pytest.raises(penstock.SystemStopped):
                system.open_stream()
        else:
            again = system.open_stream()
            again.stop()
        provider.wait_for(lambda counts: counts.active_responses == 0)
        assert system.stop() == 0


def test_a_transient_stream_on_real_threads_has_no_gap_and_no_duplicate() -> None:
    answer = Answer(tokens=tuple(WORDS), pace=0.005)
    with LoopbackProvider(Script(answer)) as provider, penstock.System(penstock.Settings()) as system:
        stream = system.chat(
            "m", "Hello", provider="loopback", base_url=provider.base_url, options=FAST, restart="transient"
        )
        collector = Collector(stream)
        events = stream.events()
        for _ in range(3):
            next(events)
            kill(system, stream)
        collector.wait_for_terminal(20)
        assert collector.text == TEXT
        assert [event.seq for event in collector.events] == list(range(1, len(collector.events) + 1))


def test_a_providers_reset_is_restarted_over_real_sockets() -> None:
    answer = Answer(tokens=tuple(WORDS))
    script = Script([answer.replace(faults=(ResetAfter(7),)), answer])
    with LoopbackProvider(script) as provider, penstock.System(penstock.Settings()) as system:
        stream = system.chat(
            "m",
            "Hello",
            provider="loopback",
            base_url=provider.base_url,
            request_options=penstock.RequestOptions(on_interrupt="restart", retry_base_delay=0.01),
        )
        collector = Collector(stream)
        assert stream.result(timeout=20).text == TEXT
        collector.wait_for_terminal()
        assert collector.text == TEXT


def test_nothing_is_left_of_a_system_that_was_never_used() -> None:
    with SimulatedSystem() as system:
        assert_nothing_is_left(system)
