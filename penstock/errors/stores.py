"""Errors of the stores that keep logs outside the process, and of streams whose process has ended."""

from __future__ import annotations

from penstock.errors.base import PenstockError, describe_reason
from penstock.errors.streams import StreamError

__all__ = [
    "Fenced",
    "NoOwner",
    "RunsElsewhere",
    "StoreBusy",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "StoreIncompatible",
    "StoreReadOnly",
    "StoreUnavailable",
    "StreamInterrupted",
    "StreamPoisoned",
]


class StoreError(PenstockError):
    """A log store cannot do what it was asked for; ``store`` names it, without any password. Nothing is half-written.

    Attributes:
        store: the file, or the server without its password.
        retryable: whether the same request may succeed later without anything being repaired.
    """

    retryable = False

    def __init__(self, store: str, message: str) -> None:
        self.store = store
        super().__init__(f"{store}: {message}")


class StoreUnavailable(StoreError):
    """The store does not answer, or refuses for the moment. Whether the last request was carried out is not known.

    An append may be repeated: one that was carried out is recognised by its entry's id.
    """

    retryable = True

    def __init__(self, store: str, reason: object) -> None:
        self.reason = reason
        super().__init__(store, f"the store is not available: {describe_reason(reason)}")


class StoreBusy(StoreError):
    """More than ``limit`` events wait to be written: the store is slower than the streams."""

    retryable = True

    def __init__(self, store: str, limit: int) -> None:
        self.limit = limit
        super().__init__(store, f"{limit} events wait to be written already; the store is too slow")


class StoreClosed(StoreError):
    """The store has been closed in this process."""

    def __init__(self, store: str) -> None:
        super().__init__(store, "the store has been closed")


class StoreFull(StoreError):
    """There is no room: the disk, a quota or the server's memory is full. Reading still works."""

    retryable = True

    def __init__(self, store: str) -> None:
        super().__init__(store, "there is no room left; nothing was written")


class StoreReadOnly(StoreError):
    """The store cannot be written: a read-only file or disk, a replica, or a store that was opened for reading."""

    def __init__(self, store: str) -> None:
        super().__init__(store, "the store is read-only")


class StoreDamaged(StoreError):
    """What the store holds is damaged, or is not a store. Nothing was written; restore a copy, or move it away."""

    def __init__(self, store: str, detail: str) -> None:
        self.detail = detail
        super().__init__(store, f"the store is damaged: {detail}")


class StoreIncompatible(StoreError):
    """The store was made by another version of Penstock, or its server lacks what is needed."""

    def __init__(self, store: str, detail: str) -> None:
        self.detail = detail
        super().__init__(store, f"the store cannot be used: {detail}")


class StoreInUse(StoreError):
    """The store has room for one writer, and has one: in this process or another."""

    def __init__(self, store: str) -> None:
        super().__init__(
            store,
            "the store has a writer already, in this process or another; open it with read_only=True to look at it",
        )


class Fenced(StreamError):
    """The log has another owner now: this process may not append to it any more."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"stream {stream_id!r}: its log has another owner now")


class NoOwner(StreamError):
    """No process runs the stream now, so nothing can carry out a command to it."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"stream {stream_id!r}: no process runs it now")


class StreamInterrupted(StreamError):
    """The process that ran the stream ended before the stream did; what it had written is kept."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id, f"stream {stream_id!r} was interrupted: the process that ran it has ended")


class StreamPoisoned(StreamInterrupted):
    """The stream's request was begun ``deliveries`` times, and each time the process that ran it has ended.

    It is not begun again, as it may be what ends the processes.

    Attributes:
        deliveries: how many times it was given to a node.
    """

    def __init__(self, stream_id: str, deliveries: int) -> None:
        self.deliveries = deliveries
        text = f"stream {stream_id!r} was given up: {deliveries} processes that ran it have ended"
        StreamError.__init__(self, stream_id, text)


class RunsElsewhere(StreamError):
    """Another node runs the stream, and what was asked for can be done only where it runs."""

    def __init__(self, stream_id: str, what: str) -> None:
        self.what = what
        super().__init__(stream_id, f"stream {stream_id!r} runs on another node: {what} is possible only there")
