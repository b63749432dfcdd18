"""The part of an attempt that goes on with an answer which another process has begun; see `Overlap`.

The provider's name for the answer is in the stream's log before anything of the answer is. The process that takes the
stream over asks for the answer by that name, from its beginning, and gives the stream only what the log does not have.
If that cannot be made certain, since the answer that comes has another name or differs from what the log has, the
attempt fails, and ``is_other`` says why.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from penstock.actors.call.record import CallRecord
from penstock.actors.stream.record import StreamRecord
from penstock.errors import ProtocolError, ProviderError
from penstock.ports import CanReplay

__all__ = ["TakesUp"]

_Item: TypeAlias = Any
"""A text and its kind as a tuple, another event, or a `PartStart`."""


class TakesUp:
    """What `Attempt` has from here.

    Attributes:
        error: that was reported inside the answer, or is why it cannot be used.
        is_void: the attempt is abandoned; nothing is taken from it any more.
        is_other: it is not the answer that the log has the beginning of.
        lock: guards ``is_void``, ``has_progressed``, and of the call ``started``, ``kept_as`` and ``overlap``.
    """

    def __init__(self, record: StreamRecord, call: CallRecord) -> None:
        self.error: ProviderError | None = None
        self.is_void = self.is_other = self.has_progressed = False
        self.lock = threading.Lock()
        self._record = record
        self._call = call
        self._candidate = call.candidate
        self._overlap = None if call.overlap is None else call.overlap.copy()
        self._is_found = False  # it has the name by which it was asked for
        self._keeps_name = call.options.on_interrupt == "resume" and _may_be_taken_up(record)

    def _begin_name(self) -> int:
        """Have the log name no answer that this one takes the place of; returns how much text of this one it has."""
        if self._overlap is not None:
            return self._overlap.text_length
        if self._call.kept_as is not None:
            self._call.kept_as = None
            self._record.keep(answer=None)
        return 0

    def _note_name(self, metadata: Mapping[str, Any]) -> None:
        """Let the log say under which name the provider keeps the answer, before it has anything of it."""
        provider, call = self._candidate.provider, self._call
        name = provider.kept_as(metadata) if isinstance(provider, CanReplay) else None
        if name is None:
            return
        with self.lock:
            if self.is_void:
                return
            if name == call.kept_as:
                self._is_found = True
            elif self._overlap is not None and not self._overlap.is_empty:
                self.is_other = True
            else:
                call.kept_as = name
                who, model = call.asked
                self._record.keep(answer={"provider": who, "model": model, "name": name})

    def _left_of(self, items: Sequence[_Item], *, is_end: bool = False) -> list[_Item] | None:
        """What of the items the log does not have; None if this is another answer, or the attempt is void.

        ``is_end``: nothing follows them. The attempt may be void then.
        """
        with self.lock:  # so that after `abandon` it is certain whether all that the log has has come again
            overlap = self._overlap
            if overlap is None:
                return list(items)
            if self.is_void and not is_end:
                return None
            is_known = not self.is_other and (overlap.is_empty or self._is_found or not items)
            rest = overlap.skip(items) if is_known else None
            if rest is None or (is_end and not overlap.is_passed):
                self.is_other = True
                detail = "the provider does not send the answer again that the log has the beginning of"
                self.error = self.error or ProtocolError(detail)
                return None
            if overlap.is_passed and (items or self.has_progressed or is_end):
                self._overlap = self._call.overlap = None
            return rest


def _may_be_taken_up(record: StreamRecord) -> bool:
    """Whether another process can go on with a stream."""
    return record.stored is not None and record.head is not None and record.head.redo is not None
