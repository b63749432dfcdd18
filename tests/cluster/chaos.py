"""Chaos: nodes serve streams while they, their server and the network fail in every way; then everything is compared.

``python -m tests.cluster.chaos --seconds 600 --nodes 3 --streams 300 --seed 1`` (``make chaos``). Clients open streams
at random nodes and read them from random nodes, and connect again after their last event's id wherever they are cut
off. The provider never gives the same answer twice, so that a splice of two answers is seen. At the end each log is
1..n with one terminal event, and every reader has had a run of it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

from penstock.actors.stream.heads import read_log
from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.adapters.loopback.ledger import ReceivedRequest
from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.events import Event, StreamCancelled, StreamCompleted, StreamFailed, StreamReset, TokenEvent
from tests.cluster.clocks import WallClock
from tests.cluster.failover import Pair
from tests.cluster.proxy import Proxy
from tests.cluster.serving import NodeProcess, asked, node_process, sent_events, variables_of
from tests.integration.engines import Server

__all__ = ["FAULTS", "Chaos", "Client", "compared"]

LEASE = 1.0
_TERMINAL = (StreamCompleted, StreamFailed, StreamCancelled)
_numbers = itertools.count(1)
_TOLD = ("state", "last_seq", "is_over", "readers", "runs", "owner", "error")
_pause = threading.Event().wait  # seconds
_any = random.Random()  # what clients and answers draw from, which no seed repeats


def unlike_any(request: ReceivedRequest) -> Answer:
    """An answer that no other request gets: each word names the answer and its place in it."""
    number = next(_numbers)
    words = "".join(f"{number}.{place} " for place in range(_any.randint(20, 80)))
    return Answer(words, tokens_per_second=_any.choice((10, 20, 40)))


class Client:
    """Opens a stream, and reads it to its end, wherever it is served."""

    def __init__(self, chaos: Chaos, name: str, policy: str) -> None:
        self.name = name
        self.policy = policy
        self.events: list[tuple[int, str, Any]] = []  # number, name, data
        self.refusals: Counter[str] = Counter()
        self.is_gone = False  # the store was emptied after its end
        self.is_open = False
        self.place = ""  # the node that it reads from
        self._chaos = chaos
        self._epoch = ""

    def run(self) -> None:
        chaos = self._chaos
        while not chaos.is_late and not self.is_open:
            self._try(self._open)
        while not chaos.is_late and not self.is_over and not self.is_gone:
            self._try(self._read)

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1][1] == "end"

    def _try(self, step: Callable[[NodeProcess], None]) -> None:
        try:
            step(self._chaos.some_node())
        except (requests.RequestException, OSError) as error:
            self.refusals[type(error).__name__] += 1
            _pause(0.1)

    def _open(self, node: NodeProcess) -> None:
        body = asked(self.name, self.policy)
        url = f"{node.url}/v1/streams"
        answer = requests.post(url, json=body, headers={"idempotency-key": self.name}, timeout=10)
        if answer.status_code in (200, 201) or answer.json().get("error", {}).get("code") == "stream_exists":
            self.is_open = True
            return
        self.refusals[f"{answer.status_code} {answer.json().get('error', {}).get('code')}"] += 1
        _pause(0.1)

    def _read(self, node: NodeProcess) -> None:
        self.place = node.url
        headers = {"last-event-id": f"{self._epoch}-{self.events[-1][0]}"} if self.events else {}
        url = f"{node.url}/v1/streams/{self.name}/events"
        with requests.get(url, headers=headers, stream=True, timeout=(5, 20)) as answer:
            if answer.status_code == 404 and self._chaos.was_emptied:
                self.refusals["404"] += 1
                self.is_gone = self.refusals["404"] > 30
                _pause(0.1)
                return
            if answer.status_code != 200:
                self.refusals[str(answer.status_code)] += 1
                _pause(0.1)
                return
            for event in sent_events(answer):
                self._note(event)
                if self.is_over:
                    return

    def _note(self, event: dict[str, str]) -> None:
        if event.get("event") == "gap":  # the store has lost what was read, and says so
            self.refusals["gap"] += 1
            self.events.clear()
        if "id" in event:
            self._epoch, _, number = event["id"].partition("-")
            self.events.append((int(number), event["event"], json.loads(event["data"])))


class Node(NamedTuple):
    """A node that runs.

    Attributes:
        process: that serves.
        link: its way to the server; None if it asks Sentinels where that is.
        clock: its wall clock.
        stack: what ends with it.
    """

    process: NodeProcess
    link: Proxy | None
    clock: WallClock
    stack: contextlib.ExitStack


class Chaos:
    """One run.

    Args:
        folder: for the server's files.
        seconds: for which streams are opened and faults made.
        nodes: how many.
        streams: how many in all.
        seed: of the faults.
        faults: which, of `FAULTS`; empty: all.
        plan: these instead, one after the other.
        between: seconds between two faults, about.
        patience: seconds for all to end afterwards.
        has_sentinels: the server is a primary with a replica, and the faults are of `FAILOVERS` or `ANYWHERE`.
        durability: of the nodes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        nodes: int = 3,
        streams: int = 300,
        seed: int = 0,
        faults: Sequence[str] = (),
        plan: Sequence[str] = (),
        between: float = 2.0,
        patience: float = 60.0,
        has_sentinels: bool = False,
        durability: str = "async",
    ) -> None:
        self.clients = [
            Client(self, f"s{number}", ("restart", "fail", "resume")[number % 3]) for number in range(streams)
        ]
        self.was_emptied = False
        self.is_late = False
        self.done: Counter[str] = Counter()
        self._folder = folder
        self._seconds = seconds
        self._count = nodes
        self._random = random.Random(seed)
        self._faults = list(faults or (FAILOVERS if has_sentinels else {**ANYWHERE, **ALONE}))
        self._plan = list(plan)
        self._between = between
        self._patience = patience
        self._has_sentinels = has_sentinels
        self._durability = durability
        self._lock = threading.Lock()
        self._nodes: dict[str, Node] = {}

    def some_node(self) -> NodeProcess:
        """One of the nodes, whether or not it works."""
        with self._lock:
            if not self._nodes:
                raise OSError("there is none now")
            return _any.choice(list(self._nodes.values())).process

    def run(self) -> list[str]:
        """Run it; returns what was wrong."""
        with (
            self._serving(),
            LoopbackProvider(Script(unlike_any), history=1) as self._provider,
        ):
            try:
                for number in range(self._count):
                    self._start(f"n{number}")
                threads = self._clients_run()
                self._make_faults()
                return self._end(threads)
            finally:
                self.is_late = True
                for name in list(self._nodes):
                    self._kill(name)

    @contextlib.contextmanager
    def _serving(self) -> Iterator[None]:
        if self._has_sentinels:
            with Pair(self._folder / "pair") as self._pair:
                self._url = self._pair.url
                yield
            return
        settings = ("--appendonly", "yes", "--appendfsync", "everysec")
        with Server(self._folder / "server", settings=settings) as self._server:
            self._url = self._server.url
            yield

    def _clients_run(self) -> list[threading.Thread]:
        threads = [threading.Thread(target=client.run, daemon=True) for client in self.clients]

        def begin() -> None:
            for thread in threads:
                thread.start()
                _pause(self._seconds * 0.9 / len(threads))

        threading.Thread(target=begin, daemon=True).start()
        return threads

    def _end(self, threads: Sequence[threading.Thread]) -> list[str]:
        until = time.monotonic() + self._patience
        while time.monotonic() < until and not all(thread.ident and not thread.is_alive() for thread in threads):
            _pause(0.1)
        for client in self.clients:
            if client.is_open and not client.is_over and not client.is_gone:
                self._tell_of(client)
        self.is_late = True
        for thread in threads:
            if thread.ident:
                thread.join(30)
        with ValkeyJournal(self._url, patience=20.0) as store:
            return [f"{client.name}: {fault}" for client in self.clients for fault in self._compared(store, client)]

    def _tell_of(self, client: Client) -> None:
        """Print what the nodes say of a stream whose reader waits."""
        for name, (node, _, _, _) in self._nodes.items():
            mark = "*" if node.url == client.place else ""
            with contextlib.suppress(requests.RequestException, ValueError):
                found = requests.get(f"{node.url}/v1/streams/{client.name}", timeout=5).json()
                print(
                    "WAITS", client.name, client.events[-1:], name + mark, {k: found.get(k) for k in _TOLD}, flush=True
                )

    def _compared(self, store: ValkeyJournal, client: Client) -> list[str]:
        if not client.is_open:
            return [f"was never opened: {dict(client.refusals)}"]
        entries = store.read(client.name)
        if not entries and self.was_emptied:
            return compared(client.events, None, is_whole=False)
        try:
            log = read_log(client.name, entries).events
        except ValueError as error:
            return [str(error)]
        return compared(client.events, log, is_whole=not client.is_gone)

    # --- nodes and faults ----------------------------------------------------------------------------------------

    def _start(self, name: str) -> None:
        stack = contextlib.ExitStack()
        link = None if self._has_sentinels else stack.enter_context(Proxy(self._server.port))
        clock = WallClock(self._folder / f"clock-{next(_numbers)}")
        stack.callback(clock.close)
        variables = {
            "PENSTOCK_PROVIDERS__OPENAI__BASE_URL": self._provider.base_url,
            "PENSTOCK_GATEWAY__DRAIN_TIMEOUT": "20",
            "PENSTOCK_LOG__LEVEL": "critical",
            "PENSTOCK_CLUSTER__DURABILITY": self._durability,
            **clock.variables(variables_of()["PYTHONPATH"]),
        }
        url = self._url if link is None else link.url
        node = stack.enter_context(node_process(self._folder, url, name, **variables))
        with self._lock:
            self._nodes[name] = Node(node, link, clock, stack)

    def _kill(self, name: str) -> None:
        with self._lock:
            node = self._nodes.pop(name)
        node.process.process.kill()
        node.stack.close()

    def _some(self) -> Node:
        """One of the nodes, as the seed says."""
        return self._random.choice(list(self._nodes.values()))

    def _make_faults(self) -> None:
        until = time.monotonic() + self._seconds
        planned = iter(self._plan)
        while time.monotonic() < until:
            _pause(self._between * self._random.uniform(0.5, 1.5))
            fault = next(planned, None) if self._plan else self._random.choice(self._faults)
            if fault is not None:
                self.done[fault] += 1
                print(f"{time.monotonic() - until + self._seconds:6.1f} s {fault}", flush=True)
                FAULTS[fault](self)

    def kill(self) -> None:
        """A node dies, and another process of that name is started."""
        name = self._random.choice(list(self._nodes))
        self._kill(name)
        self._start(name)

    def freeze(self) -> None:
        """A node stands still for longer than the lease, and comes back."""
        node = self._some().process
        node.send(signal.SIGSTOP)
        _pause(LEASE * self._random.uniform(1.5, 3))
        node.send(signal.SIGCONT)

    def drain(self) -> None:
        """A node is shut down in order, and started again."""
        name = self._random.choice(list(self._nodes))
        with self._lock:
            node = self._nodes.pop(name)
        node.process.send(signal.SIGTERM)
        node.process.process.wait(60)
        node.stack.close()
        self._start(name)

    def restart(self) -> None:
        """The server dies, and comes back on its disk."""
        self._server.kill()
        _pause(self._random.uniform(0.2, 1.5))
        self._server.start()
        _pause(3 * LEASE)

    def empty(self) -> None:
        """The server dies, and comes back empty. Its nodes live, and write what runs again."""
        _pause(3 * LEASE)  # what runs has a living owner: losing both may lose what was read
        self.was_emptied = True
        self._server.kill()
        self._server.empty()
        self._server.start()
        _pause(3 * LEASE)

    def jump(self) -> None:
        """The wall clock of a node jumps, by up to a day in either direction."""
        self._some().clock.jump(self._random.choice((-1, 1)) * 10 ** self._random.uniform(0, 4.9))

    def cut(self) -> None:
        """The network between a node and the server is cut, one way or both, for less or more than the lease."""
        link = self._some().link
        assert link is not None
        to_server, to_client = self._random.choice(((True, False), (False, True), (True, True)))
        link.cut(to_server=to_server, to_client=to_client)
        _pause(LEASE * self._random.uniform(0.3, 3))
        link.heal()

    def lose(self) -> None:
        """Some answers to a node are lost: appends, claims, what else it asks."""
        link = self._some().link
        assert link is not None
        link.lose_answers(self._random.randint(1, 5), b"FCALL")

    def busy(self) -> None:
        """The server is busy with a script of another program, for less or more than the lease."""
        with self._server.client() as client, self._server.client() as other:
            client.config_set("busy-reply-threshold", "10")
            with busy_server(other):
                _pause(LEASE * self._random.uniform(0.3, 3))
                client.script_kill()

    def fill(self) -> None:
        """The server is full, for less or more than the lease."""
        with self._server.client() as client:
            client.config_set("maxmemory", "1")
            _pause(LEASE * self._random.uniform(0.3, 3))
            client.config_set("maxmemory", "0")

    def load(self) -> None:
        """The server dies, and takes long to load its files, while it says so."""
        self._server.kill_to_load(self._random.randint(1_000, 20_000))
        self._server.start()
        _pause(3 * LEASE)

    def fail_over(self) -> None:
        """The primary dies, and Sentinels promote a replica that lags."""
        self._pair.fail_over(self._random.uniform(0.0, 1.5))
        _pause(3 * LEASE)


ANYWHERE: dict[str, Callable[[Chaos], None]] = {
    "kill": Chaos.kill,
    "freeze": Chaos.freeze,
    "drain": Chaos.drain,
    "jump": Chaos.jump,
}
"""Faults of nodes."""
ALONE: dict[str, Callable[[Chaos], None]] = {
    "restart": Chaos.restart,
    "empty": Chaos.empty,
    "cut": Chaos.cut,
    "lose": Chaos.lose,
    "busy": Chaos.busy,
    "fill": Chaos.fill,
    "load": Chaos.load,
}
"""Faults of one server, and of the ways to it."""
FAILOVERS: dict[str, Callable[[Chaos], None]] = {
    "failover": Chaos.fail_over,
    "freeze": Chaos.freeze,
    "drain": Chaos.drain,
    "jump": Chaos.jump,
}
"""Where there are Sentinels. No node dies: where it does so in a failover, what had been read may be lost."""
FAULTS: dict[str, Callable[[Chaos], None]] = {**ANYWHERE, **ALONE, **FAILOVERS}


@contextlib.contextmanager
def busy_server(client: Any) -> Iterator[None]:
    """Have a server run a script that ends only when it is killed, which the block must do."""
    import redis

    def loop() -> None:
        with contextlib.suppress(redis.RedisError):
            client.eval("while true do end", 0)

    looping = threading.Thread(target=loop)
    looping.start()
    yield
    looping.join(30)


# --- the checker -----------------------------------------------------------------------------------------------------


def compared(had: Sequence[tuple[int, str, Any]], log: Sequence[Event] | None, *, is_whole: bool = True) -> list[str]:
    """What is wrong with what a reader had, and with the log; empty if nothing is.

    Args:
        had: the number, name and data of each event; pieces of text may be joined.
        log: all events of the final log; None: it is gone.
        is_whole: whether the reader must have had the end.
    """
    found = [] if log is None else [*_faults_of_log(log)]
    numbers = [number for number, _, _ in had]
    if numbers != sorted(set(numbers)):
        found.append(f"the reader's numbers do not grow: {numbers}")
    if is_whole and not (had and had[-1][1] == "end"):
        found.append(f"the reader had no end: {had[-1:]}")
    found += _splices(_texts_had(had).values())
    if log is None:
        return found
    texts = _texts(log)
    for number, text in _texts_had(had).items():
        if number not in texts:
            found.append(f"the reader had event {number}, which the log has not")
        elif texts[number] != text:
            found.append(f"at event {number} the reader had {text[-30:]!r}, and the log has {texts[number][-30:]!r}")
    if is_whole and had and had[-1][0] != len(log):
        end = f"{type(log[-1]).__name__} {getattr(log[-1], 'error', '')!r}" if log else "none"
        found.append(f"the reader's end is event {had[-1][0]} of {len(log)}, which ends with {end}")
    return found


def _faults_of_log(log: Sequence[Event]) -> list[str]:
    found = []
    if [event.seq for event in log] != list(range(1, len(log) + 1)):
        found.append("the log has a hole")
    ends = [isinstance(event, _TERMINAL) for event in log]
    if not log or ends != [False] * (len(log) - 1) + [True]:
        found.append(f"the log has {sum(ends)} ends, and ends with {type(log[-1]).__name__ if log else None}")
    texts = list(_texts(log).values())
    last = log[-1] if log else None
    if isinstance(last, StreamCompleted) and last.text != texts[-1]:
        found.append("the whole text is not that of the events")
    return found + _splices(texts)


def _splices(texts: Any) -> list[str]:
    """Texts that are not the words of one answer, in order."""
    for text in texts:
        words = [word.split(".") for word in text.split(" ")[:-1]]  # the last one may be cut
        answers = {word[0] for word in words}
        if len(answers) > 1 or [int(word[1]) for word in words] != list(range(len(words))):
            return [f"a splice: {text[:200]!r}"]
    return []


def _texts(log: Sequence[Event]) -> dict[int, str]:
    """The text since the last reset, after each event."""
    text, found = "", {}
    for event in log:
        if isinstance(event, StreamReset):
            text = ""
        elif isinstance(event, TokenEvent):
            text += event.text
        found[event.seq] = text
    return found


def _texts_had(had: Sequence[tuple[int, str, Any]]) -> dict[int, str]:
    text, found = "", {}
    for number, name, data in had:
        if name == "reset":
            text = ""
        elif name == "token":
            text += data["text"]
        elif name == "snapshot":
            text = data["text"]
        found[number] = text
    return found


def main(arguments: Sequence[str]) -> int:
    """Run it from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--seed", type=int, default=_any.randrange(10**6))
    parser.add_argument("--faults", nargs="*", choices=list(FAULTS), default=[])
    parser.add_argument("--sentinels", action="store_true", help="a primary with a replica that lags, and failovers")
    parser.add_argument("--durability", choices=["async", "sync"], default="async")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(
            Path(folder),
            seconds=given.seconds,
            nodes=given.nodes,
            streams=given.streams,
            seed=given.seed,
            faults=given.faults,
            has_sentinels=given.sentinels,
            durability=given.durability,
        )
        wrong = chaos.run()
    refusals = sum((client.refusals for client in chaos.clients), Counter())
    resets = sum(name == "reset" for client in chaos.clients for _, name, _ in client.events)
    ends = Counter(client.events[-1][2]["type"] if client.is_over else "none" for client in chaos.clients)
    print(f"seed {given.seed}; faults {dict(chaos.done)}; ends {dict(ends)}; resets {resets}; met {dict(refusals)}")
    for fault in wrong:
        print("WRONG", fault)
    print(f"{len(chaos.clients)} streams, {len(wrong)} faults found")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
