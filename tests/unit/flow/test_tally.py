"""What an answer takes besides its text: each thing that is kept counts once."""

from __future__ import annotations

import pytest

from penstock.actors.call.answer import OutcomeBuilder
from penstock.actors.call.tally import Tally
from penstock.actors.stream.weights import text_weight
from penstock.events import (
    Citation,
    FrozenDict,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlock,
    ServerToolCall,
    ServerToolResult,
    TokenLogprob,
)
from penstock.ports import (
    BlockDelta,
    ChoiceDelta,
    CitationDelta,
    Delta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningBlockDelta,
    ToolCallFragment,
)

LONG = "x" * 10_000


def counted(*deltas: Delta) -> int:
    builder = OutcomeBuilder()
    for delta in deltas:
        builder.note(delta)
    return builder.size + builder.tally.total


@pytest.mark.parametrize(
    "delta",
    [
        CitationDelta(Citation(kind="url", url=LONG)),
        CitationDelta(Citation(kind="url", id=LONG)),
        CitationDelta(Citation(kind="url", location=FrozenDict({"x": LONG}))),
        EventDelta(MediaPart(kind="image", data=LONG)),
        EventDelta(MediaPart(kind="image", data=LONG, is_partial=True)),
        EventDelta(MediaPart(kind="image", url=LONG)),
        EventDelta(MediaPart(kind="audio", transcript=LONG, is_partial=True)),
        EventDelta(ServerToolCall(id=LONG, name="n")),
        EventDelta(ServerToolResult(id="s", name=LONG)),
        EventDelta(Logprobs(tokens=(TokenLogprob(token=LONG, logprob=-1.0),))),
        ToolCallFragment(index=0, id="c", name="f", signature=LONG),
        ToolCallFragment(index=0, id="c", name="f", arguments=LONG),
        ChoiceDelta(1, ToolCallFragment(index=0, id="c", name="f", signature=LONG)),
        ReasoningBlockDelta(ReasoningBlock(kind="k", text=LONG)),
        ReasoningBlockDelta(ReasoningBlock(kind="k", signature=LONG)),
        ReasoningBlockDelta(ReasoningBlock(kind="k", id=LONG)),
        BlockDelta({"type": "b", "data": [LONG]}),
        MetadataDelta({"timings": {"a": LONG}}),
        FinishDelta("stop", LONG),
    ],
    ids=lambda delta: str(delta)[:60],
)
def test_each_long_field_counts(delta: Delta) -> None:
    assert 9_900 <= counted(delta) < 25_000


def test_raw_events_do_not_count() -> None:
    assert counted(EventDelta(ProviderEvent(type="t", payload=LONG))) == 0


def test_metadata_counts_as_it_is_at_the_end() -> None:
    once = counted(MetadataDelta({"timings": {"n": 1}}))
    assert counted(*(MetadataDelta({"timings": {"n": n}}) for n in range(1000))) == once
    assert counted(MetadataDelta({"a": LONG}), MetadataDelta({"a": ""})) < 1000
    assert counted(MetadataDelta({"a": LONG}), MetadataDelta({"b": LONG})) > 20_000


@pytest.mark.parametrize("identifier", [None, "m"])
def test_previews_count_once_and_no_more_when_the_whole_has_come(identifier: str | None) -> None:
    preview = EventDelta(MediaPart(kind="image", data=LONG, id=identifier, is_partial=True))
    whole = EventDelta(MediaPart(kind="image", data="y" + LONG, id=identifier))
    assert counted(preview) == counted(preview, preview, preview)
    assert counted(preview, preview, whole) == counted(whole)
    assert counted(whole, EventDelta(MediaPart(kind="image", data=LONG + "z"))) > 20_000


def test_a_preview_without_an_id_belongs_to_the_next_whole_one() -> None:
    preview = EventDelta(MediaPart(kind="image", data=LONG, is_partial=True))
    whole = EventDelta(MediaPart(kind="image", data="y" + LONG, id="m"))
    assert counted(preview, whole) == counted(whole)


def test_pieces_of_sound_add_up_until_the_whole_comes() -> None:
    piece = EventDelta(MediaPart(kind="audio", data=LONG, is_partial=True))
    whole = EventDelta(MediaPart(kind="audio", data="y" + LONG))
    assert counted(piece, piece, piece) == 3 * counted(piece)
    assert counted(piece, piece, piece, whole) == counted(whole)


def test_a_picture_that_also_stands_in_a_block_counts_once() -> None:
    whole = EventDelta(MediaPart(kind="image", data=LONG))
    assert counted(whole, BlockDelta({"type": "image_generation_call", "result": LONG})) < counted(whole) + 500


@pytest.mark.parametrize(("size", "again"), [(255, 50 + 255), (256, 8)])
def test_texts_are_known_again_from_256_characters_on(size: int, again: int) -> None:
    text = "x" * size
    whole = EventDelta(MediaPart(kind="image", data=text))
    assert counted(whole, BlockDelta({"result": text})) == counted(whole) + 100 + 50 + again


def test_signed_reasoning_counts_once() -> None:
    text, signature = "t" * 10_000, "s" * 10_000
    block = ReasoningBlockDelta(ReasoningBlock(kind="thinking", text=text, signature=signature))
    returned = BlockDelta({"type": "thinking", "thinking": text, "signature": signature})
    builder = OutcomeBuilder()
    builder.tally.reasoned += len(text)  # said before; counted among the characters
    builder.note(block)
    builder.note(returned)
    assert 10_000 < builder.tally.total < 11_000
    assert 20_000 < counted(block, returned) < 21_000


def test_reasoning_that_was_said_covers_as_much_and_no_more() -> None:
    tally = Tally()
    tally.reasoned = 400
    for _ in range(2):
        tally.reasoning(ReasoningBlock(kind="k", text="t" * 300))
    assert (tally.reasoned, tally.total) == (0, 200 + 4 * 50)


def test_reasoning_that_was_not_said_and_metadata_count_in_full() -> None:
    tally = Tally()
    tally.reasoning(ReasoningBlock(kind="k", text="t" * 300))
    assert tally.total == 300 + 2 * text_weight("")  # of the signature and the id
    before = tally.total
    tally.metadata({"name": "value"})
    assert tally.total - before == text_weight("name") + text_weight("value")


def test_the_same_long_text_counts_again_if_it_came_again() -> None:
    again = "".join(["x"] * 10_000)
    first = CitationDelta(Citation(kind="url", cited_text=LONG))
    second = CitationDelta(Citation(kind="url", cited_text=again))
    assert counted(first, second) == 2 * counted(first)


def test_arguments_that_replace_others_count_in_their_place() -> None:
    pieces = [ToolCallFragment(index=0, id="c", name="f", arguments=LONG), ToolCallFragment(index=0, arguments=LONG)]
    whole = ToolCallFragment(index=0, arguments=LONG + LONG, replaces=True)
    assert counted(*pieces, whole) == counted(*pieces)
    assert counted(*(ChoiceDelta(1, one) for one in (*pieces, whole))) == counted(*pieces)


def test_a_finish_reason_with_every_piece_counts_once() -> None:
    assert counted(*[FinishDelta("stop", LONG)] * 3) == counted(FinishDelta("stop", LONG))


@pytest.mark.parametrize(("size", "weight"), [(0, 0), (100, 0), (101, 1), (1_000, 900)])
def test_the_word_for_a_finish_reason_counts_beyond_a_hundred_characters(size: int, weight: int) -> None:
    assert counted(FinishDelta("stop", "x" * size)) == weight
    assert counted(FinishDelta("stop", "x" * 2_000), FinishDelta("length", "x" * size)) == weight
