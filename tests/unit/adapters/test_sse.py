"""The SSE decoder against the cases of public test suites, and against cases that these omit."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.adapters.formats.sse import SseDecoder, SseEvent
from penstock.errors import ProtocolError

CASES = json.loads((Path(__file__).parents[2] / "data" / "sse_cases.json").read_text(encoding="utf-8"))
LIMIT = 1_048_576


def decode(chunks: Iterable[bytes], limit: int = LIMIT) -> tuple[list[SseEvent], SseDecoder]:
    decoder = SseDecoder(limit)
    events: list[SseEvent] = []
    for chunk in chunks:
        events += decoder.feed(chunk)
    return events, decoder


def singly(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def texts(chunks: Iterable[bytes]) -> list[str]:
    return [event.data for event in decode(chunks)[0]]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_case_of_the_public_suites_decodes_as_expected_however_it_is_cut(case: dict[str, Any]) -> None:
    expected = [(event["event"], event["data"], event["id"]) for event in case["expected"]]
    retry = (case.get("retry") or [None])[-1]
    chunks = [base64.b64decode(chunk) for chunk in case["chunks"]]
    body = b"".join(chunks)
    step = max(len(body) // 400, 1)
    cuts = [[body[:at], body[at:]] for at in range(0, len(body), step)]
    for pieces in [chunks, [body], singly(body), *cuts]:
        events, decoder = decode(pieces)
        assert [(event.event, event.data, event.id) for event in events] == expected
        assert decoder.retry_ms == retry


def test_a_cr_at_a_chunks_end_dispatches_at_once_and_its_lf_is_swallowed() -> None:
    decoder = SseDecoder(LIMIT)
    assert [event.data for event in decoder.feed(b"data: a\r\n\r")] == ["a"]
    assert decoder.feed(b"\ndata: b\r") == []
    assert [event.data for event in decoder.feed(b"\n\r\n")] == ["b"]


def test_unicode_line_separators_are_text() -> None:
    body = "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\n\n".encode()
    assert texts([body]) == texts(singly(body)) == ["a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"]


def test_broken_utf8_becomes_the_replacement_character_and_harms_no_other_event() -> None:
    body = b"data: a\n\ndata: \xff\xc3(\n\ndata: \xe2\x82\xac\n\n"
    assert texts([body]) == texts(singly(body)) == ["a", "\ufffd\ufffd(", "\u20ac"]


def test_a_byte_order_mark_is_taken_off_once_at_the_start_only() -> None:
    mark = b"\xef\xbb\xbf"
    assert texts([mark + b"data: a\n\ndata: " + mark + b"b\n\n"]) == ["a", "\ufeffb"]
    assert texts(singly(mark + b"data: a\n\n")) == ["a"]
    assert texts([mark[:2], b"data: a\n\n"]) == []  # an incomplete byte order mark is not one: an unknown field


def test_an_empty_chunk_changes_nothing() -> None:
    assert texts([b"", b"data: a\n", b"", b"\n", b""]) == ["a"]


@pytest.mark.parametrize("cut", [False, True])
def test_comments_are_counted_and_give_no_event(cut: bool) -> None:
    body = b": ping\n\n:\n\n: a\n: b\ndata: x\n: c\n\n: last\n"
    events, decoder = decode(singly(body) if cut else [body])
    assert [event.data for event in events] == ["x"]
    assert decoder.comments == 6


def test_a_comment_is_counted_without_its_blank_line() -> None:
    decoder = SseDecoder(LIMIT)
    for count in (1, 2, 3):
        assert decoder.feed(b": ping\n") == []
        assert decoder.comments == count
    assert [event.data for event in decoder.feed(b"data: x\n\n")] == ["x"]


@pytest.mark.parametrize("cut", [False, True])
def test_an_error_field_line_is_surfaced(cut: bool) -> None:
    body = b'data: a\n\nerror: {"code":500}\n\ndata: b\n\n'
    events, _ = decode(singly(body) if cut else [body])
    assert [(event.event, event.data) for event in events] == [
        ("message", "a"),
        ("error", '{"code":500}'),
        ("message", "b"),
    ]


@pytest.mark.parametrize("cut", [False, True])
def test_a_bare_json_body_behind_events_is_surfaced(cut: bool) -> None:
    error = '{\n  "error": {\n    "code": 429\n  }\n}'
    body = b"data: a\r\n\r\n" + error.replace("\n", "\r\n").encode()
    events, decoder = decode(singly(body) if cut else [body])
    assert [(event.event, event.data) for event in [*events, *decoder.close()]] == [("message", "a"), ("json", error)]
    assert decode([body + b"\n\n"])[0] == [*events, SseEvent("json", error)]


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        (b"data: [DONE]", ["[DONE]"]),
        (b"data: [DONE]\r", ["[DONE]"]),
        (b'data: {"a":1}', ['{"a":1}']),
        (b'event: x\ndata: {"a":1}\n', ['{"a":1}']),
        (b'data: {"a":\ndata: 1}', ['{"a":\n1}']),
        (b'error: {"a":1}', ['{"a":1}']),
        (b'data: {"a":1', []),
        (b'data: {"a":1}\ndata: {', []),
        (b"data: 12", []),
        (b"data: [DON", []),
        (b"data: text\n", []),
        (b"data", []),
        (b"\xef\xbb", []),
        (b": ping", []),
        (b"", []),
    ],
)
def test_closing_tells_the_unterminated_last_block_only_where_it_cannot_have_been_cut(
    rest: bytes, told: list[str]
) -> None:
    events, decoder = decode([b"data: a\n\n", rest])
    assert [event.data for event in events] == ["a"]
    assert [event.data for event in decoder.close()] == told
    assert decoder.close() == []


@pytest.mark.parametrize("step", [1, 7, 1_000, 100_000])
def test_an_event_over_the_limit_is_a_protocol_error_complete_or_not(step: int) -> None:
    fits, over = b"data: " + b"x" * 900 + b"\n\n", b"data: " + b"x" * 1_100 + b"\n\n"
    body = fits * 5
    assert len(decode([body[at : at + step] for at in range(0, len(body), step)], 1_000)[0]) == 5
    with pytest.raises(ProtocolError, match="longer than 1000 bytes"):
        decode([(fits + over)[at : at + step] for at in range(0, len(fits + over), step)], 1_000)


@pytest.mark.parametrize("step", [16, 2**20])
def test_many_lines_in_one_event_are_joined_in_linear_time(step: int) -> None:
    lines = 400_000  # quadratic time exceeds the test's time-out
    body = b"event: e\n" + b"data: x\n" * lines + b"id: 7\n\n"
    events, _ = decode([body[at : at + step] for at in range(0, len(body), step)], 2**30)
    assert events == [SseEvent("e", "\n".join("x" * lines), "7")]


def test_the_repr_shows_no_text() -> None:
    assert repr(SseEvent("message", "secret")) == "SseEvent(event='message', chars=6)"


LINES = st.sampled_from(
    [b"data: x", b"data:{", b"data", b"event: e", b"id: 1", b"id", b"retry: 5", b": c", b"error: 1", b"\xff", b"{", b""]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(LINES, ENDS)), st.data())
def test_cutting_never_changes_what_is_told(lines: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    body = b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    whole, one = decode([body])
    cut, other = decode(pieces)
    assert cut == whole
    assert (one.comments, one.retry_ms, one.last_event_id) == (other.comments, other.retry_ms, other.last_event_id)
    assert one.close() == other.close()


class BySseclient(SseDecoder):
    """Has sseclient-py parse every block, also those of the two usual forms."""

    def _plain_events(self, blocks: bytes, ends: int, types: int) -> list[SseEvent]:
        return self._events(blocks)


def by_sseclient(chunks: Iterable[bytes]) -> list[SseEvent]:
    decoder = BySseclient(LIMIT)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.close()


def by_ours(chunks: Iterable[bytes]) -> list[SseEvent]:
    events, decoder = decode(chunks)
    return events + decoder.close()


CORPUS = sorted((Path(__file__).parents[2] / "corpus").glob("*/*.sse"))


def test_what_is_split_here_is_what_sseclient_makes_of_it_for_every_recording() -> None:
    assert len(CORPUS) > 100
    for recording in CORPUS:
        body = recording.read_bytes()
        assert by_ours([body]) == by_sseclient([body]), recording.name


def test_it_is_so_wherever_a_recording_is_cut() -> None:
    for form in (b"data: ", b"event: "):
        body = next(body for path in CORPUS if (body := path.read_bytes()).startswith(form) and 500 < len(body) < 3_000)
        expected = by_sseclient([body])
        assert len(expected) > 1
        for at in range(len(body) + 1):
            assert by_ours([body[:at], body[at:]]) == expected


PIECES = st.one_of(
    st.sampled_from(
        [b"data: ", b"data:", b"event: ", b"event:", b"\n", b"\n\n", b" ", b":", b"{", b"[DONE]", b"id: 1\n", b"\xff"]
    ),
    st.sampled_from([b"data: x\n\n", b"event: e\ndata: x\n\n", b"data: \n\n", b"event: \ndata: x\n\n", b"data:x\n\n"]),
    st.sampled_from(["\u2028".encode(), "\x85".encode(), b"\x0b", b"\x0c", b"\x1c", b"\x00", b"\xef\xbb\xbf", b"\r"]),
    st.binary(max_size=4),
)


@settings(max_examples=1_000, deadline=None)
@given(st.lists(PIECES, max_size=12), st.data())
def test_it_is_so_for_any_bytes(pieces: list[bytes], data: st.DataObject) -> None:
    body = b"".join(pieces)
    at = data.draw(st.integers(0, len(body)))
    assert by_ours([body[:at], body[at:]]) == by_sseclient([body])
