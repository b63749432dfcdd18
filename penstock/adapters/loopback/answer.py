"""One answer of the loopback provider, and how it is sent. A frozen value, checked when made."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import KW_ONLY, dataclass
from itertools import cycle, islice
from typing import Any, Literal, TypeAlias, get_args

from penstock.adapters.loopback.faults import StreamFault, check_headers
from penstock.config.checks import check_choice, check_number
from penstock.errors import OptionError
from penstock.events import Usage

__all__ = ["Answer", "Framing", "ScriptedCall", "Split", "split_text"]

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
    """A function call in an answer.

    ``arguments`` is sent as it is, so it may be broken JSON; Ollama and Gemini send an object, so that broken JSON
    breaks the event. ``signature`` is Gemini's ``thoughtSignature``; the others do not send it.
    """

    name: str
    arguments: str = "{}"
    id: str | None = None
    signature: str | None = None

    def __post_init__(self) -> None:
        _check_text("name", self.name)
        _check_text("arguments", self.arguments)
        for name in ("id", "signature"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))

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
        signature: of the reasoning: Anthropic's ``signature`` (None: one is made up, for it always signs; empty: none),
            Gemini's ``thoughtSignature``, the Responses API's ``encrypted_content``.
        tool_calls: function calls, behind the text; their arguments come in fragments.
        finish_reason: in chat's words, said in the dialect's own; None is ``"tool_calls"`` where there are such and
            ``"stop"`` otherwise.
        choices: further answers to the same request (``n`` > 1), told side by side with this one. Of them count
            only what is said and why it ends. Only chat completions and Gemini have such.
        usage: None is the true count (words in, tokens out).
        send_usage: chat completions tell usage when ``"asked"`` (``stream_options``), ``"always"`` or ``"never"``;
            the others tell it unless ``"never"``.
        headers: further headers of the response, such as rate limits.
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
        line_ending: of the event stream; None is the one the real server has (CRLF for Gemini). Ollama's lines
            always end in LF.
        done_marker: whether what ends the stream is sent: ``[DONE]``, Anthropic's ``message_stop``, the last bracket
            of Gemini's array. The others have no such thing.
        bom: begin with a byte order mark.
        comments: a sign of life before every so many events: Anthropic's ``ping``, white space between the elements of
            Gemini's array, a ``: keep-alive`` comment in other event streams, nothing in Ollama's; 0 is none.
        timestamps: every event says when it was sent, as ``"penstock_sent"`` (`time.time`) in its JSON.
        faults: what goes wrong on the way.
        resumptions: what goes wrong when an answer of the Responses API that was asked for with ``background`` is gone
            on with: the faults of the first further connection, of the second …; none where the list ends.
    """

    text: str = "Water finds its way down the penstock, and the turbine turns it into light – even at 3 °C."
    _: KW_ONLY
    tokens: tuple[str, ...] | None = None
    repeat: int = 0
    reasoning: str = ""
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    signature: str | None = None
    refusal: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    finish_reason: str | None = None
    choices: tuple[Answer, ...] = ()
    usage: Usage | None = None
    send_usage: Literal["asked", "always", "never"] = "asked"
    headers: tuple[tuple[str, str], ...] = ()
    pace: float = 0.0
    tokens_per_second: float | None = None
    first_token_delay: float = 0.0
    framing: Framing = "chunked"
    split: Split = None
    batch: int | None = None
    events_per_chunk: int = 1
    line_ending: Literal["\n", "\r\n", "\r"] | None = None
    done_marker: bool = True
    bom: bool = False
    comments: int = 0
    timestamps: bool = False
    faults: tuple[StreamFault, ...] = ()
    resumptions: tuple[tuple[StreamFault, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("text", "reasoning", "refusal"):
            _check_text(name, getattr(self, name))
        self._take_tuple("tokens", str, "a list of texts or None", optional=True)
        for token in self.tokens or ():
            _check_text("tokens", token)
        if self.signature is not None:
            _check_text("signature", self.signature)
        self._take_tuple("tool_calls", ScriptedCall, "a list of ScriptedCall")
        self._take_tuple("choices", Answer, "a list of Answer")
        if any(choice.choices for choice in self.choices):
            raise OptionError("choices", self.choices, "answers that have no choices themselves")
        object.__setattr__(self, "headers", check_headers(self.headers))
        self._take_tuple("faults", get_args(StreamFault), "a list of stream faults")
        self._take_tuple("resumptions", (list, tuple), "lists of stream faults")
        if not all(isinstance(fault, StreamFault) for faults in self.resumptions for fault in faults):
            raise OptionError("resumptions", self.resumptions, "lists of stream faults")
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
        check_choice("line_ending", self.line_ending, (None, "\n", "\r\n", "\r"))
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
        others = sum(choice.paced_count for choice in self.choices)
        return len(self.reasoning_pieces) + len(self.refusal_pieces) + self.token_count + arguments + others

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
