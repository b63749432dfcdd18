"""The framing of answers without I/O: heads and bodies cut at every place, broken ones, and their limits."""

from __future__ import annotations

import http.client
import io
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.http.framing import Body, ChunkedBody, HeadCollector, LengthBody, UntilCloseBody, body_of

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def collect(data: bytes, size: int) -> tuple[bytes, bytes]:
    """The head and what follows it."""
    collector = HeadCollector()
    came = list(pieces(data, size))
    for place, piece in enumerate(came):
        rest = collector.feed(piece)
        if rest is not None:
            return collector.head, rest + b"".join(came[place + 1 :])
    raise AssertionError("the head has no end")


# --- heads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\nLink: y\r\n\r\n" * 3])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_head_ends_at_its_empty_line_however_it_is_cut(size: int, interim: bytes, end: bytes) -> None:
    head = (interim + HEAD).replace(b"\r\n", end)
    assert collect(head + b"data: x\n\n", size) == (head, b"data: x\n\n")


def test_a_hundred_interim_answers_are_left_out_and_one_more_is_for_the_parser_to_refuse() -> None:
    interim = b"HTTP/1.1 103 X\r\n\r\n"
    assert collect(interim * 100 + HEAD, 50)[0] == interim * 100 + HEAD
    head, rest = collect(interim * 101 + HEAD, 50)
    assert (head, rest) == (interim * 101, HEAD)


def test_switching_protocols_is_a_final_answer() -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    assert collect(head + b"x", 100) == (head, b"x")


@pytest.mark.parametrize("garbage", [b"SSH-2.0", b"\r\n", b"<html>", b"HTTQ/1.1 200 OK"])
def test_what_is_no_head_is_passed_to_the_parser_without_waiting_for_more(garbage: bytes) -> None:
    collector = HeadCollector()
    assert collector.feed(garbage) == b""
    assert collector.head == garbage


@pytest.mark.parametrize("part", [b"H", b"HTTP", b"HTTP/1.1 200 OK\r\nA: b\r\n"])
def test_the_beginning_of_a_head_waits_for_more(part: bytes) -> None:
    assert HeadCollector().feed(part) is None


def test_a_line_that_is_too_long_is_passed_to_the_parser() -> None:
    collector = HeadCollector()
    assert collector.feed(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 65_530) is None
    assert collector.feed(b"x" * 10) == b""


def test_a_head_is_limited_though_its_lines_are_short() -> None:
    collector = HeadCollector()
    collector.feed(b"HTTP/1.1 200 OK\r\n")
    for _ in range(4):
        assert collector.feed(b"X: x\r\n" * 10_000) is None
    with pytest.raises(http.client.LineTooLong):
        collector.feed(b"X: x\r\n" * 10_000)


# --- bodies --------------------------------------------------------------------------------------------------------


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def read(body: Body, data: bytes, size: int) -> bytes:
    return b"".join(body.feed(piece) for piece in pieces(data, size))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(1, 60), st.sampled_from([b"\r\n", b"\n"]))
def test_a_chunked_body_is_the_same_however_it_is_cut(chunks: list[bytes], size: int, end: bytes) -> None:
    wire = (
        b"".join(b"%x;ext=1%s%s%s" % (len(each), end, each, end) for each in chunks) + b"0" + end + b"T: u" + end + end
    )
    body = ChunkedBody()
    assert read(body, wire, size) == b"".join(chunks)
    assert (body.over, body.surplus) == (True, False)
    body.close()


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6), st.data())
def test_whole_chunks_one_by_one_are_read_as_any_others(chunks: list[bytes], data: st.DataObject) -> None:
    body = ChunkedBody()
    for each in chunks:
        wire = chunk(each)
        cut = data.draw(st.integers(0, len(wire)))
        assert body.feed(wire[:cut]) + body.feed(wire[cut:]) == each
    assert body.feed(b"0\r\n\r\n") == b""
    assert body.over


@pytest.mark.parametrize(
    "wire", [b"2\r\nabX\r\n", b"2\r\nab\r\nX\r\n", b"-2\r\nab\r\n", b"\r\n2\r\nab\r\n", b"zz\r\n", b"2 \r\nabc\r\n"]
)
@pytest.mark.parametrize("size", [1, 100])
def test_broken_chunks_are_an_incomplete_body(wire: bytes, size: int) -> None:
    with pytest.raises(http.client.IncompleteRead):
        read(ChunkedBody(), wire, size)


@pytest.mark.parametrize("wire", [b"", b"2\r\na", b"2\r\nab", b"2\r\nab\r\n", b"0\r\n", b"0\r\nT: u\r\n"])
def test_a_chunked_body_that_breaks_off_is_incomplete(wire: bytes) -> None:
    body = ChunkedBody()
    body.feed(wire)
    with pytest.raises(http.client.IncompleteRead):
        body.close()


def test_a_size_line_without_an_end_is_refused() -> None:
    body = ChunkedBody()
    assert body.feed(b"1" * 65_536) == b""
    with pytest.raises(http.client.LineTooLong):
        body.feed(b"1")


@pytest.mark.parametrize("size", [1, 2, 100])
def test_bytes_after_the_end_are_no_part_of_the_body(size: int) -> None:
    for body, wire in (
        (ChunkedBody(), chunk(b"ab") + b"0\r\n\r\n"),
        (LengthBody(2), b"ab"),
    ):
        assert read(body, wire + b"HTTP/1.1 400", size) == b"ab"
        assert (body.over, body.surplus) == (True, True)


def test_a_body_of_a_known_length_ends_there_and_not_before() -> None:
    body = LengthBody(3)
    assert (body.feed(b"ab"), body.over) == (b"ab", False)
    with pytest.raises(http.client.IncompleteRead) as caught:
        body.close()
    assert caught.value.expected == 1
    assert (body.feed(b"c"), body.over) == (b"c", True)
    body.close()
    assert LengthBody(0).over


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    body = UntilCloseBody()
    assert (body.feed(b"ab"), body.over) == (b"ab", False)
    body.close()
    assert body.over


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"Transfer-Encoding: chunked", ChunkedBody),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3", ChunkedBody),
        (b"Content-Length: 3", LengthBody),
        (b"Content-Length: -3", UntilCloseBody),
        (b"X: y", UntilCloseBody),
    ],
)
def test_the_framing_is_what_http_client_makes_of_the_head(head: bytes, kind: Callable[[], Any]) -> None:
    whole = io.BytesIO(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
    response = http.client.HTTPResponse(SimpleNamespace(makefile=lambda _: whole))  # type: ignore[arg-type]
    response.begin()
    assert type(body_of(response)) is kind
