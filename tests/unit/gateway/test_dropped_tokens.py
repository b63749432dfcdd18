"""Tokens that a stream has dropped: every protocol says how many an answer lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest

from penstock.events import Event, StreamCompleted, StreamReset, StreamSnapshot, TokenEvent
from penstock.gateway.projections.frames import Projection
from penstock.gateway.protocols import PROTOCOLS
from tests.judges.cases import numbered
from tests.unit.gateway.reading import fed, opening

HEARD = TokenEvent("s", 0, ("Hi",), "Hi", "text", 0.0, {})
LACKS = msgspec.structs.replace(HEARD, dropped=2)
END = StreamCompleted(stream_id="s", seq=0, text="HiHi", dropped=1)
WHOLE = StreamCompleted(stream_id="s", seq=0, text="HiHi")
KINDS = ("openai", "responses", "anthropic", "ui", "agui")


def projected(name: str, *events: Event) -> Projection:
    projection = PROTOCOLS[name].projection(opening())
    projection.told = fed(projection, numbered(events))  # type: ignore[attr-defined]
    return projection


def said(name: str, *events: Event) -> list[int]:
    """The numbers of dropped tokens that the frames tell."""
    frames = projected(name, *events).told  # type: ignore[attr-defined]
    found = []
    for line in b"".join(frame.data for frame in frames).decode().splitlines():
        if line.startswith("data: {"):
            found += list(_counts(msgspec.json.decode(line[len("data: ") :])))
    return found


def _counts(data: Mapping[str, Any]) -> Iterable[int]:
    told = data.get("response", data)
    if isinstance(own := told.get("penstock"), dict):
        yield own["dropped"]
    if data.get("type") == "data-penstock-dropped":
        yield data["data"]["tokens"]
    if data.get("name") == "penstock.dropped":
        yield data["value"]["tokens"]


@pytest.mark.parametrize("name", KINDS)
def test_the_end_says_how_many_tokens_were_dropped(name: str) -> None:
    assert said(name, HEARD, LACKS, END) == [3]
    assert said(name, LACKS, WHOLE) == [2], "before the first frame"
    assert said(name, HEARD, HEARD, WHOLE) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_snapshot_says_how_many_were_dropped_of_all_that_it_replaces(name: str) -> None:
    snapshot = StreamSnapshot("s", 0, ("HiHi",), "HiHi", "text", 0.0, {}, 2)
    assert said(name, LACKS, snapshot, END) == [3]
    other = StreamSnapshot("s", 0, ("Ho",), "Ho", "text", 0.0, {}, 4)
    if name not in ("openai", "anthropic"):  # which cannot take text back, and end with an error
        assert said(name, LACKS, other, END) == [5]


@pytest.mark.parametrize("name", ["openai", "responses", "anthropic", "ui", "agui"])
def test_what_was_dropped_of_a_void_answer_is_not_lacking(name: str) -> None:
    empty = msgspec.structs.replace(LACKS, tokens=(), text="")  # else two of the protocols end with an error
    void = StreamReset("s", 0, "again", 0.0, {})
    assert projected(name, empty).lost == 2
    assert projected(name, empty, void).lost == 0


@pytest.mark.parametrize("name", ["native", "socket"])
def test_the_native_protocol_tells_it_with_each_event(name: str) -> None:
    projection = projected(name, HEARD, LACKS, END)
    assert [b'"dropped":2' in frame.data for frame in projection.told] == [False, True, False]  # type: ignore[attr-defined]
    assert projection.lost == 3
