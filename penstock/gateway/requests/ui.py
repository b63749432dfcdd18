"""Requests of Vercel's `DefaultChatTransport`: UI messages as chat messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from penstock.actors.agent.history import NOT_RUN
from penstock.adapters.providers.shared.parameters import drop_none
from penstock.config.providers import Dialect
from penstock.gateway.problems import RequestRefused, shown_name
from penstock.gateway.projections.ui import BLOCKS, RESET
from penstock.gateway.requests.approvals import Approval
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.media import file_part
from penstock.gateway.requests.own_fields import (
    any_text_field,
    given_fields,
    list_field,
    model_parameters,
    own_fields,
    text_field,
    wrong,
)

__all__ = ["approvals", "parse"]

_TRIGGERS: Final = ("submit-message", "regenerate-message")
_ROLES: Final = ("system", "user", "assistant")
_OWN: Final = {"id", "messages", "trigger", "messageId", "model", "penstock", "system", "tools"}
_DENIED: Final = "The user did not approve this call"


def parse(body: Mapping[str, Any], dialect: Dialect = "openai-chat", default_model: str = "") -> Asked:
    """Read the body ``{id, messages, trigger, messageId?, …}``.

    The further fields, which the page sets with the transport's ``body``, are ``model``, ``provider``, ``system`` (a
    text that becomes the first message), ``tools`` (a list in OpenAI's form, or an object of descriptions and schemas
    by name), ``penstock``, and parameters of the model.

    Args:
        body: the parsed JSON.
        dialect: of the provider that will be asked; it decides in which form files are sent.
        default_model: if the body names none.

    Raises:
        RequestRefused: a field is malformed, or there is no model.
    """
    own = own_fields(body)
    model = text_field(body, "model") or default_model
    if not model:
        raise RequestRefused.bad_request("model is missing, and the server has no default.", "model")
    trigger = body.get("trigger")
    if trigger is not None and trigger not in _TRIGGERS:
        raise RequestRefused.bad_request(f"trigger: allowed: {', '.join(_TRIGGERS)}.", "trigger")
    fields = {name: value for name, value in body.items() if name not in _OWN}
    if isinstance(provider := body.get("provider"), str):
        del fields["provider"]
        if provider:
            own.setdefault("provider", provider)
    fields["tools"] = _tools(body.get("tools"))
    about = {"chat_id": text_field(body, "id"), "trigger": trigger, "message_id": text_field(body, "messageId")}
    metadata = {**{name: value for name, value in about.items() if value}, **own.pop("metadata", {})}
    reader = _UiMessages(dialect)
    messages = reader.messages(_messages(body))
    if system := any_text_field(body, "system"):
        messages.insert(0, {"role": "system", "content": system})
    if not messages:
        raise RequestRefused.bad_request("messages: there is none with content.", "messages")
    return Asked(
        api="chat",
        model=model,
        input=messages,
        parameters=model_parameters(given_fields(fields)),
        metadata=metadata,
        dropped=tuple(reader.dropped),
        **own,
    )


def approvals(body: Mapping[str, Any]) -> tuple[Approval, ...]:
    """The decisions that the body brings: those of the last message, for calls without a result.

    Raises:
        RequestRefused: ``messages`` is malformed, or a decision is neither true nor false.
    """
    messages = _messages(body)
    found = []
    path = f"messages[{len(messages) - 1}].parts"
    for place, part in enumerate(messages[-1]["parts"] if messages and messages[-1]["role"] == "assistant" else ()):
        approval = part.get("approval")
        if part.get("state") != "approval-responded" or not isinstance(approval, Mapping):
            continue
        call_id, is_approved, reason = approval.get("id"), approval.get("approved"), approval.get("reason")
        if is_approved is not None and not isinstance(is_approved, bool):
            raise wrong(f"{path}[{place}].approval.approved", is_approved, "true or false")
        if isinstance(call_id, str) and is_approved is not None:
            reason = reason if isinstance(reason, str) and reason else None
            found.append(Approval(call_id=call_id, is_approved=is_approved, reason=reason))
    return tuple(found)


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages, each with a known role and a list of parts that are objects with a type."""
    checked = []
    if body.get("messages") is None:
        raise RequestRefused.bad_request("messages: allowed: a list of UI messages.", "messages")
    for number, message in enumerate(list_field(body, "messages")):
        path = f"messages[{number}]"
        if not isinstance(message, dict):
            raise wrong(path, message, "an object")
        if message.get("role") not in _ROLES:
            raise RequestRefused.bad_request(f"{path}.role: allowed: {', '.join(_ROLES)}.", f"{path}.role")
        parts = list_field(message, "parts", f"{path}.")
        if message.get("parts") is None and message.get("content") is not None:  # as before version 5
            parts = [{"type": "text", "text": any_text_field(message, "content", f"{path}.")}]
        for place, part in enumerate(parts):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                where = f"{path}.parts[{place}]"
                raise RequestRefused.bad_request(f"{where}: allowed: an object with a type.", where)
        checked.append({**message, "parts": parts})
    return checked


def _tools(given: object) -> list[Any]:
    if given is None or isinstance(given, list):
        return given or []
    if not isinstance(given, dict):
        raise wrong("tools", given, "a list or an object")
    tools = []
    for name, tool in drop_none(given).items():
        if not isinstance(tool, dict):
            raise wrong(f"tools.{shown_name(name)}", tool, "an object")
        schema = tool.get("inputSchema") if tool.get("parameters") is None else tool["parameters"]
        function = {"name": name, "description": tool.get("description"), "parameters": schema}
        known = {key: value for key, value in function.items() if value is not None}
        tools.append({"type": "function", "function": known})
    return tools


class _UiMessages:
    """Translates messages. ``dropped``: the paths of parts that have no form in a chat message."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect: Dialect = dialect
        self.dropped: list[str] = []

    def messages(self, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for number, message in enumerate(given):
            path = f"messages[{number}].parts"
            if message["role"] == "assistant":
                for step in _steps(message["parts"]):
                    made += self._step(step, path)
            elif content := self._content(message["parts"], path):
                made.append({"role": message["role"], "content": content})
        return made

    def _content(self, parts: list[dict[str, Any]], path: str) -> str | list[dict[str, Any]]:
        """What the user said: text alone as text."""
        content = []
        for place, part in enumerate(parts):
            if part["type"] == "text":
                content.append({"type": "text", "text": _text(part, f"{path}[{place}]")})
            elif part["type"] == "file":
                content.append(self._file(part, f"{path}[{place}]"))
            elif not part["type"].startswith("data-"):
                self.dropped.append(f"{path}[{place}]")
        if all(part["type"] == "text" for part in content):
            return "\n".join(part["text"] for part in content)
        return content

    def _file(self, part: dict[str, Any], path: str) -> dict[str, Any]:
        url, media_type = part.get("url"), part.get("mediaType")
        if not isinstance(url, str) or not url or not isinstance(media_type, str):
            raise RequestRefused.bad_request(f"{path}: a file needs a url and a mediaType.", path)
        name = any_text_field(part, "filename", f"{path}.") or None
        return file_part(url, media_type, name, self._dialect)

    def _step(self, parts: list[tuple[int, dict[str, Any]]], path: str) -> list[dict[str, Any]]:
        """One step of an answer: the assistant's message, and the results of its calls."""
        message: dict[str, Any] = {"role": "assistant", "content": None}
        texts: list[str] = []
        refusals: list[str] = []
        thought = ""
        calls: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for place, part in parts:
            kind, where = part["type"], f"{path}[{place}]"
            if kind == "text":
                is_refusal = _own_metadata(part, "providerMetadata").get("kind") == "refusal"
                (refusals if is_refusal else texts).append(_text(part, where))
            elif kind == "reasoning":
                thought = _add_reasoning(message, thought + _text(part, where), part)
            elif kind == BLOCKS and isinstance(part.get("data"), list):
                message["provider_blocks"] = part["data"]
            elif kind == "dynamic-tool" or kind.startswith("tool-"):
                _add_call(calls, results, part, where)
            elif kind == "file":
                self.dropped.append(where)  # no provider takes pictures from the assistant
            elif not kind.startswith(("data-", "source-")):
                self.dropped.append(where)
        if texts:
            message["content"] = "".join(texts)
        if refusals:
            message["refusal"] = "".join(refusals)
        if calls:
            message["tool_calls"] = calls
        return [message, *results] if message.keys() > {"role", "content"} or texts else []


def _steps(parts: list[dict[str, Any]]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """The parts of each step with their places, without those that a reset has made void."""
    step: list[tuple[int, dict[str, Any]]] = []
    for place, part in enumerate(parts):
        if part["type"] == "step-start":
            yield step
            step = []
        elif part["type"] == RESET:
            step = []
        else:
            step.append((place, part))
    yield step


def _text(part: dict[str, Any], path: str) -> str:
    text = part.get("text")
    if not isinstance(text, str):
        raise wrong(f"{path}.text", text, "a text")
    return text


def _own_metadata(part: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """What the projection has put on a part."""
    metadata = part.get(field)
    own = metadata.get("penstock") if isinstance(metadata, Mapping) else None
    return own if isinstance(own, Mapping) else {}


def _add_reasoning(message: dict[str, Any], text: str, part: dict[str, Any]) -> str:
    """Add a block that the provider signed; returns the text that is not part of a block yet."""
    block = _own_metadata(part, "providerMetadata")
    if not isinstance(block.get("kind"), str):
        return text
    names = ("kind", "signature", "id", "provider")
    known = {name: block[name] for name in names if isinstance(block.get(name), str)}
    message.setdefault("reasoning_blocks", []).append({"text": text, **known})
    return ""


def _add_call(calls: list[dict[str, Any]], results: list[dict[str, Any]], part: dict[str, Any], path: str) -> None:
    """Add a call and its result. One that is cut off, that the provider ran, or that is there already, is left out."""
    call_id, state = part.get("toolCallId"), part.get("state")
    name = part.get("toolName") if part["type"] == "dynamic-tool" else part["type"][len("tool-") :]
    if not isinstance(call_id, str) or not isinstance(name, str) or not name:
        raise RequestRefused.bad_request(f"{path}: a tool part needs a toolCallId and a name.", path)
    if part.get("providerExecuted") is True or state == "input-streaming" or any(one["id"] == call_id for one in calls):
        return
    own = _own_metadata(part, "callProviderMetadata")
    value = part.get("rawInput") if part.get("input") is None else part["input"]
    arguments = value if isinstance(value, str) else _json({} if value is None else value)
    if own.get("type") == "custom":
        call: dict[str, Any] = {"id": call_id, "type": "custom", "custom": {"name": name, "input": arguments}}
    else:
        kind = own["type"] if isinstance(own.get("type"), str) else "function"
        call = {"id": call_id, "type": kind, "function": {"name": name, "arguments": arguments}}
    if isinstance(own.get("signature"), str):
        call["signature"] = own["signature"]
        if isinstance(own.get("provider"), str):
            call["signed_by"] = own["provider"]
    calls.append(call)
    results.append({"role": "tool", "tool_call_id": call_id, **_result(part, state)})


def _result(part: Mapping[str, Any], state: object) -> dict[str, Any]:
    approval = part.get("approval")
    approval = approval if isinstance(approval, Mapping) else {}
    if state == "output-available":
        output = part.get("output")
        return {"content": output if isinstance(output, str) else _json(output)}
    if state == "output-error":
        text = part.get("errorText")
        return {"content": text if isinstance(text, str) and text else "The call failed.", "is_error": True}
    if state == "output-denied" or approval.get("approved") is False:
        reason = approval.get("reason")
        return {"content": f"{_DENIED}: {reason}" if isinstance(reason, str) and reason else f"{_DENIED}."}
    return {"content": NOT_RUN}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
