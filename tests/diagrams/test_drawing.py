"""The diagrams: all of the table is in them, nothing runs into anything, and the committed files are up to date."""

from __future__ import annotations

from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest

from penstock.actors.runtime.statetable import START
from tests.diagrams.drawing import Box, Drawing, Drawn, Frame, Point, Rectangle
from tests.diagrams.layouts import DIAGRAMS
from tests.diagrams.machines import MACHINES
from tests.diagrams.pages import IMAGES, PAGE, PLACES, fill

CORNER = 10.0


@pytest.fixture(params=DIAGRAMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def drawing(name: str) -> Drawing:
    _, table, layout = DIAGRAMS[name]
    return Drawing(table, layout)


def pieces(drawn: Drawn) -> list[Rectangle]:
    """The straight pieces of an arrow, as rectangles without a breadth."""
    return [
        Rectangle(min(one.x, two.x), min(one.y, two.y), max(one.x, two.x), max(one.y, two.y))
        for one, two in pairwise(drawn.points)
    ]


def edges(area: Rectangle) -> list[Rectangle]:
    left, top, right, bottom = area
    return [
        Rectangle(left, top, right, top), Rectangle(left, bottom, right, bottom),
        Rectangle(left, top, left, bottom), Rectangle(right, top, right, bottom),
    ]  # fmt: skip


def test_every_move_of_the_table_is_drawn(drawing: Drawing) -> None:
    """How a machine that is restarted after a crash goes on is in the table only."""
    table = drawing.table
    starts = [move for move in table.moves if move.sources == (START,)]
    restarts = {pair for move in starts[1:] for pair in move.pairs()}
    drawn = {pair for one in drawing.arrows for pair in one.pairs}
    assert {pair for move in table.moves for pair in move.pairs()} - drawn == restarts


def test_every_state_is_drawn_inside_its_frames_and_no_other(drawing: Drawing) -> None:
    nodes = drawing.layout.nodes
    assert {name for name, node in nodes.items() if isinstance(node, Box)} == {one.name for one in drawing.table.states}
    for frame, node in nodes.items():
        if isinstance(node, Frame):
            inside = {one for one in nodes if isinstance(nodes[one], Box) and node.area.holds(drawing.areas[one])}
            assert inside == set(node.members), frame


def test_an_arrow_without_words_has_those_of_another_one(drawing: Drawing) -> None:
    for one in drawing.arrows:
        if not one.words and one.when is not None:
            assert any(other.words and other.when == one.when for other in drawing.arrows), one.ends


def test_nothing_is_cut_off(drawing: Drawing) -> None:
    page = Rectangle(4, 4, drawing.layout.width - 4, drawing.layout.height - 4)
    areas = [*drawing.areas.values(), *(caption.area for caption in drawing.captions)]
    for area in [*areas, *(one.area for one in drawing.arrows if one.area is not None)]:
        assert page.holds(area), area
    for one in drawing.arrows:
        assert all(page.holds(piece) for piece in pieces(one)), one.ends


def test_words_do_not_run_into_anything(drawing: Drawing) -> None:
    nodes = drawing.layout.nodes
    texts = [(one.words, one.area) for one in drawing.arrows if one.area is not None]
    texts += [((caption.text,), caption.area) for caption in drawing.captions]
    for (words, area), (other_words, other_area) in combinations(texts, 2):
        assert not area.overlaps(other_area, 2), (words, other_words)
    for words, area in texts:
        for name, node in nodes.items():
            for part in edges(drawing.areas[name]) if isinstance(node, Frame) else [drawing.areas[name]]:
                assert not area.overlaps(part, 1), (words, name)
        for arrow in drawing.arrows:
            for piece in pieces(arrow):
                assert not area.overlaps(piece, 3), (words, arrow.ends)


def test_arrows_do_not_run_through_boxes_or_along_frames(drawing: Drawing) -> None:
    nodes = drawing.layout.nodes
    for one in drawing.arrows:
        for piece in pieces(one):
            for name, node in nodes.items():
                if isinstance(node, Frame):
                    assert not any(runs_along(piece, edge) for edge in edges(node.area)), (one.ends, name)
                else:
                    gap = -0.5 if name in one.ends else 6
                    assert not piece.overlaps(drawing.areas[name], gap), (one.ends, name)


def test_arrows_meet_only_where_they_begin_or_end_together(drawing: Drawing) -> None:
    for one, other in combinations(drawing.arrows, 2):
        if one.points[0] == other.points[0] or one.points[-1] == other.points[-1]:
            continue
        for piece in pieces(one):
            for other_piece in pieces(other):
                assert not piece.overlaps(other_piece, 6), (one.ends, other.ends)


def test_arrows_begin_and_end_on_straight_sides(drawing: Drawing) -> None:
    for one in drawing.arrows:
        for name, point in zip(one.ends, (one.points[0], one.points[-1]), strict=True):
            if isinstance(drawing.layout.nodes[name], (Box, Frame)):
                assert on_straight_side(point, drawing.areas[name]), (one.ends, name)


def runs_along(piece: Rectangle, edge: Rectangle) -> bool:
    """Whether two lines of the same direction are close to each other for a while."""
    is_level = piece.top == piece.bottom
    if is_level is not (edge.top == edge.bottom):
        return False
    return piece.overlaps(edge, 4)


def on_straight_side(point: Point, area: Rectangle) -> bool:
    left, top, right, bottom = area
    if point.y in (top, bottom):
        return left + CORNER <= point.x <= right - CORNER
    return point.x in (left, right) and top + CORNER <= point.y <= bottom - CORNER


def test_the_committed_file_is_what_the_table_draws(name: str) -> None:
    committed = (IMAGES / f"{name}.svg").read_text("utf-8")
    assert committed == DIAGRAMS[name].svg(), "run: make diagrams"


def test_a_diagram_is_xml_that_says_in_words_what_it_shows(name: str) -> None:
    diagram = DIAGRAMS[name]
    root = ElementTree.fromstring(diagram.svg())
    assert root.get("role") == "img"
    assert root.findtext("{*}title") == diagram.title
    description = root.findtext("{*}desc")
    assert description is not None
    for move in diagram.table.moves:
        assert move.when.replace("`", "") in description


def test_every_machine_is_drawn_and_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    assert set(MACHINES) <= set(DIAGRAMS)
    for name, machine in MACHINES.items():
        assert DIAGRAMS[name].table is machine.table
        assert f"(images/{name}.svg)" in page
    assert [place[2] for place in PLACES.finditer(page)] == list(MACHINES)


def test_the_tables_on_the_page_are_the_state_tables() -> None:
    page = PAGE.read_text("utf-8")
    assert fill(page) == page, "run: make diagrams"


def test_the_document_about_streams_explains_every_state() -> None:
    streams = (PAGE.parent / "streams.md").read_text("utf-8")
    table = MACHINES["token-stream"].table
    for name in [*(state.name for state in table.states), table.end]:
        assert f"\n| `{name}` | " in streams, name


def test_no_picture_is_left_that_nothing_draws() -> None:
    assert {path.stem for path in IMAGES.glob("*.svg")} == set(DIAGRAMS)
