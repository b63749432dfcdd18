"""What the loopback provider says: scripts that decide who gets which answer, recording or fault.

Plain frozen values, checked when made; every refusal is an `OptionError`. A `Playback` is a script being played: it
remembers how far each list of replies has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TypeAlias, get_args

from penstock.adapters.loopback.answer import Answer, Framing, ScriptedCall, Split, split_text
from penstock.adapters.loopback.faults import Fault, HangUp, NotAStream, ResponseFault, Status, StreamFault
from penstock.adapters.loopback.ledger import ReceivedRequest
from penstock.adapters.loopback.replay import Replay
from penstock.errors import OptionError

__all__ = [
    "Answer",
    "Cycle",
    "Framing",
    "Playback",
    "Replay",
    "Replies",
    "Reply",
    "Script",
    "ScriptedCall",
    "Split",
    "split_text",
]

Reply: TypeAlias = Answer | Replay | Fault | Callable[[ReceivedRequest], Answer | Replay | Fault]
"""What a request gets. A function is called in the provider's own thread and must not block."""

_REPLY_KINDS = (Answer, Replay, *get_args(ResponseFault), *get_args(StreamFault))


@dataclass(frozen=True, slots=True)
class Cycle:
    """Replies in turn, round and round."""

    replies: tuple[Reply, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "replies", _to_replies("replies", self.replies))


Replies: TypeAlias = Reply | Sequence[Reply] | Cycle
"""One reply for every request, or several: the first for the first request …, the last for all that follow."""


def _to_replies(name: str, value: object) -> tuple[Reply, ...]:
    replies = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for reply in replies:
        if not isinstance(reply, _REPLY_KINDS) and (isinstance(reply, type) or not callable(reply)):
            raise OptionError(
                name, reply, "an Answer, a Replay, a fault, or a function from a ReceivedRequest to one of them"
            )
    if not replies:
        raise OptionError(name, value, "at least one reply")
    return replies


@dataclass(frozen=True, slots=True)
class Script:
    """Who gets which answer: what ``models`` says for the request's model, otherwise what ``replies`` say.

    Attributes:
        replies: for every request whose model is not in ``models``; None is always ``answer``.
        models: replies by model name, each with a count of its own.
        answer: what a bare stream fault happens to.
    """

    replies: Replies | None = None
    models: Mapping[str, Replies] = field(default_factory=dict)
    answer: Answer = field(default_factory=Answer)

    def __post_init__(self) -> None:
        if not isinstance(self.answer, Answer):
            raise OptionError("answer", self.answer, "an Answer")
        if self.replies is not None and not isinstance(self.replies, Cycle):
            _to_replies("replies", self.replies)
        if not isinstance(self.models, Mapping):
            raise OptionError("models", self.models, "a mapping from model names to replies")
        for model, replies in self.models.items():
            if not isinstance(model, str):
                raise OptionError("models", model, "names of models")
            if not isinstance(replies, Cycle):
                _to_replies(f"models[{model!r}]", replies)


class Playback:
    """A script being played. Used by one thread."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._models = {model: _in_turn(replies) for model, replies in script.models.items()}
        self._others = _in_turn(script.answer if script.replies is None else script.replies)

    def reply(self, request: ReceivedRequest) -> Answer | Replay | ResponseFault:
        """Decide what ``request`` gets.

        Raises:
            OptionError: a function of the script returned something else than an answer, a recording or a fault.
            Exception: whatever a function of the script raises.
        """
        model = request.model or ""
        # Ollama's names have a tag.
        replies = self._models.get(model) or self._models.get(model.removesuffix(":latest")) or self._others
        reply = next(replies)
        if isinstance(reply, _REPLY_KINDS):
            return self._settle(reply)
        assert callable(reply)
        return self._settle(reply(request))

    def _settle(self, reply: object) -> Answer | Replay | ResponseFault:
        if isinstance(reply, (Answer, Replay, Status, HangUp, NotAStream)):
            return reply
        if isinstance(reply, get_args(StreamFault)):
            return self.script.answer.replace(faults=(*self.script.answer.faults, reply))
        raise OptionError("reply", reply, "an Answer, a Replay or a fault")


def _in_turn(replies: Replies) -> Iterator[Reply]:
    if isinstance(replies, Cycle):
        yield from cycle(replies.replies)
    *first, last = _to_replies("replies", replies)
    yield from first
    while True:
        yield last
