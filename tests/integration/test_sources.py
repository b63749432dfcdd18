"""Sources over real sockets and files: HTTP bodies, JSON lines, server-sent events."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import sources
from penstock.testing import eventually
from tests.integration.raw_server import Peer

Answer = Callable[[socket.socket, bytes], None]
OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Serve each connection with ``answer``, which gets the socket and the request's head. Clients may leave."""
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            request = Peer(sock).read_request()
            if request:
                answer(sock, request.partition(b"\r\n\r\n")[0])

    def accept() -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=serve, args=(peer,), daemon=True)
            threads.append(thread)
            thread.start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join(5)
        for thread in threads:
            thread.join(5)


def saying(*pieces: bytes, head: bytes = OK + b"Connection: close\r\n\r\n") -> Answer:
    def answer(peer: socket.socket, _: bytes) -> None:
        for piece in (head, *pieces):
            peer.sendall(piece)

    return answer


LIMITS = penstock.RequestOptions(connect_timeout=5, first_token_timeout=5, idle_timeout=5)


def test_a_body_is_text_in_its_charset_and_its_bytes_are_counted() -> None:
    head = OK + b"Content-Type: text/plain; charset=iso-8859-1\r\nConnection: close\r\n\r\n"
    with server(saying("é".encode("latin-1"), b" ok", head=head)) as url, penstock.System() as system:
        stream = system.stream_from(sources.http_body(url))
        assert stream.result(10).text == "é ok"
        assert stream.statistics().source_bytes == 4
        assert stream.statistics().source_chunks >= 1
    with server(saying(b"\xc3", b"\xa9\xff")) as url, penstock.System() as system:
        stream = system.stream_from(sources.http_body(url))
        assert stream.result(10).text == "é\ufffd"
        assert stream.statistics().replaced == 1


def test_the_request_is_as_asked_for() -> None:
    heads: list[bytes] = []

    def answer(peer: socket.socket, head: bytes) -> None:
        heads.append(head)
        saying(b"ok")(peer, head)

    with server(answer) as url, penstock.System() as system:
        source = sources.http_body(url, "post", headers={"X-Own": "1", "Authorization": "Bearer k"}, body="é")
        assert system.stream_from(source).result(10).text == "ok"
    assert heads[0].startswith(b"POST /x HTTP/1.1\r\n")
    assert b"x-own: 1" in heads[0].lower()
    assert b"authorization: bearer k" in heads[0].lower()
    assert b"content-length: 2" in heads[0].lower()


def reset(peer: socket.socket, _: bytes) -> None:
    peer.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


@pytest.mark.parametrize(
    ("answer", "error", "partial"),
    [
        (saying(b"abc", head=OK + b"Content-Length: 10\r\n\r\n"), penstock.IncompleteStream, "abc"),
        (reset, penstock.IncompleteStream, None),
        (saying(b"no", head=b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n"), penstock.ApiError, ""),
        (lambda peer, head: None, penstock.ProviderError, ""),
    ],
    ids=["length", "reset", "404", "closed"],
)
def test_a_body_that_is_not_whole_fails_the_stream(answer: Answer, error: type[Exception], partial: str | None) -> None:
    with server(answer) as url, penstock.System() as system:
        stream = system.stream_from(sources.http_body(url, request_options=LIMITS))
        with pytest.raises(error) as raised:
            stream.result(10)
        if partial is not None:
            assert raised.value.partial == partial  # type: ignore[attr-defined]


@pytest.mark.parametrize("which", ["first_token", "idle", "total"])
def test_a_server_that_stalls_runs_into_the_limits(which: str) -> None:
    gone = threading.Event()

    def answer(peer: socket.socket, _: bytes) -> None:
        peer.sendall(OK + b"\r\n" + (b"" if which == "first_token" else b"abc"))
        if peer.recv(1) == b"":
            gone.set()

    limits = LIMITS.replace(**{f"{which}_timeout": 0.1})
    with server(answer) as url, penstock.System() as system:
        stream = system.stream_from(sources.http_body(url, request_options=limits))
        with pytest.raises(penstock.ProviderTimeout) as raised:
            stream.result(10)
        assert raised.value.which == which
        assert gone.wait(5)


def test_a_body_without_end_is_limited_and_closed_when_nobody_reads_it() -> None:
    gone = threading.Event()

    def answer(peer: socket.socket, _: bytes) -> None:
        peer.sendall(OK + b"\r\n")
        try:
            while True:
                peer.sendall(b"a" * 1000)
        except OSError:
            gone.set()

    with server(answer) as url, penstock.System() as system:
        stream = system.stream_from(sources.http_body(url, request_options=LIMITS.replace(max_answer_bytes=5_000)))
        with pytest.raises(penstock.ProtocolError):
            stream.result(10)
        assert gone.wait(5)
        gone.clear()
        stream = system.stream_from(sources.http_body(url, request_options=LIMITS))
        with stream.events(slow="block", window=1) as events:
            next(events)
        assert gone.wait(5)
        eventually(lambda: stream.is_over)


# --- JSON lines ----------------------------------------------------------------------------------------------------

LINES = b'\xef\xbb\xbf{"t": "a"}\r\n\n{"x": 1}\n{"t": "\xe2\x80\xa8b"}\n  \n{"t": "c"}'


def test_json_lines_come_from_files_urls_responses_and_iterables(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(LINES)

    class Response:
        def iter_content(self, size: int) -> Iterator[bytes]:
            yield from (LINES[at : at + 7] for at in range(0, len(LINES), 7))

    async def pieces() -> AsyncIterator[bytes]:
        yield LINES[:30]
        yield LINES[30:]

    with server(saying(LINES)) as url, penstock.System() as system:
        many: list[Any] = [path, str(path), url, Response(), [LINES], pieces(), [LINES[:9], LINES[9:]]]
        for one in many:
            stream = system.stream_from(sources.json_lines(one, text="t"))
            assert stream.result(10).text == "a\u2028bc", one
        with path.open() as file:
            assert system.stream_from(sources.json_lines(file, text="t")).result(10).text == "a\u2028bc"
        stream = system.stream_from(sources.json_lines(path, text="t"))
        stream.result(10)
        statistics = stream.statistics()
        assert (statistics.position, statistics.total, statistics.progress) == (len(LINES), len(LINES), 1.0)


@pytest.mark.parametrize(
    "bad", [b"{", b"[1]", b'{"t": "x', b'"x' + b"x" * 1_048_576 + b'"'], ids=["cut", "list", "open", "long"]
)
@pytest.mark.parametrize("is_last", [True, False])
def test_a_bad_line_fails_the_stream_or_is_skipped(bad: bytes, is_last: bool) -> None:
    lines = b'{"t": "a"}\n' + bad + (b"" if is_last else b'\n{"t": "b"}\n')
    pieces = [lines[at : at + 65_536] for at in range(0, len(lines), 65_536)]
    with penstock.System() as system:
        with pytest.raises(penstock.ProtocolError, match=r"^line 2 is ") as raised:
            system.stream_from(sources.json_lines(pieces, text="t")).result(10)
        assert raised.value.partial == "a"
        stream = system.stream_from(sources.json_lines(pieces, text="t", on_bad_line="skip"))
        assert stream.result(10).text == ("a" if is_last else "ab")
        assert stream.statistics().skipped == 1


def test_a_function_finds_the_text_of_a_line() -> None:
    lines = "".join(json.dumps({"n": number}) + "\n" for number in range(3))

    def find(line: Any) -> Any:
        return None if line["n"] == 1 else ([str(line["n"]), "-"], {"custom": line["n"]})

    with penstock.System() as system:
        end = system.stream_from(sources.json_lines([lines], text=find)).result(10)
        assert (end.text, dict(end.metadata)) == ("0-2-", {"custom": 2})


def test_a_file_that_does_not_exist_fails_the_stream(tmp_path: Path) -> None:
    with penstock.System() as system, pytest.raises(penstock.SourceError) as raised:
        system.stream_from(sources.json_lines(tmp_path / "none", text="t")).result(10)
    assert isinstance(raised.value.__cause__, FileNotFoundError)


# --- server-sent events and foreign events -------------------------------------------------------------------------


def test_server_sent_events_are_text_until_done() -> None:
    body = b": hi\n\ndata: a\n\nevent: x\ndata: b\ndata: c\n\ndata: [DONE]\n\ndata: d\n\n"
    wait = threading.Event()

    def answer(peer: socket.socket, head: bytes) -> None:
        assert b"accept: text/event-stream" in head.lower()
        peer.sendall(OK + b"Content-Type: text/event-stream\r\n\r\n" + body)
        wait.wait(10)

    with server(answer) as url, penstock.System() as system:
        assert system.stream_from(sources.sse(url)).result(10).text == "ab\nc"
        source = sources.sse(url, lambda event: f"[{event.event}]")
        assert system.stream_from(source).result(10).text == "[message][x]"
        wait.set()


def test_foreign_events_are_pushed_before_and_after_the_stream_is_opened() -> None:
    handle = sources.from_events(lambda event, context: ([event, "!"], {"custom": context}))
    handle("a", 1)
    with penstock.System() as system:
        stream = system.stream_from(handle)
        handle("b", 2)
        handle.end()
        handle("late", 3)
        end = stream.result(10)
        assert (end.text, dict(end.metadata)) == ("a!b!", {"custom": 2})
        failing = sources.from_events(lambda event, context: event[7])
        stream = system.stream_from(failing)
        failing("a")
        with pytest.raises(penstock.SourceError) as raised:
            stream.result(10)
        assert isinstance(raised.value.__cause__, IndexError)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sources.http_body("ftp://x"),
        lambda: sources.http_body("http://x", "GE T"),
        lambda: sources.json_lines(3, text="t"),
        lambda: sources.json_lines([], text=3),  # type: ignore[arg-type]
        lambda: sources.json_lines([], text="t", on_bad_line="drop"),  # type: ignore[arg-type]
        lambda: sources.sse("http://x", 3),  # type: ignore[arg-type]
        lambda: sources.from_events(3),  # type: ignore[arg-type]
        lambda: sources.text(3),  # type: ignore[arg-type]
        lambda: sources.text("a", by="words"),  # type: ignore[arg-type]
        lambda: sources.text("a", delay=-1),
    ],
)
def test_arguments_that_are_not_allowed_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(penstock.OptionError):
        make()
