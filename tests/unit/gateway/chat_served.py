"""A server on a real socket that answers every request with the frames of a test, heartbeats between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.integration.raw_server import CHUNKED_ONCE, Peer, RawServer, chunk


@contextmanager
def served(frames: Sequence[bytes], *, status: bytes = b"", body: bytes = b"") -> Iterator[str]:
    """Serve ``frames``, each as a chunk of its own; or ``body`` with ``status``. Gives the base URL, without a path."""

    def serve(peer: Peer) -> None:
        if not peer.read_request():
            return
        if status:
            head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            peer.send(head % (status, len(body)) + body)
            return
        for data in (CHUNKED_ONCE, *map(chunk, frames), b"0\r\n\r\n"):
            if not peer.send(data):  # clients close at ``[DONE]``
                return

    with RawServer(serve) as server:
        yield f"http://127.0.0.1:{server.port}"


def with_heartbeats(frames: Sequence[bytes], heartbeat: bytes) -> list[bytes]:
    """The frames with heartbeats before, between and after them."""
    return [heartbeat, *(each for frame in frames for each in (frame, heartbeat))]
