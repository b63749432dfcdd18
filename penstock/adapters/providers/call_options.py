"""Arguments of a chat that are not parameters of the model: time-outs, retries, extra headers, query and body.

They have the names and meanings of openai-python's ``create``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.config.checks import check_number, near_miss, type_of
from penstock.config.logs import get_logger
from penstock.config.options import RequestOptions
from penstock.config.secret import Secret, is_secret_header
from penstock.errors import OptionError
from penstock.ports import ChatCall

__all__ = ["CALL_OPTIONS", "KNOWN_PARAMETERS", "take_call_options"]

# OpenAI's chat completions
_CHAT: Final = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata
    modalities n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_retention
    reasoning_effort response_format safety_identifier seed service_tier stop store stream stream_options temperature
    tool_choice tools top_logprobs top_p user verbosity web_search_options
"""
# OpenAI's Responses API
_RESPONSES: Final = """
    background conversation include instructions max_output_tokens max_tool_calls previous_response_id prompt
    reasoning text truncation
"""
# Anthropic, Gemini, Ollama
_OTHERS: Final = """
    anthropic_beta betas cache_control container context_management mcp_servers output_config output_format
    stop_sequences system thinking top_k cached_content generation_config response_mime_type response_schema
    safety_settings system_instruction thinking_config tool_config format keep_alive num_ctx num_predict raw template
    think
"""
# compatible servers: vLLM, SGLang, llama.cpp, OpenRouter …
_COMPATIBLE: Final = """
    add_generation_prompt cache_prompt chat_template chat_template_kwargs continue_final_message enable_thinking
    grammar guided_choice guided_grammar guided_json guided_regex ignore_eos length_penalty min_p min_tokens mirostat
    models plugins priority provider repetition_penalty repeat_penalty route safe_prompt skip_special_tokens
    stop_token_ids structured_outputs top_a transforms typical_p usage use_beam_search
"""
KNOWN_PARAMETERS: Final = frozenset(f"{_CHAT} {_RESPONSES} {_OTHERS} {_COMPATIBLE}".split())
"""Parameters of the providers' APIs and of compatible servers. Others pass too, unless they look misspelt."""
_PLAIN_NAMES: Final = frozenset(name.replace("_", "") for name in KNOWN_PARAMETERS)
_CLOCKS: Final = {
    "connect": "connect_timeout",
    "first_token": "first_token_timeout",
    "idle": "idle_timeout",
    "reasoning": "reasoning_timeout",
    "total": "total_timeout",
}
CALL_OPTIONS: Final = frozenset({"timeout", "max_retries", "extra_headers", "extra_query", "extra_body"})
"""The names of arguments that are not the model's."""
_LONGEST_CONNECT: Final = 3600  # as in `RequestOptions`
_SHORTEST_NAME: Final = 5  # shorter names are too near to each other


def take_call_options(call: ChatCall, options: RequestOptions) -> tuple[ChatCall, RequestOptions]:
    """Take the arguments that are not the model's out of a call's parameters.

    ``timeout``: seconds for each of the clocks ``connect``, ``first_token``, ``idle`` and ``reasoning``, never
    ``total``; or a mapping of clocks to seconds. ``max_retries``: as in `RequestOptions`. ``extra_headers``,
    ``extra_query`` and ``extra_body`` are added to the request. None means "not given". All other parameters stay; one
    that is nearly the name of a known one is reported in the log, or refused with ``strict_parameters``.

    Raises:
        OptionError: an argument is not allowed.
    """
    given = call.parameters
    if given.keys().isdisjoint(CALL_OPTIONS):
        _check_names(given, options)
        return call, options
    parameters = {name: value for name, value in given.items() if name not in CALL_OPTIONS}
    body = _mapping("extra_body", given.get("extra_body"))
    headers = _headers(_mapping("extra_headers", given.get("extra_headers")))
    query = {
        name: _query_text(name, value) for name, value in _mapping("extra_query", given.get("extra_query")).items()
    }
    changes = _timeouts(given.get("timeout"))
    if (retries := given.get("max_retries")) is not None:
        changes["max_retries"] = retries
    if changes:
        options = options.replace(**changes)
    _check_names(parameters, options)  # what is in `extra_body` is meant as it is
    call = msgspec.structs.replace(call, parameters={**parameters, **body}, headers=headers, query=query)
    return call, options


def _check_names(parameters: Mapping[str, Any], options: RequestOptions) -> None:
    for name in parameters:
        if name in KNOWN_PARAMETERS or len(name) < _SHORTEST_NAME:
            continue
        if name.lower() in _PLAIN_NAMES:  # in Gemini's spelling: generationConfig
            continue
        meant = near_miss(name, sorted(KNOWN_PARAMETERS | CALL_OPTIONS))
        if meant is None:
            continue
        if options.strict_parameters:
            message = f"{name}: no known parameter; did you mean {meant}? Pass it in extra_body= if it is meant."
            raise OptionError(name, type_of(parameters[name]), meant, message=message)
        get_logger().warning("parameter_unknown", name=name, did_you_mean=meant)


def _timeouts(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            clocks = ", ".join(_CLOCKS)
            raise OptionError("timeout", type_of(value), f"seconds, or a mapping of clocks to seconds: {clocks}")
        check_number("timeout", value, 0.001, 86_400)
        value = {name: min(value, _LONGEST_CONNECT) if name == "connect" else value for name in _CLOCKS}
        del value["total"]
    changes = {}
    for name, seconds in value.items():
        if name not in _CLOCKS:
            raise OptionError(f"timeout[{name!r}]", type_of(seconds), "one of " + ", ".join(_CLOCKS))
        changes[_CLOCKS[name]] = seconds
    return changes


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise OptionError(name, type_of(value), "a dict with names of type str, or None")
    return value


def _headers(given: Mapping[str, Any]) -> dict[str, str | Secret]:
    headers: dict[str, str | Secret] = {}
    for name, value in given.items():
        text = value.reveal() if isinstance(value, Secret) else value
        ok = isinstance(text, str) and text.isascii() and text.isprintable() and name.isascii() and name.isprintable()
        if not ok or not name:
            raise OptionError(f"extra_headers[{name!r}]", type_of(value), "names and values of printable ASCII")
        headers[name] = Secret(text) if is_secret_header(name) else value
    return headers


def _query_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise OptionError(f"extra_query[{name!r}]", type_of(value), "text or a number")
