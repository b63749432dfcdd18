"""The NDJSON decoder: complete lines from chunks that are split anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.formats.ndjson import NdjsonDecoder
from penstock.errors import ProtocolError


def lines(*chunks: bytes, limit: int = 1_000) -> list[str]:
    decoder = NdjsonDecoder(limit)
    found = [line for chunk in chunks for line in decoder.feed(chunk)]
    return found + decoder.close()


def test_lines_end_in_lf_or_crlf_and_blank_ones_are_left_out() -> None:
    assert lines(b'{"a":1}\n\n{"b":2}\r\n \r\n{"c":3}\n') == ['{"a":1}', '{"b":2}', '{"c":3}']


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\r", "\x1c"])
def test_nothing_else_ends_a_line(inside: str) -> None:
    assert lines(f'{{"a":"x{inside}y"}}\n'.encode()) == [f'{{"a":"x{inside}y"}}']


def test_a_character_cut_in_two_is_one_character() -> None:
    body = '{"a":"\U0001f30a"}\n'.encode()
    for at in range(len(body)):
        assert lines(body[:at], body[at:]) == ['{"a":"\U0001f30a"}']


def test_broken_utf_8_is_replaced() -> None:
    assert lines(b'{"a":"\xff"}\n') == ['{"a":"\ufffd"}']


def test_a_byte_order_mark_at_the_start_is_taken_off() -> None:
    assert lines(b"\xef\xbb", b'\xbf{"a":1}\n') == ['{"a":1}']
    assert lines(b'\xef\xbb\xbf{"a":1}') == ['{"a":1}']


def test_a_last_line_without_its_end_is_kept_only_where_it_is_whole() -> None:
    assert lines(b'{"a":1}\n{"b":2}') == ['{"a":1}', '{"b":2}']
    assert lines(b'{"a":1}\n[1]  ') == ['{"a":1}', "[1]"]
    for rest in (b'{"b":', b"12", b"null", b'"x"', b"[" * 100_000):
        assert lines(b'{"a":1}\n' + rest, limit=200_000) == ['{"a":1}']


def test_a_closed_decoder_has_nothing_left() -> None:
    decoder = NdjsonDecoder(100)
    decoder.feed(b'{"a":1}')
    assert (decoder.close(), decoder.close()) == (['{"a":1}'], [])


@pytest.mark.parametrize("chunks", [(b"x" * 11 + b"\n",), (b"x" * 6, b"x" * 5), (b"{}\n" + b"x" * 11,)])
def test_a_line_over_the_limit_is_a_protocol_error_complete_or_not(chunks: tuple[bytes, ...]) -> None:
    decoder = NdjsonDecoder(10)
    for chunk in chunks[:-1]:
        decoder.feed(chunk)
    with pytest.raises(ProtocolError, match="10 bytes"):
        decoder.feed(chunks[-1])


def test_the_limit_is_of_one_line_not_of_many() -> None:
    assert len(lines(b'{"a":1}\n' * 50, limit=10)) == 50


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20)), st.data())
def test_lines_are_the_same_however_the_bytes_are_cut(texts: list[str], data: st.DataObject) -> None:
    body = "".join(text + "\n" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    edges = [0, *cuts, len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(edges)]
    assert lines(*pieces) == lines(body)
