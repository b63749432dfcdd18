"""The text of a Responses answer in its parts: where each begins, what of it has come, its sources, probabilities."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from penstock.adapters.providers.openai.chat_sources import Sources
from penstock.adapters.providers.openai.responses_events import dicts_in
from penstock.adapters.providers.shared.json_values import text_of
from penstock.adapters.providers.shared.logprobs import token_logprobs
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import Logprobs, Phase, TokenKind
from penstock.ports import BlockStart, CitationDelta, Delta, EventDelta

__all__ = ["Key", "PartName", "TextParts", "rest_of"]

PartName: TypeAlias = Literal["text", "refusal", "reasoning", "summary"]

Key: TypeAlias = tuple[PartName, int | None, int | None]
"""A part: what it is, the index of its item, and its index among the item's parts of its list."""

_KINDS: dict[PartName, TokenKind] = {
    "text": "text",
    "refusal": "refusal",
    "reasoning": "reasoning",
    "summary": "reasoning",
}


_MOST_OPEN = 16
"""How many parts may grow at the same time."""


class TextParts:
    """What has come of each part. A decoder appends text to the lists in ``pieces`` itself."""

    def __init__(self, skip: Callable[[str, object], None]) -> None:
        self.pieces: dict[Key, list[str]] = {}
        self._skip = skip
        self._sources = Sources(skip)
        self._closed: set[Key] = set()  # whole, and compared with what came
        self._items: dict[tuple[PartName, int | None], list[Key]] = {}  # the parts of each item
        self._phases: dict[int | None, Phase | None] = {}
        self._phase: Phase | None = None
        self._kinds: set[TokenKind] = set()  # of text since the last joint
        self._starts: dict[Key, int] = {}  # where in the answer's text a part begins, in characters
        self._open: list[Key] = []  # parts of the text that may grow
        self._counted = 0  # characters of all others
        self._block_from = 0  # where the block begins from which the core counts
        self._likely: set[Key] = set()  # have probabilities
        self._cited: dict[Key, int] = {}

    def copy(self, skip: Callable[[str, object], None]) -> TextParts:
        """The same, to be continued apart from this."""
        other = TextParts(skip)
        other.pieces = {key: list(pieces) for key, pieces in self.pieces.items()}
        other._items = {item: list(keys) for item, keys in self._items.items()}
        for name in ("_closed", "_phases", "_kinds", "_starts", "_open", "_likely", "_cited"):
            setattr(other, name, getattr(self, name).copy())
        for name in ("_phase", "_counted", "_block_from"):
            setattr(other, name, getattr(self, name))
        return other

    # --- text ------------------------------------------------------------------------------------------------------

    def note_phase(self, index: int | None, phase: object) -> None:
        """Note the phase of an item, which holds for its text."""
        if phase == "commentary" or phase == "final_answer":
            self._phases[index] = phase
        elif phase is not None:
            self._skip("phase", phase)

    def begin(self, key: Key, out: list[Delta]) -> list[str]:
        """Begin a part; returns the list to which its text is to be appended.

        Text of a kind that has already come begins a new part of the answer, and so does another phase.
        """
        name, index, _ = key
        kind, phase = _KINDS[name], self._phases.get(index)
        if name == "text":
            self._starts[key] = self._written()
            self._open.append(key)
        if kind in self._kinds or phase != self._phase:
            self._kinds.clear()
            self._phase = phase
            out.append(BlockStart(kind, phase=phase))
            self._block_from = self._starts.get(key, self._block_from)
        self._kinds.add(kind)
        self._items.setdefault((name, index), []).append(key)
        pieces: list[str] = []
        self.pieces[key] = pieces
        return pieces

    def has(self, index: int | None, *names: PartName) -> bool:
        """Whether any such part of the item has come. Bedrock numbers the parts of the whole item differently."""
        return any((name, index) in self._items for name in names)

    def close(self, key: Key, whole: str) -> str | None:
        """Compare what has come of a part with the whole; returns the rest. None: they differ.

        Only the first whole is compared.
        """
        if key in self._closed or not whole:
            return ""
        pieces = self.pieces.get(key)
        if pieces is None:
            self._closed.add(key)
            return whole
        self._closed.add(key)
        came = "".join(pieces)
        pieces[:] = [came]
        return rest_of(came, whole)

    def _written(self) -> int:
        """How many characters of text have come. Text that a server adds to a part after many others is not counted."""
        growing: list[Key] = []
        count = 0
        for place, key in enumerate(self._open, _MOST_OPEN - len(self._open)):
            pieces = self.pieces[key]
            if len(pieces) > 1:
                pieces[:] = ["".join(pieces)]
            length = sum(len(piece if piece.isascii() else replace_surrogates(piece)) for piece in pieces)
            if key in self._closed or place < 0:
                self._counted += length
            else:
                growing.append(key)
                count += length
        self._open = growing
        return self._counted + count

    # --- probabilities ---------------------------------------------------------------------------------------------

    def read_logprobs(self, key: Key, items: object, out: list[Delta], *, is_whole: bool = False) -> None:
        """Append the probabilities of tokens whose text has come. ``is_whole``: of the whole part, if not yet told."""
        if is_whole and (not items or key in self._likely):
            return
        self._likely.add(key)
        if tokens := token_logprobs(items, self._skip):
            out.append(EventDelta(Logprobs(tokens=tokens)))

    # --- sources ---------------------------------------------------------------------------------------------------

    def cite(self, key: Key, annotations: list[Any], out: list[Delta]) -> None:
        """Append further citations of a part."""
        self._cited[key] = self._cited.get(key, 0) + len(annotations)
        self._append(annotations, self._starts.get(key, self._block_from), out)

    def _append(self, annotations: list[Any], start: int, out: list[Delta]) -> None:
        """Append citations with places that are counted from ``start`` in the answer's text."""
        found: list[Delta] = []
        self._sources.read_annotations(annotations, found)
        shift = start - self._block_from
        for delta in found:
            assert isinstance(delta, CitationDelta)
            citation = delta.citation
            if shift and citation.start is not None and citation.end is not None:
                moved = msgspec.structs.replace(citation, start=citation.start + shift, end=citation.end + shift)
                delta = CitationDelta(moved)
            out.append(delta)

    def cite_rest(self, key: Key, annotations: object, out: list[Delta]) -> None:
        """Append those of all citations of a part that have not been told; they come in the same order."""
        if isinstance(annotations, list) and (rest := annotations[self._cited.get(key, 0) :]):
            self.cite(key, rest, out)

    def close_message(self, index: int | None, content: object, out: list[Delta]) -> None:
        """Append sources and probabilities that only the whole message has, of parts whose text has come."""
        parts = dicts_in(content)
        for number, part in enumerate(parts):
            key: Key = ("text", index, number)
            if key not in self.pieces:
                others = self._items.get(("text", index), [])
                if len(others) != 1 or sum(bool(each.get("text")) for each in parts) != 1 or not part.get("text"):
                    continue
                key = others[0]  # the only text, numbered differently
            self.read_logprobs(key, part.get("logprobs"), out, is_whole=True)
            self.cite_rest(key, part.get("annotations"), out)

    def close_response(self, output: object, out: list[Delta]) -> None:
        """Append the sources that only the finished response has, if its text is what has come."""
        messages = [item for item in dicts_in(output) if item.get("type") == "message"]
        parts = [part for item in messages for part in dicts_in(item.get("content")) if part.get("annotations")]
        if self._cited or not parts:
            return
        texts = [part for item in messages for part in dicts_in(item.get("content")) if "text" in part]
        starts = itertools.accumulate((len(text_of(part["text"])) for part in texts), initial=0)
        places = list(zip(texts, starts, strict=False))
        if sum(len(text_of(part["text"])) for part in texts) != self._written():
            self._skip("annotations", [part["annotations"] for part in parts])
            return
        for part, start in places:
            if isinstance(part.get("annotations"), list):
                self._append(part["annotations"], start, out)


def rest_of(came: str, whole: str) -> str | None:
    """What of ``whole`` has not come; surrogates count as the characters they make. None: ``came`` is no beginning."""
    if whole.startswith(came):
        return whole[len(came) :]
    came, whole = replace_surrogates(came), replace_surrogates(whole)
    return whole[len(came) :] if whole.startswith(came) else None
