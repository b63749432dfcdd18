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
    """An error about one stream; ``stream_id`` says which.

    ``partial`` is the text so far, if the stream ended with this error. It is never part of the message.
    """

    partial: str = ""

    def __init__(self, stream_id: str, message: str) -> None:
        self.stream_id = stream_id
        super().__init__(message)


class StreamExists(StreamError):
    """A running stream has the same id. The id of a stream that has ended can be used again."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"stream {stream_id!r} is already running; choose another id")


class StreamNotFound(StreamError):
    """No stream has that id. A stream that has ended is forgotten after its ``keep_finished`` seconds."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"there is no stream {stream_id!r}, or it ended too long ago")


class StreamClosed(StreamError):
    """The stream has ended or is ending; it takes no more tokens or commands."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"stream {stream_id!r} is closed: it has ended or is ending")


class StreamCancelledError(StreamError):
    """Raised by ``Stream.result()`` of a cancelled stream; ``partial`` is the text so far."""

    def __init__(self, stream_id: str, reason: str | None, partial: str = "") -> None:
        self.reason = reason
        self.partial = partial
        super().__init__(stream_id, f"stream {stream_id!r} was cancelled" + (f": {reason}" if reason else ""))


class StreamCrashed(StreamError):
    """The stream's actor died and was not restarted. Events already delivered stay in the log."""

    def __init__(self, stream_id: str, reason: object) -> None:
        self.reason = reason
        super().__init__(stream_id, f"stream {stream_id!r} crashed: {describe_reason(reason)}")


class DeliveryError(StreamError):
    """``max_errors`` batches in a row could not be delivered; the last failure is the ``__cause__``."""

    def __init__(self, stream_id: str, errors: int) -> None:
        self.errors = errors
        super().__init__(stream_id, f"stream {stream_id!r}: {errors} deliveries in a row failed (max_errors)")


class BufferFull(StreamError):
    """The stream's buffer had no room for all tokens of a call within ``timeout`` seconds.

    The first ``accepted`` tokens were taken, the others were not.
    """

    def __init__(self, stream_id: str, max_buffer_size: int, timeout: float | None, accepted: int = 0) -> None:
        self.max_buffer_size = max_buffer_size
        self.timeout = timeout
        self.accepted = accepted
        waited = f" within {timeout:g} s" if timeout else ""
        super().__init__(stream_id, f"stream {stream_id!r}: its buffer of {max_buffer_size} tokens had no room{waited}")


class SubscriberTooSlow(StreamError):
    """A subscriber with ``slow="disconnect"`` was disconnected: more than ``window`` events were waiting for it."""

    def __init__(self, stream_id: str, window: int) -> None:
        self.window = window
        super().__init__(
            stream_id, f"stream {stream_id!r}: a subscriber was disconnected with more than {window} events waiting"
        )
