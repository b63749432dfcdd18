"""A node of a cluster in a process of its own: ``python -m benchmarks.clustered_node '{"do": "push", …}'``.

It prints a line of JSON when its streams are open, waits for a line on standard input, and then does what it is to do:
see `push` and `call`. It ends when its standard input is closed, so it cannot outlive the process that started it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.probe import Meter
from benchmarks.served import Client
from penstock import StreamOptions, System
from penstock.config.cluster import ClusterOptions
from penstock.config.options import RequestOptions
from penstock.config.settings import ProviderOptions, Settings

__all__ = ["EACH", "names", "node", "options_of"]

EACH = StreamOptions(batch_size=1, rate_limit=None)
"""Each token is an event."""
_ROOT = Path(__file__).parents[1]
_PATIENCE_S = 30.0


def names(streams: int) -> list[str]:
    """The ids of so many streams."""
    return [f"s{number}" for number in range(streams)]


def options_of(url: str, name: str, lease: float) -> ClusterOptions:
    """The options of a node; the heartbeat and the reaper have the usual share of the lease."""
    return ClusterOptions(url=url, node=name, lease=lease, heartbeat=lease / 3, reap=lease / 6)


@contextlib.contextmanager
def node(**plan: Any) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """Run a node within this block; it is killed at its end."""
    command = [sys.executable, "-m", "benchmarks.clustered_node", json.dumps(plan)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Client(process.stdout, process.stdin), process
    finally:
        process.kill()
        process.wait(_PATIENCE_S)
        process.stdin.close()
        process.stdout.close()


def _say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def _cpu_of(thread: threading.Thread | None) -> float:
    """The CPU time of a thread so far, in seconds; 0 where that cannot be asked."""
    if thread is None or thread.ident is None or sys.platform in ("win32", "darwin"):
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def push(url: str, streams: int, tokens: int, gap: float) -> None:
    """Push ``tokens`` tokens into each of ``streams`` streams; says what that took until all is stored.

    Args:
        url: of the server; empty: the streams are in memory alone.
        streams: how many.
        tokens: for each stream. The text of each is the time at which it is pushed.
        gap: seconds between two tokens, of whichever streams; 0: as fast as it goes.
    """
    cluster = options_of(url, "writer", 3.0) if url else None
    never = threading.Event()
    with System(Settings(), cluster=cluster) as system:
        opened = [system.open_stream(name, EACH, on_orphan="continue") for name in names(streams)]
        writer = system._services.writer
        before = writer.store.statistics().appends if writer is not None else 0
        _say(at="open")
        sys.stdin.readline()
        thread = next((one for one in threading.enumerate() if one.name == "penstock-store"), None)
        spent = _cpu_of(thread)
        began = due = time.perf_counter()
        with Meter() as meter:
            for _ in range(tokens):
                for stream in opened:
                    stream.process_token(f"{time.time():.6f} ")
                    due += gap
                    if gap and (early := due - time.perf_counter()) > 0:
                        never.wait(early)
            for stream in opened:
                stream.stop()
            for stream in opened:
                stream.result(_PATIENCE_S)
        wall = time.perf_counter() - began
        appends = writer.store.statistics().appends - before if writer is not None else 0
        _say(at="stored", cpu=meter.cpu, wall=wall, appends=appends, storing=_cpu_of(thread) - spent)
        sys.stdin.read()


def call(url: str, streams: int, lease: float, base_url: str) -> None:
    """Have a provider answer on ``streams`` streams, which another node may begin again."""
    settings = Settings(providers={"openai": ProviderOptions(base_url=base_url)})
    again = RequestOptions(on_interrupt="restart")
    with System(settings, cluster=options_of(url, "owner", lease)) as system:
        for name in names(streams):
            how: dict[str, Any] = {"provider": "openai", "stream_id": name, "options": EACH, "request_options": again}
            system.chat("slow", [{"role": "user", "content": "Hi"}], on_orphan="continue", **how)
        _say(at="open")
        sys.stdin.read()


if __name__ == "__main__":
    _plan = json.loads(sys.argv[1])
    if _plan.pop("do") == "push":
        push(**_plan)
    else:
        call(**_plan)
