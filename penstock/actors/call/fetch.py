"""Requests that are answered by a body rather than a stream, such as the list of models. They use the same reader."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from penstock.actors.runtime.dispatcher import Dispatcher
from penstock.actors.runtime.reply import Reply
from penstock.config.options import RequestOptions
from penstock.errors import CallTimeout, IncompleteStream, PenstockError, ProtocolError, ProviderTimeout
from penstock.ports import Decoder, Delta, Provider, ProviderRequest, Reader, ReaderJob

__all__ = ["Fetch"]

_LONGEST: Final = 16 * 1_048_576  # bytes


class Fetch:
    """One request, sent at once; `get` or `aget` waits for the body of its answer, of at most 16 MiB.

    If the wait ends without one (a time-out, Ctrl-C, a cancelled task), the connection is closed.

    Args:
        reader: sends the request.
        dispatcher: for the wait.
        provider: maps error answers.
        request: what to send.
        options: of the request; its time-outs are cut to ``timeout``.
        timeout: seconds for all of it.
    """

    def __init__(
        self,
        reader: Reader,
        dispatcher: Dispatcher,
        provider: Provider,
        request: ProviderRequest,
        options: RequestOptions,
        timeout: float,
    ) -> None:
        self._timeout = timeout
        self._reply = Reply(dispatcher, "the provider")
        options = options.replace(connect_timeout=min(options.connect_timeout, timeout), total_timeout=timeout)
        self._job = reader.start(_BodyProvider(provider), request, options, _BodySink(self._reply))

    def get(self) -> bytes:
        """Wait for the body.

        Raises:
            ProviderTimeout: it was not complete in time.
            ProviderError: as for streams.
        """
        with _cancelling(self._job, self._timeout):
            body: bytes = self._reply.get(timeout=self._timeout)
        return body

    async def aget(self) -> bytes:
        """The same as `get`, without blocking the event loop."""
        with _cancelling(self._job, self._timeout):
            body: bytes = await self._reply.aget(self._timeout)
        return body


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
    """A provider without decoding. Implements `Provider`."""

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
