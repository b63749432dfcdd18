"""Requests that are carried out once, however often they are sent (``Idempotency-Key``)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, Generic, TypeVar

import msgspec

from penstock.gateway.problems import Problem, RequestRefused

__all__ = ["Once"]

T = TypeVar("T")
_KEPT: Final = 10_000
_SECONDS: Final = 86_400.0


class _KeyedRequest(msgspec.Struct, Generic[T]):
    digest: bytes
    result: asyncio.Task[T]
    at: float


class Once(Generic[T]):
    """Results by key, for a day and for the last 10,000 keys. Used on one loop."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, _KeyedRequest[T]] = OrderedDict()
        self._running: set[asyncio.Task[T]] = set()  # also those that were forgotten

    async def once(self, key: Hashable, body: bytes, run: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """Run it, unless it has been under this key. Returns the result, and whether this call has made it.

        A caller that is cancelled ends neither the run nor the other callers that wait for it. A run that fails is
        forgotten.

        Raises:
            RequestRefused: the key was used with another body (422).
        """
        loop = asyncio.get_running_loop()
        digest = hashlib.sha256(body).digest()
        self._forget(loop.time())
        known = self._entries.get(key)
        if known is not None:
            if known.digest != digest:
                text = "This Idempotency-Key was used with another body."
                raise RequestRefused(
                    Problem(status=422, type="invalid_request_error", code="idempotency_key_reused", message=text)
                )
            return await asyncio.shield(known.result), False
        task = loop.create_task(run())
        self._entries[key] = _KeyedRequest(digest, task, loop.time())
        self._running.add(task)
        task.add_done_callback(lambda task: self._ended(key, task))
        return await asyncio.shield(task), True

    def _ended(self, key: Hashable, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        if task.cancelled() or task.exception() is not None:
            known = self._entries.get(key)
            if known is not None and known.result is task:
                del self._entries[key]

    def _forget(self, now: float) -> None:
        while self._entries:
            key, first = next(iter(self._entries.items()))
            if len(self._entries) <= _KEPT and now - first.at < _SECONDS:
                return
            del self._entries[key]
