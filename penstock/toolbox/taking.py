"""`Stream.take`: the beginning of a stream, up to a number of tokens, characters or seconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from penstock.config.checks import check_number
from penstock.config.units import clusters
from penstock.errors import OptionError
from penstock.events import (
    SideEvent,
    StreamCompleted,
    StreamReset,
    TerminalEvent,
    TokenEvent,
    TokenKind,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from penstock.toolbox.kinds import check_kinds
from penstock.toolbox.stage import Output, Stage, Steps, completed, with_tokens

__all__ = ["Take"]

_LONGEST: Final = 64  # code points of one character that are looked at together


class Take(Stage):
    """Passes events until a limit is reached, which then completes the stream with the finish reason ``"taken"``.

    Args:
        tokens: at most so many; an event is cut.
        characters: at most so many code points; ends between two characters as a reader sees them.
        seconds: from the opening of the derived stream.
        kinds: which kinds of text count; the others pass. None: all.
        usage: returns the usage so far, for the terminal event; None if that is not known.
    """

    kind = "take"

    def __init__(
        self,
        tokens: int | None,
        characters: int | None,
        seconds: float | None,
        kinds: TokenKind | Collection[TokenKind] | None,
        usage: Callable[[], Usage | None],
    ) -> None:
        if tokens is None and characters is None and seconds is None:
            raise OptionError("tokens", None, "a number, where neither characters nor seconds are given")
        check_number("tokens", tokens, 0, 1 << 62, whole=True, optional=True)
        check_number("characters", characters, 0, 1 << 62, whole=True, optional=True)
        check_number("seconds", seconds, 0, 86_400 * 365, optional=True)
        self._tokens = tokens
        self._seconds = seconds
        self._kinds = None if kinds is None else check_kinds(kinds)
        self._usage = usage
        self._counts: dict[str | None, int] = {}  # tokens by origin
        self._text = None if characters is None else _Prefix(characters)
        self._said = 0  # code points
        self._calls: dict[tuple[str | None, int], ToolCall] = {}
        self._arguments: dict[tuple[str | None, int], list[str]] = {}  # of calls that are not complete
        self._is_nothing = 0 in (tokens, characters, seconds)

    def begin(self) -> Steps:
        """See `Stage.begin`."""
        if self._is_nothing:
            return (self._taken(),)
        if self._seconds is not None:
            self.expires = self.now + self._seconds
        return ()

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """See `Stage.feed`."""
        if not isinstance(event, TokenEvent):
            self._note_call(event)
            return self._after_held(event)
        if self._kinds is not None and event.kind not in self._kinds:
            self._said += len(event.text)
            return self._after_held(event)
        given: list[Output] = []
        is_taken = False
        tokens: Sequence[str] = event.tokens
        if self._tokens is not None:
            left = self._tokens - sum(self._counts.values())
            tokens = tokens[:left]
            self._counts[event.origin] = self._counts.get(event.origin, 0) + len(tokens)
            is_taken = len(tokens) == left
        if self._text is not None:
            if not self._text.goes_on_with(event):
                given += self._text.release()
                if self._text.is_full:
                    return (*given, self._taken())
            given += self._text.feed(event, tokens, is_last=is_taken)
            is_taken = is_taken or self._text.is_full
        else:
            given.append(with_tokens(event, tokens))
        self._said += sum(len(one.text) for one in given if isinstance(one, TokenEvent))
        if is_taken:
            given.append(self._taken())
        return given

    def _after_held(self, event: SideEvent | TokenEvent) -> Steps:
        if self._text is None or not self._text.held:
            return (event,)
        released = self._text.release()
        return (*released, self._taken()) if self._text.is_full else (*released, event)

    def reset(self, reset: StreamReset, place: int = 0) -> Steps:
        """See `Stage.reset`. Counting begins again."""
        if reset.origin is None:
            self._counts.clear()
            self._calls.clear()
            self._arguments.clear()
        else:
            self._counts.pop(reset.origin, None)
            for key in [key for key in self._calls if key[0] == reset.origin]:
                del self._calls[key]
                self._arguments.pop(key, None)
        if self._text is not None:
            self._text.reset(reset.origin)
        return (reset,)

    def end(self, terminal: TerminalEvent, place: int = 0) -> Steps:
        """See `Stage.end`. The parent has ended first, and its reason stays."""
        return (*(() if self._text is None else self._text.release()), terminal)

    def expired(self) -> Output | None:
        """See `Stage.expired`."""
        return self._taken()

    def _note_call(self, event: SideEvent) -> None:
        match event:
            case ToolCallStarted(id=id, name=name, index=index, origin=origin):
                self._calls[origin, index] = ToolCall(id=id, name=name)
                self._arguments[origin, index] = []
            case ToolCallDelta(index=index, text=text, origin=origin):
                self._arguments.setdefault((origin, index), []).append(text)
            case ToolCallCompleted(index=index, call=call, origin=origin):
                self._calls[origin, index] = call
                self._arguments.pop((origin, index), None)

    def _taken(self) -> StreamCompleted:
        calls = [
            call if (pieces := self._arguments.get(key)) is None else _incomplete(call, "".join(pieces))
            for key, call in self._calls.items()
        ]
        usage = self._usage()
        if usage is None and self._said:
            usage = Usage(output_tokens=-(-self._said // 4))  # a rule of thumb of the providers, for English
        return completed("taken", usage=usage, tool_calls=tuple(calls))


def _incomplete(call: ToolCall, arguments: str) -> ToolCall:
    return ToolCall(id=call.id, name=call.name, arguments=None, arguments_raw=arguments)


class _Prefix:
    """Lets text through up to a number of code points, and never a part of a character.

    Where a text is cut into pieces makes no difference: the last character is held until it is certain that it is
    complete, unless the limit is so far away that it does not matter.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._given: dict[str | None, int] = {}  # code points by origin
        self.held = ""
        self._before = ""  # the part of the last character that has been let through
        self._event: TokenEvent | None = None  # the last one
        self.is_full = False

    def goes_on_with(self, event: TokenEvent) -> bool:
        """Whether the text of this event continues the last one's."""
        last = self._event
        return last is None or (last.kind, last.part, last.phase, last.origin) == (
            event.kind, event.part, event.phase, event.origin
        )  # fmt: skip

    def release(self) -> list[TokenEvent]:
        """Give the held character: nothing continues it."""
        held, self.held, self._before = self.held, "", ""
        if not held:
            return []
        assert self._event is not None
        return [self._let_through(self._event, (held,))]

    def reset(self, origin: str | None) -> None:
        """Begin to count again: all, or the text of one origin."""
        if origin is None:
            self._given.clear()
        else:
            self._given.pop(origin, None)
        if origin is None or (self._event is not None and self._event.origin == origin):
            self.held, self._before, self._event = "", "", None

    def feed(self, event: TokenEvent, tokens: Sequence[str], *, is_last: bool) -> list[TokenEvent]:
        """Let the tokens of an event through, as far as they fit. ``is_last``: nothing follows."""
        self._event = event
        all_tokens = (self.held + tokens[0], *tokens[1:]) if tokens else (self.held,)
        text = "".join(all_tokens)
        room = self._limit - sum(self._given.values())
        seen = len(self._before)
        self.held = ""
        if len(text) + _LONGEST <= room:
            self._before = text[-1:] if text[-1:].isascii() else clusters((self._before + text)[-_LONGEST:])[-1]
            return [self._let_through(event, all_tokens)]
        characters = clusters(self._before + text)
        end = 0
        for one in characters:
            if end + len(one) > room + seen:
                self.is_full = True
                break
            end += len(one)
        else:
            last = characters[-1] if characters else ""
            if not is_last and len(last) <= _LONGEST:
                end -= len(last)
                self.held = last[max(0, seen - end) :]
        self._before = "" if end >= seen else self._before[end:]
        return [self._let_through(event, _first(all_tokens, max(0, end - seen)))]

    def _let_through(self, event: TokenEvent, tokens: Sequence[str]) -> TokenEvent:
        self._given[event.origin] = self._given.get(event.origin, 0) + sum(map(len, tokens))
        self.is_full = self.is_full or sum(self._given.values()) >= self._limit
        return with_tokens(event, tokens)


def _first(tokens: Sequence[str], characters: int) -> list[str]:
    """The tokens that begin a text, up to a number of code points."""
    found: list[str] = []
    for token in tokens:
        if characters <= 0:
            break
        found.append(token[:characters])
        characters -= len(token)
    return found
