"""A whole system on the store: its streams are read by the next system, on another connection."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import penstock
from penstock.config.options import StreamOptions
from penstock.config.settings import Settings
from penstock.events import StreamCompleted
from penstock.testing import eventually
from tests.cluster.conftest import Open
from tests.integration.engines import Server

DOCUMENT = Path(penstock.__file__).parents[1] / "docs" / "cluster.md"
OPTIONS = StreamOptions(batch_size=1, rate_limit=None)


def _node(system: penstock.System) -> str:
    writer = system._services.writer
    assert writer is not None
    return writer.node


def test_streams_outlive_their_system_and_a_kill_of_the_server(server: Server, open_store: Open) -> None:
    store = open_store()
    with penstock.System(Settings(), journal=store) as system:
        stream = system.open_stream("s", OPTIONS)
        for word in ("one ", "two ", "three "):
            stream.process_token(word)
        eventually(lambda: store.tail("s").seq >= 3)
        server.kill()
        stream.process_token("four")
        server.start()
        stream.stop()
        said = list(stream.events(after=0))
        left = system.open_stream("t", OPTIONS)
        left.process_token("begun")
        eventually(lambda: [claim.request.log for claim in store.held(_node(system))] == ["t"], 20)
    following = open_store()
    with penstock.System(Settings(), journal=following) as system:
        again = list(system.stream("s").events(after=0))
        assert [(event.seq, type(event)) for event in again] == [(event.seq, type(event)) for event in said]
        assert isinstance(again[-1], StreamCompleted)
        assert again[-1].text == "one two three four"
        assert isinstance(list(system.stream("t").events(after=0))[-1], StreamCompleted)
        assert following.view().held == {}


def test_the_code_in_the_document_runs(server: Server) -> None:
    blocks = re.findall(r"^```py\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        code = block.replace("redis://localhost:6379", server.url)
        assert server.url in code
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr
