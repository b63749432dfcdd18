"""Joining streams to other things: existing event callbacks, foreign event systems, other streams."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from penstock.actors.flow.log import Outcome
from penstock.actors.messages import Complete, Fail
from penstock.config.logs import get_logger
from penstock.config.options import StreamOptions
from penstock.errors import StreamClosed, StreamError
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed, StreamReset, TokenEvent
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
    result's. That the stream has ended, or is full for longer than its ``push_timeout``, does not disturb the handler;
    nor does an ``extract`` that raises (which is logged).

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
        try:
            _feed(stream, find(event))
        except StreamError:
            pass  # the handler's life goes on without the stream
        except Exception as error:  # and without an `extract` that understands the event
            get_logger(stream_id=stream.id).warning("extract_failed", error=type(error).__name__)
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
    stream ends as the old one does, after what is still buffered in it, with the same finish reason and usage, or the
    same error; it is reset when the old one is. If ``transform`` raises, the new stream is cancelled with the
    exception's name. If the new stream ends first, it lets go of the old one at once.
    """
    target = system.open_stream(stream_id, options, metadata=stream.metadata, on_orphan="cancel")

    def pass_on(event: Any) -> None:
        with contextlib.suppress(StreamClosed):  # then it has let go of us already
            _pass_on(event, transform, target)

    subscription = stream.subscribe(pass_on, slow="block", window=1)
    target._record.over.when_done(subscription.unsubscribe)
    return target


def _pass_on(event: Any, transform: Callable[[TokenEvent], Iterable[str]], target: Stream) -> None:
    match event:
        case TokenEvent():
            try:
                tokens = list(transform(event))
            except Exception as error:
                get_logger(stream_id=target.id).warning("transform_failed", error=type(error).__name__)
                target.cancel(f"transform raised {type(error).__name__}")
            else:
                target.process_tokens(tokens, timeout=float("inf"))
        case StreamReset(reason=reason):
            target.reset(reason)
        case StreamCompleted():
            target._end_as(
                Complete(
                    Outcome(
                        finish_reason=event.finish_reason,
                        raw_finish_reason=event.raw_finish_reason,
                        tool_calls=event.tool_calls,
                        usage=event.usage,
                        model=event.model,
                    )
                )
            )
        case StreamFailed(error=error):
            target._end_as(Fail(error, Outcome(usage=event.usage, model=event.model)))
        case StreamCancelled(reason=reason):
            target.cancel(reason)
