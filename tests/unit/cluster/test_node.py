"""Any node reads any stream and commands it; a node that dies or hangs loses its streams to another one."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.actors.stream.heads import read_log
from penstock.actors.stream.messages import Cancel, Complete
from penstock.adapters.journals import command_threads
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.cluster import followed
from penstock.cluster import pushes as pushing
from penstock.cluster.orders import answer_of, carry_out
from penstock.cluster.pushes import WaitingPushes
from penstock.config.cluster import ClusterOptions
from penstock.config.settings import Settings
from penstock.events import Event, StreamCancelled, StreamCompleted, StreamFailed, StreamReset, TokenEvent
from penstock.events.codec import encode_value
from penstock.gateway.embedding import Embedded
from penstock.ports import Claim, NodeInfo, Request
from penstock.testing import eventually
from tests.unit.cluster.nodes import EAGER, LEASE, SharedStore, node_of, nodes

WORDS = "".join(f"word{number} " for number in range(400))


@pytest.fixture
def pair() -> Iterator[list[penstock.System]]:
    with nodes(2) as made:
        yield made


def texts(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TokenEvent))


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_stream_of_another_node_is_read_live_from_any_cursor(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER, metadata={"who": "me"})
    stream.process_token("a")
    eventually(lambda: stream._record.log.last_seq == 1)
    follower = two.stream("s")
    assert follower.text == "a"
    assert follower.metadata == {"who": "me"}
    seen: list[Event] = []
    reading = threading.Thread(target=lambda: seen.extend(follower.events(after=0)))
    reading.start()
    stream.process_token("b")
    eventually(lambda: follower.text == "ab")
    assert not follower.is_over
    stream.stop()
    reading.join(10)
    assert [event.seq for event in seen] == [1, 2, 3]
    assert seen == list(stream.events(after=0))
    assert [event.seq for event in follower.events(after=2)] == [3]
    assert follower.result(10).text == "ab"


def test_no_reader_is_ahead_of_the_store(pair: list[penstock.System]) -> None:
    one, _ = pair
    stream = one.open_stream("s", EAGER)
    one._journal.is_cut = True  # type: ignore[union-attr]
    stream.process_token("unstored")
    eventually(lambda: stream._record.log.written == 1)
    assert stream.text == "unstored"  # of the log, not of what readers may have
    assert stream._record.log.last_seq == 0
    one._journal.is_cut = False  # type: ignore[union-attr]
    eventually(lambda: stream._record.log.last_seq == 1)


def test_an_id_is_taken_in_the_whole_cluster(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER)
    with pytest.raises(penstock.StreamExists):
        two.open_stream("s")
    stream.stop()
    eventually(lambda: not node_of(one).store.held(node_of(one).name))
    again = two.open_stream("s", EAGER)
    assert not again.is_over
    again.stop()


# --- commands --------------------------------------------------------------------------------------------------------


def test_commands_reach_the_owner(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER)
    there = two.stream("s")
    there.process_token("pushed")
    eventually(lambda: stream.text == "pushed")
    there.pause()
    assert stream.state == there.state == "paused"
    there.process_tokens(["1", "2"])
    assert there.flush_buffer() == 2
    there.resume()
    assert stream.state != "paused"
    there.set_options(batch_size=7)
    assert stream.options.batch_size == 7
    with pytest.raises(penstock.OptionError):
        there.set_options(batch_size=0)
    there.cancel("enough")
    end = list(there.events(after=0))[-1]
    assert isinstance(end, StreamCancelled)
    assert end.reason == "enough"
    assert there.is_over
    there.cancel()
    with pytest.raises(penstock.StreamClosed):
        there.process_token("late")
    with pytest.raises(penstock.StreamClosed):
        there.pause()


@pytest.mark.parametrize("here", [0, 1])
def test_a_resume_does_the_same_on_every_node(here: int) -> None:
    with LoopbackProvider(Script([Answer("One answer.")])) as provider, nodes(2) as systems:
        how: dict[str, Any] = {"provider": "openai", "base_url": provider.base_url, "on_orphan": "continue"}
        systems[0].open_stream("by-hand", EAGER)
        systems[0].chat("m", "Hello", stream_id="asked", options=EAGER.replace(rate_limit=0.001), **how)
        for name in ("by-hand", "asked"):
            stream = systems[here].stream(name)
            stream.pause()
            owned = systems[0].stream(name)._record
            if name == "by-hand":
                stream.process_tokens(["held ", "back"])
            else:
                stream.set_options(rate_limit=None)
            before = owned.log.last_seq
            assert owned.state == "paused"
            stream.resume()
            if name == "by-hand":
                stream.stop()
            events = list(stream.events(after=0))
            assert isinstance(events[-1], StreamCompleted)
            assert events[-1].text == ("held back" if name == "by-hand" else "One answer.")
            assert not any(isinstance(event, StreamReset) for event in events)
            assert owned.log.last_seq > before
            assert owned.counters.restarts == 0
        assert len(provider.requests) == 1


def test_a_stop_and_a_reset_reach_the_owner(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER)
    stream.process_token("void")
    eventually(lambda: stream.text == "void")
    there = two.stream("s")
    there.reset("again")
    eventually(lambda: stream.text == "")
    there.process_token("new")
    there.stop()
    assert there.result(10).text == "new"


def test_tokens_of_another_node_wait_for_room_no_longer_than_that_node_does(pair: list[penstock.System]) -> None:
    one, _ = pair
    stream = one.open_stream("s", EAGER.replace(max_buffer_size=1, push_timeout=None))
    stream.pause()
    stream.process_token("first")
    order = encode_value({"do": "tokens", "texts": ["second"], "timeout": None, "within": 0.01})
    with ThreadPoolExecutor(1) as pool:
        carried_out = pool.submit(carry_out, stream._record, order, lambda *_: None, WaitingPushes(), 10.0)
        try:
            answer = answer_of("s", carried_out.result(10))
        finally:
            stream.cancel()
    assert isinstance(answer.error, penstock.BufferFull)


def test_pushes_that_wait_for_room_do_not_keep_away_the_order_that_makes_room(
    pair: list[penstock.System], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed, "_PUSH", 60.0)
    one, two = pair
    stream = one.open_stream("s", EAGER.replace(max_buffer_size=1, push_timeout=None))
    stream.pause()
    stream.process_token("0 ")
    there = two.stream("s")
    turns, count = node_of(one)._pushes, 2 * command_threads.OF_ONE_LOG
    with ThreadPoolExecutor(count) as pool:
        pushed = [pool.submit(there.process_tokens, [f"{number} ", "and "]) for number in range(1, count + 1)]
        eventually(lambda: turns._waiting["s"] == pushing._OF_ONE_STREAM)
        try:
            there.resume()
        except BaseException:
            stream.cancel()  # else they would wait on
            raise
        assert [each.result(60) for each in pushed] == [None] * count
    there.stop()
    words = there.result(10).text.split()
    assert sorted(words) == sorted([*(str(number) for number in range(count + 1)), *(["and"] * count)])
    assert not turns._waiting


def test_a_push_to_another_node_says_how_many_tokens_were_taken(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER.replace(max_buffer_size=3))
    stream.pause()
    stream.process_token("first")
    there = two.stream("s")
    for limit, taken in ((0.0, 2), (0.05, 0)):
        with pytest.raises(penstock.BufferFull) as raised:
            there.process_tokens(["a", "b", "c"], limit)
        assert (raised.value.accepted, raised.value.timeout) == (taken, limit)
    stream.set_options(overflow="error")
    eventually(lambda: there.options.overflow == "error")
    with pytest.raises(penstock.BufferFull):
        there.process_tokens(["a", "b", "c"], None)
    stream.cancel()


def test_orders_that_find_no_thread_are_in_the_view(
    pair: list[penstock.System], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    one.open_stream("s", EAGER)
    two.stream("s").pause()
    before = node_of(one).view().commands_refused
    monkeypatch.setattr(command_threads, "OF_ONE_LOG", 0)
    with pytest.raises(penstock.CallTimeout):
        node_of(two).store.command("s", b"", 0.0)
    assert node_of(one).view().commands_refused > before
    one._journal.is_cut = True  # type: ignore[union-attr]
    assert node_of(one).view().commands_refused == 0  # it never raises
    one._journal.is_cut = False  # type: ignore[union-attr]


def test_what_cannot_be_sent_is_refused(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER)
    there = two.stream("s")
    with pytest.raises(penstock.RunsElsewhere):
        there.sink().push_now([("a", "text")], lambda: None)
    with pytest.raises(penstock.RunsElsewhere):
        there.sink().end()
    with pytest.raises(penstock.RunsElsewhere):
        there.update_metadata({"a": 1})
    there.sink().cancel("by the sink")
    assert isinstance(list(stream.events(after=0))[-1], StreamCancelled)


def test_a_command_without_an_owner_fails_after_the_lease(pair: list[penstock.System]) -> None:
    one, two = pair
    one.open_stream("s", EAGER)
    there = two.stream("s")
    node_of(one).is_draining = True
    node_of(two).is_draining = True  # no node takes it over
    record = one._table.get("s")
    eventually(lambda: node_of(one)._served.get(record) is not None)
    registration = node_of(one)._served[record]
    assert registration is not None
    registration.close()
    with pytest.raises(penstock.NoOwner):
        there.pause()


def test_a_stream_is_not_orphaned_while_another_node_reads_it(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER, on_orphan="cancel")
    there = two.stream("s").events(after=0)
    eventually(lambda: stream._record.hub.subscribers == 1)
    own = stream.events(after=0)
    own.close()
    stream.process_token("a")
    eventually(lambda: stream.text == "a")
    assert not stream.is_over
    there.close()
    eventually(lambda: stream.is_over)


# --- death -----------------------------------------------------------------------------------------------------------


def test_the_streams_of_a_node_that_is_gone_fail_or_begin_again() -> None:
    script = Script([Answer(WORDS, tokens_per_second=200), Answer("A new answer.")])
    with LoopbackProvider(script) as provider, nodes(2) as (one, two):
        plain = one.open_stream("plain", EAGER)
        plain.process_token("kept")
        restart = penstock.RequestOptions(on_interrupt="restart")
        how: dict[str, Any] = {"provider": "openai", "base_url": provider.base_url, "on_orphan": "continue"}
        asked = one.chat("m", "Hello", stream_id="asked", request_options=restart, options=EAGER, **how)
        eventually(lambda: asked._record.log.last_seq > 5)
        readers = {name: two.stream(name).events(after=0) for name in ("plain", "asked")}
        one._journal.is_cut = True  # type: ignore[union-attr]
        events = {name: list(reader) for name, reader in readers.items()}
        for found in events.values():
            assert [event.seq for event in found] == list(range(1, len(found) + 1))
        failed = events["plain"][-1]
        assert isinstance(failed, StreamFailed)
        assert isinstance(failed.error, penstock.StreamInterrupted)
        assert failed.partial == "kept"
        ended = events["asked"][-1]
        assert isinstance(ended, StreamCompleted)
        assert ended.text == "A new answer."
        resets = [event for event in events["asked"] if isinstance(event, StreamReset)]
        assert len(resets) == 1
        assert texts(events["asked"][: resets[0].seq - 1]).startswith("word0 word1")
        assert two.stream("asked").result(10).text == "A new answer."
        one._journal.is_cut = False  # type: ignore[union-attr]
        end = list(asked.events(after=0))[-1]
        assert isinstance(end, StreamFailed)
        assert isinstance(end.error, penstock.Fenced)
        assert one.stream("asked").result(10).text == "A new answer."  # the same log, read from the store


def test_a_stream_that_ended_on_a_node_that_was_gone_has_moved_for_its_readers(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER)
    stream.process_token("kept")
    eventually(lambda: stream._record.log.last_seq == 1)
    there, here = two.stream("s").events(after=0), stream.events(after=0)
    one._journal.is_cut = True  # type: ignore[union-attr]
    stream._record.propose(Complete())
    eventually(lambda: stream._record.log.terminal is not None)
    assert isinstance(list(there)[-1], StreamFailed)
    one._journal.is_cut = False  # type: ignore[union-attr]
    events = list(here)
    assert [event.seq for event in events] == [1, 2]
    end = events[-1]
    assert isinstance(end, StreamFailed)
    assert isinstance(end.error, penstock.Fenced)


def test_what_was_set_since_a_stream_was_opened_holds_where_it_is_taken_over() -> None:
    script = Script([Answer(WORDS, tokens_per_second=200), Answer("A new answer.")])
    with LoopbackProvider(script) as provider, nodes(3) as (one, two, three):
        node_of(three).is_draining = True  # it takes nothing over
        restart = penstock.RequestOptions(on_interrupt="restart")
        how: dict[str, Any] = {"provider": "openai", "base_url": provider.base_url, "on_orphan": "cancel"}
        asked = one.chat("m", "Hello", stream_id="s", request_options=restart, options=EAGER, **how)
        there = three.stream("s")
        reader = there.events(after=0)
        eventually(lambda: asked._record.log.last_seq > 3)
        there.set_options(batch_size=7, flush_interval=0.25)
        there._record.remote.send_orphan_policy(60)  # type: ignore[union-attr]
        there.pause()
        eventually(lambda: one._services.writer.waiting == 0)  # type: ignore[union-attr]
        eventually(lambda: there._record.head.is_paused)  # type: ignore[union-attr]
        assert there._record.on_orphan == 60
        assert there.options.batch_size == 7
        one._journal.is_cut = True  # type: ignore[union-attr]
        eventually(lambda: two._table.peek("s") is not None and two._table.get("s").ref is not None)
        record = two._table.get("s")
        eventually(lambda: record.intake.size > 0)  # the new answer waits for the pause's end
        assert record.state == "paused"
        assert record.on_orphan == 60
        assert record.options == EAGER.replace(batch_size=7, flush_interval=0.25)
        assert record.log.text() == ""
        there.resume()
        events = list(reader)
        assert isinstance(events[-1], StreamCompleted)
        assert events[-1].text == "A new answer."
        assert sum(isinstance(event, StreamReset) for event in events) == 1


@pytest.mark.parametrize("on_interrupt", ["restart", "fail"])
def test_metadata_that_was_added_is_in_the_events_of_the_node_that_takes_over(on_interrupt: Any) -> None:
    script = Script([Answer(WORDS, tokens_per_second=200), Answer("A new answer.")])
    with LoopbackProvider(script) as provider, nodes(3) as (one, two, three):
        node_of(three).is_draining = True  # it takes nothing over
        how: dict[str, Any] = {"provider": "openai", "base_url": provider.base_url, "on_orphan": "continue"}
        how |= {"request_options": penstock.RequestOptions(on_interrupt=on_interrupt), "metadata": {"a": 1}}
        asked = one.chat("m", "Hello", stream_id="s", options=EAGER, **how)
        there = three.stream("s")
        reader = there.events(after=0)
        eventually(lambda: asked._record.log.last_seq > 3)
        asked.update_metadata({"b": [2]})
        eventually(lambda: there.metadata == {"a": 1, "b": [2]})
        one._journal.is_cut = True  # type: ignore[union-attr]
        assert isinstance(list(reader)[-1], StreamCompleted if on_interrupt == "restart" else StreamFailed)
        events = there._record.log.kept_after(0)  # as they came, none of them joined
        assert events is not None
        assert events[0].metadata == {"a": 1}
        assert events[-1].metadata == {"a": 1, "b": [2]}
        if on_interrupt == "restart":
            again = [type(event) for event in events].index(StreamReset)
            assert all(event.metadata == {"a": 1, "b": [2]} for event in events[again:])
            assert two.stream("s").metadata == {"a": 1, "b": [2]}
        entries = node_of(three).store.read("s")
        assert [event.metadata for event in read_log("s", entries).events] == [event.metadata for event in events]


def test_a_node_that_was_away_renews_nothing_before_it_has_looked(
    pair: list[penstock.System], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = pair
    node = node_of(one)
    stream = one.open_stream("s", EAGER)
    kept: list[list[str]] = []
    keep = SharedStore.keep

    def noting(self: SharedStore, name: str, requests: Sequence[str]) -> Sequence[str]:
        if name == node.name and threading.current_thread() is threading.main_thread():
            kept.append(list(requests))
        return keep(self, name, requests)

    monkeypatch.setattr(SharedStore, "keep", noting)
    node._beat_at = node._now() - 2 * LEASE
    node._renew(node._now())
    assert kept == []
    node._beat_at = node._now()
    node._renew(node._now())
    assert kept == [["s"]]
    assert not stream.is_over


def test_a_request_that_ends_its_nodes_is_given_up() -> None:
    script = Script([Answer(WORDS, tokens_per_second=50)] * 9)
    with LoopbackProvider(script) as provider, nodes(4, max_deliveries=3) as systems:
        restart = penstock.RequestOptions(on_interrupt="restart")
        how: dict[str, Any] = {"provider": "openai", "base_url": provider.base_url, "on_orphan": "continue"}
        systems[0].chat("m", "Hello", stream_id="s", request_options=restart, options=EAGER, **how)
        reader = systems[3].stream("s").events(after=0)
        left = dict.fromkeys(systems)
        node_of(systems[3]).is_draining = True
        for _ in range(3):
            owner = next(one for one in left if one._table.peek("s") and one._table.get("s").remote is None)
            del left[owner]
            if len(left) == 1:
                node_of(systems[3]).is_draining = False
            owner._journal.is_cut = True  # type: ignore[union-attr]
            eventually(lambda: any(one._table.peek("s") and one._table.get("s").ref for one in left) or _over(left), 20)
        end = list(reader)[-1]
        assert isinstance(end, StreamFailed)
        assert isinstance(end.error, penstock.StreamPoisoned)
        assert end.error.deliveries == 3


def _over(systems: dict[penstock.System, None]) -> bool:
    return any(one._table.peek("s") is not None and one._table.get("s").is_over for one in systems)


def test_a_stream_that_was_cancelled_without_an_owner_is_not_begun() -> None:
    script = Script([Answer(WORDS, tokens_per_second=50)] * 3)
    with LoopbackProvider(script) as provider, nodes(2) as (one, two):
        restart = penstock.RequestOptions(on_interrupt="restart")
        how: dict[str, Any] = {"provider": "openai", "base_url": provider.base_url, "on_orphan": "continue"}
        one.chat("m", "Hello", stream_id="s", request_options=restart, options=EAGER, **how)
        there = two.stream("s")
        record = one._table.get("s")
        eventually(lambda: node_of(one)._served.get(record) is not None)
        registration = node_of(one)._served[record]
        assert registration is not None
        one._journal.is_cut = True  # type: ignore[union-attr]
        registration.close()
        there._record.propose(Cancel("no more"))
        assert isinstance(list(there.events(after=0))[-1], StreamCancelled)
        assert len(provider.requests) == 1


# --- the store -------------------------------------------------------------------------------------------------------


def test_new_streams_are_refused_while_the_store_is_away_and_running_ones_go_on(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER)
    there = two.stream("s")
    one._journal.is_cut = True  # type: ignore[union-attr]
    stream.process_token("buffered")
    with pytest.raises(penstock.StoreUnavailable):
        one.open_stream("t", EAGER)
    one._journal.is_cut = False  # type: ignore[union-attr]
    eventually(lambda: there.text == "buffered")
    eventually(lambda: node_of(one).writer.last_error is None)
    one.open_stream("u", EAGER).stop()
    stream.stop()


def test_an_empty_store_is_filled_again_with_requests_and_logs_also_of_silent_streams() -> None:
    store = SharedStore()
    with nodes(2, store) as (one, two):
        stream = one.open_stream("s", EAGER)
        stream.process_token("a")
        eventually(lambda: stream._record.log.last_seq == 1)
        store._logs.clear()
        store._requests.clear()
        eventually(lambda: store.tail("s").seq == 1)
        eventually(lambda: [claim.request.id for claim in store.held(node_of(one).name)] == ["s"])
        there = two.stream("s")
        assert there.text == "a"
        stream.process_token("b")
        stream.stop()
        assert there.result(10).text == "ab"


def test_a_store_that_comes_back_without_a_streams_end_gets_it_again_and_nothing_begins_anew() -> None:
    """As after a failover to a replica that lags: the log is short, and its request is claimed as before."""
    store = SharedStore()
    with nodes(2, store) as (one, two):
        stream = one.open_stream("s", EAGER)
        stream.process_token("a")
        eventually(lambda: stream._record.log.last_seq == 1)
        before = copy.deepcopy((store._logs["s"], store._requests["s"]))
        stream.process_token("b")
        stream.stop()
        assert stream.result(10).text == "ab"
        eventually(lambda: store.held(node_of(one).name) == [])
        removed = one.open_stream("t", EAGER)
        removed.stop()
        assert removed.result(10)
        for system in (one, two):
            system._journal.is_cut = True  # type: ignore[union-attr]
        eventually(lambda: all(node_of(system)._steady_since is None for system in (one, two)))
        store._logs["s"], store._requests["s"] = before
        store.forget("t")
        assert store.tail("s").seq == 1
        for system in (one, two):
            system._journal.is_cut = False  # type: ignore[union-attr]
        eventually(lambda: store.tail("s").seq == 3)
        eventually(lambda: store.view().held == {})
        assert two.stream("s").result(10).text == "ab"
        assert store.read("t") == []  # what was removed stays so
        assert not stream._record.is_displaced


def test_an_empty_store_gets_the_head_again_of_a_stream_that_was_taken_over() -> None:
    script = Script([Answer(WORDS, tokens_per_second=200), Answer(WORDS, tokens_per_second=200)])
    store = SharedStore()
    with LoopbackProvider(script) as provider, nodes(3, store) as (one, two, three):
        node_of(three).is_draining = True
        restart = penstock.RequestOptions(on_interrupt="restart")
        how: dict[str, Any] = {"provider": "openai", "base_url": provider.base_url, "on_orphan": "continue"}
        one.chat("m", "Hello", stream_id="s", request_options=restart, options=EAGER, metadata={"who": "me"}, **how)
        one._journal.is_cut = True  # type: ignore[union-attr]
        eventually(lambda: two._table.peek("s") is not None and two._table.get("s").ref is not None)
        eventually(lambda: two._table.get("s").log.last_seq > 3)
        store._logs.clear()
        store._requests.clear()
        eventually(lambda: store.tail("s").seq > 3)
        assert three.stream("s").metadata == {"who": "me"}


def test_what_a_response_sets_for_when_its_client_leaves_holds_at_the_owner_and_after_it(
    pair: list[penstock.System],
) -> None:
    one, two = pair
    owned = one.open_stream("s", EAGER, on_orphan="cancel")
    Embedded(owned, "native", None, 30, None, {})
    assert owned._record.on_orphan == 30
    there = two.stream("s")._record
    eventually(lambda: there.on_orphan == 30)  # by the log
    assert read_log("s", node_of(two).store.read("s")).head.on_orphan == 30
    Embedded(two.stream("s"), "native", None, "continue", None, {})
    eventually(lambda: owned._record.on_orphan == "continue")
    eventually(lambda: read_log("s", node_of(two).store.read("s")).head.on_orphan == "continue")
    assert there.on_orphan == "continue"


# --- drain -----------------------------------------------------------------------------------------------------------


def test_a_node_that_is_drained_hands_over_what_can_begin_again() -> None:
    script = Script([Answer(WORDS, tokens_per_second=100), Answer("Elsewhere.")])
    with LoopbackProvider(script) as provider, nodes(2, lease=30.0, heartbeat=0.1) as (one, two):
        restart = penstock.RequestOptions(on_interrupt="restart")
        how: dict[str, Any] = {"provider": "openai", "base_url": provider.base_url, "on_orphan": "continue"}
        asked = one.chat("m", "Hello", stream_id="asked", request_options=restart, options=EAGER, **how)
        plain = one.open_stream("plain", EAGER)
        eventually(lambda: asked._record.log.last_seq > 3)
        reader = two.stream("asked").events(after=0)
        eventually(lambda: len(node_of(two).store.view().nodes) == 2)
        assert node_of(one).drain(10) == 1
        events = list(reader)
        assert isinstance(events[-1], StreamCompleted)
        assert events[-1].text == "Elsewhere."
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        reasons = [entry.reason for entry in node_of(two).store.read("asked") if hasattr(entry, "reason")]
        assert reasons == ["open", "handoff", "takeover"]
        assert not plain.is_over
        plain.stop()


@pytest.mark.parametrize("how_it_goes", ["cut", "drained"])
def test_an_answer_that_the_provider_keeps_goes_on_at_each_further_node(how_it_goes: str) -> None:
    """Two nodes in a row lose it. No reset, no token lost or twice, nothing of another answer."""
    script = Script([Answer(WORDS, tokens_per_second=200), Answer("A new answer.")])
    with LoopbackProvider(script) as provider, nodes(3) as systems:
        resume = penstock.RequestOptions(on_interrupt="resume")
        how: dict[str, Any] = {"provider": "openai", "base_url": provider.base_url, "on_orphan": "continue"}
        last = systems[-1]
        node_of(last).is_draining = True  # it takes nothing over for now
        systems[0].respond("m", "Hello", stream_id="s", request_options=resume, options=EAGER, **how)
        reader = last.stream("s").events(after=0, window=100_000)
        for number, system in enumerate(systems[:-1]):
            eventually(lambda: (found := system._table.peek("s")) and found.ref is not None and found.feed)  # noqa: B023
            record = system._table.get("s")
            before = record.log.last_seq
            eventually(lambda: record.log.last_seq > before + 5, 10)  # noqa: B023
            if number == 1:
                node_of(last).is_draining = False
                node_of(last)._announce()
            if how_it_goes == "drained" and number == 1:
                assert node_of(system).drain(10) == 1
            else:
                system._journal.is_cut = True  # type: ignore[union-attr]
        events = list(reader)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert not any(isinstance(event, StreamReset) for event in events)
        assert texts(events) == WORDS
        assert isinstance(events[-1], StreamCompleted)
        assert events[-1].text == WORDS
        assert [request.method for request in provider.requests] == ["POST", "GET", "GET"]
        for system in systems:
            system._journal.is_cut = False  # type: ignore[union-attr]
            assert WORDS.startswith(texts(list(system.stream("s").events(after=0))))


def test_a_drain_hands_no_stream_to_a_node_that_is_full(caplog: pytest.LogCaptureFixture) -> None:
    script = Script([Answer(WORDS, tokens_per_second=100)] * 4)
    rarely: dict[str, Any] = {"lease": 60, "heartbeat": 20, "reap": 20}
    with LoopbackProvider(script) as provider, nodes(1, **rarely) as (one,):
        restart = penstock.RequestOptions(on_interrupt="restart")
        how: dict[str, Any] = {"provider": "openai", "base_url": provider.base_url, "on_orphan": "continue"}
        streams = [
            one.chat("m", "Hello", stream_id=name, request_options=restart, options=EAGER, **how) for name in "abcd"
        ]
        store = node_of(one).store
        for info in (NodeInfo("full", 5, 5), NodeInfo("roomy", 7, 9), NodeInfo("small", 0, 1)):
            store.announce(info, 60)
        assert node_of(one).drain(10) == 3
        held = {name: len(store.held(name)) for name in ("full", "roomy", "small", node_of(one).name)}
        assert held == {"full": 0, "roomy": 2, "small": 1, node_of(one).name: 1}
        assert "streams_not_handed_over streams=1 of=4" in caplog.text
        kept = [stream for stream in streams if not stream._record.is_displaced]
        assert len(kept) == 1
        assert not kept[0].is_over


def test_a_full_node_takes_over_only_what_it_has_room_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with nodes(1, lease=60, heartbeat=20, reap=20, capacity=3) as (one,):
        node = node_of(one)
        taken: list[tuple[list[str] | None, int]] = []

        def take_over(given: Sequence[Claim] | None = None, limit: int = 50) -> None:
            taken.append((None if given is None else [claim.request.id for claim in given], limit))

        monkeypatch.setattr(node, "take_over", take_over)
        node._steady_since = node._now() - 100
        one.open_stream("a", EAGER)
        for name in ("r", "s", "t"):
            node.store.enqueue(Request(name, name), node.name)
        node._carry_out_own(b"")
        node.reap()
        assert taken == [(["r", "s"], 50), (None, 2)]
        one.open_stream("b", EAGER)
        one.open_stream("c", EAGER)
        node._carry_out_own(b"")
        node.reap()
        node.reap()
        assert len(taken) == 2
        assert caplog.text.count("node_full") == 1


# --- view and options ------------------------------------------------------------------------------------------------


def test_a_node_that_ends_its_streams_leaves_those_of_others_alone(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER)
    own = two.open_stream("own", EAGER)
    there = two.stream("s")
    assert two.cancel_all("enough") == ["own"]
    assert own.is_over
    assert two.drain(0) == {}
    stream.process_token("still")
    eventually(lambda: there.text == "still")
    assert not stream.is_over


def test_the_view_shows_nodes_streams_and_the_store(pair: list[penstock.System]) -> None:
    one, two = pair
    stream = one.open_stream("s", EAGER)
    eventually(lambda: [info.held for info in two.cluster_view().nodes] == [1, 0])
    eventually(lambda: [info.streams for info in two.cluster_view().nodes] == [1, 0])
    view = two.cluster_view()
    assert [info.name for info in view.nodes] == ["n0", "n1"]
    assert [info.is_here for info in view.nodes] == [False, True]
    assert view.is_well
    assert view.engine == "memory"
    two._journal.is_cut = True  # type: ignore[union-attr]
    away = two.cluster_view()
    assert not away.is_well
    assert "cut" in away.problem
    stream.stop()


def test_a_system_that_stops_leaves_the_cluster() -> None:
    store = SharedStore()
    with nodes(1, store) as (one,):
        eventually(lambda: len(store.view().nodes) == 1)
        one.open_stream("s")
    assert store.view().nodes == {}
    assert store.view().held == {}


def test_a_cluster_needs_a_store_that_can_be_shared(tmp_path: Path) -> None:
    with pytest.raises(penstock.OptionError, match=r"cluster\.url"):
        penstock.System(Settings(), cluster=ClusterOptions())
    journal = penstock.SqliteJournal(tmp_path / "a.db")
    with pytest.raises(penstock.OptionError, match="several systems share"):
        penstock.System(Settings(), journal=journal, cluster=ClusterOptions())
    journal.close()
    with pytest.raises(penstock.OptionError):
        penstock.System(Settings()).cluster_view()
