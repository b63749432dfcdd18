"""The ladder and the limits of docs/decisions/0001-layout.md, enforced."""

from __future__ import annotations

import ast
import importlib
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock

PACKAGE = Path(penstock.__file__).parent
VOCABULARY = ("errors", "events", "config", "ports")
ACTORS = ("actors.runtime", "actors.stream", "actors.call", "actors.agent")
TOP = ("testing", "cli", "__main__")

# What each room may import besides itself. A room that is not named here does not exist.
LADDER: dict[str, tuple[str, ...]] = {
    "errors": (),
    "events": ("errors",),
    "config": ("errors", "events"),
    "ports": ("errors", "events", "config"),
    "actors": (),
    "actors.runtime": VOCABULARY,
    "actors.stream": (*VOCABULARY, "actors.runtime"),
    "actors.call": (*VOCABULARY, "actors.runtime", "actors.stream"),
    "actors.agent": (*VOCABULARY, "actors.runtime", "actors.stream", "actors.call"),
    "supervisors": (*VOCABULARY, "actors.runtime"),
    "supervisors.system": (*VOCABULARY, *ACTORS, "supervisors"),
    "adapters": VOCABULARY,
    "services": (*VOCABULARY, *ACTORS, "supervisors", "supervisors.system", "adapters"),
    "otp": ("actors.runtime", "supervisors"),
    "sources": (*VOCABULARY, "adapters"),
}
CORE = (*VOCABULARY, *ACTORS, "supervisors", "supervisors.system", "adapters")
LADDER |= {
    "recovery": (*CORE, "services"),
    "stream": (*CORE, "services"),
    "inspection": (*CORE, "services"),
    "agent": (*CORE, "services", "stream", "inspection"),
    "provider_client": (*CORE, "services", "stream", "inspection"),
    "cluster": (*CORE, "services", "recovery", "stream"),
    "system": (*CORE, "services", "recovery", "stream", "cluster", "inspection", "agent", "provider_client"),
}
BELOW_TOOLBOX = (*CORE, "services", "recovery", "stream", "cluster", "inspection", "agent", "provider_client", "system")
LADDER |= {
    **dict.fromkeys(("toolbox", "telemetry"), BELOW_TOOLBOX),
    "gateway": (*BELOW_TOOLBOX, "toolbox", "telemetry"),
}
ALL = (*BELOW_TOOLBOX, "toolbox", "telemetry", "gateway", "otp", "sources")
LADDER |= {**dict.fromkeys(TOP, (*ALL, *TOP, "")), "": (*ALL, *TOP)}

# The verbs that belong to the toolbox and stand on the handles; they import it inside the method.
VERBS = {
    "stream": {"map", "filter", "flat_map", "throttle", "take", "with_timeout", "tee", "insights"},
    "system": {
        *("stream_from", "batch", "merge", "race", "hedge", "with_retry"),
        *("as_completed", "gather", "cancel_all", "drain"),
    },
}

# Modules that only compute: no thread, no clock, no I/O.
PURE = (
    "actors.agent.history",
    "actors.agent.results",
    "actors.call.breaker",
    "actors.call.budget",
    "actors.call.limits",
    "actors.call.toolcalls",
    "actors.call.usage",
    "actors.stream.batching",
    "actors.stream.bucket",
    "actors.stream.buffer",
    "actors.stream.changes",
    "actors.stream.cursor",
    "actors.stream.folded",
    "actors.stream.histograms",
    "actors.stream.messages",
    "actors.stream.outcome",
    "actors.stream.pacing",
    "actors.stream.parts",
    "actors.stream.refusals",
    "actors.stream.statistics",
    "adapters.formats.ndjson",
    "adapters.formats.sse",
    "adapters.http.alarms",
    "adapters.http.framing",
    "config.tokenizers",
    "config.units",
    "gateway.board.pace",
    "gateway.board.series",
    "gateway.board.sheets",
    "gateway.limits",
    "gateway.probes",
    "gateway.problems",
    "gateway.shelf",
    "gateway.trace",
    "supervisors.restart",
    "supervisors.spec",
    "toolbox.items",
    "toolbox.loops",
    "toolbox.measures",
    "toolbox.stage",
)
IMPURE = {"threading", "time", "socket", "requests", "urllib3", "asyncio", "queue", "select", "subprocess", "os"}

LONGEST_FUNCTION, LONGEST_CLASS, LONGEST_MODULE = 60, 350, 600


def modules() -> dict[str, Path]:
    """All modules by name without the package's own; the package itself is ``""``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room_of(module: str) -> str:
    """The longest name in the ladder that the module is in."""
    parts = module.split(".")
    rooms = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((room for room in rooms if room in LADDER), module and f"none of the rooms: {module}")


def imports_of(module: str) -> Iterator[tuple[str, ast.AST]]:
    """The modules of the package that a module imports, anywhere in it, for type checking only too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            base = node.module or ""
            if base.split(".")[0] != "penstock":
                continue
            base = base.removeprefix("penstock").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".removeprefix(".")
                yield (full if full in MODULES else base), node
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "penstock":
                    yield alias.name.removeprefix("penstock").removeprefix("."), node


def exempt(module: str, node: ast.AST) -> bool:
    """Whether an import stands inside one of the toolbox's verbs."""
    if module not in VERBS:
        return False
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name in VERBS[module]:
            lines = range(function.lineno, (function.end_lineno or 0) + 1)
            if getattr(node, "lineno", 0) in lines:
                return True
    return False


def test_the_ladder_itself_has_no_circle() -> None:
    def reaches(room: str, other: str, seen: frozenset[str] = frozenset()) -> bool:
        return any(
            below == other or (below not in seen and reaches(below, other, seen | {below})) for below in LADDER[room]
        )

    for room in LADDER:
        if room not in ("", *TOP):
            assert not reaches(room, room), room


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_a_room_imports_only_rooms_below_it(module: str) -> None:
    room = room_of(module)
    assert room in LADDER, f"{module} is in no room of the plan"
    for imported, node in imports_of(module):
        other = room_of(imported)
        allowed = other == room or other in LADDER[room] or exempt(module, node)
        assert allowed, f"{module} imports {imported}"


def test_there_is_no_import_circle_not_even_for_type_checking() -> None:
    graph = {
        module: sorted({name for name, node in imports_of(module) if name in MODULES and not exempt(module, node)})
        for module in MODULES
        if room_of(module) not in ("", "__main__")
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way[way.index(module) :], module))
        if module not in done:
            for imported in graph.get(module, ()):
                if imported != module:
                    visit(imported, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_pure_modules_import_neither_threads_nor_clocks_nor_input_and_output() -> None:
    for module in PURE:
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not IMPURE & {name.split(".")[0] for name in names}, f"{module}, line {node.lineno}"


def test_the_core_does_not_look_at_the_wall_clock_by_itself() -> None:
    """Time comes from the injected clock; the modules that own real time are the exception."""
    owners = {"actors.runtime.clock", "actors.runtime.dispatcher", "actors.runtime.reply"}
    for module, path in MODULES.items():
        if module.startswith(("actors", "supervisors")) and module not in owners:
            names = {
                alias.name
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
                if isinstance(node, ast.Import)
                for alias in node.names
            }
            assert "time" not in names, module


@pytest.mark.parametrize("folder", ["penstock", "tests", "benchmarks", "examples"])
def test_nothing_draws_from_the_random_numbers_of_the_whole_process(folder: str) -> None:
    """Other code of the process may seed them, as Hypothesis does, which also reports a draw of another thread."""
    for path in sorted((PACKAGE.parent / folder).rglob("*.py")):
        source = path.read_text("utf-8")
        if "random" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
                assert node.attr in ("Random", "SystemRandom"), f"{path}, line {node.lineno}"
            elif isinstance(node, ast.ImportFrom) and node.module == "random":
                names = {alias.name for alias in node.names}
                assert names <= {"Random", "SystemRandom"}, f"{path}, line {node.lineno}"


# --- limits --------------------------------------------------------------------------------------------------------


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: no docstrings, comments, blank lines."""
    lines: set[int] = set()
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                lines.difference_update(range(statement.lineno, (statement.end_lineno or 0) + 1))
    return lines


def lengths(source: str) -> Iterator[tuple[str, int, int]]:
    """Of each function, each class and the module: its name, its lines of code and how many it may have."""
    lines = code_lines(source)
    yield "the module", len(lines), LONGEST_MODULE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            count = len(lines & set(range(node.lineno, (node.end_lineno or 0) + 1)))
            yield node.name, count, LONGEST_CLASS if isinstance(node, ast.ClassDef) else LONGEST_FUNCTION


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_function_class_or_module_grows_out_of_sight(module: str) -> None:
    for name, count, limit in lengths(MODULES[module].read_text("utf-8")):
        assert count <= limit, f"{module}: {name} has {count} lines of code, {limit} are allowed"


def test_what_counts_as_a_line_of_code() -> None:
    source = 'def f():\n    """Doc\n    string."""\n    # comment\n\n    return """a\n    b"""\n'
    assert [(name, count) for name, count, _ in lengths(source)] == [("the module", 3), ("f", 3)]


# --- names ---------------------------------------------------------------------------------------------------------


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    for module in MODULES:
        assert not {"utils", "util", "helpers", "misc", "common"} & set(module.split(".")), module


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    doubles = {name: found for name, found in places.items() if len(found) > 1 and name not in ALLOWED_DOUBLES}
    assert not doubles


ALLOWED_DOUBLES = {
    "Answer",  # what a state machine answers; what the loopback provider is scripted to answer
    "Pause",  # of a stream, as its actor is told; between two items of a source
    "Progress",  # of a tool, within a round; of a source, as an event
    "Source",  # of an answer's sentence, in the loopback provider; of a stream
    "Wait",  # for a place at the gate; of a stage
}


def test_every_public_name_exists_once() -> None:
    assert len(set(penstock.__all__)) == len(penstock.__all__)
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None
    found = importlib.import_module("penstock.errors")
    errors = {
        name
        for name, thing in vars(found).items()
        if isinstance(thing, type) and issubclass(thing, penstock.PenstockError)
    }
    assert errors <= set(penstock.__all__)
