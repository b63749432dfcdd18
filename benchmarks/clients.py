"""Different ways to read the same answer; each returns the number of characters it read."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import requests
import sseclient

from benchmarks.peers import PEERS, root_of
from benchmarks.probe import Countdown
from penstock import StreamCompleted, System, TokenEvent
from penstock.actors.runtime.process import Process
from penstock.events import StreamCancelled, StreamFailed

__all__ = ["CLIENTS", "MESSAGES", "Read", "bare_chunks", "open_client"]

Read = Callable[[str], int]
"""Reads the answer of a model to its end and returns its length."""

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Say something."}]


class Reader(Process):
    """Counts the characters of the text it receives."""

    in_pykka_registry = False

    def __init__(self, over: Countdown) -> None:
        super().__init__()
        self.length = 0
        self._over = over

    def on_receive(self, message: Any) -> None:
        if isinstance(message, TokenEvent):
            self.length += len(message.text)
        elif isinstance(message, (StreamCompleted, StreamFailed, StreamCancelled)):
            self._over.report()


def penstock_iterator(system: System, url: str) -> Read:
    """Read by ``for event in system.chat(...)``."""

    def read(model: str) -> int:
        length = 0
        for event in system.chat(model, MESSAGES, base_url=url, api_key="benchmark"):
            if isinstance(event, TokenEvent):
                length += len(event.text)
        return length

    return read


def penstock_actor(system: System, url: str, provider: str = "openai") -> Read:
    """Read by a subscribed actor, with default settings."""
    base_url = url if provider.startswith("openai") else root_of(url)

    def read(model: str) -> int:
        over = Countdown(1)
        reader = system.runtime.spawn(Reader, over)
        stream = system.chat(model, MESSAGES, provider=provider, base_url=base_url, api_key="benchmark")
        stream.subscribe(reader)
        over.wait()
        length: int = reader.proxy().length.get(timeout=5)
        reader.stop()
        return length

    return read


def bare_chunks(session: requests.Session, url: str, model: str, **parameters: Any) -> Any:
    """Yield the chunks of the usual first loop: requests, sseclient-py, json.

    ``SSEClient(response)``, as the page of sseclient-py shows it, makes requests read 128 bytes at a time. This is the
    fastest way, with pieces of 8 KiB.
    """
    body = {"model": model, "messages": MESSAGES, "stream": True} | parameters
    with session.post(f"{url}/chat/completions", json=body, stream=True, timeout=60) as response:
        response.raise_for_status()
        for event in sseclient.SSEClient(cast(Any, response.iter_content(8192))).events():
            if event.data == "[DONE]":
                return
            yield json.loads(event.data)


def bare(system: System, url: str) -> Read:
    """Read by `bare_chunks`."""
    session = requests.Session()

    def read(model: str) -> int:
        length = 0
        for chunk in bare_chunks(session, url, model):
            if chunk["choices"]:
                length += len(chunk["choices"][0]["delta"].get("content") or "")
        return length

    return read


def _peer(name: str, _system: System, url: str) -> Read:
    return PEERS[name](url)


CLIENTS: dict[str, Callable[[System, str], Read]] = {
    "iterator": penstock_iterator,
    "actor": penstock_actor,
    "bare": bare,
    **{f"actor, {name}": partial(penstock_actor, provider=name) for name in PEERS},
    **{f"peer, {name}": partial(_peer, name) for name in PEERS},
}


def open_client(name: str, system: System, url: str) -> Read:
    """Create one of `CLIENTS`, ready to read."""
    return CLIENTS[name](system, url)
