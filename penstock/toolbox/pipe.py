"""`pipe`: several combinators in a row."""

from __future__ import annotations

from collections.abc import Callable

from penstock.errors import OptionError
from penstock.stream import Stream

__all__ = ["pipe"]


def pipe(stream: Stream, *stages: Callable[[Stream], Stream]) -> Stream:
    """Pass a stream through functions, from left to right, each of which makes another stream of it.

    ``pipe(stream, shorten, shout)`` is ``shout(shorten(stream))``. Without stages it is the stream itself.

    Args:
        stream: the first one.
        *stages: each gets a stream and returns one, such as ``lambda stream: stream.map(str.upper)``.

    Raises:
        OptionError: a stage is no function, or returns something else than a stream. The streams that the stages have
            made are cancelled then, and with whatever else a stage raises; ``stream`` is not, unless it has
            ``on_orphan="cancel"`` and no other reader.

    >>> from penstock.system import System
    >>> with System() as system:
    ...     words = system.open_stream()
    ...     loud = pipe(words, lambda one: one.take(tokens=2), lambda one: one.map(str.upper))
    ...     words.process_tokens(["to ", "be ", "or"])
    ...     loud.result(timeout=5).text
    'TO BE '
    """
    if not isinstance(stream, Stream):
        raise OptionError("stream", type(stream), "a Stream")
    for number, stage in enumerate(stages):
        if not callable(stage):
            raise OptionError(f"stages[{number}]", type(stage), "a function that gets a Stream and returns one")
    last = stream
    try:
        for number, stage in enumerate(stages):
            made = stage(last)
            if not isinstance(made, Stream):
                raise OptionError(f"stages[{number}]", type(made), "a function that returns a Stream")
            last = made
    except BaseException:
        if last.stream_id != stream.stream_id:
            last.cancel("a later stage could not be made")
        raise
    return last
