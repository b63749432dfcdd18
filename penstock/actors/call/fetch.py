"""Requests whose answer is a body rather than a stream, such as the list of models. They use the same reader."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.runtime.reply import Reply
from penstock.config.options import RequestOptions
from penstock.errors import CallTimeout, IncompleteStream, PenstockError, ProtocolError, ProviderTimeout
from penstock.ports import Decoder, Delta, Provider, ProviderRequest, Reader, ReaderJob

__all__ = ["afetch", "fetch"]

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
    with _cancelling(job, timeout):
        body: bytes = reply.get(timeout=timeout)
    return body


async def afetch(
    reader: Reader,
    dispatcher: Dispatcher,
    provider: Provider,
    request: ProviderRequest,
    options: RequestOptions,
    timeout: float,
) -> bytes:
    """The same as `fetch`, without blocking the event loop. Cancelling the task closes the connection."""
    reply, job = _start(reader, dispatcher, provider, request, options, timeout)
    with _cancelling(job, timeout):
        body: bytes = await reply.aget(timeout)
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


@contextlib.contextmanager
def _cancelling(job: ReaderJob, timeout: float) -> Iterator[None]:
    """Cancel the job if the wait for it ends with an exception."""
    try:
        yield
    except CallTimeout:
        job.cancel()
        raise ProviderTimeout("total", timeout) from None
    except BaseException:
        job.cancel()
        raise


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
