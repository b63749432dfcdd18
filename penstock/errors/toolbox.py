"""Errors of sources and of derived streams: those that are made from other streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.errors.base import PenstockError, describe_reason
from penstock.errors.streams import StreamError

__all__ = ["MergeError", "RaceError", "RunawayAnswer", "SourceError", "StreamTimeout", "TeeError", "TransformError"]


class SourceError(StreamError):
    """What feeds the stream has failed; the exception is the ``__cause__``.

    Attributes:
        retryable: whether the same source may succeed later. True only if the cause says so of itself.
    """

    retryable: bool = False

    def __init__(self, stream_id: str, cause: object) -> None:
        self.retryable = _is_retryable(cause)
        self.__cause__ = cause if isinstance(cause, BaseException) else None
        super().__init__(stream_id, f"stream {stream_id!r}: its source failed: {describe_reason(cause)}")


class TransformError(StreamError):
    """A function that a derived stream calls has raised; the exception is the ``__cause__``.

    Attributes:
        stage: the combinator that called the function, such as ``"map"``.
        retryable: False: the same text would fail again.
    """

    retryable: bool = False

    def __init__(self, stream_id: str, stage: str, cause: object) -> None:
        self.stage = stage
        self.__cause__ = cause if isinstance(cause, BaseException) else None
        super().__init__(stream_id, f"stream {stream_id!r}: the function of {stage} failed: {describe_reason(cause)}")


class TeeError(StreamError):
    """The copy of a stream could not be written; the exception, such as an `OSError`, is the ``__cause__``."""

    retryable: bool = False

    def __init__(self, stream_id: str, cause: object) -> None:
        self.__cause__ = cause if isinstance(cause, BaseException) else None
        super().__init__(stream_id, f"stream {stream_id!r}: its copy could not be written: {_described(cause)}")


class MergeError(StreamError):
    """At least one input of a merged stream did not complete.

    Attributes:
        errors: the error of each input that failed or was cancelled, by origin.
        results: the terminal event of every input, by origin.
        retryable: whether all of the ``errors`` are.
    """

    def __init__(self, stream_id: str, errors: Mapping[str, PenstockError], results: Mapping[str, Any]) -> None:
        self.errors = dict(errors)
        self.results = dict(results)
        self.retryable = bool(errors) and all(map(_is_retryable, errors.values()))
        super().__init__(
            stream_id, f"stream {stream_id!r}: {len(errors)} of {len(results)} inputs failed: {', '.join(errors)}"
        )


class RaceError(StreamError):
    """No attempt of a race completed.

    Attributes:
        errors: of the attempts, in the order of the arguments.
        retryable: whether one of the ``errors`` is.
    """

    def __init__(self, stream_id: str, errors: Sequence[PenstockError]) -> None:
        self.errors = tuple(errors)
        self.retryable = any(map(_is_retryable, errors))
        reasons = "; ".join(map(describe_reason, errors))
        super().__init__(stream_id, f"stream {stream_id!r}: all {len(self.errors)} attempts failed: {reasons}")


_MISSED = {"total": "no complete answer", "idle": "no further event"}


class StreamTimeout(StreamError, TimeoutError):
    """A time limit of `Stream.with_timeout` has passed.

    Attributes:
        which: ``"total"`` or ``"idle"``.
        timeout: the limit in seconds.
        retryable: True.
    """

    retryable: bool = True

    def __init__(self, stream_id: str, which: str, timeout: float) -> None:
        self.which = which
        self.timeout = timeout
        missed = _MISSED.get(which, "nothing")
        super().__init__(stream_id, f"stream {stream_id!r}: {which} timeout: {missed} within {timeout:g} s")


class RunawayAnswer(StreamError):
    """The answer repeated itself without end, and ``on_loop="cancel"`` ended it.

    ``partial`` is the text up to the first repetition: what repeats itself is in it once.

    Attributes:
        kind: of the text that repeats: ``"text"`` or ``"reasoning"``.
        period: characters after which it repeats.
        repeats: how often it had repeated.
        start: where what repeats began, in characters of that kind of text.
        retryable: True: another sample of the model may end.
    """

    retryable: bool = True

    def __init__(self, stream_id: str, kind: str, period: int, repeats: int, start: int = 0) -> None:
        self.kind = kind
        self.start = start
        self.period = period
        self.repeats = repeats
        super().__init__(
            stream_id, f"stream {stream_id!r}: the {kind} repeated {period} characters {repeats} times without end"
        )


def _is_retryable(cause: object) -> bool:
    return isinstance(cause, PenstockError) and bool(getattr(cause, "retryable", False))


def _described(cause: object) -> str:
    """Describe a failure of the file system by the system's own words, which hold neither text nor keys."""
    if isinstance(cause, OSError) and cause.strerror:
        return f"{type(cause).__name__}: {cause.strerror}"
    return describe_reason(cause)
