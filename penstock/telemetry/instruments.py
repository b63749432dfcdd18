"""The metrics of OpenTelemetry. Needs the extra ``otel``."""

from __future__ import annotations

import re
from typing import Final

from opentelemetry.metrics import Counter, Histogram, Meter

from penstock.events import Usage
from penstock.telemetry.conventions import DURATIONS, TOKENS, Conventions
from penstock.telemetry.described import Attributes

__all__ = ["Instruments"]

_CALLS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_MANY_NAMES: Final = 100
_GENERATED: Final = re.compile(r"a-[0-9a-f]{12}")


class Instruments:
    """The instruments of one version of the conventions. Any thread."""

    def __init__(self, meter: Meter, names: Conventions) -> None:
        self._meter = meter
        self._duration = self._seconds(names.duration, "Duration of a call to a model.")
        self._first = self._seconds(names.time_to_first_chunk, "Time to the first chunk of an answer.")
        self._chunk = self._seconds(names.time_per_output_chunk, "Time between chunks; the mean of each answer.")
        self._usage: dict[str, Counter] = {
            field: meter.create_counter(name, unit="{token}", description="Tokens used.")
            for field, name in names.usage.items()
        }
        made = {
            name: meter.create_histogram(
                name, unit="{token}", description="Tokens of a call.", explicit_bucket_boundaries_advisory=TOKENS
            )
            for name in dict.fromkeys(names.tokens.values())
        }
        self._tokens = {kind: made[name] for kind, name in names.tokens.items()}
        self._has_types = len(made) == 1  # one histogram tells input and output apart by an attribute
        self._agents: set[str] = set()
        self._turn = self._seconds(names.agent_duration, "Duration of an agent's turn.")
        self._tool = self._seconds(names.tool_duration, "Duration of a tool's run.")
        self._calls = self._count(names.agent_calls, "Calls to models in an agent's turn.")
        self._tools = self._count(names.agent_tools, "Calls of tools in an agent's turn.")

    def _seconds(self, name: str | None, description: str) -> Histogram | None:
        if name is None:
            return None
        return self._meter.create_histogram(
            name, unit="s", description=description, explicit_bucket_boundaries_advisory=DURATIONS
        )

    def _count(self, name: str | None, description: str) -> Histogram | None:
        if name is None:
            return None
        return self._meter.create_histogram(
            name, unit="{call}", description=description, explicit_bucket_boundaries_advisory=_CALLS
        )

    def called(
        self, about: Attributes, seconds: float, first: float | None, usage: Usage | None, failure: str | None
    ) -> None:
        """Record a call to a model: how long it took in all, and to its first chunk."""
        assert self._duration is not None
        assert self._first is not None
        self._duration.record(max(0.0, seconds), about | _failed(failure))
        if first is not None:
            self._first.record(max(0.0, first), about)
        if usage is None:
            return
        for field, counter in self._usage.items():
            count = getattr(usage, field)
            if count is not None:
                counter.add(count, about)
        for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count is not None:
                kinds: Attributes = {"gen_ai.token.type": kind} if self._has_types else {}
                self._tokens[kind].record(count, about | kinds)

    def chunks(self, about: Attributes, seconds: float) -> None:
        """Record the mean time between the chunks of an answer."""
        assert self._chunk is not None
        self._chunk.record(max(0.0, seconds), about)

    def turn(self, agent: str, seconds: float, calls: int, tools: int, failure: str | None) -> None:
        """Record an agent's turn. The first 100 names of agents are kept apart, but for those that were generated."""
        if len(self._agents) < _MANY_NAMES and not _GENERATED.fullmatch(agent):
            self._agents.add(agent)
        about: Attributes = {"gen_ai.agent.name": agent if agent in self._agents else "other"} if agent else {}
        if self._turn is not None:
            self._turn.record(max(0.0, seconds), about | _failed(failure))
        if self._calls is not None:
            self._calls.record(calls, about)
        if self._tools is not None:
            self._tools.record(tools, about)

    def tool(self, name: str, seconds: float, failure: str | None) -> None:
        """Record a tool's run."""
        if self._tool is not None:
            about: Attributes = {"gen_ai.tool.name": name}
            self._tool.record(max(0.0, seconds), about | _failed(failure))


def _failed(failure: str | None) -> Attributes:
    return {} if failure is None else {"error.type": failure}
