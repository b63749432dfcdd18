"""Scripts: which request to the loopback provider gets which answer, recording or fault.

Scripts are frozen values, validated when they are made; an invalid one raises `OptionError`. A `Playback` plays a
script: it remembers the position in each list of replies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TypeAlias, get_args

from penstock.adapters.loopback.answer import Answer, Framing, ScriptedCall, Split, split_text
from penstock.adapters.loopback.faults import Fault, HangUp, NotAStream, ResponseFault, Status, StreamFault
from penstock.adapters.loopback.ledger import ReceivedRequest
from penstock.adapters.loopback.parts import (
    Block,
    Declined,
    Found,
    Part,
    Picture,
    Ran,
    RawEvent,
    Said,
    Search,
    ServerTool,
    Silence,
    Sound,
    Source,
    Thought,
)
from penstock.adapters.loopback.replay import Replay
from penstock.errors import OptionError

__all__ = [
    "Answer",
    "Block",
    "Cycle",
    "Declined",
    "Found",
    "Framing",
    "Part",
    "Picture",
    "Playback",
    "Ran",
    "RawEvent",
    "Replay",
    "Replies",
    "Reply",
    "Said",
    "Script",
    "ScriptedCall",
    "Search",
    "ServerTool",
    "Silence",
    "Sound",
    "Source",
    "Split",
    "Thought",
    "split_text",
]

Reply: TypeAlias = Answer | Replay | Fault | Callable[[ReceivedRequest], Answer | Replay | Fault]
"""What a request gets. A function is called in the provider's own thread; it must not block."""

_REPLY_KINDS = (Answer, Replay, *get_args(ResponseFault), *get_args(StreamFault))


@dataclass(frozen=True, slots=True)
class Cycle:
    """Replies in rotation: after the last one comes the first again."""

    replies: tuple[Reply, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "replies", _to_replies("replies", self.replies))


Replies: TypeAlias = Reply | Sequence[Reply] | Cycle
"""One reply for all requests, or several: one for each request in order, the last one for all later requests."""


def _to_replies(name: str, value: object) -> tuple[Reply, ...]:
    replies = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for reply in replies:
        if not isinstance(reply, _REPLY_KINDS) and (isinstance(reply, type) or not callable(reply)):
            raise OptionError(
                name,
                reply,
                "an Answer, a Replay, a fault, or a function that takes a ReceivedRequest and returns one of them",
            )
    if not replies:
        raise OptionError(name, value, "at least one reply")
    return replies


@dataclass(frozen=True, slots=True)
class Script:
    """Which request gets which reply: that of its model in ``models``, otherwise one of ``replies``.

    Attributes:
        replies: for requests for a model that is not in ``models``; None is always ``answer``.
        models: replies by model name; each model has its own position.
        answer: the answer to which a stream fault happens that is given as a reply.
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
                raise OptionError("models", model, "model names that are strings")
            if not isinstance(replies, Cycle):
                _to_replies(f"models[{model!r}]", replies)


class Playback:
    """Plays a script. Used by one thread."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._models = {model: _iterate_replies(replies) for model, replies in script.models.items()}
        self._others = _iterate_replies(script.answer if script.replies is None else script.replies)

    def reply(self, request: ReceivedRequest) -> Answer | Replay | ResponseFault:
        """Return what ``request`` gets.

        Raises:
            OptionError: a function of the script did not return an answer, a recording or a fault.
            Exception: any exception that a function of the script raises.
        """
        model = request.model or ""
        # Ollama's model names have a tag.
        replies = self._models.get(model) or self._models.get(model.removesuffix(":latest")) or self._others
        reply = next(replies)
        if isinstance(reply, _REPLY_KINDS):
            return self._resolve(reply)
        assert callable(reply)
        return self._resolve(reply(request))

    def _resolve(self, reply: object) -> Answer | Replay | ResponseFault:
        if isinstance(reply, (Answer, Replay, Status, HangUp, NotAStream)):
            return reply
        if isinstance(reply, get_args(StreamFault)):
            return self.script.answer.replace(faults=(*self.script.answer.faults, reply))
        raise OptionError("reply", reply, "an Answer, a Replay or a fault")


def _iterate_replies(replies: Replies) -> Iterator[Reply]:
    if isinstance(replies, Cycle):
        yield from cycle(replies.replies)
    *first, last = _to_replies("replies", replies)
    yield from first
    while True:
        yield last
