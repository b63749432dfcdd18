"""The calls of an answer as a reader knows them: each with an id of its own, and what has come of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from penstock.events import ToolCall

__all__ = ["CallTeller", "Decided", "SentCall", "SentCalls"]


class SentCall:
    """One call.

    ``id`` is unique in the conversation, unlike the provider's own, ``given``: some providers send the same ids in each
    round of an answer. ``key`` is that of the frames with its arguments; None: no frame has begun it.
    """

    __slots__ = ("given", "id", "is_answered", "is_complete", "is_server", "key", "name")

    def __init__(self, given: str, id: str, name: str) -> None:
        self.given = given
        self.id = id
        self.name = name
        self.key: bytes | None = None
        self.is_complete = False
        self.is_server = False
        self.is_answered = False

    def __repr__(self) -> str:
        return f"SentCall({self.id!r}, {self.name!r})"


class SentCalls:
    """All calls of a stream since its last reset.

    Args:
        used: the ids of calls in the conversation so far, which clients look up in all of it.
    """

    def __init__(self, used: Iterable[str] = ()) -> None:
        self._used = set(used)
        self._calls: dict[str, list[SentCall]] = {}  # by the id that was given
        self._written: dict[int, SentCall] = {}  # by the index in the round that is written
        self._round: list[SentCall] = []  # the calls that are run
        self.completed = 0
        """How many of them were completed by `complete`."""

    def __iter__(self) -> Iterator[SentCall]:
        return (call for calls in self._calls.values() for call in calls)

    def begin(self, given: str, name: str, index: int | None = None) -> SentCall:
        """Add a call. An id that was used before gets a number."""
        own, number = given, 1
        while own in self._used:
            number += 1
            own = f"{given}_{number}"
        self._used.add(own)
        call = SentCall(given, own, name)
        self._calls.setdefault(given, []).append(call)
        if index is not None:
            self._written[index] = call
        return call

    def at(self, index: int) -> SentCall | None:
        """The call that is being written at this index."""
        call = self._written.get(index)
        return None if call is None or call.is_complete else call

    def complete(self, index: int, call: ToolCall) -> SentCall:
        """Note that a call is complete; it is added if its start has not been seen."""
        sent = self.at(index)
        if sent is None or sent.given != call.id:
            sent = self.begin(call.id, call.name, index)
        sent.name = call.name
        sent.is_complete = True
        sent.is_server = call.is_server
        self.completed += 1
        return sent

    def find(self, given: str) -> SentCall | None:
        """The call with that id that has no result yet; if there is none, the last one with that id."""
        calls = self._calls.get(given)
        return next((call for call in calls if not call.is_answered), calls[-1]) if calls else None

    def begin_round(self, calls: Iterable[ToolCall]) -> None:
        """Note that these calls are run."""
        found = (self.find(call.id) for call in calls)
        self._round = [call for call in found if call is not None]

    def answer(self, call: SentCall) -> bool:
        """Note a call's result; returns whether it is the last one of its round."""
        if not self._round:
            self._round = self.unanswered()
        call.is_answered = True
        if not self._round or not all(one.is_answered for one in self._round):
            return False
        self._round = []
        self._written = {}
        return True

    def waits_for(self, call: SentCall) -> bool:
        """Whether the results of all calls before this one of its round have come: results come in that order."""
        before = self._round[: self._round.index(call)] if call in self._round else self._round
        return all(one.is_answered for one in before)

    def incomplete(self) -> list[SentCall]:
        """The calls with arguments that are still being written."""
        return [call for call in self if not call.is_complete]

    def unanswered(self) -> list[SentCall]:
        """The complete calls without a result, except for those that the provider runs."""
        return [call for call in self if call.is_complete and not call.is_answered and not call.is_server]

    def clear(self) -> None:
        """Forget all calls, but not which ids were used."""
        self._calls, self._written, self._round = {}, {}, []
        self.completed = 0


class Decided:
    """The calls that the user has decided about before an answer goes on.

    Args:
        text: their ids as a list in JSON, one twice if calls of two rounds have it; None: all that were asked about.
    """

    def __init__(self, text: str | None) -> None:
        self._ids: list[str] | None = None if text is None else msgspec.json.decode(text, type=list[str])

    @property
    def is_all(self) -> bool:
        """Whether none of the calls so far waits any more."""
        return self._ids is None

    def has(self, given: str) -> bool:
        """Whether a call is among them."""
        return self._ids is not None and given in self._ids

    def answer(self, given: str) -> None:
        """A call has its result; the id may come again in a later round."""
        if self._ids is not None and given in self._ids:
            self._ids.remove(given)


class CallTeller:
    """Which calls have been sent to a client, and which of them wait for its user.

    Args:
        used: the ids of the calls that the client has already.
        decided: see `Decided`.
    """

    def __init__(self, used: Iterable[str] = (), decided: str | None = None) -> None:
        self.calls = SentCalls(used)
        self.pending: list[SentCall] = []
        """The calls that wait for approval."""
        self._decided = Decided(decided)
        self._server: dict[str, SentCall] = {}  # those that the provider runs, by the id that was given

    def waits_for_user(self) -> bool:
        """Whether nothing of this round can come without the user's decision."""
        return bool(self.pending) and self.calls.waits_for(self.pending[0])

    def was_earlier(self) -> None:
        """The event was of the answer before this one, which ended to ask."""
        if self._decided.is_all:
            self.pending.clear()

    def clear(self) -> None:
        """The answer begins again."""
        self.calls.clear()
        self.pending.clear()
        self._server.clear()

    def _ask(self, call: SentCall) -> None:
        """The call waits for approval, unless the user has decided about it."""
        if not self._decided.has(call.given):
            self.pending.append(call)

    def _settle(self, call: SentCall) -> None:
        """The call has its result."""
        self._decided.answer(call.given)
        if call in self.pending:
            self.pending.remove(call)
