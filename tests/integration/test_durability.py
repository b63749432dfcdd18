"""What is left of streams when their process is killed: the table of docs/durability.md, for one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.actors.stream.heads import read_log
from penstock.adapters.journals.sqlite import SqliteJournal
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.settings import Settings
from penstock.events import Event, StreamCompleted, StreamFailed, StreamReset, TokenEvent
from penstock.ports import EMPTY, EntryId, LogFrame, OwnerMark

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

Seen = dict[str, list[tuple[int, str]]]


def seen_in(lines: list[str]) -> Seen:
    """What each reader got: the numbers and texts of its events, by stream."""
    seen: Seen = defaultdict(list)
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[1].isdigit():
            seen[words[0]].append((int(words[1]), words[2]))
    return seen


def run(plan: dict[str, Any], kill_after: int | None = None) -> list[str]:
    """Run the program; kill it after so many lines, or let it end. Returns all its lines."""
    command = [sys.executable, "-m", "tests.integration.durable", json.dumps(plan)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == kill_after:
                process.kill()
        errors = process.stderr.read()
    assert lines, errors
    return lines


@contextmanager
def system_on(path: Path, **how: Any) -> Iterator[penstock.System]:
    with penstock.System(Settings(), journal=SqliteJournal(path, **how)) as system:
        yield system


def texts(events: list[Event]) -> list[tuple[int, str]]:
    """What `tests.integration.durable` writes of the events."""
    return [(event.seq, _shown(event)) for event in events]


def _shown(event: Event) -> str:
    return event.text.strip() if isinstance(event, TokenEvent) else f"<{type(event).__name__}>"


def check_log(events: list[Event]) -> None:
    """The log is 1..n without a gap, and has one terminal event, the last."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    ends = [isinstance(event, (StreamCompleted, StreamFailed)) for event in events]
    assert ends == [False] * (len(events) - 1) + [True]


def stored(path: Path) -> dict[str, list[Event]]:
    """The logs of all streams, as the next process has them."""
    with system_on(path) as system:
        return {name: list(system.stream(name).events(after=0)) for name in ("s0", "s1", "s2")}


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_sync_kill_9_loses_nothing_that_was_delivered(tmp_path: Path, synchronous: str) -> None:
    seen = seen_in(run({"path": str(tmp_path / "a.db"), "durability": "sync", "synchronous": synchronous}, 150))
    logs = stored(tmp_path / "a.db")
    assert sum(map(len, seen.values())) >= 150
    for name, events in logs.items():
        check_log(events)
        end = events[-1]
        assert isinstance(end, StreamFailed)
        assert isinstance(end.error, penstock.StreamInterrupted)
        assert end.partial == "".join(event.text for event in events if isinstance(event, TokenEvent))
        assert seen[name] == texts(events)[: len(seen[name])], name


def test_async_kill_9_loses_two_frames_at_most(tmp_path: Path) -> None:
    """What came before a transaction was done is in the next one: lost only if the next one is not done either."""
    plan = {"path": str(tmp_path / "a.db"), "durability": "async", "pause": 0.002, "tells": True}
    lines = run(plan, 600)
    seen = seen_in(lines)
    done = [index for index, line in enumerate(lines) if line == "STORED\n"]
    assert len(done) >= 2
    old = seen_in(lines[: done[-2]])
    logs = stored(tmp_path / "a.db")
    for name, events in logs.items():
        check_log(events)
        kept = texts(events)[:-1]
        common = min(len(kept), len(seen[name]))
        assert seen[name][:common] == kept[:common]
        assert kept, name
        assert len(seen[name]) - len(kept) < len(seen[name])
        assert old[name]
        assert kept[: len(old[name])] == old[name]
        assert isinstance(events[-1], StreamFailed)


@pytest.mark.parametrize("durability", ["async", "sync"])
@pytest.mark.parametrize("transactions", [1, 2, 5])
def test_kill_9_in_the_middle_of_a_transaction_leaves_whole_frames(
    tmp_path: Path, durability: str, transactions: int
) -> None:
    path = tmp_path / "a.db"
    plan = {"path": str(path), "durability": durability, "transactions": transactions, "tokens": 200}
    command = [sys.executable, "-m", "tests.integration.durable", json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    seen = seen_in(done.stdout.splitlines())
    with system_on(path) as system:
        for name in ("s0", "s1", "s2"):
            try:
                events = list(system.stream(name).events(after=0))
            except penstock.StreamNotFound:
                events = []  # its first transaction was not committed
            if events:
                check_log(events)
            if durability == "sync":
                assert seen[name] == texts(events)[: len(seen[name])]


@pytest.mark.parametrize("durability", ["async", "sync"])
def test_an_ended_stream_is_read_by_id_and_cursor_after_kill_9(tmp_path: Path, durability: str) -> None:
    plan = {"path": str(tmp_path / "a.db"), "durability": durability, "tokens": 20, "then": "die"}
    seen = seen_in(run(plan))
    if durability == "async":  # the end is written within a frame, for which the program did not wait
        plan |= {"path": str(tmp_path / "b.db"), "then": "stop"}
        seen = seen_in(run(plan))
    with system_on(Path(str(plan["path"]))) as system:
        for name in ("s0", "s1", "s2"):
            stream = system.stream(name)
            events = list(stream.events(after=0))
            check_log(events)
            assert isinstance(events[-1], StreamCompleted)
            assert texts(events) == seen[name]
            assert texts(list(system.stream(name).events(after=7))) == seen[name][7:]
            assert stream.result(5).text == "".join(f"t{number}" for number in range(20))
            assert stream.is_over
        with pytest.raises(penstock.StreamNotFound):
            system.stream("none")


def test_memory_keeps_nothing() -> None:
    with penstock.System(Settings()) as system:
        system.open_stream("s").stop()
    with penstock.System(Settings()) as system, pytest.raises(penstock.StreamNotFound):
        system.stream("s")


@pytest.mark.parametrize("durability", ["async", "sync"])
def test_a_full_disk_ends_streams_with_the_stores_error_and_keeps_what_was_written(
    tmp_path: Path, durability: str
) -> None:
    path = tmp_path / "a.db"
    plan = {"path": str(path), "durability": durability, "limit_bytes": 200_000, "streams": 3, "patience": 0.2}
    lines = run(plan)
    failed = [line.split() for line in lines if line.startswith("FAILED")]
    assert sorted(line[1] for line in failed) == ["s0", "s1", "s2"]
    assert {line[2] for line in failed} == {"StoreFull"}
    seen = seen_in(lines)
    for name, events in stored(path).items():
        check_log(events)
        kept = texts(events)[:-1]
        assert seen[name][: len(kept)] == kept


def test_a_directory_that_cannot_be_written_is_reported_when_the_system_starts(tmp_path: Path) -> None:
    missing = tmp_path / "none" / "a.db"
    with pytest.raises(penstock.StoreUnavailable, match="no such directory"):
        penstock.System(Settings.load(store={"path": str(missing)})).start()
    SqliteJournal(tmp_path / "a.db").close()
    with pytest.raises(penstock.StoreReadOnly):
        penstock.System(Settings(), journal=SqliteJournal(tmp_path / "a.db", read_only=True)).start()


def test_a_damaged_log_is_reported_and_the_others_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    plan = {"path": str(path), "durability": "sync", "tokens": 20, "then": "die"}
    run(plan)
    data = path.read_bytes() + (tmp_path / "a.db-wal").read_bytes()
    assert b"t13" in data
    store = SqliteJournal(path)
    store._connection.execute(
        "UPDATE entry SET data = x'00' WHERE log = (SELECT id FROM log WHERE name = 's1') AND seq"
    )
    store.close()
    with system_on(path) as system:
        with pytest.raises(penstock.StoreDamaged):
            system.stream("s1")
        assert isinstance(system.stream("s0").result(5), StreamCompleted)


def test_settings_open_a_store_and_close_it(tmp_path: Path) -> None:
    settings = Settings.load(store={"path": str(tmp_path / "a.db"), "durability": "sync", "synchronous": "FULL"})
    for _ in range(2):
        with penstock.System(settings) as system:
            stream = system.open_stream("s")  # the same id again: the log of the ended stream makes room
            stream.process_token("Hello")
            stream.stop()
            assert stream.result(5).text == "Hello"
    with system_on(tmp_path / "a.db") as system:
        assert [event.seq for event in system.stream("s").events(after=0)] == [1, 2]


# --- agents ----------------------------------------------------------------------------------------------------------

AGENT = """
import sys, os, penstock
from penstock.config.settings import Settings
system = penstock.System(Settings(), journal=penstock.SqliteJournal(sys.argv[1], durability=sys.argv[2])).start()
agent = system.agent("bob", model="m", provider="openai", base_url=sys.argv[3], system_prompt="Be kind.")
for message in ("One", "Two"):
    agent.chat(message)
    agent.history
stream = agent.stream_chat("Three", on_orphan="continue")
for event in stream.events():
    if isinstance(event, penstock.TokenEvent) and "word9" in event.text:
        break
system._services.writer.flush(10)
print("ready", stream.stream_id, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("durability", ["async", "sync"])
def test_an_agents_history_comes_back_with_the_turn_under_way(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "a.db"
    words = "".join(f"word{number} " for number in range(400))
    script = Script([Answer("First."), Answer("Second."), Answer(words, tokens_per_second=200), Answer("Fourth.")])
    with LoopbackProvider(script) as provider:
        command = [sys.executable, "-c", AGENT, str(path), durability, provider.base_url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.startswith("ready"), done.stderr
        stream_id = done.stdout.split()[1]
        how: dict[str, Any] = {"model": "m", "provider": "openai", "base_url": provider.base_url}
        with system_on(path) as system:
            agent = system.agent("bob", **how, system_prompt="Be brief.")
            before = agent.history
            assert [message["content"] for message in before[:6]] == [
                *("Be brief.", "One", "First.", "Two", "Second.", "Three"),
            ]
            assert before[6]["content"].startswith("word0 word1")
            assert len(before) == 7
            end = list(system.stream(stream_id).events(after=0))[-1]
            assert isinstance(end, StreamFailed)
            assert end.partial == before[6]["content"]
            assert agent.chat("Four").text == "Fourth."
            assert not system.agent(None, **how).history
            with pytest.raises(penstock.AgentExists):
                system.agent("bob", **how)
            assert agent.history == (*before, *_turn("Four", "Fourth."))
        with system_on(path) as system:
            assert system.agent("bob", **how).history == (*before[1:], *_turn("Four", "Fourth."))


def _turn(message: str, answer: str) -> tuple[dict[str, str], dict[str, str]]:
    return {"role": "user", "content": message}, {"role": "assistant", "content": answer}


def test_a_history_that_is_set_or_forgotten_is_stored_so(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    how: dict[str, Any] = {"model": "echo", "provider": "loopback"}
    told = [*_turn("A", "a"), *_turn("B", "b"), *_turn("C", "c")]
    with system_on(path) as system:
        agent = system.agent("bob", **how, history=told)
        agent.chat("D")
        assert agent.forget(2) == 2
    with system_on(path) as system:
        agent = system.agent("bob", **how)
        assert agent.history == (*_turn("A", "a"), *_turn("B", "b"))
        agent.history = _turn("E", "e")
        agent.stop()
        assert system.agent("bob", **how).history == _turn("E", "e")


# --- on_interrupt ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["async", "sync"])
def test_a_call_begins_again_behind_a_reset_or_fails_by_on_interrupt(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "a.db"
    words = [f"word{number} " for number in range(400)]
    script = Script([Answer("".join(words), tokens_per_second=200)] * 2 + [Answer("A new answer.")] * 2)
    with LoopbackProvider(script) as provider:
        chats = [
            {"id": name, "model": "m", "provider": "openai", "base_url": provider.base_url, "on_interrupt": policy}
            for name, policy in (("fails", "fail"), ("restarts", "restart"))
        ]
        plan = {"path": str(path), "durability": durability, "streams": 0, "chats": chats, "pause": 0.05}
        seen = seen_in(run(plan, 60))
        with system_on(path, durability=durability) as system:
            failed = list(system.stream("fails").events(after=0))
            stream = system.stream("restarts")
            restarted = list(stream.events(after=0))
            assert stream.result(5).text == "A new answer."
    check_log(failed)
    assert isinstance(failed[-1], StreamFailed)
    assert isinstance(failed[-1].error, penstock.StreamInterrupted)
    check_log(restarted)
    resets = [event for event in restarted if isinstance(event, StreamReset)]
    assert len(resets) == 1
    kept = texts(restarted)[: resets[0].seq - 1]
    common = min(len(kept), len(seen["restarts"]))
    assert common > 5
    assert seen["restarts"][:common] == kept[:common]
    if durability == "sync":
        assert len(kept) >= len(seen["restarts"])
    with SqliteJournal(path) as store:
        marks = [entry.reason for entry in store.read("restarts") if isinstance(entry, OwnerMark)]
        frames = [entry for entry in store.read("restarts") if isinstance(entry, LogFrame)]
        assert marks == ["open", "takeover"]
        assert frames[-1].is_last
        assert not store.held("local")


@pytest.mark.parametrize("durability", ["async", "sync"])
def test_an_answer_that_the_provider_keeps_goes_on_where_the_log_ends(tmp_path: Path, durability: str) -> None:
    """No reset, no token lost or twice, and nothing of another answer; twice in a row."""
    path = tmp_path / "a.db"
    words = [f"word{number} " for number in range(400)]
    script = Script([Answer("".join(words), tokens_per_second=200), Answer("A new answer.")])
    with LoopbackProvider(script) as provider:
        chat = {"id": "c", "model": "m", "provider": "openai", "base_url": provider.base_url, "on_interrupt": "resume"}
        plan = {"path": str(path), "durability": durability, "streams": 0, "pause": 0.05, "tokens": 200}
        seen = seen_in(run({**plan, "chats": [{**chat, "responses": True}]}, 60))["c"]
        again = seen_in(run({**plan, "read": ["c"]}, 120))["c"]
        with system_on(path, durability=durability) as system:
            assert system.stream("c").result(30).text == "".join(words)
        with SqliteJournal(path) as store:
            events = list(read_log("c", store.read("c")).events)
        methods = [request.method for request in provider.requests]
    check_log(events)
    assert methods == ["POST", "GET", "GET"]
    assert not any(isinstance(event, StreamReset) for event in events)
    assert "".join(event.text for event in events if isinstance(event, TokenEvent)) == "".join(words)
    assert min(len(seen), len(again)) > 5
    if durability == "sync":
        kept = texts(events)
        assert seen == kept[: len(seen)]
        assert again == kept[: len(again)]


def test_a_request_that_ends_the_process_each_time_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    script = Script([Answer("word " * 400, tokens_per_second=100)] * 9)
    with LoopbackProvider(script) as provider:
        chat = {"id": "c", "model": "m", "provider": "openai", "base_url": provider.base_url, "on_interrupt": "restart"}
        run({"path": str(path), "durability": "sync", "streams": 0, "chats": [chat], "pause": 0.05}, 5)
        with SqliteJournal(path) as store:
            for _ in range(3):  # three more processes that began it, and died
                store.claim("local", 5, 0.0)
        with system_on(path) as system:
            end = list(system.stream("c").events(after=0))[-1]
    assert isinstance(end, StreamFailed)
    assert isinstance(end.error, penstock.StreamInterrupted)


def test_the_log_of_an_agent_is_no_stream(tmp_path: Path) -> None:
    with penstock.System(Settings(), journal=penstock.SqliteJournal(tmp_path / "a.db")) as system:
        mark = OwnerMark(EntryId(1 << 10, 0), "n")
        assert system._services.writer is not None
        system._services.writer.store.append("agent\x1fbob", EMPTY, mark)
        with pytest.raises(penstock.StreamNotFound):
            system.stream("agent\x1fbob")
