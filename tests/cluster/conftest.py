"""Servers and stores for the tests of faults."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.journals.valkey import ValkeyJournal
from tests.integration.engines import PROGRAMS, Server

ON_DISK = ("--appendonly", "yes", "--appendfsync", "everysec")
Open = Callable[..., ValkeyJournal]


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server of its own for each test, with an append-only file."""
    with Server(tmp_path / "server", request.param, ON_DISK) as running:
        yield running


@pytest.fixture
def open_store(server: Server) -> Iterator[Open]:
    """A function that opens a store on the server, as each node does."""
    with contextlib.ExitStack() as stack:

        def open_one(url: str = "", **how: Any) -> ValkeyJournal:
            return stack.enter_context(ValkeyJournal(url or server.url, **how))

        yield open_one
