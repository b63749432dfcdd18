"""The lists of models in the form of each provider, page by page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.adapters.loopback.dialects import Dialect, Query, Rejection

__all__ = ["list_models"]

_CREATED = "2026-01-01T00:00:00Z"


def list_models(dialect: Dialect, names: Sequence[str], query: Query) -> bytes | Rejection:
    """Return the list, or the requested page of it, in the form of the dialect."""
    match dialect.name:
        case "anthropic":
            return _anthropic(names, query)
        case "gemini":
            return _gemini(names, query)
        case "ollama":
            listed: Any = {"models": [_ollama_model(name) for name in names]}
        case _:
            entries = [{"id": name, "object": "model", "created": 0, "owned_by": "penstock"} for name in names]
            listed = {"object": "list", "data": entries}
    return msgspec.json.encode(listed)


def _size(query: Query, name: str, default: int) -> int | Rejection:
    size = query.get(name, str(default))
    if not size.isdecimal() or not 1 <= int(size) <= 1000:
        return Rejection(status=400, message=f"{name}: must be from 1 to 1000", param=name)
    return int(size)


def _anthropic(names: Sequence[str], query: Query) -> bytes | Rejection:
    limit = _size(query, "limit", 20)
    if isinstance(limit, Rejection):
        return limit
    for name in ("after_id", "before_id"):
        if name in query and query[name] not in names:
            return Rejection(status=400, message=f"{name}: no such model", param=name)
    if "before_id" in query:
        end = names.index(query["before_id"])
        start = max(end - limit, 0)
        has_more = start > 0
    else:
        start = names.index(query["after_id"]) + 1 if "after_id" in query else 0
        end = min(start + limit, len(names))
        has_more = end < len(names)
    page = names[start:end]
    data = [{"type": "model", "id": name, "display_name": name, "created_at": _CREATED} for name in page]
    edges = {"first_id": page[0] if page else None, "last_id": page[-1] if page else None}
    return msgspec.json.encode({"data": data, "has_more": has_more, **edges})


def _gemini(names: Sequence[str], query: Query) -> bytes | Rejection:
    size, token = _size(query, "pageSize", 50), query.get("pageToken", "0")
    if isinstance(size, Rejection):
        return size
    if not token.isdecimal():
        return Rejection(status=400, message="The page token is invalid.")
    start = int(token)
    end = start + size
    listed: dict[str, Any] = {"models": [_gemini_model(name) for name in names[start:end]]}
    if end < len(names):
        listed["nextPageToken"] = str(end)
    return msgspec.json.encode(listed)


def _gemini_model(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


def _ollama_model(name: str) -> dict[str, Any]:
    tagged = name if ":" in name else f"{name}:latest"
    return {
        "name": tagged,
        "model": tagged,
        "modified_at": _CREATED,
        "size": 1_000_000,
        "digest": "0" * 64,
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "loopback",
            "families": ["loopback"],
            "parameter_size": "1B",
            "quantization_level": "Q4_K_M",
        },
    }
