"""One HTTP request and its answer, from the first thought of it to `ReaderSink.ended`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from penstock.adapters.http import faults as http_faults
from penstock.adapters.http.hold import Broken, Hold, holding
from penstock.config.options import RequestOptions
from penstock.errors import ApiError, IncompleteStream, OptionError, PenstockError, ProtocolError
from penstock.ports import Decoder, Delta, ErrorDelta, HeaderSink, Provider, ProviderRequest, ReaderSink

if TYPE_CHECKING:
    import requests
    from urllib3 import BaseHTTPResponse

__all__ = ["Exchange", "Transport"]

_READ_BYTES = 65_536
_ERROR_BODY_BYTES = 65_536
_LONGEST_WAIT_S = 86_400.0
"""No wait on a socket is without end, even where the caller's own timers have failed."""
_LAST_CHUNK_WAIT_S = 0.01
"""How long the end of a body may lag behind the provider's own end marker for its connection to be kept."""
_NOT_A_STREAM = ("text/html", "text/xml", "application/xml", "application/xhtml+xml", "image/", "multipart/")
_SHORTEST_SECRET = 4
"""Shorter keys ("x", "key") stay in messages: they are no secrets, and starring them out would ruin the text."""

Transport: TypeAlias = "Callable[[requests.PreparedRequest, tuple[float, float], bool | str], requests.Response]"
"""Sends a request and returns when the answer's headers are there: request, (connect, read) time-outs, verify."""


class Exchange:
    """Implements `ReaderJob`. A reader's thread calls ``run``, or ``dismiss``, once; ``cancel`` may come from any.

    ``wake`` is told of a cancel, so that a request that is still queued does not wait for its turn to end.
    """

    def __init__(
        self,
        provider: Provider,
        request: ProviderRequest,
        options: RequestOptions,
        sink: ReaderSink,
        wake: Callable[[Exchange], None],
    ) -> None:
        self.queued = True
        """Whether no thread has taken it yet; guarded by the reader's lock."""
        self._provider = provider
        self._request = request
        self._options = options
        self._sink = sink
        self._wake = wake
        self._host = urlsplit(request.url).netloc
        self._sent = False
        self._decoder: Decoder | None = None
        headers = {name: secret.reveal() for name, secret in request.secret_headers.items()}
        parts = {part for text in headers.values() for part in _secret_parts(text)}
        self._secrets = tuple(sorted(parts, key=len, reverse=True))
        self._hold = Hold(headers, self._waiting)
        self._wait_limit = min(options.total_timeout or _LONGEST_WAIT_S, _LONGEST_WAIT_S)

    def __repr__(self) -> str:
        return f"Exchange({self._host})"

    def cancel(self) -> None:
        """Stop it, whatever it is doing. Any thread; idempotent; never blocks."""
        self._hold.break_off()
        self._wake(self)

    def dismiss(self) -> None:
        """End a request that was cancelled before its turn came."""
        self._end(IncompleteStream("cancelled before it was sent"))

    def run(self, make_transport: Callable[[], Transport]) -> None:
        """Make the request and tell the sink everything. Whatever goes wrong, the sink is told of the end last."""
        error: PenstockError | None
        try:
            transport = make_transport()  # before the clocks start: the first one takes a while
            self._sink.connecting()
            with holding(self._hold):
                error = self._exchange(transport)
        except Broken:
            error = IncompleteStream("cancelled")
        except BaseException as bug:  # the sink's, the provider's, the decoder's … or a decoder's ProtocolError
            error = http_faults.unexpected(bug)
        self._end(error)

    def _end(self, error: PenstockError | None) -> None:
        if self._hold.cancelled:
            error = IncompleteStream("cancelled")
        if error is not None:
            http_faults.scrub(error, self._secrets)
        try:
            self._sink.ended(self._decoder, error)
        except Exception:  # the port forbids it; a reader's thread must survive it all the same
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def _waiting(self) -> None:
        self._sent = True
        self._sink.waiting()

    def _exchange(self, transport: Transport) -> PenstockError | None:
        options = self._options
        self._hold.check()
        self._hold.deadline = time.monotonic() + options.connect_timeout
        try:
            self._check_secrets()
            prepared = self._prepared()
            response = transport(prepared, (options.connect_timeout, self._wait_limit), options.verify_tls)
        except Broken:
            raise
        except Exception as error:
            return http_faults.before_the_answer(
                error,
                self._host,
                sent=self._sent,
                connect_timeout=options.connect_timeout,
                wait_limit=self._wait_limit,
            )
        try:
            if refused := self._refusal(response):
                return refused
            if isinstance(self._sink, HeaderSink):
                self._sink.answered({name.lower(): value for name, value in response.headers.items()})
            return self._read(response.raw)
        finally:
            response.close()

    def _prepared(self) -> requests.PreparedRequest:
        # Not Session.prepare_request: that reads netrc, whose password would take the place of our key.
        import requests

        request = self._request
        headers = {"Accept-Encoding": "identity", "User-Agent": "penstock", **request.headers}
        return requests.Request(request.method, request.url, headers=headers, data=request.body).prepare()

    def _check_secrets(self) -> None:
        # http.client would refuse them too, but with the key in its message.
        for name, text in self._hold.secrets.items():
            if not text.isascii() or not text.isprintable():
                raise OptionError(name, self._request.secret_headers[name], "a header value of printable ASCII")

    def _refusal(self, response: requests.Response) -> PenstockError | None:
        """Tell what an answer that is not a stream means, or None."""
        status = response.status_code
        if status >= 400:
            body = self._error_body(response.raw)
            headers = {name.lower(): _text_without(value, self._secrets) for name, value in response.headers.items()}
            return self._provider.error(status, headers, body)
        if not 200 <= status < 300:
            location = response.headers.get("location")
            if status < 300 or location is None:
                return ApiError(status, "unexpected status")
            where = _host_of(location)
            return ApiError(status, f"redirects are not followed{f' (to {where})' if where else ''}", code="redirect")
        if "," in response.headers.get("content-encoding", ""):  # each may blow up what the one before gave
            return ProtocolError(f"{self._host} answered in several content codings at once")
        kind = response.headers.get("content-type", "").lower()
        if kind.startswith(_NOT_A_STREAM):
            return ProtocolError(f"{self._host} answered with {kind.partition(';')[0]}, not with an event stream")
        return None

    def _error_body(self, raw: BaseHTTPResponse) -> bytes:
        body = b""
        compressed = "," not in raw.headers.get("content-encoding", "")
        try:
            while len(body) < _ERROR_BODY_BYTES:
                chunk = raw.read1(_ERROR_BODY_BYTES - len(body), decode_content=compressed)
                if not chunk:
                    break
                body += chunk
        except Exception:  # noqa: S110 — a cut error body is still the best there is
            pass
        for secret in self._secrets:
            body = body.replace(secret.encode(), b"***")
        return body

    def _read(self, raw: BaseHTTPResponse) -> PenstockError | None:
        """Read the body to its end, to the decoder's, or until nobody wants more."""
        hold = self._hold
        decoder = self._decoder = self._provider.decoder(self._options)
        # Most bodies are not compressed, and the way through urllib3's content decoding costs as much as the recv.
        compressed = bool(raw.headers.get("content-encoding"))
        failed: PenstockError | None = None
        while True:
            try:
                chunk = raw.read1(_READ_BYTES, decode_content=compressed)
            except Exception as error:
                failed = http_faults.in_the_body(error, chunked=raw.chunked, wait_limit=self._wait_limit)
                break
            if not chunk:
                break
            if hold.cancelled or not self._tell(decoder.feed(chunk)):
                return None
            if decoder.done:
                _await_last_chunk(raw)
                return None
        if not hold.cancelled:
            self._tell(decoder.close())
        return failed

    def _tell(self, deltas: list[Delta]) -> bool:
        if not deltas:
            return True
        for delta in deltas:
            if type(delta) is ErrorDelta:
                http_faults.scrub(delta.error, self._secrets)
        return self._sink.deltas(deltas)


def _await_last_chunk(raw: BaseHTTPResponse) -> None:
    """Give the end of the body a moment to come, so that the connection can be used again."""
    sock = getattr(raw.connection, "sock", None)
    if sock is None or raw.closed:  # the connection was not to be kept, or the end is there
        return
    try:
        sock.settimeout(_LAST_CHUNK_WAIT_S)
        raw.read1(_READ_BYTES, decode_content=False)
    except Exception:  # noqa: S110 — then the connection is closed instead, which harms nobody
        pass


def _host_of(url: str) -> str:
    """The URL's host and port without the user before them; ``""`` where it has none, or is malformed."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _secret_parts(text: str) -> list[str]:
    """What of a header's value must not be seen: all of it, and the key behind a word like ``Bearer``."""
    return [part for part in (text, text.rpartition(" ")[2]) if len(part) >= _SHORTEST_SECRET]


def _text_without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
