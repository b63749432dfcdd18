"""The shelf gives every reader the same text, wherever it begins and however much has been folded."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.events import Event
from penstock.gateway.problems import Problem
from penstock.gateway.projections.frames import Frame, Opening, Projection
from penstock.gateway.shelf import Shelf


class Plain(Projection):
    """``<key seq number text>`` for each piece."""

    name = "plain"

    def feed(self, event: Event) -> list[Frame]:
        raise NotImplementedError

    def delta(self, key: Any, text: str, seq: int, number: int) -> bytes:
        return f"<{key} {seq} {number} {text}>".encode()

    def cut(self, problem: Problem) -> bytes:
        raise NotImplementedError


PLAIN = Plain(Opening(stream_id="s", epoch="e", created=0))
PIECES = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 2), st.integers(1, 40)), min_size=1, max_size=60
)


def frames(pieces: list[tuple[str | None, int, int]]) -> list[Frame]:
    """Frames of one or more letters; the second number is how far ``seq`` goes on."""
    made: list[Frame] = []
    seq = 0
    for number, (key, step, length) in enumerate(pieces):
        seq += step if made else 1
        text = "x" * length if key is None else f"{chr(97 + number % 26)}" * length
        data = b"!" if key is None else PLAIN.delta(key, text, seq, number)
        made.append(Frame(seq, data, key, text if key is not None else "", number))
    return made


def unpacked(data: bytes) -> list[tuple[str, str]]:
    """The texts of a read, by key, in order, with neighbours of one key joined."""
    found: list[tuple[str, str]] = []
    for piece in re.findall(rb"<(\w+) \d+ \d+ (\w*)>|(!)", data):
        key, text = ("!", "") if piece[2] else (piece[0].decode(), piece[1].decode())
        if found and found[-1][0] == key and key != "!":
            found[-1] = (key, found[-1][1] + text)
        else:
            found.append((key, text))
    return found


@given(PIECES, st.integers(50, 400), st.lists(st.integers(1, 7), min_size=1, max_size=9))
def test_every_place_reads_what_follows_it(
    pieces: list[tuple[str | None, int, int]], retain: int, steps: list[int]
) -> None:
    made = frames(pieces)
    shelf = Shelf(PLAIN, retain)
    at = 0
    while at < len(made):  # added in groups, as ticks do
        step = steps[at % len(steps)]
        shelf.add(made[at : at + step])
        at += step
    assert shelf.end == len(made)
    assert shelf.size == sum(len(frame.data) for frame in made)
    for place in range(len(made) + 1):
        rest = unpacked(b"".join(frame.data for frame in made[place:]))
        assert unpacked(shelf.read(place)) == rest
        parts, position, last = b"", place, None
        while position < shelf.end:
            data, position, last = shelf.read_some(position, 30)
            parts += data
        assert unpacked(parts) == rest
        assert (last.seq if last else None) == (made[-1].seq if place < len(made) else None)


@given(PIECES, st.integers(50, 400))
def test_a_cursor_finds_the_place_after_it(pieces: list[tuple[str | None, int, int]], retain: int) -> None:
    made = frames(pieces)
    shelf = Shelf(PLAIN, retain)
    for frame in made:
        shelf.add([frame])
    for seq in range(made[-1].seq + 2):
        assert shelf.after_seq(seq) == sum(frame.seq <= seq for frame in made)
    for number in range(len(made) + 1):
        assert shelf.after_number(number) == min(number + 1, len(made))


@given(PIECES, st.integers(1, 400), st.integers(1, 200))
def test_parts_of_a_bounded_size_are_the_whole(
    pieces: list[tuple[str | None, int, int]], retain: int, limit: int
) -> None:
    shelf = Shelf(PLAIN, retain)
    made = frames(pieces)
    for frame in made:
        shelf.add([frame])
    for start in range(len(made)):
        place, parts = start, []
        while place < shelf.end:
            data, after, last = shelf.read_some(place, limit)
            assert after > place
            assert last is not None
            assert last.seq == made[after - 1].seq
            assert len(data) < limit + 200, "the last frame of a part may go beyond"
            parts.append(data)
            place = after
        assert unpacked(b"".join(parts)) == unpacked(shelf.read(start))


def test_joined_pieces_have_the_last_numbers() -> None:
    shelf = Shelf(PLAIN, 1_000)
    shelf.add([Frame(seq, PLAIN.delta("a", "x", seq, seq + 10), "a", "x", seq + 10) for seq in range(1, 6)])
    assert shelf.read(0) == b"<a 5 15 xxxxx>"
    assert shelf.read(4) == b"<a 5 15 x>"
    assert shelf.read(5) == b""


def test_old_pieces_are_kept_as_their_text_alone() -> None:
    shelf = Shelf(PLAIN, 1_000)
    for seq in range(1, 2_001):
        shelf.add([Frame(seq, PLAIN.delta("a", "word ", seq, seq), "a", "word ", seq)])
    assert len(shelf._frames) < 100
    assert len(shelf._old) == 1


def test_readers_at_the_same_place_get_the_same_bytes_until_there_are_more() -> None:
    shelf = Shelf(PLAIN, 1_000_000)
    shelf.add(frames([("a", 1, 3), ("a", 1, 4), ("b", 1, 2)]))
    first, again = shelf.read_some(0, 1_000), shelf.read_some(0, 1_000)
    assert again[0] is first[0]
    assert shelf.read_some(1, 1_000)[0] != first[0]
    assert shelf.read_some(0, 1)[1] == 1
    shelf.add(frames([("b", 1, 5)]))
    assert shelf.read_some(0, 1_000)[1] == 4
