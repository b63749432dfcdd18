"""The changes that are tried: each is valid, in one place, and what is left alone stays."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest

import penstock
from tests.mutation.__main__ import chosen
from tests.mutation.changes import changes
from tests.mutation.equivalents import EQUIVALENTS, Equivalent, are_known, start_of
from tests.mutation.modules import MODULES

PACKAGE = Path(penstock.__file__).parent
ROOT = Path(__file__).parents[2]


def tried(source: str) -> list[tuple[str, str]]:
    return [(change.old, change.new) for change in changes(source)]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("x = a < b", [("a < b", "a <= b")]),
        ("x = a is None", [("a is None", "a is not None")]),
        ("x = not a", [("not a", "a")]),
        ("x = a and b", [("a and b", "a or b"), ("a and b", "b"), ("a and b", "a")]),
        ("x = a + b", [("a + b", "a - b")]),
        ("x = True", [("True", "False")]),
        ("x = 7", [("7", "8")]),
        ("x += y", [("x += y", "pass"), ("x += y", "x -= y")]),
        ("a.x = y", [("a.x = y", "pass")]),
        ("f(x)", [("f(x)", "pass")]),
        ("x = [y for y in z if y]", [("y", "True"), ("y", "False")]),
        ("def f():\n    return x", [("return x", "return None")]),
        ("def f():\n    return", [("return", "pass")]),
        ("def f():\n    raise Error(1)", [("raise Error(1)", "pass")]),
    ],
)
def test_a_piece_of_code_is_changed_in_these_ways(source: str, wanted: list[tuple[str, str]]) -> None:
    assert tried(source) == wanted


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring, 1 > 0."""',
        "x: Literal[1]",
        "def f(x: Literal[1]) -> Literal[2]: ...",
        "assert x > 0",
        'x = f"{y + 1}"',
        "__slots__ = (1, 2)",
        "import a",
        "get_logger().warning('no', count=1)",
        "if TYPE_CHECKING:\n    x = 1",
        "def f():\n    return None",
    ],
)
def test_what_no_test_can_notice_is_left_alone(source: str) -> None:
    assert tried(source) == []


def test_the_rest_of_the_text_stays_and_the_place_is_named() -> None:
    source = '# é\nclass C:\n    def f(self) -> bool:\n        return "é" == self.x  # why\n'
    first = next(change for change in changes(source) if change.old.endswith("self.x") and "!=" in change.new)
    assert (first.line, first.function) == (4, "C.f")
    assert first.text == source.replace('"é" == self.x', "('é' != self.x)")


@pytest.mark.parametrize("module", MODULES)
def test_the_changes_of_a_module_can_be_compiled_and_its_tests_exist(module: str) -> None:
    source = (PACKAGE / module).read_text(encoding="utf-8")
    found = changes(source)
    assert len(found) > 15
    assert all(change.text != source for change in found)
    for change in random.Random(module).sample(found, 15):  # to parse all of them takes a minute
        ast.parse(change.text)
    for tests in MODULES[module]:
        path, _, name = tests.partition("::")
        assert (ROOT / path).exists()
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("module", EQUIVALENTS)
def test_a_change_that_is_listed_as_having_no_effect_is_possible(module: str) -> None:
    assert module in MODULES
    source = (PACKAGE / module).read_text(encoding="utf-8")
    lines = source.splitlines()
    possible = {
        Equivalent(change.function, start_of(lines, change), change.old, change.new) for change in changes(source)
    }
    listed = [change for found in EQUIVALENTS[module].values() for change in found]
    assert [change for change in listed if change not in possible] == []
    assert len(set(listed)) == len(listed)


def test_a_change_that_is_listed_is_not_drawn_and_all_others_are() -> None:
    module = next(iter(EQUIVALENTS))
    drawn = [(trial.change.function, trial.change.old, trial.change.new) for trial in chosen([module], 0, 1)]
    source = (PACKAGE / module).read_text(encoding="utf-8")
    known = [change for change, has_none in are_known(module, source, changes(source)) if has_none]
    assert known
    assert len(drawn) + len(known) == len(changes(source))
