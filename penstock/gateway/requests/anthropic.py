"""Anthropic's Messages API: unchanged for providers that speak it, for others as chat messages and parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from penstock.config.checks import type_of
from penstock.config.providers import Dialect
from penstock.events import FrozenDict
from penstock.gateway.answers.anthropic_parts import unseal
from penstock.gateway.problems import RequestRefused
from penstock.gateway.requests.anthropic_content import Translator
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.own_fields import (
    any_text_field,
    flag_field,
    list_field,
    messages_of,
    model_of,
    model_parameters,
    object_field,
    own_fields,
    text_field,
    wrong,
)

__all__ = ["parse"]

_GATEWAYS: Final = frozenset({"model", "messages", "stream", "penstock"})
_ANTHROPICS: Final = (
    *("container", "context_management", "mcp_servers", "betas", "anthropic_beta", "anthropic_version"),
    *("cache_control", "inference_geo", "speed", "diagnostics", "service_tier", "user_profile_id", "workspace_id"),
)
"""Parameters that no other API has."""
_LOST_IN: Final[dict[str, dict[str, str]]] = {
    "openai-responses": {"stop": "stop_sequences", "top_k": "top_k"},
    "gemini": {"user": "metadata.user_id", "parallel_tool_calls": "tool_choice.disable_parallel_tool_use"},
    "ollama": {"user": "metadata.user_id", "parallel_tool_calls": "tool_choice.disable_parallel_tool_use"},
}
"""What a dialect has no parameter for: OpenAI's name, and the path in the body."""
_LEVELS: Final = {"xhigh": "high"}
"""Gemini's words for efforts, where they are others."""
_REASONS: Final = re.compile(r"(?:^|/)(?:o\d|gpt-[5-9])")
"""OpenAI's models that refuse ``max_tokens``."""
_LEAST_MEDIUM, _LEAST_HIGH = 4_096, 16_384  # tokens of a thinking budget


def parse(body: Mapping[str, Any], dialect: Dialect, beta: Sequence[str] = ()) -> Asked:
    """Read a body.

    For a provider of the dialect ``"anthropic"`` all passes as it is, except for what only this gateway can have made:
    signatures of other providers, thinking without a signature, citations without their sealed part. For others,
    ``dropped`` names what they cannot be told, by its path.

    Args:
        body: the parsed JSON.
        dialect: the provider's.
        beta: the names in the header ``anthropic-beta``.

    Raises:
        RequestRefused: a field is not allowed.
    """
    given = {name: value for name, value in body.items() if name not in _GATEWAYS and value is not None}
    limit = given.get("max_tokens")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise wrong("max_tokens", limit, "a whole number from 0")
    messages = messages_of(body)
    dropped: list[str] = []
    if dialect == "anthropic":
        names = [*_names(given.get("anthropic_beta")), *(name for name in beta if name)]
        parameters = given | ({"anthropic_beta": list(dict.fromkeys(names))} if names else {})
        messages = [_mended(message) for message in messages]
    else:
        translator = Translator(dialect, dropped)
        system = translator.system(given.pop("system", None))
        messages = [*system, *translator.messages(messages)]
        parameters = _parameters(given, model_of(body), dialect, dropped)
    return Asked(
        api="chat",
        model=model_of(body),
        input=messages,
        parameters=FrozenDict(model_parameters(parameters)),
        is_streamed=flag_field(body, "stream"),
        dropped=tuple(dropped),
        **own_fields(body),
    )


def _names(value: object) -> list[str]:
    names = [value] if isinstance(value, str) else value
    return [name for name in names if isinstance(name, str)] if isinstance(names, (list, tuple)) else []


# --- for Anthropic itself ---------------------------------------------------------------------------------------------


def _mended(message: dict[str, Any]) -> dict[str, Any]:
    """The message without what Anthropic would refuse, since it did not make it."""
    content = message.get("content")
    if message["role"] != "assistant" or not isinstance(content, list):
        return message
    return {**message, "content": [_block(block) for block in content if not _is_foreign(block)]}


def _is_foreign(block: object) -> bool:
    if not isinstance(block, Mapping) or block.get("type") != "thinking":
        return False
    signature = block.get("signature")
    return not isinstance(signature, str) or not signature or unseal(signature, "") is not None


def _block(block: Any) -> Any:
    citations = block.get("citations") if isinstance(block, Mapping) else None
    if not isinstance(citations, list):
        return block
    kept = [one for one in citations if not _is_unsealed(one)]
    others = {name: value for name, value in block.items() if name != "citations"}
    return others | ({"citations": kept} if kept else {})


def _is_unsealed(citation: object) -> bool:
    is_web = isinstance(citation, Mapping) and citation.get("type") == "web_search_result_location"
    return is_web and isinstance(citation, Mapping) and not citation.get("encrypted_index")


# --- for others -------------------------------------------------------------------------------------------------------


def _parameters(given: dict[str, Any], model: str, dialect: Dialect, dropped: list[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    rest = dict(given)
    dropped += [name for name in _ANTHROPICS if rest.pop(name, None) is not None]
    if (limit := rest.pop("max_tokens", None)) is not None:
        is_new = dialect == "openai-chat" and _REASONS.search(model)
        parameters["max_completion_tokens" if is_new else "max_tokens"] = limit
    if stops := list_field(rest, "stop_sequences"):
        parameters["stop"] = stops
    if "top_k" in rest:
        parameters["top_k"] = rest.pop("top_k")
    parameters |= _tools(list_field(rest, "tools"), object_field(rest, "tool_choice"), dropped)
    config = object_field(rest, "output_config")
    given_format = object_field(rest, "output_format")  # its name before it was a field of `output_config`
    form = object_field(config, "format", "output_config.") or given_format
    parameters |= _format(form, "output_format." if form is given_format else "output_config.format.")
    if form is not given_format and "response_format" not in parameters:
        dropped.append("output_config.format")
    if "output_format" in rest and (given_format != form or "response_format" not in parameters):
        dropped.append("output_format")
    effort = text_field(config, "effort", "output_config.")
    parameters |= _thinking(object_field(rest, "thinking"), effort, dialect)
    dropped += (f"output_config.{name}" for name in config if name not in ("format", "effort"))
    metadata = object_field(rest, "metadata")
    if metadata.get("user_id") is not None:
        parameters["user"] = any_text_field(metadata, "user_id", "metadata.")
    dropped += (f"metadata.{name}" for name in metadata if name != "user_id")
    for name in _READ:
        rest.pop(name, None)
    for name, path in _LOST_IN.get(dialect, {}).items():
        if parameters.pop(name, None) is not None:
            dropped.append(path)
    return parameters | rest


_READ: Final = ("stop_sequences", "tools", "tool_choice", "output_config", "output_format", "thinking", "metadata")


def _thinking(thinking: Mapping[str, Any], effort: str | None, dialect: Dialect) -> dict[str, Any]:
    """How hard the model is to think, in the words of the provider's dialect."""
    kind, budget = text_field(thinking, "type", "thinking."), thinking.get("budget_tokens")
    if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool)):
        raise wrong("thinking.budget_tokens", budget, "a whole number")
    word = _effort(kind, budget, effort)
    if dialect == "ollama":
        return {} if kind is None else {"think": kind != "disabled"}
    if word is None:
        return {}
    if dialect == "openai-responses":
        return {"reasoning": {"effort": word, "summary": "auto"}}
    if dialect == "gemini":
        told = {"thinkingLevel": _LEVELS.get(word, word)} if budget is None else {"thinkingBudget": budget}
        return {"generation_config": {"thinkingConfig": {"includeThoughts": True, **told}}}
    return {"reasoning_effort": word}


def _effort(kind: str | None, budget: int | None, effort: str | None) -> str | None:
    """How hard the model is to think, in OpenAI's words: as the request says, or by the budget."""
    if kind == "disabled":
        return None
    if effort is not None:
        return "xhigh" if effort == "max" else effort
    if kind != "enabled" or budget is None:
        return None
    return "low" if budget < _LEAST_MEDIUM else "medium" if budget < _LEAST_HIGH else "high"


def _format(given: Mapping[str, Any], path: str) -> dict[str, Any]:
    if given.get("type") != "json_schema":
        return {}
    name = any_text_field(given, "name", path) or "answer"
    inner = {"name": name, "schema": given.get("schema"), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": inner}}


_FUNCTIONS: Final = ("name", "description", "input_schema", "strict", "type")


def _tools(given: Iterable[Any], choice: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    """Functions and the choice among them. Anthropic's own tools have no schema that could be sent to others."""
    tools: list[dict[str, Any]] = []
    for place, tool in enumerate(given):
        if not isinstance(tool, Mapping):
            name = f"tools[{place}]"
            raise RequestRefused.bad_request(f"{name}: expected an object, got {type_of(tool)}.", name)
        if tool.get("type") not in (None, "custom"):
            dropped.append(f"tools[{place}]")
            continue
        function: dict[str, Any] = {"name": tool.get("name")}
        if description := any_text_field(tool, "description", f"tools[{place}]."):
            function["description"] = description
        schema = object_field(tool, "input_schema", f"tools[{place}].")
        function["parameters"] = schema or {"type": "object", "properties": {}}
        if tool.get("strict") is not None:
            function["strict"] = tool["strict"]
        tools.append({"type": "function", "function": function})
        dropped += (f"tools[{place}].{name}" for name in tool if name not in _FUNCTIONS)
    return {"tools": tools, **_choice(choice, tools)} if tools else {}


def _choice(given: Mapping[str, Any], tools: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    kind = text_field(given, "type", "tool_choice.")
    fields: dict[str, Any] = {}
    if kind == "tool":
        if any(tool["function"]["name"] == given.get("name") for tool in tools):
            fields["tool_choice"] = {"type": "function", "function": {"name": given.get("name")}}
    elif kind in ("auto", "any", "none"):
        fields["tool_choice"] = "required" if kind == "any" else kind
    if flag_field(given, "disable_parallel_tool_use", "tool_choice.") and kind != "none":
        fields["parallel_tool_calls"] = False
    return fields
