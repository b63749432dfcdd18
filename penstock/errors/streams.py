"""Errors of streams."""

from __future__ import annotations

from penstock.errors.base import PenstockError, describe_reason

__all__ = [
    "BufferFull",
    "DeliveryError",
    "StreamCancelledError",
    "StreamClosed",
    "StreamCrashed",
    "StreamError",
    "StreamExists",
    "StreamNotFound",
    "SubscriberTooSlow",
]


class StreamError(PenstockError):
    """Something about one stream; ``stream_id`` says which.

    ``partial`` is the text that had come before, where the error is how a stream ended; never part of the message.
    """

    partial: str = ""

    def __init__(self, stream_id: str, message: str) -> None:
        self.stream_id = stream_id
        super().__init__(message)


class StreamExists(StreamError):
    """A running stream has that id already."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"stream {stream_id!r} exists already")


class StreamNotFound(StreamError):
    """No stream has that id."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"there is no stream {stream_id!r}")


class StreamClosed(StreamError):
    """The stream has ended or is ending; it takes no more tokens."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"stream {stream_id!r} has ended")


class StreamCancelledError(StreamError):
    """What ``Stream.result()`` raises for a cancelled stream; ``partial`` is the text that came before."""

    def __init__(self, stream_id: str, reason: str | None, partial: str = "") -> None:
        self.reason = reason
        self.partial = partial
        super().__init__(stream_id, f"stream {stream_id!r} was cancelled" + (f": {reason}" if reason else ""))


class StreamCrashed(StreamError):
    """The stream's actor died and was not restarted. What was delivered before is in the log."""

    def __init__(self, stream_id: str, reason: object) -> None:
        self.reason = reason
        super().__init__(stream_id, f"stream {stream_id!r} crashed: {describe_reason(reason)}")


class DeliveryError(StreamError):
    """``max_errors`` batches in a row could not be delivered; the last failure is the ``__cause__``."""

    def __init__(self, stream_id: str, errors: int) -> None:
        self.errors = errors
        super().__init__(stream_id, f"stream {stream_id!r}: {errors} deliveries failed")


class BufferFull(StreamError):
    """The stream's buffer had no room for the token(s) within the time allowed. Nothing of the rest was taken.

    ``accepted`` says how many of the tokens of the call were taken before.
    """

    def __init__(self, stream_id: str, max_buffer_size: int, timeout: float | None, accepted: int = 0) -> None:
        self.max_buffer_size = max_buffer_size
        self.timeout = timeout
        self.accepted = accepted
        waited = f" within {timeout:g} s" if timeout else ""
        super().__init__(stream_id, f"stream {stream_id!r}: no room{waited} in a buffer of {max_buffer_size} tokens")


class SubscriberTooSlow(StreamError):
    """A subscriber with ``slow="disconnect"`` had more than ``window`` events waiting and was let go."""

    def __init__(self, stream_id: str, window: int) -> None:
        self.window = window
        super().__init__(stream_id, f"stream {stream_id!r}: a subscriber had more than {window} events waiting")
