"""The conversation of a request to Anthropic's Messages API as chat messages, for providers of other dialects. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from penstock.config.checks import type_of
from penstock.config.providers import Dialect
from penstock.gateway.answers.anthropic_parts import unseal
from penstock.gateway.problems import RequestRefused
from penstock.gateway.requests.media import data_url
from penstock.gateway.requests.own_fields import any_text_field, flag_field, object_field

__all__ = ["Translator"]

_IN_RESULTS: Final = frozenset({"openai-responses", "gemini"})
"""Dialects in which results of calls may hold pictures and files."""
_SERVER_CALLS: Final = ("server_tool_use", "mcp_tool_use")
_KEPT: Final = frozenset({"thinking", "redacted_thinking", "container_upload", "compaction", "fallback"})
"""Blocks of Anthropic's that go back to Anthropic only, in case the conversation comes there again."""
_TEXT_FIELDS: Final = frozenset({"type", "text", "citations"})


class Translator:
    """Translates messages. ``dropped`` gets the paths of what cannot be translated."""

    def __init__(self, dialect: Dialect, dropped: list[str]) -> None:
        self._dialect = dialect
        self._dropped = dropped

    def system(self, given: object) -> list[dict[str, Any]]:
        """The system prompt as a message; none if there is none."""
        if given is None or given == "":
            return []
        if isinstance(given, str):
            return [{"role": "system", "content": given}]
        texts = [part["text"] for part in self._parts(given, "system") if "text" in part]
        return [{"role": "system", "content": "\n\n".join(texts)}] if texts else []

    def messages(self, messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The messages, those with results of calls as several."""
        made: list[dict[str, Any]] = []
        for place, message in enumerate(messages):
            path, role, content = f"messages[{place}].content", message["role"], message.get("content")
            if isinstance(content, str):
                made.append({"role": role, "content": content})
            elif role == "assistant":
                made.append(self._assistant(content, path))
            else:
                made += self._user(role, content, path)
        return made

    # --- what the user says -------------------------------------------------------------------------------------------

    def _user(self, role: str, content: object, path: str) -> list[dict[str, Any]]:
        """Results of calls come first, as they must follow the calls directly; then the rest."""
        results: list[dict[str, Any]] = []
        parts: list[dict[str, Any]] = []
        for place, block in enumerate(_blocks(content, path)):
            if block.get("type") == "tool_result":
                result, moved = self._result(block, f"{path}[{place}]")
                results.append(result)
                parts += moved
            else:
                parts += self._part(block, f"{path}[{place}]")
        return [*results, {"role": role, "content": _simplified(parts)}] if parts or not results else results

    def _result(self, block: Mapping[str, Any], path: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A result, and the parts of it that must go into the user's message."""
        call_id = any_text_field(block, "tool_use_id", f"{path}.")
        message: dict[str, Any] = {"role": "tool", "tool_call_id": call_id}
        content = block.get("content")
        parts = [] if content is None else self._parts(content, f"{path}.content")
        moved: list[dict[str, Any]] = []
        if self._dialect not in _IN_RESULTS:
            moved = [part for part in parts if part["type"] != "text"]
            parts = [part for part in parts if part["type"] == "text"]
        if moved:
            note = f"What the tool has returned for the call {call_id}:"
            moved.insert(0, {"type": "text", "text": note})
            parts = parts or [{"type": "text", "text": "The result is in the next message."}]
        if all(part["type"] == "text" for part in parts):
            message["content"] = "\n".join(part["text"] for part in parts)
        else:
            message["content"] = parts
        if flag_field(block, "is_error", f"{path}."):
            message["is_error"] = True
        self._drop(block, ("type", "tool_use_id", "content", "is_error"), path)
        return message, moved

    def _parts(self, content: object, path: str) -> list[dict[str, Any]]:
        if isinstance(content, str):
            return [{"type": "text", "text": content}] if content else []
        parts: list[dict[str, Any]] = []
        for place, block in enumerate(_blocks(content, path)):
            parts += self._part(block, f"{path}[{place}]")
        return parts

    def _part(self, block: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
        """A block as parts of a chat message; none if it cannot be translated."""
        kind = block.get("type")
        if kind == "text" and isinstance(block.get("text"), str):
            self._drop(block, _TEXT_FIELDS, path)
            return [{"type": "text", "text": block["text"]}] if block["text"] else []
        if kind == "image" and (url := _url_of(object_field(block, "source", f"{path}."), f"{path}.source.")):
            self._drop(block, ("type", "source"), path)
            return [{"type": "image_url", "image_url": {"url": url}}]
        if kind == "document":
            return self._document(block, path)
        if kind == "search_result":
            heads = (any_text_field(block, name, f"{path}.") for name in ("title", "source"))
            head = "\n".join(text for text in heads if text)
            texts = [part["text"] for part in self._parts(block.get("content"), f"{path}.content") if "text" in part]
            self._drop(block, ("type", "title", "source", "content"), path)
            return [{"type": "text", "text": "\n".join([head, *texts])}]
        self._dropped.append(path)
        return []

    def _document(self, block: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
        """A document: text as text, all else as a file."""
        self._drop(block, ("type", "source", "title", "context"), path)
        source = object_field(block, "source", f"{path}.")
        title, context = (any_text_field(block, name, f"{path}.") for name in ("title", "context"))
        head = "\n".join(text for text in (title, context) if text)
        head = f"{head}\n\n" if head else ""
        if source.get("type") == "text" and isinstance(source.get("data"), str):
            return [{"type": "text", "text": head + source["data"]}]
        if source.get("type") == "content":
            inner = self._parts(source.get("content"), f"{path}.source.content")
            return [{"type": "text", "text": head}, *inner] if head else inner
        url = _url_of(source, f"{path}.source.")
        if not url:
            self._dropped.append(path)
            return []
        before = [{"type": "text", "text": context}] if context else []
        if self._dialect == "ollama":
            self._dropped.append(path)
            return before
        if self._dialect == "gemini":  # a picture's address may hold any medium there
            return [*before, {"type": "image_url", "image_url": {"url": url}}]
        is_inline = url.startswith("data:")
        if self._dialect == "openai-responses" and not is_inline:
            return [*before, {"type": "input_file", "file_url": url}]
        return [*before, {"type": "file", "file": {"filename": title or "document.pdf", "file_data": url}}]

    # --- what the model has said --------------------------------------------------------------------------------------

    def _assistant(self, content: object, path: str) -> dict[str, Any]:
        """An answer: its text, its calls, and what goes back to the provider that made it."""
        texts: list[str] = []
        calls: list[dict[str, Any]] = []
        blocks: list[dict[str, Any]] = []
        sealed: list[dict[str, Any]] = []
        at = 0
        for place, block in enumerate(_blocks(content, path)):
            kind, where = block.get("type"), f"{path}[{place}]"
            if kind == "text" and isinstance(block.get("text"), str):
                self._drop(block, _TEXT_FIELDS, where)
                texts.append(block["text"])
                at += len(block["text"])
            elif kind == "tool_use":
                calls.append(_call(block, f"{where}."))
                self._drop(block, ("type", "id", "name", "input", "caller"), where)
            elif kind == "thinking" and not block.get("signature"):
                self._dropped.append(where)
            elif kind == "thinking" and (own := unseal(str(block["signature"]), str(block.get("thinking") or ""))):
                sealed.append(msgspec.to_builtins(own))
            elif _is_kept(kind):
                data = {name: value for name, value in block.items() if name != "cache_control"}
                blocks.append({"provider": "anthropic", "data": data, "at": at, "calls": len(calls)})
            else:
                self._dropped.append(where)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or (None if calls else "")}
        found = {"tool_calls": calls, "reasoning_blocks": sealed, "provider_blocks": blocks}
        return message | {name: items for name, items in found.items() if items}

    def _drop(self, block: Mapping[str, Any], known: Iterable[str], path: str) -> None:
        self._dropped += (f"{path}.{name}" for name in block if name not in known)


def _is_kept(kind: object) -> bool:
    return isinstance(kind, str) and (kind in _KEPT or kind in _SERVER_CALLS or kind.endswith("_tool_result"))


def _blocks(content: object, path: str) -> list[Mapping[str, Any]]:
    if content is None:
        return []
    if not isinstance(content, list):
        raise RequestRefused.bad_request(f"{path}: expected text or a list of blocks, got {type_of(content)}.", path)
    for place, block in enumerate(content):
        if not isinstance(block, Mapping):
            name = f"{path}[{place}]"
            raise RequestRefused.bad_request(f"{name}: expected a content block, got {type_of(block)}.", name)
    return content


def _simplified(parts: list[dict[str, Any]]) -> Any:
    """Text alone as text, which every server takes."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts


def _url_of(source: Mapping[str, Any], path: str) -> str:
    """The address of a source, or one that holds its content; ``""`` for files that Anthropic keeps."""
    if source.get("type") == "base64" and (data := any_text_field(source, "data", path)):
        return data_url(data, any_text_field(source, "media_type", path) or "application/octet-stream")
    return any_text_field(source, "url", path) if source.get("type") == "url" else ""


def _call(block: Mapping[str, Any], path: str) -> dict[str, Any]:
    arguments = msgspec.json.encode(object_field(block, "input", path)).decode()
    return {
        "id": any_text_field(block, "id", path),
        "type": "function",
        "function": {"name": any_text_field(block, "name", path), "arguments": arguments},
    }
