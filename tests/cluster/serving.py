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

__all__ = ["NodeProcess", "node_process", "variables_of"]

LEASE = {"PENSTOCK_CLUSTER__LEASE": "1.0", "PENSTOCK_CLUSTER__HEARTBEAT": "0.3", "PENSTOCK_CLUSTER__REAP": "0.2"}


def variables_of(**more: str) -> dict[str, str]:
    """An environment in which the package and redis-py are found, with a short lease."""
    import redis

    root = str(Path(penstock.__file__).parents[1])
    path = os.pathsep.join([root, str(Path(redis.__file__).parents[1])])
    return {"PYTHONPATH": path, **LEASE, **more}


class NodeProcess:
    """A node that serves."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

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
