"""The nodes, Valkey and nginx of ``deploy/compose.yaml``, as processes: with its commands and at other ports."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from ruamel.yaml import YAML

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

import penstock
from penstock.actors.stream.heads import read_log
from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.adapters.loopback.ledger import ReceivedRequest
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.config.durations import parse_duration
from penstock.events import StreamCompleted
from penstock.testing import eventually
from tests.cluster.chaos import compared
from tests.cluster.serving import asked, sent_events, variables_of
from tests.integration.command import KEY, LIMIT, PROGRAM, environment, run
from tests.integration.engines import Server, free_port
from tests.integration.gateway.nginx import deployed

DEPLOY = Path(penstock.__file__).parents[1] / "deploy"
COMPOSE: dict[str, Any] = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KEYS = "/var/lib/penstock/keys.jsonl"
WORDS = 160


class Answers:
    """Gives each request its own words, so that a splice of two answers is seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __call__(self, request: ReceivedRequest) -> Answer:
        with self._lock:
            self._count += 1
            number = self._count
        return Answer("".join(f"{number}.{place} " for place in range(WORDS)), tokens_per_second=40)


class Node:
    """A service ``node-…``: the command of the compose file, in an empty folder that it must leave empty."""

    def __init__(self, name: str, folder: Path, places: dict[str, str], provider: str) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._folder.mkdir()
        service = SERVICES[name]
        self._command = [_placed(word, {**places, "--port=8900": f"--port={self.port}"}) for word in service["command"]]
        given = {name: re.sub(r"^\$\{.*\}$", KEY, value) for name, value in service["environment"].items()}
        self._variables = {**given, "PYTHONPATH": variables_of()["PYTHONPATH"], "PENSTOCK_LOG__LEVEL": "critical"}
        self._variables["PENSTOCK_PROVIDERS__OPENAI__BASE_URL"] = provider
        self.patience = parse_duration(service["stop_grace_period"], field="stop_grace_period")
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*PROGRAM, *self._command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(self._folder, **self._variables),
            cwd=self._folder,
        )

    def start_again(self) -> None:
        """As ``restart: unless-stopped`` does."""
        assert self.process.wait(LIMIT)
        self.process = self._start()

    def is_healthy(self) -> bool:
        """By the command of the image."""
        (code,) = re.findall(r'CMD \["python", "-c", "(.*)"\]', (DEPLOY / "Dockerfile").read_text("utf-8"))
        command = [sys.executable, "-c", code.replace(":8900", f":{self.port}")]
        return subprocess.run(command, capture_output=True, timeout=LIMIT, check=False).returncode == 0

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert list(self._folder.iterdir()) == []  # the container's file system is read-only


def _placed(word: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(name, place)
    return word


class Topology:
    """All services, as they run.

    Attributes:
        url: nginx.
        nodes: by name.
        key: of the gateway.
    """

    def __init__(self, url: str, engine: Server, nodes: dict[str, Node], key: str) -> None:
        self.url, self.engine, self.nodes = url, engine, nodes
        self.key = {"authorization": f"Bearer {key}"}

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(f"{self.url}{path}", headers=self.key, timeout=LIMIT, **more)

    def open(self, stream_id: str, policy: str) -> None:
        """Open a stream through nginx, as a client does: again with the same key where a node refuses it."""
        body = asked(stream_id, policy)
        headers = {**self.key, "idempotency-key": stream_id}

        def is_open() -> bool:
            answer = requests.post(f"{self.url}/v1/streams", json=body, headers=headers, timeout=LIMIT)
            assert answer.status_code in (200, 201, 503), answer.text
            return answer.status_code != 503

        eventually(is_open, LIMIT)

    def owners(self) -> dict[str, int]:
        """How many streams each node runs."""
        nodes = self.get("/v1/cluster").json()["nodes"]
        return {node["name"]: node["streams"] for node in nodes if node["is_alive"]}


@contextlib.contextmanager
def topology(tmp_path: Path) -> Iterator[Topology]:
    """Start the services in the order in which they depend on each other."""
    keys = tmp_path / "keys.jsonl"
    assert SERVICES["keys"]["entrypoint"] == ["penstock", "keys"]
    key = run(tmp_path, "keys", "new", str(keys), "--name", "first", "--scope", "admin", "--scope", "write").out.strip()
    program, *settings = SERVICES["valkey"]["command"]
    assert program == "valkey-server"
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(Server(tmp_path / "valkey", "valkey", settings))
        provider = stack.enter_context(LoopbackProvider(Script(Answers()), history=1))
        places = {"redis://valkey:6379": engine.url, KEYS: str(keys)}
        nodes = {}
        for name in ("node-1", "node-2"):
            nodes[name] = Node(name, tmp_path / name, places, provider.base_url)
            stack.callback(nodes[name].close)
        eventually(lambda: all(node.is_healthy() for node in nodes.values()), LIMIT)
        addresses = {f"{name}:8900": node.url for name, node in nodes.items()}
        url = stack.enter_context(deployed(tmp_path / "nginx", (DEPLOY / "nginx.conf").read_text("utf-8"), addresses))
        yield Topology(url, engine, nodes, key)


class Reader:
    """Reads a stream through nginx to its end, and connects again after its last event where it is cut off."""

    def __init__(self, services: Topology, stream_id: str) -> None:
        self.stream_id = stream_id
        self.events: list[tuple[int, str, Any]] = []
        self.cuts = 0
        self._services = services
        self._cursor = ""
        self._until = time.monotonic() + 2 * LIMIT
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1][1] == "end"

    def wait(self) -> None:
        self._thread.join(2 * LIMIT)
        assert self.is_over, (self.stream_id, self.events[-3:])

    def _run(self) -> None:
        while not self.is_over and time.monotonic() < self._until:
            with contextlib.suppress(requests.RequestException):
                self._read()
            self.cuts += not self.is_over

    def _read(self) -> None:
        headers = {**self._services.key, **({"last-event-id": self._cursor} if self._cursor else {})}
        url = f"{self._services.url}/v1/streams/{self.stream_id}/events"
        with requests.get(url, headers=headers, stream=True, timeout=(5, 20)) as answer:
            answer.raise_for_status()
            for event in sent_events(answer):
                if "id" in event:
                    self._cursor = event["id"]
                    number = int(self._cursor.partition("-")[2])
                    self.events.append((number, event["event"], json.loads(event["data"])))
                if self.is_over:
                    return


def faults(services: Topology, readers: Sequence[Reader]) -> list[str]:
    """What readers had that the logs have not, and what is wrong with the logs."""
    with ValkeyJournal(services.engine.url) as store:
        logs = {one.stream_id: read_log(one.stream_id, store.read(one.stream_id)).events for one in readers}
    return [f"{one.stream_id}: {fault}" for one in readers for fault in compared(one.events, logs[one.stream_id])]


def read_all(services: Topology, policies: Sequence[str]) -> list[Reader]:
    """Open and read a stream for each policy, until both nodes run some and each reader has a few events."""
    for number, policy in enumerate(policies):  # nginx asks the nodes in turn while none has a reader
        services.open(f"s{number}", policy)
    readers = [Reader(services, f"s{number}") for number in range(len(policies))]
    eventually(lambda: all(len(one.events) > 3 for one in readers), LIMIT)
    eventually(lambda: all(services.owners().values()), LIMIT)
    return readers


def test_readers_behind_nginx_go_on_when_a_node_is_killed_and_started_again(tmp_path: Path) -> None:
    with topology(tmp_path) as services:
        assert services.get("/ready").status_code == 200
        assert requests.get(f"{services.url}/v1/models", timeout=LIMIT).status_code == 401
        readers = read_all(services, ["restart"] * 6)
        killed = services.nodes["node-1"]
        killed.process.kill()
        assert services.get("/ready").status_code == 200  # the other node has it
        killed.start_again()
        eventually(killed.is_healthy, LIMIT)
        for one in readers:
            one.wait()
        assert faults(services, readers) == []
        assert any(one.cuts for one in readers)
        assert {one.events[-1][2]["type"] for one in readers} == {"StreamCompleted"}
        assert any(name == "reset" for one in readers for _, name, _ in one.events)
        eventually(lambda: sorted(services.owners()) == ["node-1", "node-2"], LIMIT)
        services.open("after", "fail")
        after = Reader(services, "after")
        after.wait()
        assert faults(services, [after]) == []


def test_a_drain_behind_nginx_loses_no_reader_and_ends_with_code_0(tmp_path: Path) -> None:
    with topology(tmp_path) as services:
        readers = read_all(services, ["restart", "fail"] * 3)
        drained, other = services.nodes.values()
        drained.process.send_signal(signal.SIGTERM)
        eventually(lambda: requests.get(f"{drained.url}/ready", timeout=LIMIT).status_code == 503, LIMIT)
        assert drained.is_healthy()  # no reason to replace it
        for _ in range(6):  # whichever node nginx asks first
            assert services.get("/ready").status_code == 200
        services.open("during", "fail")
        readers.append(Reader(services, "during"))
        for one in readers:
            one.wait()
        assert drained.process.wait(drained.patience) == 0
        assert faults(services, readers) == []
        assert {one.events[-1][2]["type"] for one in readers} == {StreamCompleted.__name__}
        assert services.get("/ready").status_code == 200
        assert list(services.owners()) == [other.name]
        assert other.process.poll() is None
