"""What Gemini is asked, made of chat messages, tools and parameters in OpenAI's form.

What is in Gemini's own form already (messages and content parts with its keys, ``generationConfig``, ``toolConfig``,
tools such as ``{"googleSearch": {}}``) passes unchanged.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import (
    NamedTool,
    answer_format,
    calls_of,
    function_of,
    image_of,
    messages_of,
    parts_of,
    reasoning_blocks_of,
    said_parameters,
    split_system,
    text_in,
    tool_choice_of,
)
from penstock.errors import OptionError
from penstock.ports import ChatCall

__all__ = ["THOUGHT", "request_body"]

THOUGHT: Final = "thought"
"""The kind of Gemini's reasoning blocks. Those with text are a thought; one without belongs to the answer's text."""

_NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""Google's word for a call that Gemini did not make itself (ai.google.dev/gemini-api/docs/thought-signatures, FAQ)."""

_MADE_UP_ID = re.compile(r"call_\d{1,4}")
"""An id that we gave a call which had none; Gemini tells such calls by their order."""

_GENERATION: Final = {
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "stop": "stopSequences",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def request_body(call: ChatCall) -> dict[str, Any]:
    """The body of ``streamGenerateContent``.

    Raises:
        OptionError: a message, a tool or a parameter cannot be translated, or is given twice.
    """
    parameters = said_parameters(call.parameters)
    for name in ("model", "contents", "messages"):
        if name in parameters:
            raise OptionError(name, type(parameters[name]), "given once, not as a parameter too")
    if parameters.pop("stream", True) is not True:
        raise OptionError("stream", call.parameters["stream"], "True")
    parameters.pop("stream_options", None)  # OpenAI's way to ask for usage, which Gemini tells unasked
    if parameters.get("parallel_tool_calls") is True:  # it knows no other way
        del parameters["parallel_tool_calls"]
    instructing, others = split_system(_with_roles(call.input))
    body: dict[str, Any] = {"contents": _contents(others, call.model)}
    if instruction := [part for message in instructing for part in _instruction(message)]:
        for name in ("systemInstruction", "system_instruction"):
            if name in parameters:
                raise OptionError(name, type(parameters[name]), "given once: here, or as a system message")
        body["systemInstruction"] = {"parts": instruction}
    _translate_tools(parameters, body)
    if generation := _generation(parameters):
        body["generationConfig"] = generation
    return {**body, **parameters}


# --- messages ------------------------------------------------------------------------------------------------------


def _with_roles(value: object) -> list[dict[str, Any]]:
    """The messages; Gemini's own form does without a role where the user speaks."""
    if isinstance(value, (list, tuple)):
        value = [{"role": "user", **each} if isinstance(each, Mapping) and "parts" in each else each for each in value]
    return messages_of(value)


def _instruction(message: dict[str, Any]) -> list[Any]:
    if "parts" in message:
        return list(message["parts"])
    text = text_in(message.get("content"))
    return [{"text": text}] if text else []


def _contents(messages: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the calls so far: an id may come again in a later turn, with another name
    answering = False
    for message in messages:
        role = message["role"]
        is_answer = role in ("tool", "function") and "parts" not in message
        if is_answer and answering:  # Gemini wants the answers to one turn's calls together
            contents[-1]["parts"].append(_function_response(message, names))
        elif is_answer:
            contents.append({"role": "user", "parts": [_function_response(message, names)]})
        elif "parts" in message:
            contents.append(message)
        elif role in ("assistant", "model"):
            names.update({each.id: each.name for each in calls_of(message)})
            if parts := _model_parts(message, model):
                contents.append({"role": "model", "parts": parts})
        else:
            contents.append({"role": "user", "parts": _parts(message.get("content")) or [{"text": ""}]})
        answering = is_answer
    return contents


def _parts(content: object) -> list[dict[str, Any]]:
    return [_part(part) for part in parts_of(content)]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if "type" not in part:
        return part
    image = image_of(part)
    if image is not None and image.data:
        return {"inlineData": {"mimeType": image.media_type, "data": image.data}}
    if image is not None:
        kind, _ = mimetypes.guess_type(image.url.partition("?")[0])
        return {"fileData": {"fileUri": image.url, **({"mimeType": kind} if kind else {})}}
    text = part.get("refusal" if part["type"] == "refusal" else "text")
    return {"text": text} if isinstance(text, str) else part


def _model_parts(message: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """Thoughts, text and calls, each with its signature: Gemini refuses calls whose signature is missing."""
    blocks = reasoning_blocks_of(message, {THOUGHT})
    parts: list[dict[str, Any]] = [
        {"text": block.text, "thought": True, "thoughtSignature": block.signature} for block in blocks if block.text
    ]
    said = _parts(message.get("content"))
    signatures = [block.signature for block in blocks if not block.text]
    if signatures:
        if not said or "text" not in said[-1]:
            said.append({"text": ""})
        said[-1] = {**said[-1], "thoughtSignature": signatures[-1]}
    calls = calls_of(message)
    signed = any(call.signature for call in calls)
    for at, call in enumerate(calls):
        asked: dict[str, Any] = {"name": call.name, "args": call.arguments}
        if call.id and not _MADE_UP_ID.fullmatch(call.id):
            asked["id"] = call.id
        part: dict[str, Any] = {"functionCall": asked}
        if call.signature:
            part["thoughtSignature"] = call.signature
        elif at == 0 and not signed and _wants_signatures(model):
            part["thoughtSignature"] = _NO_SIGNATURE
        said.append(part)
    return parts + said


def _wants_signatures(model: str) -> bool:
    version = re.search(r"gemini-(\d+)", model)
    return version is not None and int(version[1]) >= 3


def _function_response(message: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    call_id = text_of(message.get("tool_call_id"))
    name = names.get(call_id) or text_of(message.get("name"))
    if not name:
        raise OptionError("tool_call_id", call_id, "the id of a call in a message before; or give the name too")
    content = message.get("content")
    told: dict[str, Any] = {"name": name, "response": _response(content)}
    if call_id and not _MADE_UP_ID.fullmatch(call_id):
        told["id"] = call_id
    images = [part for part in _parts(content) if "inlineData" in part]
    if images:
        told["parts"] = images
    return {"functionResponse": told}


def _response(content: object) -> dict[str, Any]:
    """Gemini takes objects only; ``output`` is the key that it knows for anything else."""
    if isinstance(content, Mapping) and "type" not in content:
        return dict(content)
    text = text_in(content)
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = text
    return value if isinstance(value, dict) else {"output": text}


# --- tools and parameters --------------------------------------------------------------------------------------------


def _translate_tools(parameters: dict[str, Any], body: dict[str, Any]) -> None:
    tools = parameters.pop("tools", None)
    if tools is not None and not isinstance(tools, (list, tuple)):
        raise OptionError("tools", type(tools), "a list of tools")
    declared: list[dict[str, Any]] = []
    own: list[Any] = []
    for tool in tools or ():
        function = function_of(tool)
        if function is None:
            own.append(tool)
            continue
        declaration: dict[str, Any] = {"name": function.name}
        if function.description:
            declaration["description"] = function.description
        if function.parameters is not None:
            # Not `parameters`, which takes a subset of OpenAPI's schemas only; the two exclude each other.
            declaration["parametersJsonSchema"] = function.parameters
        declared.append(declaration)
    if declared or own:
        body["tools"] = [*([{"functionDeclarations": declared}] if declared else []), *own]
    given = parameters.pop("tool_choice", None)
    if given is None:
        return
    choice = tool_choice_of(given)
    if choice is None:
        raise OptionError("tool_choice", type(given), "auto, none, required, or a function's name in OpenAI's form")
    if isinstance(choice, NamedTool):
        config: dict[str, Any] = {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    else:
        config = {"mode": _MODES[choice]}
    body["toolConfig"] = {"functionCallingConfig": config}


def _generation(parameters: dict[str, Any]) -> dict[str, Any]:
    """``generationConfig``: what is said there goes before what is said in OpenAI's words."""
    found: dict[str, Any] = {}
    for name, own in _GENERATION.items():
        value = parameters.pop(name, None)
        if value is not None:
            found[own] = [value] if name == "stop" and isinstance(value, str) else value
    wanted = parameters.pop("response_format", None)
    if wanted is not None:
        form = answer_format(wanted)
        if form is None:
            raise OptionError("response_format", type(wanted), "a type of text, json_object or json_schema")
        if form.kind != "text":
            found["responseMimeType"] = "application/json"
        if form.kind == "schema":
            found["responseJsonSchema"] = form.schema
    for name in ("generation_config", "generationConfig"):
        given = parameters.pop(name, None)
        if isinstance(given, Mapping):
            found.update(given)
        elif given is not None:
            raise OptionError(name, type(given), "a dict")
    return found
