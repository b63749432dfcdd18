"""``penstock serve --cluster``: real processes on a real server."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import eventually
from tests.cluster.serving import asked, node_process, variables_of
from tests.integration.command import LIMIT, finish, interrupts_not_ignored, read_until, run, started
from tests.integration.engines import Server
from tests.integration.gateway.serving import events_of

SLOW = Answer("".join(f"word{number} " for number in range(300)), tokens_per_second=100)


@pytest.fixture(autouse=True)
def interrupts_are_not_ignored() -> Iterator[None]:
    with interrupts_not_ignored():
        yield


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "server") as running:
        yield running


def provider_of(provider: LoopbackProvider) -> dict[str, str]:
    return {"PENSTOCK_PROVIDERS__OPENAI__BASE_URL": provider.base_url}


def test_a_killed_nodes_streams_go_on_at_another_and_a_drained_one_hands_over(tmp_path: Path, engine: Server) -> None:
    script = Script([SLOW, SLOW, Answer("A new answer."), Answer("Another one.")])
    with LoopbackProvider(script) as provider:
        how = provider_of(provider)
        with (
            node_process(tmp_path, engine.url, "b", **how) as second,
            node_process(tmp_path, engine.url, "a", **how) as first,
        ):
            assert first.post("/v1/streams", asked("restarts")).status_code == 201
            assert first.post("/v1/streams", {"stream_id": "plain"}).status_code == 201
            assert first.post("/v1/streams/plain/tokens", {"text": "kept"}).status_code == 200
            assert first.post("/v1/streams/plain/flush").status_code == 200
            eventually(lambda: second.last_seq("restarts") > 3, 20)
            with ThreadPoolExecutor(2) as pool:
                names = ("restarts", "plain")
                readers = [pool.submit(second.get, f"/v1/streams/{name}/events") for name in names]
                eventually(lambda: [second.get(f"/v1/streams/{name}").json()["readers"] for name in names] == [1, 1])
                first.send(signal.SIGKILL)
                restarted, plain = (events_of(each.result().text) for each in readers)
            assert "reset" in [name for _, name, _ in restarted]
            assert restarted[-1][2]["text"] in ("A new answer.", "Another one.", SLOW.text)
            assert plain[-1][2]["type"] == "StreamFailed"
            assert plain[-1][2]["partial"] == "kept"
            view = second.get("/v1/cluster").json()
            assert [node["name"] for node in view["nodes"] if node["is_alive"]] == ["b"]


def test_a_killed_nodes_answer_goes_on_at_another_if_the_provider_keeps_it(tmp_path: Path, engine: Server) -> None:
    with LoopbackProvider(Script([SLOW, Answer("A new answer.")])) as provider:
        how = provider_of(provider)
        with (
            node_process(tmp_path, engine.url, "b", **how) as second,
            node_process(tmp_path, engine.url, "a", **how) as first,
        ):
            opened = first.post("/v1/streams", {**asked("s", "resume"), "provider": "openai-responses"})
            assert opened.status_code == 201, opened.text
            eventually(lambda: second.last_seq("s") > 3, 20)
            with ThreadPoolExecutor(1) as pool:
                reading = pool.submit(second.get, "/v1/streams/s/events")
                eventually(lambda: second.get("/v1/streams/s").json()["readers"] == 1)
                first.send(signal.SIGKILL)
                events = events_of(reading.result().text)
            assert "reset" not in [name for _, name, _ in events]
            assert events[-1][2]["text"] == SLOW.text
            assert [request.method for request in provider.requests] == ["POST", "GET"]


def test_sigterm_hands_over_and_ends_with_code_0(tmp_path: Path, engine: Server) -> None:
    with LoopbackProvider(Script([SLOW, Answer("Elsewhere.")])) as provider:
        how = provider_of(provider)
        with (
            node_process(tmp_path, engine.url, "b", **how) as second,
            node_process(tmp_path, engine.url, "a", **how) as first,
        ):
            assert first.post("/v1/streams", asked("moves")).status_code == 201
            eventually(lambda: second.last_seq("moves") > 3, 20)
            first.send(signal.SIGTERM)
            assert events_of(second.get("/v1/streams/moves/events").text)[-1][2]["text"] == "Elsewhere."
            assert first.process.wait(LIMIT) == 0


def test_several_workers_serve_one_port_and_are_started_again(tmp_path: Path, engine: Server) -> None:
    command = [
        "serve",
        "--provider",
        "loopback",
        "--port",
        "0",
        "--cluster",
        engine.url,
        "--node",
        "w",
        "--workers",
        "2",
    ]
    with started(tmp_path, *command, variables=variables_of()) as process:
        url = read_until(process, b"\n").decode().strip()

        def nodes() -> dict[str, str]:
            found = requests.get(f"{url}/v1/cluster", timeout=LIMIT).json()["nodes"]
            return {node["name"]: node["node"] for node in found if node["is_alive"]}

        eventually(lambda: sorted(nodes()) == ["w-1", "w-2"], 20)
        before = nodes()
        for number in range(12):  # whichever worker takes each request
            body = {"stream_id": f"s{number}"}
            assert requests.post(f"{url}/v1/streams", json=body, timeout=LIMIT).status_code == 201
            told = requests.post(f"{url}/v1/streams/s{number}/tokens", json={"text": "a", "end": True}, timeout=LIMIT)
            assert told.status_code == 200, told.text
            events = requests.get(f"{url}/v1/streams/s{number}/events", timeout=LIMIT).text
            assert events_of(events)[-1][2]["text"] == "a"
        victim = children(process.pid)[0]
        subprocess.run(["kill", "-9", str(victim)], check=True)
        eventually(lambda: victim not in children(process.pid) and len(children(process.pid)) == 2, 20)
        eventually(lambda: sorted(nodes()) == ["w-1", "w-2"] and nodes() != before, 20)
        process.send_signal(signal.SIGINT)
        done = finish(process)
        assert done.code == 0
        assert "stopped" in done.err


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def test_no_worker_outlives_the_first_process(tmp_path: Path, engine: Server) -> None:
    command = ["serve", "--provider", "loopback", "--port", "0", "--cluster", engine.url, "--workers", "2"]
    with started(tmp_path, *command, variables=variables_of(PENSTOCK_GATEWAY__DRAIN_TIMEOUT="1")) as process:
        read_until(process, b"\n")
        workers = children(process.pid)
        assert len(workers) == 2
        process.kill()
        eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers), 30)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    cases = {
        ("--workers", "2"): "several workers need a server that they share their streams by: add --cluster",
        ("--workers", "2", "--store", "a.db"): "one process writes a SQLite file: leave out --workers",
        ("--node", "a"): "--node names a node of a cluster: add --cluster",
        ("--cluster", "redis://x", "--store", "a.db"): "a cluster keeps its streams in its server",
        ("--cluster", "http://x"): "--cluster: got",
        ("--cluster", ""): "--cluster is empty",
    }
    for arguments, text in cases.items():
        done = run(tmp_path, "serve", *arguments, **variables_of())
        assert done.code == 2, done.err
        assert done.complaint.startswith(text)


def test_a_server_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--port", "0", "--cluster", "redis://127.0.0.1:1", **variables_of())
    assert done.code == 2
    assert "not available" in done.complaint
