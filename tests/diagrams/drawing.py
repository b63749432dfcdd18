"""Draw a state table as SVG.

Where everything stands is given by a `Layout`; what the arrows say is taken from the table. Sizes are those of a wide
font, so that no text runs into anything with another one. The same table and layout give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final, Literal, NamedTuple, TypeAlias

from penstock.actors.runtime.statetable import END, START, StateTable

__all__ = ["Arrow", "Box", "Choice", "Dot", "Drawing", "Frame", "Label", "Layout", "Point", "Rectangle", "Ring", "draw"]

NAME_SIZE: Final = 14.0
LABEL_SIZE: Final = 13.0
LINE: Final = 16.0  # from one line of a label to the next
BOX_HEIGHT: Final = 36.0
_MONO: Final = 0.61  # width of a character, in sizes of its font
_WIDE: Final = {0.32: " ijl'|.,:;!I", 0.43: "frt()-/", 0.57: "_csxyzkv", 0.83: "wCDGHMNOQUW", 0.98: "m"}
_WIDTHS: Final = {letter: width for width, letters in _WIDE.items() for letter in letters}
_RADIUS: Final = 8.0  # of an arrow's corners
_DOT: Final = 7.0
_CHOICE: Final = 12.0

_STYLE: Final = """\
svg{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.card{fill:#fff;stroke:#d0d7de}
.frame{fill:#f5f6fb;stroke:#c3c9da}
.inner{fill:#ebedf7}
.box{fill:#e3e7fb;stroke:#4051b5;stroke-width:1.5}
.name{font:600 14px ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;fill:#1b2250}
.arrow{fill:none;stroke:#57606a;stroke-width:1.5}
.head,.dot{fill:#57606a}
.ring{fill:none;stroke:#57606a;stroke-width:1.5}
.label{font-size:13px;fill:#24292f}
@media (prefers-color-scheme:dark){
.card{fill:#161a23;stroke:#343b4a}
.frame{fill:#1c212d;stroke:#444c61}
.inner{fill:#222838}
.box{fill:#2b3566;stroke:#8c9eff}
.name{fill:#e8ebff}
.arrow,.ring{stroke:#a5aebd}
.head,.dot{fill:#a5aebd}
.label{fill:#dfe4ec}
}
"""

Side: TypeAlias = Literal["n", "e", "s", "w"]
Anchor: TypeAlias = Literal["start", "middle", "end"]


class Point(NamedTuple):
    x: float
    y: float


class Rectangle(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Rectangle, gap: float = 0.0) -> bool:
        return (
            self.left < other.right + gap and other.left < self.right + gap
            and self.top < other.bottom + gap and other.top < self.bottom + gap
        )  # fmt: skip

    def holds(self, other: Rectangle) -> bool:
        return (
            self.left <= other.left and self.top <= other.top
            and self.right >= other.right and self.bottom >= other.bottom
        )  # fmt: skip


class Box(NamedTuple):
    """A state; where its middle is. It is as wide as its name needs, or as it is told."""

    x: float
    y: float
    width: float = 0.0


class Frame(NamedTuple):
    """Several states; an arrow from or to its border is one of each of them."""

    members: tuple[str, ...]
    area: Rectangle
    is_inner: bool = False


class Dot(NamedTuple):
    """The start."""

    x: float
    y: float


class Ring(NamedTuple):
    """The end."""

    x: float
    y: float
    label: Anchor = "start"


class Choice(NamedTuple):
    """Where ways meet and part: every way in goes on by every way out, except back to its own state."""

    x: float
    y: float
    label: str


class Label(NamedTuple):
    """Where an arrow's words stand, in lines around ``y``, and how wide they may be."""

    x: float
    y: float
    anchor: Anchor = "start"
    width: float = 120.0


class Arrow(NamedTuple):
    """From a node's side to another's, by way of ``via``: alternately x and y, as the direction on leaving has it.

    ``source`` and ``target`` are like ``"idle.e"`` (the middle of the east side) or ``"idle.n@90"`` (at x = 90). One
    that has no label stands for the same move as another one that leads to the same state and has one.
    """

    source: str
    target: str
    label: Label | None = None
    via: tuple[float, ...] = ()
    cause: int = 0
    """Which of the causes that the move has it stands for."""


Node: TypeAlias = Box | Frame | Dot | Ring | Choice


class Layout(NamedTuple):
    """Where everything stands. Frames come first, the outer ones before the inner ones."""

    width: float
    height: float
    nodes: dict[str, Node]
    arrows: tuple[Arrow, ...]


class Caption(NamedTuple):
    """What is written beside a node; ``y`` is its middle."""

    text: str
    style: str
    x: float
    y: float
    anchor: Anchor
    width: float

    @property
    def area(self) -> Rectangle:
        return _text_area(self.x, self.y, self.anchor, self.width)


class Drawn(NamedTuple):
    """An arrow with everything that is known of it."""

    arrow: Arrow
    ends: tuple[str, str]  # names of nodes
    pairs: frozenset[tuple[str, str]]  # of states
    when: str | None  # None: it leaves a `Choice`
    points: tuple[Point, ...]
    words: tuple[str, ...]  # the lines of its label
    area: Rectangle | None  # of the label


class Drawing:
    """A table put into a layout."""

    def __init__(self, table: StateTable, layout: Layout) -> None:
        self.table = table
        self.layout = layout
        self.areas = {name: _area(name, node) for name, node in layout.nodes.items()}
        self.arrows = [self._drawn(arrow) for arrow in layout.arrows]
        captions = [_caption(node, self.areas[name], table.end) for name, node in layout.nodes.items()]
        self.captions = [caption for caption in captions if caption is not None]

    def _drawn(self, arrow: Arrow) -> Drawn:
        source, target = (end.split(".")[0] for end in (arrow.source, arrow.target))
        moves = {pair for move in self.table.moves for pair in move.pairs()}
        sources, targets = self._states(source, "in"), self._states(target, "out")
        asked = {(one, other) for one in sources for other in targets if one != other}
        if not asked <= moves:
            raise ValueError(f"{self.table.name}: {source} to {target}: not in the table: {sorted(asked - moves)}")
        label = arrow.label
        when = None if isinstance(self.layout.nodes[source], Choice) else self._causes(asked)[arrow.cause]
        words = () if label is None or when is None else tuple(wrap(when.replace("`", ""), label.width))
        width = max((text_width(line) for line in words), default=0.0)
        area = None if label is None else _text_area(label.x, label.y, label.anchor, width, len(words))
        return Drawn(arrow, (source, target), frozenset(asked), when, tuple(self._points(arrow)), words, area)

    def _causes(self, pairs: set[tuple[str, str]]) -> list[str]:
        """What may cause all these moves, the usual first."""
        caused: dict[str, set[tuple[str, str]]] = {}
        for move in self.table.moves:
            caused.setdefault(move.when, set()).update(move.pairs())
        return [when for when, moves in caused.items() if pairs <= moves]

    def _states(self, name: str, way: Literal["in", "out"]) -> tuple[str, ...]:
        """The states that a node stands for; a `Choice` for those that lead into it, or those that it leads to."""
        match self.layout.nodes[name]:
            case Frame(members=members):
                return members
            case Dot():
                return (START,)
            case Ring():
                return (END,)
            case Choice():
                ends = [(arrow.source.split(".")[0], arrow.target.split(".")[0]) for arrow in self.layout.arrows]
                before = [one for one, other in ends if other == name]
                after = [other for one, other in ends if one == name]
                nodes = before if way == "in" else after
                return tuple(state for node in nodes for state in self._states(node, way))
        return (name,)

    def _points(self, arrow: Arrow) -> Iterator[Point]:
        at, is_level = self._end(arrow.source)
        end, ends_level = self._end(arrow.target)
        yield at
        for place in arrow.via:
            at = Point(place, at.y) if is_level else Point(at.x, place)
            is_level = not is_level
            yield at
        if is_level is not ends_level:
            at = Point(end.x, at.y) if is_level else Point(at.x, end.y)
            yield at
        if at.x != end.x and at.y != end.y:
            raise ValueError(f"{arrow.source} to {arrow.target}: the last piece is neither level nor upright")
        yield end

    def _end(self, where: str) -> tuple[Point, bool]:
        """The point on a node's border, and whether an arrow is level there."""
        name, _, place = where.partition(".")
        side, _, at = place.partition("@")
        left, top, right, bottom = self.areas[name]
        if side in ("e", "w"):
            return Point(right if side == "e" else left, float(at) if at else (top + bottom) / 2), True
        return Point(float(at) if at else (left + right) / 2, top if side == "n" else bottom), False


def draw(title: str, table: StateTable, layout: Layout) -> str:
    """The SVG file."""
    drawing = Drawing(table, layout)
    width, height = layout.width, layout.height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
        f' viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(describe(table))}</desc>',
        f"<style>\n{_STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="8"/>',
        *(part for name, node in layout.nodes.items() for part in _node(name, node, drawing)),
        *(part for one in drawing.arrows for part in _arrow(one.points)),
        *(part for one in drawing.arrows for part in _label(one)),
        *(_written(caption) for caption in drawing.captions),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def describe(table: StateTable) -> str:
    """The whole picture in words."""
    names = {START: "the start", END: table.end}
    said = [f"{', '.join(state.name for state in table.states)}."]
    for move in table.moves:
        sources, targets = ([names.get(name, name) for name in side] for side in (move.sources, move.targets))
        said.append(f"From {' or '.join(sources)} to {' or '.join(targets)}: {move.when.replace('`', '')}.")
    return " ".join(said)


def text_width(text: str, size: float = LABEL_SIZE) -> float:
    """In a wide font."""
    return size * sum(_WIDTHS.get(letter, 0.64) for letter in text)


def wrap(text: str, width: float) -> list[str]:
    """Break a text into lines that are not wider than ``width``, unless a word is."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _area(name: str, node: Node) -> Rectangle:
    match node:
        case Box(x=x, y=y, width=width):
            half = (width or len(name) * _MONO * NAME_SIZE + 26) / 2
            return Rectangle(x - half, y - BOX_HEIGHT / 2, x + half, y + BOX_HEIGHT / 2)
        case Frame(area=area):
            return area
        case Dot(x=x, y=y):
            return Rectangle(x - _DOT, y - _DOT, x + _DOT, y + _DOT)
        case Choice(x=x, y=y):
            return Rectangle(x - _CHOICE, y - _CHOICE, x + _CHOICE, y + _CHOICE)
    return Rectangle(node.x - _DOT - 3, node.y - _DOT - 3, node.x + _DOT + 3, node.y + _DOT + 3)


def _text_area(x: float, y: float, anchor: Anchor, width: float, lines: int = 1) -> Rectangle:
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    top = y - LINE * lines / 2
    return Rectangle(left, top, left + width, top + LINE * lines)


def _node(name: str, node: Node, drawing: Drawing) -> Iterator[str]:
    left, top, right, bottom = drawing.areas[name]
    place = f'x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}"'
    match node:
        case Frame(is_inner=is_inner):
            yield f'<rect class="{"frame inner" if is_inner else "frame"}" {place} rx="12"/>'
        case Box(x=x, y=y):
            yield f'<rect class="box" {place} rx="{_RADIUS + 2:g}"/>'
            yield f'<text class="name" x="{x:g}" y="{y + 5:g}" text-anchor="middle">{escape(name)}</text>'
        case Dot(x=x, y=y):
            yield f'<circle class="dot" cx="{x:g}" cy="{y:g}" r="{_DOT:g}"/>'
        case Choice(x=x, y=y):
            yield f'<path class="box" d="M{left:g} {y:g}L{x:g} {top:g}L{right:g} {y:g}L{x:g} {bottom:g}Z"/>'
        case Ring(x=x, y=y):
            yield f'<circle class="ring" cx="{x:g}" cy="{y:g}" r="{_DOT + 3:g}"/>'
            yield f'<circle class="dot" cx="{x:g}" cy="{y:g}" r="{_DOT - 2:g}"/>'


def _caption(node: Node, area: Rectangle, end: str) -> Caption | None:
    """What is written beside a node."""
    match node:
        case Choice(label=label):
            return Caption(label, "label", area.left - 3, area.bottom + 2, "end", text_width(label))
        case Ring(x=x, y=y, label=anchor):
            at = {"start": area.right + 8, "end": area.left - 8, "middle": x}[anchor]
            below = 22 if anchor == "middle" else 0
            return Caption(end, "name", at, y + below, anchor, len(end) * _MONO * NAME_SIZE)
    return None


def _written(caption: Caption) -> str:
    place = f'x="{caption.x:g}" y="{caption.y + 5:g}" text-anchor="{caption.anchor}"'
    return f'<text class="{caption.style}" {place}>{escape(caption.text)}</text>'


def _arrow(points: tuple[Point, ...]) -> Iterator[str]:
    """A line with round corners, and its head."""
    last, tip = points[-2:]
    dx, dy = _direction(last, tip)
    way = [f"M{points[0].x:g} {points[0].y:g}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(_RADIUS, _length(before, corner) / 2, _length(corner, after) / 2)
        (ix, iy), (ox, oy) = _direction(before, corner), _direction(corner, after)
        way.append(f"L{corner.x - radius * ix:g} {corner.y - radius * iy:g}")
        way.append(f"Q{corner.x:g} {corner.y:g} {corner.x + radius * ox:g} {corner.y + radius * oy:g}")
    way.append(f"L{tip.x - 7 * dx:g} {tip.y - 7 * dy:g}")
    yield f'<path class="arrow" d="{"".join(way)}"/>'
    back = Point(tip.x - 9 * dx, tip.y - 9 * dy)
    sides = f"L{back.x - 4.5 * dy:g} {back.y - 4.5 * dx:g}L{back.x + 4.5 * dy:g} {back.y + 4.5 * dx:g}"
    yield f'<path class="head" d="M{tip.x:g} {tip.y:g}{sides}Z"/>'


def _label(drawn: Drawn) -> Iterator[str]:
    if drawn.arrow.label is None or drawn.area is None:
        return
    x, anchor, top = drawn.arrow.label.x, drawn.arrow.label.anchor, drawn.area.top
    for number, line in enumerate(drawn.words):
        y = top + LINE * number + 12
        yield f'<text class="label" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(line)}</text>'


def _length(one: Point, other: Point) -> float:
    return abs(one.x - other.x) + abs(one.y - other.y)


def _direction(one: Point, other: Point) -> tuple[float, float]:
    length = _length(one, other)
    return (other.x - one.x) / length, (other.y - one.y) / length
