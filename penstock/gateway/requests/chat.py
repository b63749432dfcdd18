"""OpenAI's chat completions: their bodies are the form in which providers are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.adapters.providers.shared.blocks import CALL_EXTRAS
from penstock.config.providers import Dialect
from penstock.events import FrozenDict
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.own_fields import flag_field, messages_of, model_of, model_parameters, own_fields, wrong

__all__ = ["parse"]

_GATEWAYS: Final = frozenset({"model", "messages", "stream", "stream_options", "penstock"})
_OF_ANSWERS: Final = ("reasoning_content", "reasoning", "reasoning_details", "annotations", "images", "videos", "files")
"""Fields of an assistant's message that compatible servers send, and that no other API accepts back."""


def parse(body: Mapping[str, Any], dialect: Dialect = "openai-chat") -> Asked:
    """Read a body. Every field that is not the gateway's goes on as it is, known or not.

    Entries of ``reasoning_details`` that a projection has made become what is returned to the provider that sealed
    them. Signatures of calls (``extra_content``) are found by Gemini; those that a projection has marked go back to the
    provider that made them only. The usage is always asked for.

    Args:
        body: the parsed JSON.
        dialect: the provider's. Other APIs than chat completions refuse some fields that chat clients return.

    Raises:
        RequestRefused: a field that the gateway reads is not allowed.
    """
    parameters = model_parameters({name: value for name, value in body.items() if name not in _GATEWAYS})
    options = body.get("stream_options")
    if options is not None:
        if not isinstance(options, Mapping):
            raise wrong("stream_options", options, "an object")
        parameters |= _stream_options(options, dialect)
    return Asked(
        api="chat",
        model=model_of(body),
        input=[_message(message, dialect) for message in messages_of(body)],
        parameters=FrozenDict(parameters),
        is_streamed=flag_field(body, "stream"),
        **own_fields(body),
    )


def _stream_options(given: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The options that the provider gets. Whether the client wants to see the usage is not its business."""
    if dialect == "openai-chat":
        return {"stream_options": {**given, "include_usage": True}}
    others = {name: value for name, value in given.items() if name != "include_usage" and value is not None}
    return {"stream_options": others} if others and dialect == "openai-responses" else {}


def _message(message: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    if message["role"] != "assistant":
        return message
    if isinstance(message.get("reasoning_details"), list):
        _take_sealed(message)
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        _take_calls(message, calls, dialect)
    if dialect != "openai-chat":
        for name in _OF_ANSWERS:
            message.pop(name, None)
    return message


def _take_calls(message: dict[str, Any], calls: list[Any], dialect: Dialect) -> None:
    """Read the calls' signatures; what says which provider made it becomes a block that only this one gets."""
    made: list[Any] = []
    blocks: list[dict[str, Any]] = []
    for place, given in enumerate(calls, 1):
        call = _call(given)
        extra = call.get("extra_content") if isinstance(call, Mapping) else None
        mark = extra.get("penstock") if isinstance(extra, Mapping) else None
        maker = mark.get("provider") if isinstance(mark, Mapping) else None
        if isinstance(extra, Mapping) and isinstance(maker, str) and maker:
            call = {name: value for name, value in call.items() if name != "extra_content"} | {"signed_by": maker}
            told = {name: value for name, value in extra.items() if name != "penstock"}
            data = {"type": CALL_EXTRAS, "id": call.get("id") or "", "extra_content": told}
            blocks.append({"provider": maker, "data": data, "calls": place})
        made.append(call)
    message["tool_calls"] = made
    if blocks and dialect == "openai-chat":  # others find the call's ``signature``
        before = message.get("provider_blocks")
        message["provider_blocks"] = [*(before if isinstance(before, list) else ()), *blocks]


def _call(call: Any) -> Any:
    """Give a call its signature, where Gemini's own API looks for it."""
    extra = call.get("extra_content") if isinstance(call, Mapping) else None
    google = extra.get("google") if isinstance(extra, Mapping) else None
    signature = google.get("thought_signature") if isinstance(google, Mapping) else None
    if not isinstance(signature, str) or not signature or call.get("signature") is not None:
        return call
    return {**call, "signature": signature}


def _take_sealed(message: dict[str, Any]) -> None:
    """Turn the entries that a projection has made back into blocks; others stay as they are."""
    others: list[Any] = []
    reasoning: list[dict[str, Any]] = []
    blocks: list[dict[str, Any]] = []
    said = message.get("reasoning_content") or message.get("reasoning")
    for entry in message["reasoning_details"]:
        mark = entry.get("penstock") if isinstance(entry, Mapping) else None
        if not isinstance(mark, Mapping) or not isinstance(mark.get("kind"), str):
            others.append(entry)
            continue
        kind, text = mark["kind"], _text_of(entry, mark, said if isinstance(said, str) else "")
        if kind.startswith("reasoning."):
            data = {name: value for name, value in entry.items() if name not in ("penstock", "format", "text")}
            told = {"summary" if kind == "reasoning.summary" else "text": text} if text else {}
            blocks.append({"provider": mark.get("provider") or "", "data": {**data, "type": kind, **told}})
            continue
        seal = entry.get("signature") or entry.get("data") or ""
        block = {"kind": kind, "text": text, "signature": seal, "id": entry.get("id")}
        reasoning.append({**block, "provider": mark.get("provider")})
    del message["reasoning_details"]
    found = {"reasoning_details": others, "reasoning_blocks": reasoning, "provider_blocks": blocks}
    message.update({name: items for name, items in found.items() if items})


def _text_of(entry: Mapping[str, Any], mark: Mapping[str, Any], said: str) -> str:
    """The text of an entry: its own, or its stretch of the message's reasoning."""
    for name in ("text", "summary"):
        if isinstance(text := entry.get(name), str):
            return text
    start, end = mark.get("start"), mark.get("end")
    return said[start:end] if isinstance(start, int) and isinstance(end, int) and 0 <= start <= end else ""
