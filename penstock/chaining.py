"""Joining streams to other things: existing event callbacks, foreign event systems, other streams."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from penstock.config.options import StreamOptions
from penstock.errors import StreamError
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed, TokenEvent
from penstock.stream import Stream
from penstock.system import System

__all__ = ["Extract", "chain", "tokens_of", "wrap_existing_handler"]

R = TypeVar("R")

Extract: TypeAlias = Callable[[Any], Iterable[str] | tuple[Iterable[str], Mapping[str, Any]]]
"""From a foreign event to its tokens, or to a pair of tokens and metadata for the stream's events from then on."""


def wrap_existing_handler(
    handler: Callable[[Any], R], stream: Stream, extract: Extract | None = None
) -> Callable[[Any], R]:
    """Let an existing event callback feed a stream as well.

    The stream gets the tokens first; then ``handler`` is called as before, and its result and its exceptions are the
    result's. That the stream has ended, or is full, does not disturb the handler.

    Args:
        handler: the callback as it is.
        stream: where the tokens go.
        extract: how to find the tokens in an event; None takes `tokens_of`.

    >>> with System() as system:
    ...     stream = system.open_stream()
    ...     handle = wrap_existing_handler(lambda event: len(event), stream)
    ...     handle("Hello")
    ...     stream.stop()
    ...     stream.text
    5
    'Hello'
    """
    find = extract or tokens_of

    def wrapped(event: Any) -> R:
        found = find(event)
        if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping):
            tokens: Iterable[str] = found[0]
            stream.update_metadata(found[1])
        else:
            tokens = found
        with contextlib.suppress(StreamError):  # the handler's life goes on without the stream
            stream.process_tokens(tokens)
        return handler(event)

    return wrapped


def tokens_of(event: Any) -> list[str]:
    """The tokens of the usual kinds of events: a text, a `TokenEvent`, an OpenAI chat chunk (object or dict).

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


def _get(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def chain(
    system: System,
    stream: Stream,
    transform: Callable[[TokenEvent], Iterable[str]],
    *,
    stream_id: str | None = None,
    options: StreamOptions | None = None,
) -> Stream:
    """Open a stream whose tokens are ``transform`` of another one's events.

    Backpressure goes through: while the new stream is full, the old one waits, and so on up to the provider. The new
    stream ends as the old one does. If ``transform`` raises, the new stream fails to get any further and is cancelled
    with the exception's name; if the new stream ends first, it lets go of the old one.
    """
    target = system.open_stream(stream_id, options, metadata=stream.metadata, on_orphan="cancel")

    def pass_on(event: Any) -> None:
        if isinstance(event, TokenEvent):
            try:
                tokens = list(transform(event))
            except Exception as error:
                target.cancel(f"transform raised {type(error).__name__}")
                raise
            target.process_tokens(tokens, timeout=float("inf"))
        elif isinstance(event, StreamCompleted):
            target.stop()
        elif isinstance(event, StreamFailed):
            target.cancel(f"the stream before failed: {type(event.error).__name__}")
        elif isinstance(event, StreamCancelled):
            target.cancel(event.reason)

    stream.subscribe(pass_on, slow="block", window=1)
    return target
