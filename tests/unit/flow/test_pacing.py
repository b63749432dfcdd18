"""The pace of adaptive streams: deadlines, pieces, the formula. And what the buffer makes of a piece."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.actors.stream.buffer import Batch, PartStart, TokenBuffer
from penstock.actors.stream.pacing import TICK, Pacer
from penstock.events import ToolCallStarted

ARRIVALS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 400)), min_size=1, max_size=25)


def shown(pacer: Pacer, arrivals: list[tuple[float, int]]) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """What came when, and what was given when, with ticks that are punctual, as a stream asks."""
    came: list[tuple[float, int]] = []
    given: list[tuple[float, int]] = []
    at = 0.0
    for pause, characters in arrivals:
        at += pause
        came.append((at, characters))
    waiting, left, now = 0, list(came), 0.0
    while waiting or left:
        if not waiting:
            now = max(now, left[0][0])  # woken by the arrival
        while left and left[0][0] <= now:
            waiting += left.pop(0)[1]
        pacer.look(waiting, now)
        piece = pacer.piece(now)
        assert piece <= waiting
        if piece:
            given.append((now, piece))
            pacer.gave(piece)
            waiting -= piece
        now = pacer.ready_at if waiting else now
    return came, given


@given(ARRIVALS, st.floats(0.1, 5))
def test_no_character_is_later_than_the_bound_and_a_tick(arrivals: list[tuple[float, int]], max_lag: float) -> None:
    came, given_ = shown(Pacer(max_lag), arrivals)
    assert sum(count for _, count in came) == sum(count for _, count in given_)
    total = out = 0
    rest = list(given_)
    for at, characters in came:
        total += characters
        last = at
        while out < total:
            last, count = rest.pop(0)
            out += count
        assert last <= at + max_lag + TICK + 1e-9


@given(ARRIVALS)
@example([(1.0, 1), (1.0, 1), (0.96875, 8)])  # the second character is due, and the third one goes with it
def test_a_short_piece_is_only_given_when_its_first_character_is_due(arrivals: list[tuple[float, int]]) -> None:
    came, given_ = shown(Pacer(1.0), arrivals)
    ends, total = {}, 0
    for at, characters in came:
        total += characters
        ends[total] = at
    out = 0
    for now, count in given_:
        if count < 4:
            arrival = next(at for end, at in ends.items() if end > out)
            assert now - arrival >= 0.1 - 2 * TICK - 1e-9
        out += count


@given(ARRIVALS)
def test_at_most_one_piece_is_given_a_tick(arrivals: list[tuple[float, int]]) -> None:
    _, given_ = shown(Pacer(1.0), arrivals)
    times = [now for now, _ in given_]
    assert all(later - earlier >= TICK - 1e-9 for earlier, later in itertools.pairwise(times))


def test_the_horizon_is_a_quarter_longer_than_the_longest_pause_which_is_forgotten() -> None:
    pacer = Pacer(1.0)
    for now in (0.0, 0.4):
        pacer.look(10, now)
        pacer.gave(10)
    assert pacer.horizon == pytest.approx(0.5)
    pacer.look(10, 0.6)
    assert pacer.horizon == pytest.approx(1.25 * 0.4 * math.exp(-0.2 / 4))
    pacer.gave(10)
    pacer.look(10, 9.0)
    assert pacer.horizon == 1.0  # never more than the bound
    assert Pacer(1.0).horizon == 0.1


def test_the_rate_is_that_of_the_last_second_and_right_from_the_start() -> None:
    pacer = Pacer(1.0)
    assert pacer.rate(0.0) == 0.0
    for tick in range(6):
        pacer.look(10, tick * TICK)
        pacer.gave(10)
    assert pacer.rate(5 * TICK) == pytest.approx(300, rel=0.02)
    assert pacer.rate(10.0) < 0.1


def test_a_piece_is_what_the_formula_says() -> None:
    pacer = Pacer(1.0)
    pacer.look(100, 0.0)
    first = pacer.piece(0.0)
    rate = 100 / (1 - math.exp(-TICK))
    assert first == int(rate * TICK + (100 - rate * 0.1 / 2) * TICK / 0.1)
    pacer.gave(first)
    pacer.look(100 - first + 400, 0.4)
    rate = (100 * math.exp(-0.4) + 400) / (1 - math.exp(-0.4 - TICK))
    waiting = 100 - first + 400
    base = waiting / (0.5 / TICK)  # what the deadline of the newest asks
    # 0.4 s without a tick: a late piece is as long as the time since the last one, at most the horizon.
    assert pacer.piece(0.4) >= base
    assert pacer.rate(0.4) == pytest.approx(rate)


def test_the_deadline_is_neared_evenly() -> None:
    pacer = Pacer(1.0)
    pacer.look(4, 0.0)
    pacer.gave(4)
    came = 5.0
    pacer.look(300, came)
    left, tick = 300, 0
    while left:
        now = came + tick * TICK
        pacer.look(left, now)
        piece = pacer.piece(now)
        assert piece + 1 >= int(left / max(1.0, 30.0 - tick))
        assert piece <= 20
        pacer.gave(piece)
        left -= piece
        tick += 1
    assert 15 <= tick <= 31


def test_what_is_gone_without_being_given_is_forgotten() -> None:
    pacer = Pacer(1.0)
    pacer.look(50, 0.0)
    pacer.look(0, 0.01)  # a reset
    assert pacer.waiting == 0
    assert pacer.piece(1.0) == 0
    pacer.look(30, 2.0)
    assert pacer.waiting == 30


# --- what the buffer makes of it -----------------------------------------------------------------------------------


def buffer_of(*items: object) -> TokenBuffer:
    buffer = TokenBuffer(1000)
    for item in items:
        if isinstance(item, str):
            buffer.offer(item)
        elif isinstance(item, tuple) and not isinstance(item, PartStart):
            buffer.offer_kind(item[1], item[0])
        elif isinstance(item, PartStart):
            buffer.start_part(item)
        else:
            buffer.put_event(item)  # type: ignore[arg-type]
    return buffer


def joined(buffer: TokenBuffer) -> list[tuple[str, str]]:
    """The characters that wait, each with its kind."""
    return [(one.kind, letter) for one in buffer.undelivered(0) for letter in one.text]


CALL = ToolCallStarted(id="c", name="f", index=0)


@pytest.mark.parametrize(
    ("items", "border"),
    [
        ((), (0, 0)),
        (("ab", "c"), (0, 3)),
        (("ab", CALL), (2, 0)),
        (("ab", CALL, "cde"), (2, 3)),
        ((("reasoning", "ab"), ("reasoning", "c")), (0, 3)),
        ((("reasoning", "ab"), ("reasoning", "c"), "de"), (2, 2)),
        (("ab", PartStart(1), "cde"), (0, 5)),
        (("ab", CALL, PartStart(1), "cde", ("refusal", "f")), (3, 1)),
    ],
)
def test_borders_are_events_and_changes_of_kind(items: tuple[object, ...], border: tuple[int, int]) -> None:
    assert buffer_of(*items).before_border() == border


@pytest.mark.parametrize(
    ("items", "characters", "portion"),
    [
        (("abcd", "efgh"), 6, (2, 8, 0)),  # half of the second one
        (("abcd", "efgh"), 5, (1, 4, 0)),
        (("a" * 12,), 5, (0, 0, 0)),
        (("a" * 12,), 6, (1, 12, 0)),
        (("a" * 13,), 5, (1, 5, 1)),
        (("a" * 13,), 12, (1, 12, 1)),
        (("a" * 13,), 13, (1, 13, 0)),
        (("abcd", "efghijklmnopqrst", "u"), 9, (2, 9, 1)),
        ((("reasoning", "abcdefghijklmnopqrst"), ("refusal", "uv")), 5, (1, 5, 1)),
        (("abc", "d"), 4, (2, 4, 0)),
        (("abcd", "", "e"), 4, (1, 4, 0)),
        (("abcd", PartStart(1), "efgh"), 8, (2, 8, 0)),
        (("e\u0301" * 10,), 5, (1, 4, 1)),  # not between a letter and its accent
        (("abcd", CALL, "efgh"), 8, (1, 4, 0)),
        ((), 8, (0, 0, 0)),
    ],
)
def test_a_portion_is_whole_tokens_and_a_part_of_a_long_one(
    items: tuple[object, ...], characters: int, portion: tuple[int, int, int]
) -> None:
    buffer = buffer_of(*items)
    before, letters = buffer.size, joined(buffer)
    assert buffer.portion(characters, 0) == portion
    assert buffer.size == before + portion[2]
    assert joined(buffer) == letters
    assert sum(len(token.text) for token in buffer.undelivered(0)[: portion[0]]) == portion[1]
    taken = []
    while (batch := buffer.take(1, 1)) is not None:
        if isinstance(batch, Batch):
            taken += [(batch.kind, letter) for letter in "".join(batch.tokens)]
        buffer.commit()
    assert taken == letters
    assert buffer.size == 0


@given(
    st.lists(st.one_of(st.text(max_size=40), st.tuples(st.just("reasoning"), st.text(max_size=40))), max_size=12),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_no_character_is_lost_or_moved_by_dividing(items: list[object], pieces: list[int]) -> None:
    buffer, whole = buffer_of(*items), buffer_of(*items)
    for piece in pieces:
        tokens, characters, _ = buffer.portion(piece, 0)
        firsts = [(one.kind, one.text) for one in buffer.undelivered(0)[:tokens]]
        assert sum(len(text) for _, text in firsts) == characters

    assert joined(buffer) == joined(whole)


def test_a_full_buffer_gives_half_of_its_tokens() -> None:
    buffer = buffer_of(*["abcd"] * 10)
    assert buffer.portion(0, 5) == (5, 20, 0)
    assert buffer_of(*[""] * 10).portion(0, 5) == (5, 0, 0)
