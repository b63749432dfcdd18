"""The names of OpenTelemetry's conventions for generative AI, in two versions. Pure.

OpenTelemetry moved these conventions to a repository of their own and is still renaming; its Python package marks all
its constants as deprecated. So the strings are here, and the setting ``telemetry.otel_semconv`` chooses the version.

Sources: open-telemetry/semantic-conventions v1.41.0, and ``docs/gen-ai/non-normative/migration.md`` in
open-telemetry/semantic-conventions-genai for what was renamed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.config.telemetry import Semconv

__all__ = ["ATTRIBUTES", "CONVENTIONS", "DURATIONS", "PROVIDERS", "TOKENS", "Conventions"]

DURATIONS: Final = tuple(round(0.01 * 2**power, 2) for power in range(14))
"""Bucket bounds of durations, in seconds: 0.01 … 81.92."""
TOKENS: Final = tuple(4**power for power in range(14))
"""Bucket bounds of counts of tokens: 1 … 67,108,864."""

PROVIDERS: Final[Mapping[str, str]] = {
    "openai-responses": "openai",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""``gen_ai.provider.name`` where it is not the provider's name in the settings."""

ATTRIBUTES: Final[Mapping[str, str]] = {
    "gen_ai.operation.name": "`chat`, `invoke_agent` or `execute_tool`",
    "gen_ai.provider.name": "the provider asked last",
    "gen_ai.request.model": "the model asked last",
    "gen_ai.request.stream": "true",
    "gen_ai.request.max_tokens": "if given",
    "gen_ai.request.temperature": "if given",
    "gen_ai.request.top_p": "if given",
    "gen_ai.request.top_k": "if given",
    "gen_ai.request.seed": "if given",
    "gen_ai.request.frequency_penalty": "if given",
    "gen_ai.request.presence_penalty": "if given",
    "gen_ai.request.choice.count": "if given and not 1",
    "gen_ai.request.stop_sequences": "if given",
    "gen_ai.request.reasoning.level": "if given; `latest` only",
    "gen_ai.request.previous_response.id": "if given; `latest` only",
    "gen_ai.response.model": "as the provider names it",
    "gen_ai.response.finish_reasons": "one reason, in Penstock's words",
    "gen_ai.response.time_to_first_chunk": "seconds from the call's start to the first delta",
    "gen_ai.usage.input_tokens": "as reported",
    "gen_ai.usage.output_tokens": "as reported",
    "gen_ai.usage.cache_read.input_tokens": "as reported",
    "gen_ai.usage.cache_creation.input_tokens": "as reported; `1.41` only",
    "gen_ai.usage.cache_write.input_tokens": "as reported; `latest` only",
    "gen_ai.usage.reasoning.output_tokens": "as reported",
    "gen_ai.conversation.id": "the stream's metadata `conversation_id`, if it is text",
    "gen_ai.agent.name": "of `invoke_agent`",
    "gen_ai.tool.name": "of `execute_tool`",
    "gen_ai.tool.call.id": "of `execute_tool`",
    "gen_ai.tool.type": "of `execute_tool`: `function`",
    "gen_ai.input.messages": "only with `telemetry.capture_content`",
    "gen_ai.output.messages": "only with `telemetry.capture_content`",
    "gen_ai.tool.call.arguments": "only with `telemetry.capture_content`",
    "gen_ai.tool.call.result": "only with `telemetry.capture_content`",
    "error.type": "the HTTP status of a refusal, else the error's class; a tool's status",
    "server.address": "the host that was asked",
    "server.port": "its port",
    "penstock.stream.id": "the stream's id",
    "penstock.outcome": "`completed`, `failed` or `cancelled`",
    "penstock.attempts": "requests made, with retries and fallbacks",
}
"""The attributes of spans, and what each has."""


class Conventions(msgspec.Struct, frozen=True, kw_only=True):
    """The names that differ between versions. None: this version has no such metric.

    Attributes:
        duration: of a call, a histogram in seconds.
        time_to_first_chunk, time_per_output_chunk: histograms in seconds.
        usage: counters of tokens, by the name in `Usage`.
        tokens: histograms of tokens a call, by ``"input"`` and ``"output"``; the same one tells them apart by
            ``gen_ai.token.type``.
        agent_duration, tool_duration: histograms in seconds.
        agent_calls, agent_tools: histograms of calls to models and tools in one turn of an agent.
        cache_write: the attribute for tokens that were written to the cache.
        has_new_request: whether spans have the level of reasoning and the previous response.
        has_agents_provider: whether ``invoke_agent`` names the provider.
    """

    duration: str
    time_to_first_chunk: str
    time_per_output_chunk: str
    usage: Mapping[str, str]
    tokens: Mapping[str, str]
    agent_duration: str | None
    tool_duration: str | None
    agent_calls: str | None
    agent_tools: str | None
    cache_write: str
    has_new_request: bool
    has_agents_provider: bool

    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics."""
        optional = (self.agent_duration, self.tool_duration, self.agent_calls, self.agent_tools)
        return (
            self.duration,
            self.time_to_first_chunk,
            self.time_per_output_chunk,
            *dict.fromkeys((*self.usage.values(), *self.tokens.values())),
            *(name for name in optional if name is not None),
        )


_USAGE: Final = "gen_ai.client.inference.usage"

CONVENTIONS: Final[Mapping[Semconv, Conventions]] = {
    "1.41": Conventions(
        duration="gen_ai.client.operation.duration",
        time_to_first_chunk="gen_ai.client.operation.time_to_first_chunk",
        time_per_output_chunk="gen_ai.client.operation.time_per_output_chunk",
        usage={},
        tokens=dict.fromkeys(("input", "output"), "gen_ai.client.token.usage"),
        agent_duration=None,
        tool_duration=None,
        agent_calls=None,
        agent_tools=None,
        cache_write="gen_ai.usage.cache_creation.input_tokens",
        has_new_request=False,
        has_agents_provider=True,
    ),
    "latest": Conventions(
        duration="gen_ai.client.inference.duration",
        time_to_first_chunk="gen_ai.client.inference.time_to_first_chunk",
        time_per_output_chunk="gen_ai.client.inference.time_per_output_chunk",
        usage={
            "input_tokens": f"{_USAGE}.input_tokens",
            "output_tokens": f"{_USAGE}.output_tokens",
            "cached_tokens": f"{_USAGE}.cache_read.input_tokens",
            "cache_write_tokens": f"{_USAGE}.cache_write.input_tokens",
            "reasoning_tokens": f"{_USAGE}.reasoning.output_tokens",
        },
        tokens={
            "input": "gen_ai.client.inference.operation.input_tokens",
            "output": "gen_ai.client.inference.operation.output_tokens",
        },
        agent_duration="gen_ai.invoke_agent.duration",
        tool_duration="gen_ai.execute_tool.duration",
        agent_calls="gen_ai.invoke_agent.inference_calls",
        agent_tools="gen_ai.invoke_agent.tool_calls",
        cache_write="gen_ai.usage.cache_write.input_tokens",
        has_new_request=True,
        has_agents_provider=False,
    ),
}
