"""A system with one provider; a test sees the answers and requests as they are on the wire."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import penstock
from penstock.config.settings import ProviderOptions, Settings
from tests.integration.raw_server import CHUNKED, Peer, RawServer, chunk

__all__ = ["answering"]


@contextmanager
def answering(
    provider: str, encode: Callable[[dict[str, Any]], bytes], *answers: list[dict[str, Any]]
) -> Iterator[tuple[penstock.System, queue.Queue[Any]]]:
    """A system in which ``provider`` gives these answers, one per request, and the bodies of the requests.

    ``encode`` turns an event of an answer into its bytes. A request is sent once.
    """
    waiting: queue.Queue[list[dict[str, Any]]] = queue.Queue()
    for answer in answers:
        waiting.put(answer)
    bodies: queue.Queue[Any] = queue.Queue()

    def serve(peer: Peer) -> None:
        while request := peer.read_request():
            bodies.put(json.loads(request.partition(b"\r\n\r\n")[2]))
            peer.send(CHUNKED)
            for event in waiting.get_nowait():
                peer.send(chunk(encode(event)))
            peer.send(chunk(b""))

    with RawServer(serve) as server:
        options = ProviderOptions(base_url=f"http://localhost:{server.port}", api_key="sk-test-1234567890")  # type: ignore[arg-type]
        once = penstock.RequestOptions(max_retries=0)
        with penstock.System(Settings(providers={provider: options}, request=once)) as system:
            yield system, bodies
