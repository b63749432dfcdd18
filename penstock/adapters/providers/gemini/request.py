"""The body of ``streamGenerateContent``, made of chat messages, tools and parameters in OpenAI's form.

Whatever is already in Gemini's own form passes unchanged: messages and content parts with its keys,
``generationConfig``, ``toolConfig``, tools such as ``{"googleSearch": {}}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from penstock.adapters.providers.gemini.parts import SIGNATURE, THOUGHT
from penstock.adapters.providers.gemini.returned import in_order, made_by_others, returned_parts
from penstock.adapters.providers.shared.json_values import parse_shallow, text_of
from penstock.adapters.providers.shared.messages import (
    NamedTool,
    RequestedCall,
    content_text,
    guessed_type,
    parse_calls,
    parse_file,
    parse_function,
    parse_image,
    parse_reasoning_blocks,
    parse_response_format,
    parse_tool_choice,
    split_system,
    to_messages,
    to_parts,
)
from penstock.adapters.providers.shared.parameters import check_reserved, drop_none
from penstock.errors import OptionError
from penstock.events import ProviderBlock
from penstock.ports import ChatCall

__all__ = ["gemini_body"]

_NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""Google's placeholder for a call that Gemini did not make (ai.google.dev/gemini-api/docs/thought-signatures, FAQ)."""

_GENERATED_ID = re.compile(r"call_\d{1,4}")
"""An id that Penstock gave to a call without one; Gemini identifies such calls by their order."""

_GENERATION_NAMES: Final = {
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
_OWN_FIELDS: Final = ("provider_blocks", "reasoning_blocks")
"""Fields of a message in Penstock's form, which the API would refuse."""
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def gemini_body(call: ChatCall) -> dict[str, Any]:
    """Build the body.

    Raises:
        OptionError: a message, a tool or a parameter cannot be translated, or is given twice.
    """
    parameters = drop_none(call.parameters)
    check_reserved(parameters, "model", "contents", "messages")
    parameters.pop("stream", None)
    parameters.pop("stream_options", None)  # OpenAI needs it for usage, which Gemini always sends
    if parameters.get("parallel_tool_calls") is True or not parameters.get("tools"):  # Gemini has no other mode
        parameters.pop("parallel_tool_calls", None)
    system, others = split_system(_with_roles(call.input))
    body: dict[str, Any] = {"contents": _contents(others, call.model, call.provider)}
    if instruction := [part for message in system for part in _instruction(message)]:
        for name in ("systemInstruction", "system_instruction"):
            if name in parameters:
                message = f"{name} and a system message are both given. Use one of them."
                raise OptionError(name, type(parameters[name]), "given once", message=message)
        body["systemInstruction"] = {"parts": instruction}
    _translate_tools(parameters, body)
    if config := _generation_config(parameters):
        body["generationConfig"] = config
    return {**body, **parameters}


# --- messages ------------------------------------------------------------------------------------------------------


def _with_roles(value: object) -> list[dict[str, Any]]:
    """Return the messages; those in Gemini's own form may lack the role of the user."""
    if isinstance(value, (list, tuple)):
        value = [{"role": "user", **item} if isinstance(item, Mapping) and "parts" in item else item for item in value]
    return to_messages(value)


def _instruction(message: dict[str, Any]) -> list[Any]:
    if "parts" in message:
        return list(message["parts"])
    text = content_text(message.get("content"))
    return [{"text": text}] if text else []


def _contents(messages: list[dict[str, Any]], model: str, provider: str) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    function_names: dict[str, str] = {}  # of the calls so far: a later call may have the same id and another name
    follows_result = False
    for message, own in zip(messages, returned_parts(messages, provider), strict=True):
        role = message["role"]
        is_result = role in ("tool", "function") and "parts" not in message
        if is_result and follows_result:  # Gemini requires the results of one turn's calls in one message
            contents[-1]["parts"].append(_function_response(message, function_names))
        elif is_result:
            contents.append({"role": "user", "parts": [_function_response(message, function_names)]})
        elif "parts" in message:
            contents.append({name: value for name, value in message.items() if name not in _OWN_FIELDS})
        elif role in ("assistant", "model"):
            function_names.update({call.id: call.name for call in parse_calls(message)})
            if parts := _model_parts(message, own, model, provider):
                contents.append({"role": "model", "parts": parts})
        else:
            contents.append({"role": "user", "parts": _parts(message.get("content")) or [{"text": ""}]})
        follows_result = is_result
    return contents


def _parts(content: object) -> list[dict[str, Any]]:
    return [_part(part) for part in to_parts(content)]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") is None:
        return {name: value for name, value in part.items() if name != "type"}
    image = parse_image(part)
    if image is not None and image.data:
        return {"inlineData": {"mimeType": image.media_type, "data": image.data}}
    if image is not None:
        return _file_by_url(image.url, guessed_type(image.url))
    if (file := parse_file(part)) is not None:
        if file.url:
            return _file_by_url(file.url, file.media_type)
        return {"inlineData": {"mimeType": file.media_type, "data": file.data}}
    sound = part.get("input_audio")
    if isinstance(sound, Mapping) and isinstance(sound.get("data"), str):
        return {"inlineData": {"mimeType": f"audio/{text_of(sound.get('format')) or 'wav'}", "data": sound["data"]}}
    text = part.get("refusal" if part["type"] == "refusal" else "text")
    return {"text": text} if isinstance(text, str) else part


def _file_by_url(url: str, media_type: str) -> dict[str, Any]:
    return {"fileData": {"fileUri": url, **({"mimeType": media_type} if media_type else {})}}


def _model_parts(message: dict[str, Any], own: list[ProviderBlock], model: str, provider: str) -> list[dict[str, Any]]:
    """Translate text and calls, with ``own``: the parts that the provider itself has made, each in its place.

    Without them, the thoughts come first, and the last signature of a text goes with the last text.
    """
    parts = _parts(message.get("content"))
    calls = _call_parts(message, model, provider)
    if own:
        return in_order(parts, calls, own)
    blocks = parse_reasoning_blocks(message, {THOUGHT}, provider)
    thoughts = [{"text": block.text, "thought": True, SIGNATURE: block.signature} for block in blocks if block.text]
    text_signatures = [block.signature for block in blocks if not block.text]
    if text_signatures:
        if not parts or "text" not in parts[-1]:
            parts.append({"text": ""})
        parts[-1] = {**parts[-1], SIGNATURE: text_signatures[-1]}
    return [*thoughts, *parts, *calls]


def _call_parts(message: dict[str, Any], model: str, provider: str) -> list[dict[str, Any]]:
    """Translate calls, each with its signature: Gemini refuses calls without theirs."""
    parts: list[dict[str, Any]] = []
    calls = parse_calls(message)
    is_own = not made_by_others(message, provider)
    signatures = [call.signature if is_own and _is_signed_by(call, provider) else "" for call in calls]
    is_signed = any(signatures)
    for number, (call, signature) in enumerate(zip(calls, signatures, strict=True)):
        function_call: dict[str, Any] = {"name": call.name, "args": call.arguments}
        if call.id and not _GENERATED_ID.fullmatch(call.id):
            function_call["id"] = call.id
        part: dict[str, Any] = {"functionCall": function_call}
        if signature:
            part[SIGNATURE] = signature
        elif number == 0 and not is_signed and _requires_signatures(model):
            part[SIGNATURE] = _NO_SIGNATURE
        parts.append(part)
    return parts


def _is_signed_by(call: RequestedCall, provider: str) -> bool:
    """Whether the provider made the call's signature, if it has one, as far as is known."""
    return not provider or call.signed_by in ("", provider)


def _requires_signatures(model: str) -> bool:
    """Whether the model refuses calls without signatures: Gemini 3 and later ones, and so ``gemini-flash-latest``."""
    version = re.search(r"gemini-(\d+)", model)
    return int(version[1]) >= 3 if version is not None else re.search(r"gemini-.*latest", model) is not None


def _function_response(message: dict[str, Any], function_names: dict[str, str]) -> dict[str, Any]:
    call_id = text_of(message.get("tool_call_id"))
    name = function_names.get(call_id) or text_of(message.get("name"))
    if not name:
        text = f"tool_call_id {call_id!r} belongs to no earlier call. Gemini needs the function's name: pass name too."
        raise OptionError("tool_call_id", call_id, "the id of an earlier call", message=text)
    content = message.get("content")
    function_response: dict[str, Any] = {"name": name, "response": _response(content)}
    if call_id and not _GENERATED_ID.fullmatch(call_id):
        function_response["id"] = call_id
    images = [part for part in _parts(content) if "inlineData" in part]
    if images:
        function_response["parts"] = images
    return {"functionResponse": function_response}


def _response(content: object) -> dict[str, Any]:
    """Return a result as an object, which is all that Gemini accepts; other values go under its key ``output``."""
    if isinstance(content, Mapping) and "type" not in content:
        return dict(content)
    text = content_text(content)
    try:
        value = parse_shallow(text)
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"output": text}


# --- tools and parameters --------------------------------------------------------------------------------------------


def _translate_tools(parameters: dict[str, Any], body: dict[str, Any]) -> None:
    tools = parameters.pop("tools", None)
    if tools is not None and not isinstance(tools, (list, tuple)):
        raise OptionError("tools", type(tools), "a list of tools")
    declarations: list[dict[str, Any]] = []
    own_tools: list[Any] = []
    for tool in tools or ():
        function = parse_function(tool)
        if function is None:
            own_tools.append(tool)
            continue
        declaration: dict[str, Any] = {"name": function.name}
        if function.description:
            declaration["description"] = function.description
        if function.parameters is not None:
            # Not `parameters`, which accepts only a subset of OpenAPI's schemas; the two exclude each other.
            declaration["parametersJsonSchema"] = function.parameters
        declarations.append(declaration)
    if declarations or own_tools:
        body["tools"] = [*([{"functionDeclarations": declarations}] if declarations else []), *own_tools]
    given = parameters.pop("tool_choice", None)
    if given is None:
        return
    choice = parse_tool_choice(given)
    if choice is None:
        raise OptionError("tool_choice", type(given), "auto, none, required, or a function's name in OpenAI's form")
    if not tools:  # the API refuses a choice without functions
        return
    if isinstance(choice, NamedTool):
        config: dict[str, Any] = {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    else:
        config = {"mode": _MODES[choice]}
    body["toolConfig"] = {"functionCallingConfig": config}


def _generation_config(parameters: dict[str, Any]) -> dict[str, Any]:
    """Build ``generationConfig``; a given one takes precedence over parameters in OpenAI's form."""
    config: dict[str, Any] = {}
    for name, gemini_name in _GENERATION_NAMES.items():
        value = parameters.pop(name, None)
        if value is not None:
            config[gemini_name] = [value] if name == "stop" and isinstance(value, str) else value
    wanted = parameters.pop("response_format", None)
    if wanted is not None:
        form = parse_response_format(wanted)
        if form is None:
            raise OptionError("response_format", type(wanted), "a dict of type text, json_object or json_schema")
        if form.kind != "text":
            config["responseMimeType"] = "application/json"
        if form.kind == "schema":
            config["responseJsonSchema"] = form.schema
    for name in ("generation_config", "generationConfig"):
        given = parameters.pop(name, None)
        if isinstance(given, Mapping):
            config.update(drop_none(given))
        elif given is not None:
            raise OptionError(name, type(given), "a dict")
    return config
