"""The servers of the tests take a client that resets its connection for one that has left."""

import socket
import struct
import threading

from tests.integration.raw_server import PATIENCE, Peer, RawServer

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"


def test_a_client_that_resets_its_connection_has_left() -> None:
    is_reset = threading.Event()
    found: list[object] = []

    def serve(peer: Peer) -> None:
        found.append(peer.read_request())
        found.append(peer.send(b"HTTP/1.1 200 OK\r\n"))
        assert is_reset.wait(PATIENCE)
        found.append(peer.send(b"\r\n"))
        peer.wait_closed()
        found.append(peer.read_request())

    with RawServer(serve) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.sendall(REQUEST)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        is_reset.set()
    assert found == [REQUEST, True, False, b""]
