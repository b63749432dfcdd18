"""Requests that are carried out once, however often they are sent (``Idempotency-Key``)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

import msgspec

from penstock.gateway.problems import Problem, RequestRefused

__all__ = ["Once"]

T = TypeVar("T")
_KEPT: Final = 10_000
_SECONDS: Final = 86_400.0


class _KeyedRequest(msgspec.Struct, Generic[T]):
    digest: bytes
    result: asyncio.Future[T]
    at: float


class Once(Generic[T]):
    """Results by key, for a day and for the last 10,000 keys. Used on one loop."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, _KeyedRequest[T]] = OrderedDict()

    async def once(self, key: Hashable, body: bytes, run: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """Run it, unless it has been under this key. Returns the result, and whether this call has made it.

        A run that fails is forgotten.

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
        entry = self._entries[key] = _KeyedRequest(digest, loop.create_future(), loop.time())
        try:
            result = await run()
        except BaseException as error:
            self._entries.pop(key, None)
            if isinstance(error, Exception):
                entry.result.set_exception(error)
                entry.result.exception()  # marks it as seen: there may be no other waiter
            else:
                entry.result.cancel()
            raise
        entry.result.set_result(result)
        return result, True

    def _forget(self, now: float) -> None:
        while self._entries:
            key, first = next(iter(self._entries.items()))
            if len(self._entries) <= _KEPT and now - first.at < _SECONDS:
                return
            del self._entries[key]
