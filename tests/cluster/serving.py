"""Processes of ``penstock serve`` as nodes of a cluster, for tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

import penstock
from tests.integration.command import LIMIT, read_until, started

__all__ = ["NodeProcess", "asked", "node_process", "sent_events", "variables_of"]

LEASE = {"PENSTOCK_CLUSTER__LEASE": "1.0", "PENSTOCK_CLUSTER__HEARTBEAT": "0.3", "PENSTOCK_CLUSTER__REAP": "0.2"}


def variables_of(**more: str) -> dict[str, str]:
    """An environment in which the package and redis-py are found, with a short lease."""
    import redis

    root = str(Path(penstock.__file__).parents[1])
    path = os.pathsep.join([root, str(Path(redis.__file__).parents[1])])
    return {"PYTHONPATH": path, **LEASE, **more}


def asked(stream_id: str, policy: str = "restart") -> dict[str, Any]:
    """The body that opens a stream, which goes on without readers; ``policy`` is its ``on_interrupt``."""
    return {
        "stream_id": stream_id,
        "provider": "openai",
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "on_orphan": "continue",
        "request_options": {"on_interrupt": policy},
    }


def sent_events(answer: requests.Response) -> Iterator[dict[str, str]]:
    """Yield the fields of each server-sent event as it comes."""
    event: dict[str, str] = {}
    for line in answer.iter_lines(chunk_size=None):
        name, _, value = line.decode().partition(": ")
        if line:
            event[name] = value
        else:
            yield event
            event = {}


class NodeProcess:
    """A node that serves."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def last_seq(self, stream_id: str) -> int:
        """The number of a stream's last event, as the node knows it."""
        return int(self.get(f"/v1/streams/{stream_id}").json()["last_seq"])

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        return requests.request(method, f"{self.url}{path}", timeout=LIMIT, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        return self.request("POST", path, json=body, **more)


@contextlib.contextmanager
def node_process(
    tmp_path: Path, server_url: str, name: str, *arguments: str, prefix: Sequence[str] = (), **variables: str
) -> Iterator[NodeProcess]:
    """Start a node, and end it with the block. ``prefix``: a command that starts it, such as ``ip netns exec``."""
    command = ["serve", "--port", "0", "--cluster", server_url, "--node", name, *arguments]
    with started(tmp_path, *command, variables=variables_of(**variables), prefix=prefix) as process:
        yield NodeProcess(process, read_until(process, b"\n").decode().strip())
