"""Parameters of the Responses API as those of chat completions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.parameters import TOOL_PARAMETERS, drop_none
from penstock.config.checks import type_of
from penstock.errors import OptionError

__all__ = ["hosted_tools", "to_chat_parameters"]

_HOSTED: Final = frozenset(
    {
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "programmatic_tool_calling",
        "shell",
        "tool_search",
        "web_search",
        "web_search_preview",
    }
)
"""Types of tools that only the Responses API has, without the date that some end in."""
_STORED: Final = ("previous_response_id", "conversation", "prompt")
_WITHOUT_COUNTERPART: Final = frozenset(
    {
        *("access_programs", "background", "background_options", "context_management", "image", "include"),
        *("max_tool_calls", "metadata", "moderation", "reasoning", "store", "stream_options", "text", "truncation"),
    }
)
"""Parameters that say something else in chat or nothing, without those of which a part is converted."""


def hosted_tools(tools: object) -> tuple[str, ...]:
    """The types of those tools that only the Responses API runs, in the order in which they are given.

    >>> hosted_tools([{"type": "function", "name": "now"}, {"type": "web_search"}])
    ('web_search',)
    """
    return tuple(dict.fromkeys(text_of(tool.get("type")) for tool in _tools_in(tools) if _is_hosted(tool)))


def _tools_in(tools: object) -> Iterator[Any]:
    """The tools, with those in namespaces."""
    for tool in tools if isinstance(tools, (list, tuple)) else ():
        if isinstance(tool, Mapping) and tool.get("type") == "namespace":
            yield from _tools_in(tool.get("tools"))
        elif isinstance(tool, Mapping):
            yield tool


def _is_hosted(tool: Mapping[str, Any]) -> bool:
    """Whether this is one of OpenAI's own tools; a tool of another provider has an object named after its type."""
    kind = text_of(tool.get("type"))
    name, _, date = kind.rpartition("_preview_")
    known = f"{name}_preview" if name and date.replace("_", "").isdigit() else kind
    return (known in _HOSTED or kind.startswith("web_search_2025_")) and not isinstance(tool.get(kind), Mapping)


def to_chat_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert parameters; those that chat has too pass unchanged, and those without a counterpart are left out.

    None means "not given". OpenAI's own tools are left out; see `hosted_tools`. Without tools there is no choice among
    them either, which providers refuse. ``instructions`` stay: they are a message in chat.

    Raises:
        OptionError: a parameter refers to what OpenAI has stored, or the tools that are allowed are no list.
    """
    given = drop_none(given)
    for name in _STORED:
        if name in given:
            message = f"{name}: the provider offers chat only and stores nothing. Pass the whole conversation as input."
            raise OptionError(name, type(given[name]), "not given", message=message)
    parameters = {name: value for name, value in given.items() if name not in (*_WITHOUT_COUNTERPART, *_STORED)}
    if "max_output_tokens" in parameters:
        parameters["max_tokens"] = parameters.pop("max_output_tokens")
    _set_tools(parameters)
    text = given.get("text")
    if isinstance(text, Mapping):
        if (form := _response_format(text.get("format"))) is not None:
            parameters.setdefault("response_format", form)
        if text.get("verbosity") is not None:
            parameters.setdefault("verbosity", text["verbosity"])
    reasoning = given.get("reasoning")
    if isinstance(reasoning, Mapping) and reasoning.get("effort") is not None:
        parameters.setdefault("reasoning_effort", reasoning["effort"])
    include = given.get("include")
    is_likely = isinstance(include, (list, tuple)) and "message.output_text.logprobs" in include
    if parameters.get("top_logprobs") or is_likely:
        parameters["logprobs"] = True
    elif parameters.get("top_logprobs") == 0:
        del parameters["top_logprobs"]  # chat takes it only with `logprobs`
    return parameters


def _response_format(form: Any) -> Any:
    if not isinstance(form, Mapping) or form.get("type") == "text":
        return None
    if form.get("type") != "json_schema" or form.get("json_schema") is not None:
        return form
    inner = {name: value for name, value in form.items() if name not in ("type", "json_schema")}
    return {"type": "json_schema", "json_schema": inner}


def _set_tools(parameters: dict[str, Any]) -> None:
    tools = parameters.get("tools")
    if isinstance(tools, (list, tuple)):
        tools = [_chat_tool(tool) for tool in _flat(tools) if not (isinstance(tool, Mapping) and _is_hosted(tool))]
        parameters["tools"] = tools
    if not tools:
        for name in TOOL_PARAMETERS:
            parameters.pop(name, None)
    elif isinstance(choice := parameters.get("tool_choice"), Mapping):
        parameters["tool_choice"] = _chat_choice(choice)
        if parameters["tool_choice"] is None:  # a tool that is left out
            del parameters["tool_choice"]


def _flat(tools: Iterable[Any]) -> Iterator[Any]:
    for tool in tools:
        if isinstance(tool, Mapping) and tool.get("type") == "namespace":
            yield from _tools_in(tool.get("tools"))
        else:
            yield tool


def _chat_tool(tool: Any) -> Any:
    kind = tool.get("type") if isinstance(tool, Mapping) else None
    if kind not in ("function", "custom") or tool.get(kind) is not None:
        return tool
    inner = {name: value for name, value in tool.items() if name not in ("type", "defer_loading", kind)}
    form = inner.get("format")
    if isinstance(form, Mapping) and form.get("type") == "grammar" and form.get("grammar") is None:
        grammar = {name: value for name, value in form.items() if name not in ("type", "grammar")}
        inner["format"] = {"type": "grammar", "grammar": grammar}
    return {"type": kind, kind: inner}


def _chat_choice(choice: Mapping[str, Any]) -> Any:
    """The choice in chat's form. None: it is one of OpenAI's own tools."""
    kind = choice.get("type")
    if not isinstance(kind, str) or isinstance(choice.get(kind), Mapping):
        return choice
    if kind in ("function", "custom"):
        return {"type": kind, kind: {"name": choice.get("name")}}
    if kind == "allowed_tools":
        allowed = choice.get("tools")
        if not isinstance(allowed, (list, tuple)):
            raise OptionError("tool_choice.tools", type_of(allowed), "a list of tools")
        chosen = [found for tool in allowed if isinstance(tool, Mapping) and (found := _chat_choice(tool)) is not None]
        if allowed and not chosen:  # no tool that is offered may be called
            return "none"
        return {"type": kind, kind: {"mode": choice.get("mode") or "auto", "tools": chosen}}
    return None if _is_hosted(choice) else choice
