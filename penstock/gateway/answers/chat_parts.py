"""The pieces of a chat completion, streamed or whole: usage, sources, media, sealed reasoning, probabilities. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from penstock.config.counting import dialect_of, inclusive_counts
from penstock.config.providers import Dialect, find_known_provider
from penstock.events import (
    Choice,
    Citation,
    FinishReason,
    MediaPart,
    StreamCompleted,
    TerminalEvent,
    TokenLogprob,
    ToolCall,
)

__all__ = [
    "annotation",
    "call_body",
    "call_extras",
    "choice_reason",
    "data_url",
    "envelope_extras",
    "finish_extras",
    "finish_reason",
    "logprob_bodies",
    "media_body",
    "reasoning_detail",
    "untold_reason",
    "usage_body",
]

_FINISH: Final[dict[FinishReason, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "stop",
    "other": "stop",  # with `untold_reason` beside it
}
_FORMATS: Final[dict[Dialect, str]] = {
    "anthropic": "anthropic-claude-v1",
    "openai-responses": "openai-responses-v1",
    "gemini": "google-gemini-v1",
}
"""The names that OpenRouter gives to the forms of sealed reasoning."""
_SPECIAL_COUNTS: Final = {"sources": "num_sources_used", "search_queries": "num_search_queries"}
_MIME: Final = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4", "file": "application/octet-stream"}


# --- the end ----------------------------------------------------------------------------------------------------------


def finish_reason(reason: str, raw: str | None, *, has_calls: bool) -> str:
    """The finish reason in OpenAI's words. They have none for an unknown reason, see `untold_reason`.

    Without calls for the client it is never ``tool_calls``; with some it is, if the provider gave no reason (``raw``).
    """
    word = _FINISH.get(reason, "stop")  # type: ignore[call-overload]
    if word == "tool_calls" and not has_calls:
        return "stop"
    return "tool_calls" if raw is None and has_calls and reason == "stop" else str(word)


def choice_reason(choice: Choice, terminal: StreamCompleted) -> FinishReason:
    """Why one of several choices ended.

    If the provider gives a reason for the answer and none for this choice, it is not known whether that is whole.
    """
    return choice.finish_reason or ("stop" if terminal.raw_finish_reason is None else "other")


def untold_reason(reason: FinishReason, raw: str | None) -> dict[str, str]:
    """The provider's own reason, where a protocol has none for it, in the field that OpenRouter has for that."""
    return {"native_finish_reason": raw} if reason == "other" and raw else {}


def finish_extras(terminal: TerminalEvent, raw: str | None, word: str) -> dict[str, Any]:
    """What a finished choice has besides its reason, under the names of OpenRouter and vLLM."""
    extras: dict[str, Any] = {}
    native = terminal.provider_metadata.get("native_finish_reason") or (raw if raw != word else None)
    if native is not None:
        extras["native_finish_reason"] = native
    if (stop := terminal.provider_metadata.get("stop_sequence")) is not None:
        extras["stop_reason"] = stop
    return extras


def envelope_extras(terminal: TerminalEvent) -> dict[str, Any]:
    """What the provider says of the answer as a whole, under the names of chat completions."""
    told = terminal.provider_metadata
    tier = told.get("service_tier") or (terminal.usage.service_tier if terminal.usage is not None else None)
    moderation = told.get("moderation")
    found = {
        "service_tier": tier,
        "system_fingerprint": told.get("system_fingerprint"),
        "provider": told.get("upstream_provider"),
        "related_questions": told.get("related_questions"),
        "timings": told.get("timings"),
        "prompt_filter_results": moderation.get("prompt_filter_results") if isinstance(moderation, Mapping) else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def usage_body(terminal: TerminalEvent) -> dict[str, Any] | None:
    """The counts under OpenAI's names; None: the provider reported none. What was not reported is left out.

    They are inclusive, see `inclusive_counts`.
    """
    usage = terminal.usage
    if usage is None:
        return None
    asked, answered = inclusive_counts(usage, dialect_of(terminal))
    total = usage.total_tokens
    if total is None and asked is not None and answered is not None:
        total = asked + answered
    body: dict[str, Any] = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": total}
    body["prompt_tokens_details"] = _said(
        cached_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        audio_tokens=usage.audio_input_tokens,
        image_tokens=usage.image_input_tokens,
    )
    body["completion_tokens_details"] = _said(
        reasoning_tokens=usage.reasoning_tokens,
        audio_tokens=usage.audio_output_tokens,
        image_tokens=usage.image_output_tokens,
    )
    body["cache_creation"] = _said(ephemeral_1h_input_tokens=usage.cache_write_1h_tokens)
    counts = usage.server_tool_requests or {}
    body |= {_SPECIAL_COUNTS[name]: count for name, count in counts.items() if name in _SPECIAL_COUNTS}
    body["server_tool_use"] = {
        f"{name}_requests": count for name, count in counts.items() if name not in _SPECIAL_COUNTS
    }
    body["cost"] = usage.reported_cost
    return {name: value for name, value in body.items() if value is not None and value != {}}


def _said(**counts: int | None) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}


# --- parts of the message ---------------------------------------------------------------------------------------------


def annotation(citation: Citation, index: int) -> dict[str, Any]:
    """A source as an entry of ``annotations``.

    Strict clients accept one type only, with four fields that must be there: ``url``, ``title``, ``start_index`` and
    ``end_index``; both are 0 if the place is not known, as OpenRouter sends it. ``index`` numbers the entries, which
    openai-python needs to join lists.
    """
    inner: dict[str, Any] = {
        **citation.location,
        "url": citation.url or "",
        "title": citation.title or "",
        "start_index": citation.start or 0,
        "end_index": citation.end or 0,
    }
    if citation.cited_text is not None:
        inner["content"] = citation.cited_text
    if citation.id is not None:
        inner["file_id"] = citation.id
    return {"type": "url_citation", "index": index, "url_citation": inner}


def data_url(part: MediaPart) -> str:
    """The address of a medium: its own, or one that holds its content."""
    return part.url or f"data:{part.mime or _MIME[part.kind]};base64,{part.data}"


def media_body(part: MediaPart, index: int) -> dict[str, Any]:
    """A picture, sound, film or file as fields of a delta or message."""
    if part.kind == "audio":
        told = {"id": part.id, "data": part.data or None, "transcript": part.transcript or None}
        return {"audio": {name: value for name, value in told.items() if value is not None}}
    if part.kind == "image":
        return {"images": [{"type": "image_url", "index": index, "image_url": {"url": data_url(part)}}]}
    if part.kind == "video":
        return {"videos": [{"type": "video_url", "index": index, "video_url": {"url": data_url(part)}}]}
    return {"files": [{"type": "file", "index": index, "file": {"file_data": data_url(part)}}]}


def reasoning_detail(
    kind: str, signature: str, id: str | None, provider: str | None, index: int, span: tuple[int, int]
) -> dict[str, Any]:
    """A sealed piece of reasoning as an entry of ``reasoning_details``, in OpenRouter's form.

    Its text has come as reasoning; ``span`` is where, in characters. ``penstock`` is what `requests.chat` needs to give
    the piece back to the provider that sealed it, for the client returns entries as they are.
    """
    row = find_known_provider(provider or "")
    is_text = kind in ("thinking", "reasoning.text") or (kind == "reasoning.summary" and bool(signature))
    form = kind if kind.startswith("reasoning.") else "reasoning.text" if is_text else "reasoning.encrypted"
    entry: dict[str, Any] = {"type": form}
    if signature:
        entry["signature" if is_text else "data"] = signature
    if id is not None:
        entry["id"] = id
    entry["format"] = _FORMATS.get(row.dialect, "unknown") if row is not None else "unknown"
    entry["index"] = index
    entry["penstock"] = {"kind": kind, "provider": provider, "start": span[0], "end": span[1]}
    return entry


def logprob_bodies(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Tokens with their probabilities."""
    return [
        _logprob(token.token, token.logprob)
        | {"top_logprobs": [_logprob(other, logprob) for other, logprob in token.top]}
        for token in tokens
    ]


def _logprob(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}


def call_body(call: ToolCall, index: int | None = None) -> dict[str, Any]:
    """A whole call, with its place if it is part of a delta. No arguments at all are an empty object."""
    raw = call.arguments_raw or ("{}" if call.arguments == {} else "")
    body: dict[str, Any] = {} if index is None else {"index": index}
    body |= {"id": call.id, "type": "custom" if call.type == "custom" else "function"}
    if call.type == "custom":
        body["custom"] = {"name": call.name, "input": raw}
    else:
        body["function"] = {"name": call.name, "arguments": raw}
    return body | call_extras(call)


def call_extras(call: ToolCall) -> dict[str, Any]:
    """What must go back with a call: the signature, where Google's compatible API has it.

    ``penstock`` beside it names the provider that made it, for `requests.chat`: clients return the object as it is.
    """
    if not call.signature:
        return {}
    maker = {"penstock": {"provider": call.signed_by}} if call.signed_by else {}
    return {"extra_content": {"google": {"thought_signature": call.signature}, **maker}}
