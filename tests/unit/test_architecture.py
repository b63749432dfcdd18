"""The import table of docs/decisions/0001-layout.md, enforced."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import penstock

PACKAGE = Path(penstock.__file__).parent
SYSTEM = {"system", "services", "stream", "inspection", "toolbox", "agent", "provider_client"}
DRIVERS = {"__init__", "__main__", "cli", "testing"}
CORE = {"errors", "events", "config", "ports", "actors", "supervisors", "adapters"}
MAY_KNOW: dict[str, set[str]] = {
    "errors": set(),
    "events": {"errors"},
    "config": {"events", "errors"},
    "ports": {"events", "errors", "config"},
    "actors": {"ports", "events", "errors", "config"},
    "supervisors": {"actors", "ports", "events", "errors", "config"},
    "adapters": {"ports", "events", "errors", "config"},
    **dict.fromkeys(SYSTEM, CORE | SYSTEM),
    **dict.fromkeys(DRIVERS, CORE | SYSTEM | DRIVERS),
}
LONGEST_MODULE = 450


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("penstock", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(part for part in parts if part != "__init__") if len(parts) > 2 else ".".join(parts)] = path
    return found


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(path: Path, *, at_run_time_only: bool) -> set[str]:
    """The modules of penstock that a file imports."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped: set[ast.AST] = set()
    if at_run_time_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                skipped.update(ast.walk(node))
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "penstock":
            assert node.level == 0
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "penstock")
    return found


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_room_knows_only_the_rooms_it_may(module: str) -> None:
    room = room_of(module)
    assert room in MAY_KNOW, f"{module} is in no room of the plan"
    for imported in imports_of(modules()[module], at_run_time_only=False):
        other = room_of(imported)
        assert other == room or other in MAY_KNOW[room], f"{module} imports {imported}"


def test_inside_the_package_nothing_is_imported_from_its_root() -> None:
    for module, path in modules().items():
        if room_of(module) in CORE | SYSTEM:
            assert "penstock" not in imports_of(path, at_run_time_only=False), module


def test_there_is_no_import_circle() -> None:
    graph = {module: imports_of(path, at_run_time_only=True) & set(modules()) for module, path in modules().items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way[way.index(module) :], module))
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, (*way, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


WITHOUT_ANY_CIRCLE = ("penstock.actors.runtime.", "penstock.supervisors.")
EXEMPT = ("penstock.supervisors.system",)


def circle_through(module: str, graph: dict[str, set[str]]) -> list[str] | None:
    """A way along the imports from a module back to itself, if there is one."""
    came_from: dict[str, str] = {}
    waiting = [module]
    while waiting:
        here = waiting.pop(0)
        for imported in sorted(graph[here]):
            if imported == module:
                way = [module, here]
                while way[-1] != module:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if imported not in came_from:
                came_from[imported] = here
                waiting.append(imported)
    return None


def test_there_is_no_import_circle_for_the_type_checker_either() -> None:
    """In the two folders that everything else stands on."""
    graph = {module: imports_of(path, at_run_time_only=False) & set(modules()) for module, path in modules().items()}
    strict = [module for module in graph if module.startswith(WITHOUT_ANY_CIRCLE) and not module.startswith(EXEMPT)]
    assert len(strict) > 20
    for module in strict:
        circle = circle_through(module, graph)
        assert circle is None, " → ".join(circle)


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_module_grows_out_of_sight(module: str) -> None:
    length = len(modules()[module].read_text("utf-8").splitlines())
    assert length <= LONGEST_MODULE, f"{module} has {length} lines"


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    for module in modules():
        assert not {"utils", "util", "helpers", "misc", "common"} & set(module.split(".")), module


def test_everything_public_is_exported_and_sorted() -> None:
    # ruff's RUF022 sorts: constants, then classes, then functions
    assert len(set(penstock.__all__)) == len(penstock.__all__)
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None
    errors = {
        name for name, thing in vars(penstock.errors).items()
        if isinstance(thing, type) and issubclass(thing, penstock.PenstockError)
    }  # fmt: skip
    assert errors <= set(penstock.__all__)


def test_the_core_does_not_look_at_the_wall_clock_by_itself() -> None:
    """Time comes from the injected clock; the two modules that own real time are the exception."""
    owners = {"penstock.actors.runtime.clock", "penstock.actors.runtime.dispatcher", "penstock.actors.runtime.reply"}
    for module, path in modules().items():
        if room_of(module) in {"actors", "supervisors"} and module not in owners:
            names = {
                alias.name for node in ast.walk(ast.parse(path.read_text("utf-8")))
                if isinstance(node, ast.Import) for alias in node.names
            }  # fmt: skip
            assert "time" not in names, module
