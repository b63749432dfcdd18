"""One answer of the loopback provider, and how it is sent. A frozen value, validated when it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import cycle, islice
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from penstock.adapters.loopback.faults import StreamFault, check_headers
from penstock.adapters.loopback.parts import Declined, Part, Said, Silence, Thought, delay_in
from penstock.adapters.loopback.pieces import ScriptedCall, check_text, split_text, take_tuple
from penstock.config.checks import check_choice, check_number
from penstock.errors import OptionError
from penstock.events import FrozenDict, Usage

__all__ = ["Answer", "Framing", "ScriptedCall", "Split", "split_text"]

Framing: TypeAlias = Literal["chunked", "close", "length", "gzip"]
Split: TypeAlias = int | tuple[int, ...] | Literal["bytes"] | None

_FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call", "pause_turn")
_TEXT = "Water finds its way down the penstock, and the turbine turns it into light – even at 3 °C."
_METADATA = (
    *("response_id", "system_fingerprint", "service_tier", "container", "stop_sequence", "refusal_details"),
    *("finish_message", "prompt_feedback", "moderation", "timings", "cost", "usage_details", "upstream_provider"),
    *("upstream_model", "native_finish_reason"),
)
_LARGEST_METADATA = 16_384  # bytes of JSON


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and how it is sent.

    Attributes:
        text: the text, split into tokens by `split_text`.
        parts: what the answer consists of, in order, in place of ``text``, ``tokens``, ``repeat``, ``reasoning``,
            ``signature``, ``refusal``, ``tool_calls`` and ``choices``; see `penstock.adapters.loopback.parts`. A part
            that an API has no form for is left out there.
        tokens: the tokens themselves, one event each, instead of ``text``.
        repeat: send the tokens again from the first one until there are this many; 0 sends them once.
        reasoning, refusal: sent before the text.
        reasoning_field: the name of the field that carries the reasoning in chat completions.
        signature: of the reasoning: Anthropic's ``signature`` (None: made up, since Anthropic always signs; empty:
            none), Gemini's ``thoughtSignature``, the ``encrypted_content`` of the Responses API.
        tool_calls: function calls, sent after the text; their arguments are sent in fragments.
        finish_reason: in the terms of chat completions, translated for other APIs; None is ``"tool_calls"`` if there
            are tool calls, otherwise ``"stop"``. ``"pause_turn"`` is Anthropic's; the others send ``"stop"``.
        metadata: what the provider says of the answer as a whole, under the names of ``provider_metadata``
            (``system_fingerprint``, ``service_tier``, ``container``, ``stop_sequence``, ``timings`` …). Each API sends
            what it has a field for.
        logprobs: probabilities of the tokens: ``"asked"`` for by the request, ``"always"`` or ``"never"``. They are
            made up, unless a `Said` has its own, which are sent unless this is ``"never"``. Anthropic has none.
        choices: further answers to the same request (``n`` > 1), interleaved with this one. Only their content and
            finish reason are used, and only chat completions and Gemini send them.
        usage: None is the true count (words in, tokens out).
        send_usage: chat completions send usage when ``"asked"`` (``stream_options``), ``"always"`` or ``"never"``;
            other APIs send it unless ``"never"``.
        headers: further headers of the response, such as rate limits.
        pace: seconds from token to token; 0 is as fast as the client reads. Due times are counted from the request,
            so that delays do not add up. A whole (not streamed) answer is sent when its last token would be.
        tokens_per_second: the same as a rate. Only one of the two may be given.
        first_token_delay: seconds until the first token; the status line and the opening events do not wait for it.
        framing: how HTTP delimits the body: ``"chunked"``, by ``"close"`` of the connection, by content ``"length"``,
            or chunked and ``"gzip"`` encoded with a flush after each event.
        split: split the body (after compression): after every so many bytes, at these offsets, or between all
            ``"bytes"``. Each piece is a write and an HTTP chunk of its own.
        batch: events in one write; a paced batch is sent when its last token is due. None is one for a paced answer,
            and as many as fit for a fast one.
        events_per_chunk: events in one HTTP chunk; a paced answer never puts more than one ``batch`` in a chunk.
        line_ending: of the event stream; None is that of the real server (CRLF for Gemini). Ollama's lines always end
            in LF.
        done_marker: whether to send what ends the stream: ``[DONE]``, Anthropic's ``message_stop``, the last bracket
            of Gemini's array. Other APIs have no end marker.
        bom: begin with a byte order mark.
        comments: send a sign of life before every so many events: Anthropic's ``ping``, white space between the
            elements of Gemini's array, a ``: keep-alive`` comment in other event streams, nothing for Ollama. 0 sends
            none.
        timestamps: put the time at which an event is sent into its JSON, as ``"penstock_sent"`` (`time.time`).
        faults: what goes wrong while the answer is sent.
        resumptions: what goes wrong when an answer of the Responses API that was requested with ``background`` is
            resumed: the faults of the first further connection, of the second, …; later connections have none.
    """

    text: str = _TEXT
    _: KW_ONLY
    parts: Sequence[Part] = ()
    tokens: tuple[str, ...] | None = None
    repeat: int = 0
    reasoning: str = ""
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    signature: str | None = None
    refusal: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    finish_reason: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=FrozenDict)
    logprobs: Literal["asked", "always", "never"] = "asked"
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
            check_text(name, getattr(self, name))
        take_tuple(self, "tokens", str, "a list of strings or None", optional=True)
        for token in self.tokens or ():
            check_text("tokens", token)
        if self.signature is not None:
            check_text("signature", self.signature)
        take_tuple(self, "tool_calls", ScriptedCall, "a list of ScriptedCall")
        take_tuple(self, "choices", Answer, "a list of Answer")
        self._check_parts()
        if any(choice.choices or choice.parts for choice in self.choices):
            raise OptionError("choices", self.choices, "answers that have neither choices of their own nor parts")
        calls = [call for answer in (self, *self.choices) for call in answer.tool_calls]
        if (self.repeat or self.choices) and any(call.type != "function" for call in calls):
            raise OptionError("tool_calls", calls, "functions, if there are choices or repeated tokens")
        object.__setattr__(self, "headers", check_headers(self.headers))
        take_tuple(self, "faults", get_args(StreamFault), "a list of stream faults")
        take_tuple(self, "resumptions", (list, tuple), "lists of stream faults")
        if not all(isinstance(fault, StreamFault) for faults in self.resumptions for fault in faults):
            raise OptionError("resumptions", self.resumptions, "lists of stream faults")
        check_number("repeat", self.repeat, 0, 1_000_000_000, whole=True)
        if self.repeat and not self.pieces:
            raise OptionError("repeat", self.repeat, "0, because there are no tokens to repeat")
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
            raise OptionError("tokens_per_second", self.tokens_per_second, "None when pace is given")
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
        take_tuple(self, "split", int, "None | 'bytes' | a whole number from 1 | a list of increasing offsets")
        assert isinstance(self.split, tuple)
        if any(low >= high for low, high in zip((0, *self.split), self.split, strict=False)):
            raise OptionError("split", split, "increasing offsets, the first at least 1")

    def _check_parts(self) -> None:
        take_tuple(self, "parts", get_args(Part), "a list of parts (Said, Thought, Search …)")
        if self.parts:
            given = {"text": _TEXT, "tokens": None, "repeat": 0, "reasoning": "", "signature": None, "refusal": ""}
            for name, nothing in (given | {"tool_calls": (), "choices": ()}).items():
                value = getattr(self, name)
                if value != nothing and value != "":
                    raise OptionError(name, value, "nothing if there are parts")
        check_choice("logprobs", self.logprobs, ("asked", "always", "never"))
        if not isinstance(self.metadata, Mapping):
            raise OptionError("metadata", self.metadata, "a dict")
        for name, value in self.metadata.items():
            check_choice("metadata", name, _METADATA)
            try:
                size = len(msgspec.json.encode(value))
            except (TypeError, ValueError, RecursionError):
                raise OptionError(f"metadata[{name!r}]", value, "a JSON value") from None
            if size > _LARGEST_METADATA:
                raise OptionError(f"metadata[{name!r}]", size, f"at most {_LARGEST_METADATA} bytes of JSON")
        for name in ("repeat", "choices") if self.metadata else ():
            if getattr(self, name):
                raise OptionError(name, getattr(self, name), "nothing if there is metadata")
        object.__setattr__(self, "metadata", FrozenDict(self.metadata))

    @property
    def content(self) -> tuple[Part, ...]:
        """The parts, or those that text, reasoning, refusal and calls make."""
        if self.parts:
            return tuple(self.parts)
        parts: list[Part] = []
        if self.reasoning or self.signature:
            parts.append(Thought(self.reasoning, signature=self.signature))
        if self.refusal:
            parts.append(Declined(self.refusal))
        if any(self.pieces):
            parts.append(Said(tokens=self.pieces))
        return (*parts, *self.tool_calls)

    @property
    def pieces(self) -> tuple[str, ...]:
        """The tokens of the text, not repeated."""
        if self.parts:
            return tuple(piece for part in self.parts if isinstance(part, Said) for piece in part.pieces)
        return self.tokens if self.tokens is not None else tuple(split_text(self.text))

    @property
    def reasoning_pieces(self) -> list[str]:
        """The tokens of the reasoning."""
        if self.parts:
            return [piece for part in self.parts if isinstance(part, Thought) for piece in part.pieces]
        return split_text(self.reasoning)

    @property
    def refusal_pieces(self) -> list[str]:
        """The tokens of the refusal."""
        if self.parts:
            return [piece for part in self.parts if isinstance(part, Declined) for piece in part.pieces]
        return split_text(self.refusal)

    @property
    def token_count(self) -> int:
        """The number of tokens of the text, repetitions included."""
        return self.repeat or len(self.pieces)

    @property
    def paced_count(self) -> int:
        """The number of paced events: tokens of every kind, and fragments of arguments."""
        if self.parts:
            return sum(part.token_count for part in self.parts)
        arguments = sum(len(call.fragments) for call in self.tool_calls)
        others = sum(choice.paced_count for choice in self.choices)
        return len(self.reasoning_pieces) + len(self.refusal_pieces) + self.token_count + arguments + others

    @property
    def paused_s(self) -> float:
        """Seconds of all pauses."""
        return sum(part.seconds if isinstance(part, Silence) else delay_in(part) for part in self.parts)

    @property
    def full_text(self) -> str:
        """The whole text, repetitions included."""
        return "".join(islice(cycle(self.pieces), self.token_count))

    @property
    def finish(self) -> str:
        """The finish reason in the terms of chat completions, whether given or not."""
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")

    @property
    def interval_s(self) -> float:
        """Seconds from token to token."""
        return 1 / self.tokens_per_second if self.tokens_per_second is not None else self.pace

    def replace(self, **changes: Any) -> Answer:
        """Return a copy with some fields changed, validated as a whole."""
        return dataclasses.replace(self, **changes)
