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


class ReasoningEntries:
    """Joins the fragments of each entry; an entry is complete when another one, text, a call or the finish follows.

    A fragment belongs to the entry before it if type, index and id agree, where both have them. Sealed entries end:
    text after a signature is a new entry, and encrypted data is joined only under one id.

    Attributes:
        is_open: whether there is an entry that has not been closed.
    """

    def __init__(self, skip: Callable[[str, object], None]) -> None:
        self.is_open = False
        self._skip = skip
        self._entry: dict[str, Any] = {}
        self._pieces: dict[str, list[str]] = {}

    def read(self, details: object, out: list[Delta]) -> None:
        """Read the ``reasoning_details`` of one chunk. Their text is not repeated here."""
        for fragment in details if isinstance(details, list) else ():
            kind = text_of(fragment.get("type")) if isinstance(fragment, dict) else ""
            if not kind.startswith(ENTRY_TYPES):
                if not (isinstance(fragment, dict) and (fragment.get("text") or fragment.get("summary"))):
                    self._skip("reasoning_details", fragment)
                continue
            if not self._continues(fragment):
                self.close(out)
            self._add(fragment)

    def close(self, out: list[Delta]) -> None:
        """Append the open entry, if there is one."""
        if not self.is_open:
            return
        entry = plain_json(self._entry | {name: "".join(self._pieces[name]) for name in self._pieces})
        self.is_open, self._entry, self._pieces = False, {}, {}
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

    def _continues(self, fragment: dict[str, Any]) -> bool:
        entry = self._entry
        if not self.is_open or fragment["type"] != entry.get("type"):
            return False
        for name in ("index", "id"):
            before, now = entry.get(name), fragment.get(name)
            if before is not None and now is not None and before != now:
                return False
        if fragment.get("data"):
            return entry.get("id") is not None and entry.get("id") == fragment.get("id")
        return not (entry.get("signature") and (fragment.get("text") or fragment.get("signature")))

    def _add(self, fragment: dict[str, Any]) -> None:
        self.is_open = True
        for name, value in fragment.items():
            if name in _JOINED and isinstance(value, str):
                self._pieces.setdefault(name, []).append(value)
            elif value is not None or name not in self._entry:
                self._entry[name] = value
