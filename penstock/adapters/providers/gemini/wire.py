"""An ordinary response, typed, so that it is decoded quickly: one candidate with one part, which is text or a thought.

A response with anything else that must be read does not fit, and is decoded again, leniently. Fields that are not
listed here are ignored.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

__all__ = ["NO_WIRE_COUNTS", "WireUsage", "decode_wire"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class WireUsage(msgspec.Struct, gc=False, rename="camel"):
    """The counts of a response. Their details by modality change little; only the lenient decoder reads them."""

    prompt_token_count: _Count | None = None
    candidates_token_count: _Count | None = None
    total_token_count: _Count | None = None
    thoughts_token_count: _Count | None = None
    cached_content_token_count: _Count | None = None
    tool_use_prompt_token_count: _Count | None = None


NO_WIRE_COUNTS: Final = WireUsage()


class _WirePart(msgspec.Struct, gc=False, rename="camel", forbid_unknown_fields=True):
    text: str
    thought: bool = False


class _WireContent(msgspec.Struct, gc=False, rename="camel"):
    parts: tuple[_WirePart]


class _WireCandidate(msgspec.Struct, gc=False, rename="camel"):
    content: _WireContent
    index: Literal[0] = 0
    finish_reason: None = None
    citation_metadata: None = None
    grounding_metadata: None = None
    url_context_metadata: None = None
    logprobs_result: None = None


class _WireResponse(msgspec.Struct, gc=False, rename="camel"):
    candidates: tuple[_WireCandidate]
    usage_metadata: WireUsage | None = None
    prompt_feedback: None = None
    error: None = None


decode_wire = msgspec.json.Decoder(_WireResponse).decode
"""Decodes the JSON of an ordinary response; any other raises `msgspec.DecodeError`, `UnicodeError` or
`RecursionError`."""
