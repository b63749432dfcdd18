"""The real gateway that the judges read. A request's model names the case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import penstock
from penstock.adapters.loopback.faults import ErrorFrame, ResetAfter, Status, TruncateAfter
from penstock.adapters.loopback.script import Answer, Cycle, Script, ScriptedCall
from penstock.testing import eventually
from tests.integration.gateway.serving import Served, gateway

__all__ = [
    "COUNT",
    "EVERY_TOKEN",
    "FLOOD",
    "FLOOD_TEXT",
    "HI",
    "NUMBERS",
    "RESTART",
    "WORDS",
    "nothing_runs",
    "real_gateway",
]

WORDS: Final = "one two three four five six seven eight"
HI: Final[Any] = [{"role": "user", "content": "Hi"}]
NUMBERS: Final = tuple(f"n{number} " for number in range(120))
COUNT: Final = "".join(NUMBERS)
FLOOD: Final = tuple(f"{number:06d}{'x' * 16_000}\n" for number in range(700))
"""More than sockets take for a client that does not read."""
FLOOD_TEXT: Final = "".join(FLOOD)
EVERY_TOKEN: Final[Any] = {"batch_size": 1, "flush_interval": 0.001}
"""Stream options by which each token is an event of its own."""
RESTART: Final[Any] = {"on_interrupt": "restart", "max_retries": 1, "retry_base_delay": 0}


def _models() -> dict[str, Any]:
    weather, add = ScriptedCall("weather", '{"city": "Oslo"}', id="c1"), ScriptedCall("add", "{}", id="c2")
    again = ScriptedCall("weather", '{"city": "Rome"}', id="c3")
    delete = ScriptedCall("delete", '{"path": "a.txt"}', id="c5")
    rounds = Answer("Looking.", tool_calls=(weather, add)), Answer("", tool_calls=(again,)), Answer("Cold and warm.")
    return {
        "thinks": Answer("Four.", reasoning="2 + 2 is"),
        "calls": Answer("Looking.", tool_calls=(ScriptedCall("add", '{"a": 1, "b": 2}', id="c1"),)),
        "busy": Status(429, retry_after=1, message="slow down"),
        "cut": Answer(WORDS, faults=(TruncateAfter(3),)),
        "breaks": Answer(WORDS, faults=(ErrorFrame(3),)),
        "resets": Cycle(
            (Answer("void text of the first try", pace=0.05, faults=(ResetAfter(4),)), Answer("Good text."))
        ),
        "endless": Answer(tokens=("word ",), repeat=100_000, pace=0.01),
        "late": Answer("late", first_token_delay=60),
        "counts": Answer(tokens=NUMBERS, pace=0.01),
        "floods": Answer(tokens=FLOOD),
        "rounds": Cycle(rounds),
        "deletes": Cycle((Answer("I will.", tool_calls=(delete,)), Answer("Done."))),
    }


def _templates() -> dict[str, dict[str, Any]]:
    @penstock.tool
    def weather(city: str) -> dict[str, Any]:
        """The weather in a city."""
        return {"city": city, "degrees": 3}

    @penstock.tool
    def add(a: int, b: int) -> int:
        """The sum of two numbers."""
        return a + b

    @penstock.tool(needs_approval=True)
    def delete(path: str) -> str:
        """Delete a file."""
        return f"deleted {path}"

    return {
        "helper": {"model": "rounds", "provider": "openai", "tools": [weather, add]},
        "careful": {"model": "deletes", "provider": "openai", "tools": [delete]},
    }


@contextmanager
def real_gateway(**options: Any) -> Iterator[Served]:
    """A gateway with these models, and with the agents ``helper`` (two rounds of tools) and ``careful`` (asks)."""
    script = Script(Answer(WORDS, pace=0.003), models=_models())
    with gateway(script, **{"heartbeat": 0.05, "linger": 2.0, **options}) as served:
        served.gateway.templates.update(_templates())
        yield served


def nothing_runs(served: Served) -> None:
    """Wait until no connection is left, and no stream."""
    eventually(lambda: not served.gateway.readers)
    eventually(lambda: all(info.state == "ended" for info in served.system.get_active_streams()))
