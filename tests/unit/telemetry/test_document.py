"""The tables of docs/observability.md say what the code says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock.actors.stream.changes import CAUSES
from penstock.telemetry.conventions import ATTRIBUTES, CONVENTIONS
from penstock.telemetry.lifecycle import EVENTS
from penstock.telemetry.names import METRICS

PAGE = Path(penstock.__file__).parents[1] / "docs" / "observability.md"


def metrics() -> Iterator[str]:
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"


def attributes() -> Iterator[str]:
    for name, about in ATTRIBUTES.items():
        yield f"| `{name}` | {about} |"


def instruments() -> Iterator[str]:
    old, new = CONVENTIONS["1.41"], CONVENTIONS["latest"]

    def row(what: str, one: str | None, other: str | None) -> str:
        return f"| {what} | {f'`{one}`' if one else ''} | {f'`{other}`' if other else ''} |"

    yield row("duration of a call, s", old.duration, new.duration)
    yield row("time to the first chunk, s", old.time_to_first_chunk, new.time_to_first_chunk)
    yield row("time between chunks, s", old.time_per_output_chunk, new.time_per_output_chunk)
    for kind, name in new.tokens.items():
        yield row(f"{kind} tokens of a call", f"{old.tokens[kind]}", name)
    for field, name in new.usage.items():
        yield row(f"`{field}`, a counter", None, name)
    yield row("duration of an agent's turn, s", old.agent_duration, new.agent_duration)
    yield row("duration of a tool's run, s", old.tool_duration, new.tool_duration)
    yield row("calls to models in a turn", old.agent_calls, new.agent_calls)
    yield row("calls of tools in a turn", old.agent_tools, new.agent_tools)


def events() -> Iterator[str]:
    for event, fields in EVENTS.items():
        yield f"| `{event}` | {', '.join(f'`{field}`' for field in fields)} |"


TABLES = {
    "| metric | kind | labels | meaning |": metrics,
    "| attribute | value |": attributes,
    "| what | `1.41` | `latest` |": instruments,
    "| event | fields |": events,
}


@pytest.mark.parametrize("heading", TABLES)
def test_a_table_is_that_of_the_code(heading: str) -> None:
    lines = PAGE.read_text("utf-8").splitlines()
    start = lines.index(heading) + 2
    end = next(number for number in range(start, len(lines) + 1) if number == len(lines) or not lines[number])
    assert lines[start:end] == list(TABLES[heading]())


def test_every_cause_of_a_change_is_explained() -> None:
    text = PAGE.read_text("utf-8")
    for cause in CAUSES:
        assert f"`{cause}`" in text, cause
