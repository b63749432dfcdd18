"""Requests of AG-UI 1.0: `RunAgentInput` as chat messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.actors.agent.history import NOT_RUN
from penstock.adapters.providers.call_options import KNOWN_PARAMETERS
from penstock.adapters.providers.shared.parameters import drop_none
from penstock.config.providers import Dialect
from penstock.gateway.problems import RequestRefused
from penstock.gateway.requests.approvals import Approval
from penstock.gateway.requests.asked import Asked
from penstock.gateway.requests.media import data_url, file_part, kept_part
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

_ROLES: Final = ("developer", "system", "user", "assistant", "tool", "reasoning", "activity")
_MEDIA: Final = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4", "document": "application/pdf"}
"""The kinds of parts, and the media type of one that does not say."""


def parse(body: Mapping[str, Any], dialect: Dialect = "openai-chat", default_model: str = "") -> Asked:
    """Read the body ``{threadId, runId, messages, tools?, context?, state?, forwardedProps?, resume? …}``.

    ``forwardedProps`` may have ``model``, ``provider``, ``penstock`` and parameters of the model; everything else of it
    is the application's, and goes into the stream's metadata with ``state`` and the ids.

    Args:
        body: the parsed JSON.
        dialect: of the provider that will be asked; it decides in which form files are sent.
        default_model: if the body names none.

    Raises:
        RequestRefused: a field is malformed, the version of the protocol is another one, or there is no model.
    """
    _check_version(body)
    for name in ("threadId", "runId"):
        if text_field(body, name) is None:
            raise RequestRefused.bad_request(f"{name}: allowed: a text.", name)
    given = body.get("forwardedProps")
    props: Mapping[str, Any] = given if isinstance(given, dict) else {}
    own = own_fields(props)
    model = text_field(props, "model", "forwardedProps.") or default_model
    if not model:
        raise RequestRefused.bad_request(
            "forwardedProps.model is missing, and the server has no default.", "forwardedProps"
        )
    taken = {"model", "penstock"}
    if isinstance(props.get("provider"), str):
        taken.add("provider")
        if props["provider"]:
            own.setdefault("provider", props["provider"])
    fields = {name: value for name, value in props.items() if name in KNOWN_PARAMETERS and name not in taken}
    tools = [_tool(tool, number) for number, tool in enumerate(list_field(body, "tools"))]
    fields["tools"] = [*tools, *list_field(props, "tools", "forwardedProps.")]
    reader = _AguiMessages(dialect)
    messages = reader.messages(_messages(body))
    if context := _context(body):
        at = next((at for at, one in enumerate(messages) if one["role"] not in ("system", "developer")), len(messages))
        messages.insert(at, context)
    if not messages:
        raise RequestRefused.bad_request("messages: there is none with content.", "messages")
    others = given if not isinstance(given, dict) else {k: v for k, v in props.items() if k not in {*fields, *taken}}
    return Asked(
        api="chat",
        model=model,
        input=messages,
        parameters=model_parameters(given_fields(fields)),
        metadata={**_metadata(body, others), **own.pop("metadata", {})},
        dropped=tuple(reader.dropped),
        **own,
    )


def approvals(body: Mapping[str, Any]) -> tuple[Approval, ...]:
    """The decisions in ``resume``: a resolved one approves if its payload says so, a cancelled one never.

    A payload is true or false, or an object that has one of them as ``approved`` or ``approve``.

    Raises:
        RequestRefused: ``resume`` is malformed, or the payload of a resolved one says neither.
    """
    found = []
    for number, entry in enumerate(list_field(body, "resume")):
        path = f"resume[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("interruptId"), str):
            raise RequestRefused.bad_request(f"{path}.interruptId: allowed: a text.", f"{path}.interruptId")
        if entry.get("status") not in ("resolved", "cancelled"):
            raise RequestRefused.bad_request(f"{path}.status: allowed: resolved, cancelled.", f"{path}.status")
        payload = entry.get("payload")
        is_approved = entry["status"] == "resolved" and _is_approved(payload, f"{path}.payload")
        reason = payload.get("reason") if isinstance(payload, Mapping) else None
        reason = reason if isinstance(reason, str) and reason else None
        found.append(Approval(call_id=entry["interruptId"], is_approved=is_approved, reason=reason))
    return tuple(found)


def _is_approved(payload: object, path: str) -> bool:
    """What the payload of a resolved interrupt says. Nothing but true approves."""
    if isinstance(payload, bool):
        return payload
    if not isinstance(payload, Mapping):
        raise wrong(path, payload, "true, false, or an object with approved")
    names = [name for name in ("approved", "approve") if payload.get(name) is not None]
    for name in names or ("approved",):
        if not isinstance(payload.get(name), bool):
            raise wrong(f"{path}.{name}", payload.get(name), "true or false")
    return all(payload[name] for name in names)


def _check_version(body: Mapping[str, Any]) -> None:
    version = text_field(body, "protocolVersion")
    if version is not None and version.partition(".")[0] != "1":
        text = "protocolVersion: this server speaks 1.0."
        raise RequestRefused.bad_request(text, "protocolVersion", code="protocol_version")


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    if body.get("messages") is None:
        raise RequestRefused.bad_request("messages: allowed: a list of messages.", "messages")
    messages = list_field(body, "messages")
    for number, message in enumerate(messages):
        path = f"messages[{number}]"
        if not isinstance(message, dict):
            raise wrong(path, message, "an object")
        if message.get("role") not in _ROLES:
            raise RequestRefused.bad_request(f"{path}.role: allowed: {', '.join(_ROLES)}.", f"{path}.role")
    return messages


def _metadata(body: Mapping[str, Any], props: object) -> dict[str, Any]:
    about = {
        "thread_id": body.get("threadId"),
        "run_id": body.get("runId"),
        "parent_run_id": text_field(body, "parentRunId"),
        "state": body.get("state"),
        "forwarded_props": props,
    }
    return {name: value for name, value in about.items() if value is not None and value != {}}


def _tool(tool: object, number: int) -> dict[str, Any]:
    path = f"tools[{number}]"
    if not isinstance(tool, dict) or text_field(tool, "name", f"{path}.") is None:
        raise RequestRefused.bad_request(f"{path}: allowed: an object with a name.", path)
    names = ("name", "description", "parameters")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}


def _context(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the application says to the agent besides the conversation, as one message of the system."""
    lines = []
    for number, entry in enumerate(list_field(body, "context")):
        if not isinstance(entry, dict) or not isinstance(entry.get("value"), str):
            path = f"context[{number}]"
            raise RequestRefused.bad_request(f"{path}: allowed: an object with a description and a value.", path)
        description = any_text_field(entry, "description", f"context[{number}].")
        lines.append(f"{description}: {entry['value']}" if description else entry["value"])
    return {"role": "system", "content": "\n".join(lines)} if lines else None


class _AguiMessages:
    """Translates messages. ``dropped``: the paths of what has no form in a chat message."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect: Dialect = dialect
        self._made: list[dict[str, Any]] = []
        self._blocks: list[dict[str, Any]] = []  # signed reasoning, for the next message of the assistant
        self._server: set[str] = set()  # the calls that the provider ran
        self.dropped: list[str] = []

    def messages(self, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for number, message in enumerate(given):
            path = f"messages[{number}]"
            match message["role"]:
                case "reasoning":
                    self._reasoning(message, path)
                case "assistant":
                    self._assistant(message, path)
                case "tool":
                    self._result(message, path)
                case "system" | "developer" | "user":
                    content = self._content(message.get("content"), f"{path}.content")
                    if content:
                        self._made.append({"role": message["role"], **_named(message), "content": content})
        return _answered(self._made)

    def _assistant(self, message: dict[str, Any], path: str) -> None:
        """Add to the assistant's message; the client splits one answer into several."""
        text = self._said(message.get("content"), f"{path}.content")
        metadata = message.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        given = list_field(message, "toolCalls", f"{path}.")
        calls = [self._call(call, f"{path}.toolCalls[{at}]") for at, call in enumerate(given)]
        last = self._made[-1] if self._made and self._made[-1]["role"] == "assistant" else None
        if last is None:
            last = {"role": "assistant", **_named(message), "content": None}
            self._made.append(last)
        if text:
            field = "refusal" if metadata.get("kind") == "refusal" else "content"
            last[field] = (last.get(field) or "") + text
        for call in calls:
            if call is not None and call["id"] not in _call_ids(last):
                last.setdefault("tool_calls", []).append(call)
        if self._blocks:
            last["reasoning_blocks"] = [*last.get("reasoning_blocks", ()), *self._blocks]
            self._blocks = []
        penstock = metadata.get("penstock")
        if isinstance(penstock, Mapping) and isinstance(penstock.get("providerBlocks"), list):
            last["provider_blocks"] = penstock["providerBlocks"]
        if last == {"role": "assistant", "content": None}:
            self._made.pop()

    def _call(self, call: object, path: str) -> dict[str, Any] | None:
        """A call; None: the provider ran it itself."""
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(call.get("id"), str) or not isinstance(function, dict):
            raise RequestRefused.bad_request(f"{path}: allowed: an object with an id and a function.", path)
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, str):
            where = f"{path}.function"
            raise RequestRefused.bad_request(f"{where}: allowed: a name and arguments, both texts.", where)
        metadata = call.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        if metadata.get("server") is True:
            self._server.add(call["id"])
            return None
        penstock = metadata.get("penstock")
        penstock = penstock if isinstance(penstock, Mapping) else {}
        kind = penstock.get("type")
        if kind == "custom":
            made: dict[str, Any] = {"id": call["id"], "type": "custom", "custom": {"name": name, "input": arguments}}
        else:
            function = {"name": name, "arguments": arguments}
            made = {"id": call["id"], "type": kind if isinstance(kind, str) else "function", "function": function}
        if isinstance(call.get("encryptedValue"), str):
            made["signature"] = call["encryptedValue"]
            if isinstance(penstock.get("provider"), str):
                made["signed_by"] = penstock["provider"]
        return made

    def _reasoning(self, message: dict[str, Any], path: str) -> None:
        """Keep a block that the provider signed; what is not signed, no provider takes back."""
        metadata = message.get("metadata")
        penstock = metadata.get("penstock") if isinstance(metadata, Mapping) else None
        penstock = drop_none(penstock) if isinstance(penstock, Mapping) else {}
        signature = message.get("encryptedValue")
        if not isinstance(signature, str) and "kind" not in penstock:
            return
        text = any_text_field(message, "content", f"{path}.")
        block = {"kind": "reasoning", "text": text, "signature": signature, **penstock}
        names = ("kind", "text", "signature", "id", "provider")
        self._blocks.append({name: block[name] for name in names if isinstance(block.get(name), str)})

    def _result(self, message: dict[str, Any], path: str) -> None:
        """Put a result after its call; one without a call, a second one, or one of the provider's, is left out."""
        call_id = message.get("toolCallId")
        if not isinstance(call_id, str):
            raise RequestRefused.bad_request(f"{path}.toolCallId: allowed: a text.", f"{path}.toolCallId")
        if call_id in self._server:
            return
        owners = [at for at, one in enumerate(self._made) if call_id in _call_ids(one)]
        at = owners[-1] + 1 if owners else 0
        while owners and at < len(self._made) and self._made[at]["role"] == "tool":
            if self._made[at]["tool_call_id"] == call_id:
                owners = []
            at += 1
        if not owners:
            self.dropped.append(path)
            return
        content: Any = self._content(message.get("content"), f"{path}.content")
        metadata = message.get("metadata")
        status = metadata.get("status") if isinstance(metadata, Mapping) else None
        error = message.get("error")
        if error is not None and not isinstance(error, str):
            raise wrong(f"{path}.error", error, "a text")
        made: dict[str, Any] = {"role": "tool", "tool_call_id": call_id, "content": content or error or ""}
        if error or status not in (None, "ok"):
            made["is_error"] = True
        self._made.insert(at, made)

    def _content(self, content: object, path: str) -> str | list[dict[str, Any]]:
        if content is None or isinstance(content, str):
            return content or ""
        if not isinstance(content, list):
            raise wrong(path, content, "a text or a list")
        parts = [self._part(part, f"{path}[{at}]") for at, part in enumerate(content)]
        return [part for part in parts if part is not None]

    def _said(self, content: object, path: str) -> str:
        """The text of an assistant's content. No provider takes other parts from the assistant."""
        if not isinstance(content, list):
            if content is not None and not isinstance(content, str):
                raise wrong(path, content, "a text or a list")
            return content or ""
        texts = []
        for at, given in enumerate(content):
            part = self._part(given, f"{path}[{at}]")
            if part is not None and part.get("type") == "text":
                texts.append(part["text"])
            elif part is not None:
                self.dropped.append(f"{path}[{at}]")
        return "".join(texts)

    def _part(self, part: object, path: str) -> dict[str, Any] | None:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise RequestRefused.bad_request(f"{path}: allowed: an object with a type.", path)
        kind = part["type"]
        if kind == "text" and isinstance(part.get("text"), str):
            return {"type": "text", "text": part["text"]}
        source = _binary(part) if kind == "binary" else part.get("source")
        if kind not in (*_MEDIA, "binary") or not isinstance(source, Mapping):
            self.dropped.append(path)
            return None
        value = source.get("value")
        if not isinstance(value, str) or not value:
            raise RequestRefused.bad_request(f"{path}.source.value: allowed: a text.", f"{path}.source.value")
        given = any_text_field(source, "mimeType", f"{path}.source.")
        media_type = given or _MEDIA.get(kind, "application/octet-stream")
        if source.get("type") == "file":
            return kept_part(value, media_type, self._dialect)
        metadata = part.get("metadata")
        name = metadata.get("filename") if isinstance(metadata, Mapping) else None
        name = part.get("filename") if name is None else name
        url = data_url(value, media_type) if source.get("type") == "data" else value
        return file_part(url, media_type, name if isinstance(name, str) else None, self._dialect)


def _answered(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All messages; a call without a result gets one that says so, since providers refuse it without."""
    whole: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in [*messages, None]:
        if message is not None and message["role"] == "tool":
            waiting = [call_id for call_id in waiting if call_id != message["tool_call_id"]]
        else:
            whole += ({"role": "tool", "tool_call_id": call_id, "content": NOT_RUN} for call_id in waiting)
            waiting = [] if message is None else _call_ids(message)
        if message is not None:
            whole.append(message)
    return whole


def _binary(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """The source of a part as it was before 1.0."""
    for field, kind in (("data", "data"), ("url", "url"), ("id", "file")):
        if isinstance(part.get(field), str):
            return {"type": kind, "value": part[field], "mimeType": part.get("mimeType")}
    return None


def _named(message: Mapping[str, Any]) -> dict[str, str]:
    name = message.get("name")
    return {"name": name} if isinstance(name, str) and name else {}


def _call_ids(message: Mapping[str, Any]) -> list[str]:
    return [call["id"] for call in message.get("tool_calls", ())] if message["role"] == "assistant" else []
