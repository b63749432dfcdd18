"""Connects streams to existing event callbacks, to foreign event systems, and to other streams."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar, overload

import msgspec

from penstock.config.logs import get_logger
from penstock.config.options import StreamOptions
from penstock.errors import OptionError, StreamError
from penstock.events import SideEvent, TokenEvent
from penstock.stream import Stream
from penstock.system import System
from penstock.toolbox.pump import derive
from penstock.toolbox.stage import Stage, Steps

__all__ = ["Extract", "chain", "tokens_of", "wrap_existing_handler"]

R = TypeVar("R")

Extract: TypeAlias = Callable[[Any], Iterable[str] | tuple[Iterable[str], Mapping[str, Any]]]
"""Returns the tokens of a foreign event, or a pair of tokens and metadata for the stream's events from then on."""


def wrap_existing_handler(
    handler: Callable[[Any], R], stream: Stream, extract: Extract | None = None
) -> Callable[[Any], R]:
    """Wrap an existing event callback so that it also feeds a stream.

    The stream gets the tokens first. Then ``handler`` is called, and the wrapper returns or raises what it does. The
    handler is called even if the stream has ended, or is full for longer than its ``push_timeout``, or ``extract``
    raises, which is logged.

    Args:
        handler: the existing callback.
        stream: gets the tokens.
        extract: finds the tokens of an event; None takes `tokens_of`.

    >>> with System() as system:
    ...     stream = system.open_stream()
    ...     handle = wrap_existing_handler(lambda event: len(event), stream)
    ...     handle("Hello")
    ...     stream.stop()
    ...     stream.text
    5
    'Hello'
    """
    _check(handler=handler, stream=stream)
    find = extract or tokens_of

    def wrapped(event: Any) -> R:
        try:
            _feed(stream, find(event))
        except StreamError:
            pass  # the handler must work without the stream
        except Exception as error:  # and without the result of `extract`
            get_logger(stream_id=stream.stream_id).warning("extract_failed", error=type(error).__name__)
        return handler(event)

    return functools.update_wrapper(wrapped, handler)


def _feed(stream: Stream, found: Iterable[str] | tuple[Iterable[str], Mapping[str, Any]]) -> None:
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping):
        tokens, metadata = found
        stream.update_metadata(metadata)
        stream.process_tokens(tokens)
    else:
        stream.process_tokens(found)


def tokens_of(event: Any) -> list[str]:
    """The tokens of a common event: a text, a `TokenEvent`, or an OpenAI chat chunk (object or dict).

    >>> tokens_of({"choices": [{"delta": {"content": "Hi"}}]})
    ['Hi']
    """
    if isinstance(event, str):
        return [event]
    if isinstance(event, TokenEvent):
        return list(event.tokens)
    choices = _get(event, "choices")
    if isinstance(choices, (list, tuple)) and choices:
        content = _get(_get(choices[0], "delta"), "content")
        if isinstance(content, str) and content:
            return [content]
    return []


def _get(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


@overload
def chain(
    stream: Stream,
    transform: Callable[[TokenEvent], Iterable[str]],
    *,
    system: System | None = None,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
) -> Stream: ...


@overload
def chain(
    system: System,
    stream: Stream,
    transform: Callable[[TokenEvent], Iterable[str]],
    /,
    *,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
) -> Stream: ...


def chain(
    stream: Any,
    transform: Any,
    *rest: Any,
    system: System | None = None,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
) -> Stream:
    """Open a stream whose tokens are ``transform`` of another stream's token events.

    The other events are passed on, in order, with the new stream's numbers: citations without their place in the text,
    and no `Logprobs`, since the transform changes the text. What the old stream no longer has one by one comes as one
    token event for each part, and then the other events (see `StreamSnapshot`). Backpressure is passed on too: while
    the new stream is full, the old one waits, and so on up to the provider. The new stream ends as the old one does,
    after emitting what it has buffered, with the same finish reason, usage and calls, or the same error. It is reset
    when the old one is. If ``transform`` raises, the new stream fails with `TransformError`; its cause is the
    exception. If the new stream ends first, it unsubscribes from the old one at once. ``transform`` runs in a copy of
    the caller's context (`contextvars`).

    Args:
        stream: the other stream, which is read from its beginning.
        transform: gets each token event and returns the tokens to send in its place; none drops the event.
        *rest: a system may also be the first argument; the stream and ``transform`` are then the second and the third.
        system: opens the new stream; None is that of ``stream``.
        stream_id: None generates one.
        options: None takes the preset `SAFE`.

    Raises:
        OptionError: an argument is not allowed.
        StreamExists, SystemStopped: as for `System.open_stream`.

    >>> with System() as system:
    ...     words = system.open_stream()
    ...     loud = chain(words, lambda event: [token.upper() for token in event.tokens])
    ...     words.process_tokens(["to ", "be"])
    ...     words.stop()
    ...     loud.result(timeout=5).text
    'TO BE'
    """
    if rest:
        if len(rest) > 1 or system is not None:
            raise TypeError("chain() takes a stream and a function, or a system, a stream and a function")
        system, stream, transform = stream, transform, rest[0]
        if not isinstance(system, System):
            raise OptionError("system", type(system), "a System, before the stream and the function")
    elif system is not None and not isinstance(system, System):
        raise OptionError("system", type(system), "a System or None")
    _check(transform=transform, stream=stream)
    return derive(_Chained(transform), [stream], system=system, stream_id=stream_id, options=options)


def _check(*, stream: object, **functions: object) -> None:
    if not isinstance(stream, Stream):
        raise OptionError("stream", type(stream), "a Stream")
    for name, function in functions.items():
        if not callable(function):
            raise OptionError(name, type(function), "a function of one argument")


class _Chained(Stage):
    """Every token event becomes one with the tokens that ``transform`` makes of it, of the kind ``text``."""

    kind = "chain"
    keeps_text = False

    def __init__(self, transform: Callable[[TokenEvent], Iterable[str]]) -> None:
        self._transform = transform

    def feed(self, event: TokenEvent | SideEvent, place: int = 0) -> Steps:
        """See `Stage.feed`."""
        if not isinstance(event, TokenEvent):
            return (event,)
        tokens = tuple(str(token) for token in self._transform(event))
        return (msgspec.structs.replace(event, tokens=tokens, text="".join(tokens), kind="text"),) if tokens else ()
