"""What is found in a recording besides text and calls, and its form in the side file (``expect_extras``)."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, TypeAlias

from tests.corpus.bodies import Json

__all__ = ["Found", "Kind", "sha256", "told"]

Kind: TypeAlias = Literal["text", "reasoning", "refusal"]


def sha256(text: str) -> str:
    """The hash of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def told(fields: Json) -> Json:
    """``fields`` without those that the recording does not have."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


class Found:
    """Collects what is found, in the order of the recording, and counts the characters of text of each kind.

    ``README.md`` beside this file says what each field means.
    """

    def __init__(self) -> None:
        self.citations: list[Json] = []
        self.server_tools: list[Json] = []
        self.media: list[Json] = []
        self.reasoning_blocks: list[Json] = []
        self.provider_blocks: list[Json] = []
        self.call_types: list[list[str]] = []
        self.metadata: Json = {}
        self.usage: Json = {}
        self.calls = 0
        self.texts: dict[Kind, str] = {"text": "", "reasoning": "", "refusal": ""}
        self._response_ids: list[str] = []
        self._tokens: list[tuple[str, float, int]] = []
        self._spans: list[Json] = []
        self._last: dict[Kind, tuple[Json, int]] = {}  # the last span of a kind, and its part
        self._part = 0
        self._said: set[Kind] = set()  # kinds with text in the present part
        self._phase: str | None = None

    # --- text and its parts ----------------------------------------------------------------------------------------

    @property
    def written(self) -> int:
        """How many characters of the answer's text have come."""
        return len(self.texts["text"])

    def joint(self, kind: Kind, phase: str | None = None) -> None:
        """A block of text begins that something separates from what came before.

        A new part begins if text of that kind would run into earlier one of the same part, or if the phase changes.
        """
        if kind in self._said or (phase != self._phase and self._said):
            self._part += 1
            self._said = set()
        self._phase = phase

    def say(self, kind: Kind, text: str) -> None:
        """Add text of a kind."""
        if not text:
            return
        start = len(self.texts[kind])
        self.texts[kind] += text
        self._said.add(kind)
        span, part = self._last.get(kind, ({}, -1))
        if part != self._part or span.get("phase") != self._phase:
            span = {"kind": kind, "start": start, "end": start}
            if self._phase is not None:
                span["phase"] = self._phase
            self._spans.append(span)
            self._last[kind] = span, self._part
        span["end"] += len(text)

    def _parts(self) -> list[Json]:
        """The parts; empty if the text of each kind is one part without a phase, which needs no telling."""
        kinds = [span["kind"] for span in self._spans]
        is_plain = len(set(kinds)) == len(kinds) and not any("phase" in span for span in self._spans)
        return [] if is_plain else self._spans

    # --- the rest --------------------------------------------------------------------------------------------------

    def cite(self, span: tuple[int, int] | None, **fields: Any) -> None:
        """Add a citation. ``span``: in characters of the answer's text."""
        self.citations.append({**told(fields), "span": None if span is None else list(span)})

    def server_tool(self, step: Literal["call", "result"], identifier: str, name: str, **fields: Any) -> None:
        """Add a call of one of the provider's own tools, or its result."""
        self.server_tools.append({"step": step, "id": identifier, "name": name, **told(fields)})

    def medium(self, kind: str, data: str = "", *, is_partial: bool = False, **fields: Any) -> None:
        """Add a picture or sound. The data is kept as its length and hash."""
        content = {"length": len(data), "sha256": sha256(data)} if data else {}
        self.media.append({"kind": kind, "is_partial": is_partial, **content, **told(fields)})

    def reasoning(self, kind: str, signature: str) -> None:
        """Add a block of reasoning that is signed, encrypted or has an id by which it can be returned."""
        self.reasoning_blocks.append({"kind": kind, "sha256": sha256(signature) if signature else None})

    def block(self, kind: str, identifier: str | None = None) -> None:
        """Add a block that goes back to the provider, where it stands."""
        self.provider_blocks.append(
            {"type": kind, **told({"id": identifier}), "at": self.written, "calls": self.calls},
        )

    def token(self, item: Json) -> None:
        """Add a token with its logarithm, in the form of OpenAI's APIs."""
        self._tokens.append((item["token"], item["logprob"], len(item.get("top_logprobs") or ())))

    def response_id(self, identifier: object) -> None:
        """Note an id of the whole response."""
        if isinstance(identifier, str) and identifier and identifier not in self._response_ids:
            self._response_ids.append(identifier)

    def says(self, **values: Any) -> None:
        """Note what the provider says of the answer as a whole; later values replace earlier ones."""
        self.metadata |= told(values)

    def counts(self, **values: Any) -> None:
        """Note counts of the last usage; 0 is a count."""
        self.usage |= {name: value for name, value in values.items() if value not in (None, {})}

    def _logprobs(self) -> Json:
        if not self._tokens:
            return {}
        joined = "".join(token for token, _, _ in self._tokens)
        return {
            "count": len(self._tokens),
            "first": [self._tokens[0][0], round(self._tokens[0][1], 6)],
            "last": [self._tokens[-1][0], round(self._tokens[-1][1], 6)],
            "sum": round(sum(logprob for _, logprob, _ in self._tokens), 6),
            "alternatives": sum(alternatives for _, _, alternatives in self._tokens),
            "join_to": next((kind for kind, text in self.texts.items() if text == joined), None),
        }

    def extras(self) -> Json:
        """The value of ``expect_extras``: only what the recording has."""
        if self._response_ids:
            self.metadata = {"response_id": self._response_ids[0]} | self.metadata
        ids = self._response_ids if len(self._response_ids) > 1 else []
        return told(
            {
                "citations": self.citations,
                "server_tools": self.server_tools,
                "media": self.media,
                "logprobs": self._logprobs(),
                "reasoning_blocks": self.reasoning_blocks,
                "parts": self._parts(),
                "call_types": self.call_types,
                "provider_blocks": self.provider_blocks,
                "metadata": self.metadata,
                "response_ids": ids,
                "usage": self.usage,
            }
        )
