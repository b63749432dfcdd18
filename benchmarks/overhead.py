"""What a gateway in front of a provider adds to each token: beside LiteLLM's proxy, and beside nothing."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from benchmarks.probe import ProbeError, Result, measure
from benchmarks.provider import serving
from benchmarks.served import counted, post
from benchmarks.stamped_provider import UNSTAMPED
from benchmarks.tables import Row, Samples, Table

__all__ = ["LITELLM", "load", "run"]

LITELLM: Final = Path(__file__).parents[1] / ".litellm" / "bin" / "litellm"
"""LiteLLM's proxy, which ``make bench-litellm`` installs into an environment of its own."""
_MODEL: Final = "paced"
_RATE: Final = 20.0
_STARTING_S: Final = 120.0
_KEY: Final = f"sk-{secrets.token_hex(24)}"  # LiteLLM starts with none but a long one
_BODY: Final = {"model": _MODEL, "messages": [{"role": "user", "content": "Say something."}], "stream": True}


def load(proxy: str, chats: int, seconds: float) -> Result:
    """Stream chats through a proxy: ``"gateway"``, ``"litellm"``, or ``"direct"`` for none.

    Raises:
        ProbeError: the proxy did not start, or a chat got nothing.
    """
    said = {"tokens": [UNSTAMPED], "repeat": int(_RATE * (seconds * 2 + _STARTING_S)), "tokens_per_second": _RATE}
    with serving({_MODEL: said | {"timestamps": True}}, "benchmarks.stamped_provider") as url:
        if proxy == "direct":
            return _measured(urlsplit(url).port or 80, None, chats, seconds)
        with {"gateway": _gateway, "litellm": _litellm}[proxy](url) as (port, process):
            return _measured(port, process, chats, seconds)


def _measured(port: int, process: psutil.Process | None, chats: int, seconds: float) -> Result:
    plan = {
        "port": port,
        "requests": [post("/v1/chat/completions", _BODY, authorization=f"Bearer {_KEY}")],
        "readers": chats,
        "gap": 0.02,  # users do not all come at the same moment
        "settle": seconds / 2,
        "seconds": seconds,
    }

    def cpu() -> float:
        return sum(each.user + each.system for each in (one.cpu_times() for one in _with_children(process)))

    result = counted(plan, cpu)
    result["rss_mb"] = sum(one.memory_info().rss for one in _with_children(process)) / 1024 / 1024
    return result


def _with_children(process: psutil.Process | None) -> list[psutil.Process]:
    """The processes of a proxy: the first one and all that it has started. CPU time and memory are those of all."""
    return [] if process is None else [process, *process.children(recursive=True)]


@contextmanager
def _gateway(url: str) -> Iterator[tuple[int, psutil.Process]]:
    """``penstock serve`` with its default settings."""
    command = [sys.executable, "-m", "penstock", "serve", "--port", "0", "--provider", "openai", "--model", _MODEL]
    command += ["--base-url", url, "--log-level", "error"]
    environment = os.environ | {"OPENAI_API_KEY": "benchmark"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    try:
        port = urlsplit(process.stdout.readline().strip()).port
        if port is None:
            raise ProbeError("penstock serve did not start")
        yield port, psutil.Process(process.pid)
    finally:
        _end(process)
        process.stdout.close()


@contextmanager
def _litellm(url: str) -> Iterator[tuple[int, psutil.Process]]:
    """LiteLLM's proxy with one worker and without a database."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(
            f"model_list:\n  - model_name: {_MODEL}\n    litellm_params:\n      model: openai/{_MODEL}\n"
            f"      api_base: {url}\n      api_key: benchmark\ngeneral_settings:\n  master_key: {_KEY}\n"
        )
        command = [str(LITELLM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        environment.pop("PYTHONPATH", None)
        process = subprocess.Popen(
            [*command, "--telemetry", "False"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        try:
            _await_live(process, f"http://127.0.0.1:{port}/health/liveliness")
            yield port, psutil.Process(process.pid)
        finally:
            _end(process)


def _await_live(process: subprocess.Popen[bytes], url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _STARTING_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with opener.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise ProbeError("LiteLLM's proxy did not start")


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark; without LiteLLM, which is not among the development tools, its figures are left out."""
    chats, seconds = (5, 2.0) if quick else (50, 8.0)
    proxies = ["direct", "gateway", *(["litellm"] if LITELLM.exists() else [])]
    results: dict[str, list[Result]] = {}
    for _ in range(rounds):
        for proxy in proxies:
            result = measure(load, timeout=300.0, proxy=proxy, chats=chats, seconds=seconds)
            results.setdefault(proxy, []).append(result)
    direct = results["direct"]

    def samples(proxy: str, field: str) -> Samples:
        """What a proxy adds to the lateness, or another figure of its own."""
        own = Samples.of(results[proxy], field).values
        if field not in ("p50_ms", "p99_ms"):
            return Samples(own)
        return Samples(tuple(one - bare for one, bare in zip(own, Samples.of(direct, field).values, strict=True)))

    table = Table(
        f"In front of a provider: {chats} chats at {_RATE:g} tokens/s",
        "OpenAI chat completions, streamed: a client, `penstock serve` with its default settings, and the loopback"
        " provider, each in a process of its own. The provider puts the time at which it sends a token into its text;"
        " how late the client gets it, less how late it is without anything between, is what the gateway adds. CPU"
        " time (user and system) and resident memory are those of the gateway's process and of all that it has started;"
        " memory that several of them share counts in each. LiteLLM's proxy has one worker and no database.",
    )
    name = "LiteLLM's proxy" if "litellm" in results else ""
    for what, unit, field in (
        ("added to a token, p50", "ms", "p50_ms"),
        ("added to a token, p99", "ms", "p99_ms"),
        ("CPU a token", "µs", "token_us"),
        ("delivered", f"tokens/s of {chats * _RATE:g}", "rate"),
        ("memory", "MB", "rss_mb"),
    ):
        theirs = samples("litellm", field) if name else None
        table.rows.append(Row(what, unit, samples("gateway", field), None, name, theirs))
    table.rows.append(Row("late without anything between, p50", "ms", Samples.of(direct, "p50_ms")))
    if not name:
        table.remarks.append("**LiteLLM's proxy is not installed**: `make bench-litellm` installs it.")
    return [table]
