"""The body of a request to Ollama's chat API, made of chat messages and parameters in OpenAI's form.

Whatever is already in Ollama's own form passes unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.adapters.providers.ollama.extras import THINKING
from penstock.adapters.providers.shared.blocks import own_blocks
from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.messages import (
    content_text,
    parse_calls,
    parse_file,
    parse_image,
    parse_response_format,
    parse_tool_choice,
    to_messages,
    to_parts,
)
from penstock.adapters.providers.shared.parameters import check_reserved, drop_none
from penstock.errors import OptionError
from penstock.ports import ChatCall

__all__ = ["ollama_body"]

_OPTIONS = frozenset(
    {
        "frequency_penalty",
        "min_p",
        "num_batch",
        "num_ctx",
        "num_gpu",
        "num_keep",
        "num_predict",
        "num_thread",
        "presence_penalty",
        "repeat_last_n",
        "repeat_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
    }
)
"""Parameters that go into ``options`` (those of a Modelfile and of ``api.Options``)."""

_OPENAI_FIELDS = {
    "name",
    "tool_calls",
    "function_call",
    "reasoning",
    "reasoning_blocks",
    "reasoning_content",
    "reasoning_details",
    "provider_blocks",
    "refusal",
    "audio",
    "annotations",
    "is_error",
}
"""Fields of an OpenAI message that Ollama does not have in this form."""


def ollama_body(call: ChatCall) -> dict[str, Any]:
    """Build the body.

    Raises:
        OptionError: the input is not messages, an image is given by its URL, a file is no image, or a parameter is not
            allowed.
    """
    check_reserved(call.parameters, "model", "messages")
    messages = _messages(to_messages(call.input), call.provider)
    return {"model": call.model, "messages": messages, **_parameters(call.parameters), "stream": True}


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the parameters. What ``options`` contains takes precedence over the same parameter outside of it."""
    parameters = drop_none(given)
    body = {name: value for name, value in parameters.items() if name not in _OPTIONS}
    options = {name: value for name, value in parameters.items() if name in _OPTIONS}
    for name in ("max_tokens", "max_completion_tokens"):
        if name in body:
            options["num_predict"] = body.pop(name)
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    own_options = body.pop("options", None) or {}
    if not isinstance(own_options, Mapping):
        raise OptionError("options", type(own_options), "a dict")
    options.update(drop_none(own_options))
    if options:
        body["options"] = options
    choice = parse_tool_choice(body.get("tool_choice"))
    if choice in ("auto", "none") or not body.get("tools"):  # Ollama has no such parameter: the model always chooses
        body.pop("tool_choice", None)
        if choice == "none":
            body.pop("tools", None)
    wanted = parse_response_format(body.get("response_format"))
    if wanted is not None:
        del body["response_format"]
        if wanted.kind != "text":
            body["format"] = "json" if wanted.kind == "json" else wanted.schema
    return body


def _messages(messages: Sequence[dict[str, Any]], provider: str) -> list[dict[str, Any]]:
    function_names: dict[str, str] = {}
    return [_message(message, function_names, provider) for message in messages]


def _message(message: Mapping[str, Any], function_names: dict[str, str], provider: str) -> dict[str, Any]:
    """Translate one message: its content is text, images are a separate field, calls have objects as arguments.

    ``function_names`` maps the ids of the calls so far, which may be used again, to their functions; the calls of this
    message are added.
    """
    content = message.get("content")
    translated = {name: value for name, value in message.items() if name not in _OPENAI_FIELDS}
    if translated["role"] == "developer":
        translated["role"] = "system"
    translated["content"] = content_text(content) or text_of(message.get("refusal"))
    if translated.get("thinking") is None and (thinking := _thinking(message, provider)):
        translated["thinking"] = thinking
    if images := _images(message):
        translated["images"] = images
    if calls := parse_calls(message):
        translated["tool_calls"] = [
            {**({"id": call.id} if call.id else {}), "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
        function_names.update((call.id, call.name) for call in calls)
    if message["role"] == "tool" and translated.get("tool_name") is None:
        name = function_names.get(text_of(message.get("tool_call_id"))) or text_of(message.get("name"))
        if name:
            translated["tool_name"] = name
    return translated


def _thinking(message: Mapping[str, Any], provider: str) -> str:
    """The message's reasoning: what this provider is given back, or what the message has under another name."""
    blocks = own_blocks(message, provider) or ()
    thoughts = [text_of(block.data.get("thinking")) for block in blocks if block.data.get("type") == THINKING]
    return "".join(thoughts) or text_of(message.get("reasoning_content")) or text_of(message.get("reasoning"))


def _images(message: Mapping[str, Any]) -> list[Any]:
    """List the images in the content, after those that the message has in Ollama's own form; empty if there are none.

    Raises:
        OptionError: an image is given by its URL, or a part is a file that is no image, or a sound.
    """
    images = [image for part in to_parts(message.get("content")) if (image := _image(part)) is not None]
    if not images:
        return []
    own = message.get("images")
    return [*(own if isinstance(own, (list, tuple)) else ()), *images]


def _image(part: dict[str, Any]) -> str | None:
    image, file = parse_image(part), parse_file(part)
    found = image or file
    if found is None and part.get("type") != "input_audio":
        return None
    if found is None or (file is not None and not file.media_type.startswith("image/")):
        kind = text_of(part["type"])
        text = f"{kind}: Ollama takes text and images only."
        raise OptionError(kind, "a file", "text, or an image", message=text)
    if found.url:
        text = "image_url: Ollama does not fetch images. Pass the image itself as a data: URL."
        raise OptionError("image_url", "a URL", "a data: URL", message=text)
    return found.data
