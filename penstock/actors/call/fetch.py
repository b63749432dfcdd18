"""Requests whose answer is a body rather than a stream, such as the list of models. They use the same reader."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.runtime.reply import Reply
from penstock.config.options import RequestOptions
from penstock.errors import CallTimeout, IncompleteStream, PenstockError, ProtocolError, ProviderTimeout
from penstock.ports import Decoder, Delta, Provider, ProviderRequest, Reader, ReaderJob

__all__ = ["fetch", "fetch_async"]

_LONGEST: Final = 16 * 1_048_576  # bytes


def fetch(
    reader: Reader,
    dispatcher: Dispatcher,
    provider: Provider,
    request: ProviderRequest,
    options: RequestOptions,
    timeout: float,
) -> bytes:
    """Send a request and return the body of its answer, of at most 16 MiB.

    Raises:
        ProviderTimeout: the body was not complete within ``timeout`` seconds.
        ProviderError: as for streams.
    """
    reply, job = _start(reader, dispatcher, provider, request, options, timeout)
    try:
        body: bytes = reply.get(timeout=timeout)
    except CallTimeout:
        job.cancel()
        raise ProviderTimeout("total", timeout) from None
    except BaseException:
        job.cancel()
        raise
    return body


async def fetch_async(
    reader: Reader,
    dispatcher: Dispatcher,
    provider: Provider,
    request: ProviderRequest,
    options: RequestOptions,
    timeout: float,
) -> bytes:
    """The same as `fetch`, without blocking the event loop. If the task is cancelled, so is the request."""
    reply, job = _start(reader, dispatcher, provider, request, options, timeout)
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            body: bytes = await reply
    except BaseException:
        job.cancel()
        if scope.expired():
            raise ProviderTimeout("total", timeout) from None
        raise
    return body


def _start(
    reader: Reader,
    dispatcher: Dispatcher,
    provider: Provider,
    request: ProviderRequest,
    options: RequestOptions,
    timeout: float,
) -> tuple[Reply, ReaderJob]:
    options = options.replace(connect_timeout=min(options.connect_timeout, timeout), total_timeout=timeout)
    reply = Reply(dispatcher, "the provider")
    return reply, reader.start(_BodyProvider(provider), request, options, _BodySink(reply))


class _BodyProvider:
    """A provider whose answers are not decoded. Implements `Provider`."""

    def __init__(self, provider: Provider) -> None:
        self.name = provider.name
        self.request = provider.request
        self.error = provider.error

    def decoder(self, options: RequestOptions) -> _BodyDecoder:
        return _BodyDecoder()


class _BodyDecoder:
    """Collects the bytes. Implements `Decoder`."""

    finished = False
    done = False
    model: str | None = None
    skipped = 0

    def __init__(self) -> None:
        self.content = bytearray()

    def feed(self, chunk: bytes) -> list[Delta]:
        self.content += chunk
        if len(self.content) > _LONGEST:
            raise ProtocolError(f"the answer is longer than {_LONGEST} bytes")
        return []

    def close(self) -> list[Delta]:
        return []


class _BodySink:
    """Passes the body to a reply. Implements `ReaderSink`."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def connecting(self) -> None:
        pass

    def waiting(self) -> None:
        pass

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        return True

    def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
        if error is None and isinstance(decoder, _BodyDecoder):
            self._reply.set(bytes(decoder.content))
        else:
            self._reply.fail(error or IncompleteStream("no answer came"))
