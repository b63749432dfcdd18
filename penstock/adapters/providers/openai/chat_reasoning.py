"""Entries of ``reasoning_details``, put together from their fragments, and given back as they came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.adapters.providers.shared.json_values import plain_json, text_of
from penstock.adapters.providers.shared.surrogates import replace_surrogates
from penstock.events import ReasoningBlock
from penstock.ports import BlockDelta, Delta, ReasoningBlockDelta

__all__ = ["ENTRY_TYPES", "ReasoningEntries"]

ENTRY_TYPES = "reasoning."
"""What the types of entries begin with: ``reasoning.text``, ``reasoning.summary``, ``reasoning.encrypted``."""

_JOINED = ("text", "summary", "data")
_SEALS = ("signature", "data")
_MOST_OPEN = 16  # entries


class _Entry:
    """An entry that has begun: its fields, and the pieces of those that come in pieces."""

    __slots__ = ("fields", "pieces")

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.pieces: dict[str, list[str]] = {}

    def add(self, fragment: dict[str, Any]) -> None:
        for name, value in fragment.items():
            if name in _JOINED and isinstance(value, str):
                self.pieces.setdefault(name, []).append(value)
            elif value is not None or name not in self.fields:
                self.fields[name] = value

    @property
    def is_sealed(self) -> bool:
        """Whether it has its signature or encrypted data."""
        return bool(self.fields.get("signature") or any(self.pieces.get("data", ())))

    def is_continued_by(self, fragment: dict[str, Any]) -> bool:
        fields = self.fields
        if fragment["type"] != fields.get("type"):
            return False
        for name in ("index", "id"):
            before, now = fields.get(name), fragment.get(name)
            if before is not None and now is not None and before != now:
                return False
        if fragment.get("data"):
            return fields.get("id") is not None and fields.get("id") == fragment.get("id")
        return not (fields.get("signature") and (fragment.get("text") or fragment.get("signature")))


class ReasoningEntries:
    """Joins the fragments of each entry; the entries are complete when text, a call or the finish follows.

    A fragment belongs to an entry if type, index and id agree, where both have them: to the last one, or to another one
    that is not complete if the indices of all differ. Sealed entries end: text after a signature is a new entry, and
    encrypted data is joined only under one id.
    """

    def __init__(self, skip: Callable[[str, object], None]) -> None:
        self._skip = skip
        self._entries: list[_Entry] = []  # in the order in which they began

    @property
    def is_open(self) -> bool:
        """Whether there is an entry that has not been closed."""
        return bool(self._entries)

    def read(self, details: object, out: list[Delta]) -> None:
        """Read the ``reasoning_details`` of one chunk. Their text is not repeated here."""
        for fragment in details if isinstance(details, list) else ():
            kind = text_of(fragment.get("type")) if isinstance(fragment, dict) else ""
            if not kind.startswith(ENTRY_TYPES):
                if not (isinstance(fragment, dict) and (fragment.get("text") or fragment.get("summary"))):
                    self._skip("reasoning_details", fragment)
                continue
            self._entry_of(fragment, out).add(fragment)

    def close(self, out: list[Delta]) -> None:
        """Append the open entries."""
        entries, self._entries = self._entries, []
        for entry in entries:
            self._tell(entry, out)

    def _entry_of(self, fragment: dict[str, Any], out: list[Delta]) -> _Entry:
        """The entry that the fragment continues, or a new one, after the entries that are complete with it."""
        index = fragment.get("index")
        candidates = self._entries[-1:] if index is None else reversed(self._entries)
        found = next((entry for entry in candidates if entry.is_continued_by(fragment)), None)
        if found is not None:
            return found
        others = [entry.fields.get("index") for entry in self._entries]
        if index is None or None in others or index in others or len(others) >= _MOST_OPEN:
            self.close(out)
        while self._entries and self._entries[0].is_sealed:
            self._tell(self._entries.pop(0), out)
        self._entries.append(_Entry())
        return self._entries[-1]

    def _tell(self, open_entry: _Entry, out: list[Delta]) -> None:
        entry = plain_json(open_entry.fields | {name: "".join(pieces) for name, pieces in open_entry.pieces.items()})
        if not isinstance(entry, dict):  # nested too deeply
            self._skip("reasoning_details", entry)
            return
        seal = next((text for name in _SEALS if (text := text_of(entry.get(name)))), "")
        if seal:
            out.append(
                ReasoningBlockDelta(
                    ReasoningBlock(
                        kind=entry["type"],
                        text=text_of(entry.get("text")) or text_of(entry.get("summary")),
                        signature=seal,
                        id=replace_surrogates(text_of(entry.get("id"))) or None,
                    )
                )
            )
        if seal or any(entry.get(name) for name in _JOINED):
            out.append(BlockDelta(entry))
