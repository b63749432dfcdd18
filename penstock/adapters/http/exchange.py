"""One HTTP request and its response, from the queue to `ReaderSink.ended`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.adapters.http.answer import Redactor, host_of, refusal_of
from penstock.adapters.http.faults import body_failure, clear_frames, request_failure, unexpected_failure
from penstock.adapters.http.handle import RequestCancelled, RequestHandle, current_request
from penstock.adapters.http.reporting import report_failure
from penstock.adapters.http.transport import Transport
from penstock.config.options import RequestOptions
from penstock.errors import IncompleteStream, OptionError, PenstockError, ProviderError
from penstock.ports import Decoder, Delta, ErrorDelta, HeaderSink, Provider, ProviderRequest, ReaderSink

if TYPE_CHECKING:
    import requests
    from urllib3 import BaseHTTPResponse

__all__ = ["ERROR_BODY_BYTES", "LAST_CHUNK_WAIT_S", "HttpExchange", "RequestExchange"]

_READ_BYTES = 65_536
ERROR_BODY_BYTES = 65_536
"""How much of an error answer's body is read."""
_LONGEST_WAIT_S = 86_400.0
"""Limit of every wait on a socket, even if the caller's own timers have failed."""
LAST_CHUNK_WAIT_S = 0.01
"""How long the end of a body may lag behind the provider's own end marker for its connection to be kept."""


class RequestExchange:
    """What every reader does with a request: prepares it, judges the answer's head, keeps secrets out of errors.

    A subclass says which thread calls what.
    """

    def __init__(
        self,
        provider: Provider,
        request: ProviderRequest,
        options: RequestOptions,
        sink: ReaderSink,
        *,
        hands_over: bool = False,
    ) -> None:
        self.queued = True
        """Whether no thread has taken it yet; guarded by the pool's lock."""
        self._provider = provider
        self._request = request
        self._options = options
        self._sink = sink
        self._host = host_of(request.url)
        self.endpoint = self._host
        """Shares the reader's threads with other endpoints."""
        self._sent = False
        self.has_ended = False  # its sink knows, or is about to
        self._decoder: Decoder | None = None
        secret_headers = {name: secret.reveal() for name, secret in request.secret_headers.items()}
        self._redactor = Redactor(secret_headers)
        self._handle = RequestHandle(secret_headers, self._request_sent, hands_over=hands_over)
        self._wait_limit = min(options.total_timeout or _LONGEST_WAIT_S, _LONGEST_WAIT_S)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._host})"

    def _request_sent(self) -> None:
        self._sent = True
        self._sink.waiting()

    def _ask(self, transport: Transport) -> requests.Response | PenstockError:
        """Send the request; returns what ``transport`` returns, or why that failed.

        Raises:
            RequestCancelled: the request was cancelled.
        """
        options = self._options
        self._handle.check()
        self._handle.deadline = time.monotonic() + options.connect_timeout
        try:
            self._check_secret_headers()
            prepared = self._prepared()
            return transport(prepared, (options.connect_timeout, self._wait_limit), options.verify_tls)
        except RequestCancelled as cancelled:
            clear_frames(cancelled)
            raise
        except Exception as error:
            failure = self._request_failure(error)
            clear_frames(error)
            return failure

    def _request_failure(self, error: BaseException) -> PenstockError:
        """Map an exception that was raised before the answer's head was complete."""
        return request_failure(
            error,
            self._host,
            sent=self._sent,
            is_proxied=bool(self._handle.proxy),
            connect_timeout=self._options.connect_timeout,
            wait_limit=self._wait_limit,
        )

    def _prepared(self) -> requests.PreparedRequest:
        # Not Session.prepare_request, which reads netrc and would replace the key with its password.
        import requests

        request = self._request
        headers = {"Accept-Encoding": "identity", "User-Agent": "penstock", **request.headers}
        return requests.Request(request.method, request.url, headers=headers, data=request.body).prepare()

    def _check_secret_headers(self) -> None:
        # http.client would refuse them too, but with the key in its message.
        for name, text in self._handle.secret_headers.items():
            if not text.isascii() or not text.isprintable():
                raise OptionError(name, self._request.secret_headers[name], "a header value of printable ASCII")

    def _tell_headers(self, headers: Mapping[str, str]) -> None:
        """Pass the headers of an answer that is a stream to the sink."""
        if isinstance(self._sink, HeaderSink):
            self._sink.answered({name.lower(): value for name, value in headers.items()})

    def _error_answer(self, status: int, headers: Mapping[str, str], body: bytes) -> PenstockError:
        """Convert an answer with a status of 400 or more."""
        body = self._redactor.redact_body(body)
        headers = {name.lower(): self._redactor.redact_text(value) for name, value in headers.items()}
        return self._provider.error(status, headers, body)

    def _redact(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if type(delta) is ErrorDelta:
                self._redactor.redact_error(delta.error)

    def _end(self, error: PenstockError | None) -> None:
        """Call the sink for the last time."""
        if self._handle.cancelled:
            error = IncompleteStream("cancelled")
        if error is not None:
            if self._handle.proxy and isinstance(error, ProviderError):
                error.annotate(f"through the proxy {self._handle.proxy}")
            self._redactor.redact_error(error)
        self._handle.forget()
        self.has_ended = True
        try:
            self._sink.ended(self._decoder, error)
        except Exception:  # the port forbids it, but a reader's thread must survive it
            report_failure()


class HttpExchange(RequestExchange):
    """Implements `ReaderJob`. A reader's thread calls ``run`` or ``dismiss`` once, and reads the answer itself.

    ``on_cancel`` is called after a cancel, so that a request that is still queued need not wait for a thread.
    """

    def __init__(
        self,
        provider: Provider,
        request: ProviderRequest,
        options: RequestOptions,
        sink: ReaderSink,
        on_cancel: Callable[[HttpExchange], None],
    ) -> None:
        super().__init__(provider, request, options, sink)
        self._on_cancel = on_cancel

    def cancel(self) -> None:
        """Stop it in any state. Any thread; idempotent; never blocks."""
        self._handle.cancel()
        self._on_cancel(self)

    def dismiss(self) -> None:
        """End a request that was cancelled while it was queued."""
        self._end(IncompleteStream("cancelled before it was sent"))

    def run(self, make_transport: Callable[[], Transport]) -> None:
        """Make the request and call the sink. Whatever fails, ``ended`` is called last."""
        error: PenstockError | None
        try:
            transport = make_transport()  # before the clocks start: the first one takes a while
            self._sink.connecting()
            with current_request(self._handle):
                error = self._exchange(transport)
        except RequestCancelled:
            error = IncompleteStream("cancelled")
        except BaseException as failure:  # of the sink, the provider, the decoder …, or a decoder's ProtocolError
            error = unexpected_failure(failure)
        self._end(error)

    def _exchange(self, transport: Transport) -> PenstockError | None:
        response = self._ask(transport)
        if isinstance(response, PenstockError):
            return response
        try:
            if refusal := self._refusal(response):
                return refusal
            self._tell_headers(response.headers)
            return self._read(response.raw)
        finally:
            response.close()

    def _refusal(self, response: requests.Response) -> PenstockError | None:
        """Return the error for a response that is not a stream, or None."""
        if response.status_code < 400:
            codings = response.raw.CONTENT_DECODERS
            return refusal_of(response.status_code, response.headers, self._host, codings)
        return self._error_answer(response.status_code, response.headers, _read_error_body(response.raw))

    def _read(self, raw: BaseHTTPResponse) -> PenstockError | None:
        """Read until the body ends, the decoder is done, or the sink refuses more."""
        handle = self._handle
        decoder = self._decoder = self._provider.decoder(self._options)
        # Most bodies are not compressed, and urllib3's content decoding costs as much as the recv itself.
        compressed = bool(raw.headers.get("content-encoding"))
        failure: PenstockError | None = None
        while True:
            try:
                chunk = raw.read1(_READ_BYTES, decode_content=compressed)
            except Exception as error:
                failure = body_failure(error, chunked=raw.chunked, wait_limit=self._wait_limit)
                clear_frames(error)
                break
            if not chunk:
                break
            if handle.cancelled or not self._deliver(decoder.feed(chunk)):
                return None
            if decoder.done:
                _await_last_chunk(raw)
                return None
        if not handle.cancelled:
            self._deliver(decoder.close())
        return failure

    def _deliver(self, deltas: list[Delta]) -> bool:
        if not deltas:
            return True
        self._redact(deltas)
        return self._sink.deltas(deltas)


def _read_error_body(raw: BaseHTTPResponse) -> bytes:
    """Read the body of an error response up to the limit; what came before a failure is kept."""
    body = b""
    decode_content = "," not in raw.headers.get("content-encoding", "")
    try:
        while len(body) < ERROR_BODY_BYTES:
            chunk = raw.read1(ERROR_BODY_BYTES - len(body), decode_content=decode_content)
            if not chunk:
                break
            body += chunk
    except Exception as error:  # an incomplete error body is better than none
        clear_frames(error)
    return body


def _await_last_chunk(raw: BaseHTTPResponse) -> None:
    """Wait briefly for the end of the body, so that the connection can be reused."""
    sock = getattr(raw.connection, "sock", None)
    if sock is None or raw.closed:  # the connection is not kept alive, or the end has already come
        return
    try:
        sock.settimeout(LAST_CHUNK_WAIT_S)
        raw.read1(_READ_BYTES, decode_content=False)
    except Exception as error:  # the connection is then closed instead of reused
        clear_frames(error)
