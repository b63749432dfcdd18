"""What the loopback provider says: answers, and scripts that decide who gets which.

Plain frozen values, checked when made; every refusal is an `OptionError`. A `Playback` is a script being played: it
remembers how far each list of replies has come.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import cycle, islice
from typing import Any, Literal, TypeAlias, get_args

from penstock.adapters.loopback.faults import Fault, HangUp, NotAStream, ResponseFault, Status, StreamFault
from penstock.adapters.loopback.ledger import ReceivedRequest
from penstock.config.options import check_choice, check_number
from penstock.errors import OptionError
from penstock.events import Usage

__all__ = [
    "Answer",
    "Cycle",
    "Framing",
    "Playback",
    "Replies",
    "Reply",
    "Script",
    "ScriptedCall",
    "Split",
    "split_text",
]

Framing: TypeAlias = Literal["chunked", "close", "length", "gzip"]
Split: TypeAlias = int | tuple[int, ...] | Literal["bytes"] | None

_FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
_TOKEN = re.compile(r"\s*\S{1,8}|\s+")


def split_text(text: str) -> list[str]:
    """Cut ``text`` into token-like pieces: words with the space before them, long words in parts.

    >>> split_text("Good morning, Vienna")
    ['Good', ' morning,', ' Vienna']
    """
    return _TOKEN.findall(text)


def _check_text(name: str, value: object) -> None:
    """Raise `OptionError` unless ``value`` is text that UTF-8 can carry (no lone surrogates)."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return
    raise OptionError(name, value, "a text that can be encoded as UTF-8")


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """A function call in an answer. ``arguments`` is sent as it is, so it may be broken JSON."""

    name: str
    arguments: str = "{}"
    id: str | None = None

    def __post_init__(self) -> None:
        _check_text("name", self.name)
        _check_text("arguments", self.arguments)
        if self.id is not None:
            _check_text("id", self.id)

    @property
    def fragments(self) -> list[str]:
        """The pieces in which the arguments are streamed."""
        return [self.arguments[start : start + 8] for start in range(0, len(self.arguments), 8)]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and how it is sent.

    Attributes:
        text: what is said, cut into tokens by `split_text`.
        tokens: the pieces themselves, one event each, in the place of ``text``.
        repeat: say the tokens again and again until there are so many of them; 0 says them once.
        reasoning, refusal: said before the text.
        reasoning_field: under which name chat completions carry the reasoning.
        tool_calls: function calls, behind the text; their arguments come in fragments.
        finish_reason: None is ``"tool_calls"`` where there are such and ``"stop"`` otherwise.
        usage: None is the true count (words in, tokens out).
        send_usage: chat completions tell usage when ``"asked"`` (``stream_options``), ``"always"`` or ``"never"``;
            the Responses API tells it unless ``"never"``.
        pace: seconds from token to token; 0 is as fast as the client reads. Deadlines are counted from the request,
            so that delays do not add up. A whole (not streamed) answer comes when its last token would have.
        tokens_per_second: the same the other way round; only one of the two.
        first_token_delay: seconds until the first token; status line and opening events do not wait for it.
        framing: how HTTP delimits the body: ``"chunked"``, until ``"close"``, by content ``"length"``, or chunked and
            ``"gzip"`` encoded with a flush at each event.
        split: cut the body (encoded, where it is gzip) every so many bytes, at these offsets, or between all
            ``"bytes"``, wherever that falls. Each piece is a write and an HTTP chunk of its own.
        batch: events that go out in one write; a paced batch goes when its last token is due. None is one for a
            paced answer, and as many as fit for a fast one.
        events_per_chunk: events in one HTTP chunk; where the answer is paced, of those in one ``batch``.
        line_ending: of the event stream.
        done_marker: whether ``[DONE]`` ends a chat completion.
        bom: begin with a byte order mark.
        comments: a ``: keep-alive`` comment before every so many events; 0 is none.
        timestamps: every event says when it was sent, as ``"penstock_sent"`` (`time.time`) in its JSON.
        faults: what goes wrong on the way.
    """

    text: str = "Water finds its way down the penstock, and the turbine turns it into light – even at 3 °C."
    _: KW_ONLY
    tokens: tuple[str, ...] | None = None
    repeat: int = 0
    reasoning: str = ""
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    refusal: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    send_usage: Literal["asked", "always", "never"] = "asked"
    pace: float = 0.0
    tokens_per_second: float | None = None
    first_token_delay: float = 0.0
    framing: Framing = "chunked"
    split: Split = None
    batch: int | None = None
    events_per_chunk: int = 1
    line_ending: Literal["\n", "\r\n", "\r"] = "\n"
    done_marker: bool = True
    bom: bool = False
    comments: int = 0
    timestamps: bool = False
    faults: tuple[StreamFault, ...] = ()

    def __post_init__(self) -> None:
        for name in ("text", "reasoning", "refusal"):
            _check_text(name, getattr(self, name))
        self._take_tuple("tokens", str, "a list of texts or None", optional=True)
        for token in self.tokens or ():
            _check_text("tokens", token)
        self._take_tuple("tool_calls", ScriptedCall, "a list of ScriptedCall")
        self._take_tuple("faults", get_args(StreamFault), "a list of stream faults")
        check_number("repeat", self.repeat, 0, 1_000_000_000, whole=True)
        if self.repeat and not self.pieces:
            raise OptionError("repeat", self.repeat, "0, where there are no tokens to repeat")
        check_choice("reasoning_field", self.reasoning_field, ("reasoning_content", "reasoning"))
        check_choice("finish_reason", self.finish_reason, (None, *_FINISH_REASONS))
        if not (self.usage is None or isinstance(self.usage, Usage)):
            raise OptionError("usage", self.usage, "a Usage or None")
        check_choice("send_usage", self.send_usage, ("asked", "always", "never"))
        self._check_sending()

    def _check_sending(self) -> None:
        check_number("pace", self.pace, 0, 3600)
        check_number("tokens_per_second", self.tokens_per_second, 0.001, 1e9, optional=True)
        if self.pace and self.tokens_per_second is not None:
            raise OptionError("tokens_per_second", self.tokens_per_second, "None where pace is given")
        check_number("first_token_delay", self.first_token_delay, 0, 86_400)
        check_choice("framing", self.framing, get_args(Framing))
        self._check_split()
        check_number("batch", self.batch, 1, 1_000_000, whole=True, optional=True)
        check_number("events_per_chunk", self.events_per_chunk, 1, 1_000_000, whole=True)
        check_choice("line_ending", self.line_ending, ("\n", "\r\n", "\r"))
        check_number("comments", self.comments, 0, 1_000_000, whole=True)
        for name in ("done_marker", "bom", "timestamps"):
            check_choice(name, getattr(self, name), (True, False))

    def _check_split(self) -> None:
        split = self.split
        if split is None or split == "bytes":
            return
        if isinstance(split, int):
            check_number("split", split, 1, 2**30, whole=True)
            return
        self._take_tuple("split", int, "None | 'bytes' | a whole number from 1 | a list of rising offsets")
        assert isinstance(self.split, tuple)
        if any(low >= high for low, high in zip((0, *self.split), self.split, strict=False)):
            raise OptionError("split", split, "offsets that rise, from 1")

    def _take_tuple(self, name: str, kind: Any, allowed: str, *, optional: bool = False) -> None:
        """Keep a list as a tuple, and refuse whatever else is in it than ``kind``."""
        value = getattr(self, name)
        if value is None and optional:
            return
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, kind) for item in value):
            raise OptionError(name, value, allowed)
        object.__setattr__(self, name, tuple(value))

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text's tokens, before any repetition."""
        return self.tokens if self.tokens is not None else tuple(split_text(self.text))

    @property
    def reasoning_pieces(self) -> list[str]:
        """The reasoning's tokens."""
        return split_text(self.reasoning)

    @property
    def refusal_pieces(self) -> list[str]:
        """The refusal's tokens."""
        return split_text(self.refusal)

    @property
    def token_count(self) -> int:
        """How many tokens the text has, repetition included."""
        return self.repeat or len(self.pieces)

    @property
    def paced_count(self) -> int:
        """How many events are paced: tokens of every kind, and fragments of arguments."""
        arguments = sum(len(call.fragments) for call in self.tool_calls)
        return len(self.reasoning_pieces) + len(self.refusal_pieces) + self.token_count + arguments

    @property
    def full_text(self) -> str:
        """All the text, repetition included."""
        return "".join(islice(cycle(self.pieces), self.token_count))

    @property
    def finish(self) -> str:
        """The finish reason in chat's words, whether given or not."""
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")

    @property
    def interval_s(self) -> float:
        """Seconds from token to token."""
        return 1 / self.tokens_per_second if self.tokens_per_second is not None else self.pace

    def replace(self, **changes: Any) -> Answer:
        """A copy with some fields changed, validated as a whole."""
        return dataclasses.replace(self, **changes)


Reply: TypeAlias = Answer | Fault | Callable[[ReceivedRequest], Answer | Fault]
"""What a request gets. A function is called in the provider's own thread and must not block."""

_REPLY_KINDS = (Answer, *get_args(ResponseFault), *get_args(StreamFault))


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
            raise OptionError(name, reply, "an Answer, a fault, or a function from a ReceivedRequest to one of them")
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

    def reply(self, request: ReceivedRequest) -> Answer | ResponseFault:
        """Decide what ``request`` gets.

        Raises:
            OptionError: a function of the script returned something else than an answer or a fault.
            Exception: whatever a function of the script raises.
        """
        reply = next(self._models.get(request.model or "", self._others))
        if isinstance(reply, _REPLY_KINDS):
            return self._settle(reply)
        assert callable(reply)
        return self._settle(reply(request))

    def _settle(self, reply: object) -> Answer | ResponseFault:
        if isinstance(reply, (Answer, Status, HangUp, NotAStream)):
            return reply
        if isinstance(reply, get_args(StreamFault)):
            return self.script.answer.replace(faults=(*self.script.answer.faults, reply))
        raise OptionError("reply", reply, "an Answer or a fault")


def _in_turn(replies: Replies) -> Iterator[Reply]:
    if isinstance(replies, Cycle):
        yield from cycle(replies.replies)
    *first, last = _to_replies("replies", replies)
    yield from first
    while True:
        yield last
