"""What a stream is to get for each item of a source. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any, Final

from penstock.actors.call.answer import OutcomeBuilder
from penstock.actors.stream.outcome import Outcome
from penstock.config.options import Tokenizer
from penstock.config.units import Recutter, Unit
from penstock.errors import OptionError
from penstock.events import SideEvent, StreamCompleted, StreamReset, TokenEvent, TokenKind
from penstock.ports import (
    Annotate,
    BlockDelta,
    BlockStart,
    ChoiceDelta,
    CitationDelta,
    ErrorDelta,
    EventDelta,
    FinishDelta,
    FinishHeld,
    KeepAlive,
    MetadataDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Thinking,
    ToolCallFragment,
    UsageDelta,
    Void,
)
from penstock.toolbox.stage import Output, completed, failed

__all__ = ["Items"]

_SAID: Final[dict[type, TokenKind]] = {TextDelta: "text", ReasoningDelta: "reasoning", RefusalDelta: "refusal"}
_NOTED: Final = (
    BlockDelta,
    ChoiceDelta,
    CitationDelta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningBlockDelta,
    ToolCallFragment,
    UsageDelta,
)
_SILENT: Final = (BlockStart, FinishHeld, KeepAlive, Thinking)
_BAD: Final = "\ufffd"
_BAD_BYTES: Final = _BAD.encode()


class Items:
    """Collects tokens that directly follow each other, so that they can be pushed together.

    Args:
        by: what text is cut into; None: a piece is a token.
        flush_interval: seconds that an incomplete unit may wait for the next piece.
        tokenizer: splits each piece, if ``by`` is None.
    """

    def __init__(self, by: Unit | None = None, flush_interval: float = 0.1, tokenizer: Tokenizer | None = None) -> None:
        self.flush_interval = flush_interval
        self._recutter = None if by is None else Recutter(by)
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._bad_in_text = 0
        self._bad_in_bytes = 0
        self._tail = b""  # the last bytes, in which U+FFFD itself may begin
        self._tokens: list[str] = []
        self._kind: TokenKind = "text"
        self._builder: OutcomeBuilder | None = None
        self._written = 0

    @property
    def open(self) -> str:
        """What is held until the next piece."""
        return "" if self._recutter is None else self._recutter.open

    @property
    def replaced(self) -> int:
        """Broken UTF-8 sequences so far."""
        return max(0, self._bad_in_text - self._bad_in_bytes)

    def take(self, item: Any) -> Iterator[Output]:
        """Take one item; yields what can be pushed now, except for tokens that wait for others (`tokens`).

        Raises:
            OptionError: it is none of the `Item` types.
        """
        if isinstance(item, str):
            yield from self._say(item, "text")
        elif isinstance(item, (bytes, bytearray, memoryview)):
            yield from self._say(self._decode(bytes(item)), "text")
        elif (kind := _SAID.get(type(item))) is not None:
            yield from self._say(item.text, kind)
        elif isinstance(item, TokenEvent):
            yield from self.flush()
            self._written += len(item.text) if item.kind == "text" else 0
            yield item
        elif isinstance(item, _NOTED):
            yield from self._note(item)
        else:
            yield from self._take_other(item)

    def _take_other(self, item: Any) -> Iterator[Output]:
        match item:
            case ErrorDelta(error=error):
                yield from self.flush()
                yield failed(error, like=self.end())
            case Void(reason=reason, origin=origin):
                if origin is None:
                    self._forget()
                else:
                    yield from self.flush()
                yield StreamReset("", 0, reason, 0.0, {}, origin)
            case Annotate():
                yield from self.tokens()
                yield item
            case _ if isinstance(item, _SILENT):
                return
            case _ if isinstance(item, SideEvent):
                yield from self.flush()
                yield item
            case _:
                raise OptionError("source", type(item), "str, bytes, deltas or events as its items")

    def _forget(self) -> None:
        self._tokens = []
        if self._recutter is not None:
            self._recutter.reset()
        if self._builder is not None:
            self._builder.void(self._written)

    def _decode(self, data: bytes, *, final: bool = False) -> str:
        text = self._decoder.decode(data, final)
        seen = self._tail + data
        self._bad_in_text += text.count(_BAD)
        self._bad_in_bytes += seen.count(_BAD_BYTES)
        self._tail = seen[-2:] if not seen.endswith(_BAD_BYTES) else b""
        return text

    def _say(self, text: str, kind: TokenKind) -> Iterator[Output]:
        if not text:
            return
        if kind != self._kind:
            yield from self.flush()
            self._kind = kind
        if self._recutter is not None:
            self._tokens += self._recutter.feed(text)
        elif self._tokenizer is not None:
            self._tokens += self._tokenizer(text)
        else:
            self._tokens.append(text)

    def _note(self, delta: Any) -> Iterator[Output]:
        builder = self._builder
        if builder is None:
            builder = self._builder = OutcomeBuilder()
        written = self._written + sum(map(len, self._tokens))
        if events := builder.note(delta, written):
            yield from self.flush()
            yield from events

    def tokens(self) -> Iterator[Output]:
        """The tokens that have been collected, as one event."""
        if self._tokens:
            tokens, self._tokens = tuple(self._tokens), []
            text = "".join(tokens)
            self._written += len(text) if self._kind == "text" else 0
            yield TokenEvent("", 0, tokens, text, self._kind, 0.0, {})

    def flush(self) -> Iterator[Output]:
        """The same, with the unit that is held."""
        if self._recutter is not None:
            self._tokens += self._recutter.flush()
        yield from self.tokens()

    def finish(self) -> Iterator[Output]:
        """What is left at the end of the source: the units and characters that are held, and the ends of calls."""
        if rest := self._decode(b"", final=True):
            yield from self._say(rest, "text")
        yield from self.flush()
        if self._builder is not None:
            yield from self._builder.complete()

    def end(self) -> StreamCompleted:
        """How the stream ends, if the source ends well: with what its deltas have said."""
        outcome = Outcome() if self._builder is None else self._builder.outcome()
        facts = {name: getattr(outcome, name) for name in StreamCompleted.__struct_fields__ if hasattr(outcome, name)}
        facts.pop("text")
        facts.pop("reasoning")
        return completed(facts.pop("finish_reason"), usage=facts.pop("usage"), **facts)
