"""HTTP responses as sources. They are read by the system's reader, as the providers' responses are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.adapters.formats.sse import SseEvent
from penstock.adapters.providers.shared.errors import error_response
from penstock.adapters.sources.codecs import BodyText, Codec, SseItems
from penstock.config.checks import type_of
from penstock.config.options import RequestOptions
from penstock.config.secret import Secret, is_secret_header
from penstock.errors import OptionError, ProtocolError, ProviderError
from penstock.ports import ChatCall, Decoder, Delta, ProviderRequest, Reader, ReaderJob, TextDelta

__all__ = ["HttpSource", "http_body", "sse"]


def http_body(
    url: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str | Secret] | None = None,
    body: bytes | str = b"",
    request_options: RequestOptions | None = None,
) -> HttpSource:
    """The body of an HTTP response as text, in the charset that its header names, UTF-8 without one.

    The request has the time limits and the connections of the providers' requests, and is closed within 100 ms when the
    stream ends. The stream's `statistics` have ``source_bytes`` and ``source_chunks``.

    Args:
        url: ``http://`` or ``https://``.
        method: ``"GET"``, ``"POST"`` …
        headers: sent with the request. Values of headers such as ``Authorization`` are kept out of errors and logs.
        body: sent with the request; a str as UTF-8.
        request_options: ``connect_timeout``, ``first_token_timeout`` (to the first byte), ``idle_timeout``,
            ``total_timeout``, ``max_answer_bytes`` and ``verify_tls`` apply. None is the defaults.

    The stream fails with a `ProviderError`: `ConnectError`, `ProviderTimeout`, `ApiError` for a status from 400 on,
    `IncompleteStream` if the body breaks off, `ProtocolError` if it is too long.

    Raises:
        OptionError: an argument is not allowed.
    """
    return HttpSource("http_body", url, BodyText(), method, headers, body, request_options)


def sse(
    url: str,
    extract: Callable[[SseEvent], Any] | None = None,
    method: str = "GET",
    *,
    headers: Mapping[str, str | Secret] | None = None,
    body: bytes | str = b"",
    request_options: RequestOptions | None = None,
) -> HttpSource:
    """The server-sent events of a URL.

    Args:
        url: ``http://`` or ``https://``.
        extract: what an event is to the stream: it gets an object with ``event``, ``data`` and ``id``, and returns
            None, a text, several, a pair of texts and metadata, or deltas. None takes the ``data`` of each event up to
            ``[DONE]``.
        method: as for `http_body`, and so are the others.
        headers: sent with the request.
        body: sent with the request.
        request_options: as for `http_body`; ``max_event_bytes`` applies too.

    Raises:
        OptionError: an argument is not allowed.
    """
    options = request_options or RequestOptions()
    more = {"Accept": "text/event-stream", "Cache-Control": "no-cache", **(headers or {})}
    return HttpSource("sse", url, SseItems(extract, options.max_event_bytes), method, more, body, options)


class HttpSource:
    """Made by `http_body`, `sse` and `json_lines`. Implements `penstock.ports.PushedSource`."""

    def __init__(
        self,
        kind: str,
        url: str,
        codec: Codec,
        method: str = "GET",
        headers: Mapping[str, str | Secret] | None = None,
        body: bytes | str = b"",
        limits: RequestOptions | None = None,
    ) -> None:
        if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
            raise OptionError("url", type_of(url), "an http:// or https:// URL")
        if not isinstance(method, str) or not method.isalpha():
            raise OptionError("method", method, "the name of an HTTP method")
        if not isinstance(body, (bytes, str)):
            raise OptionError("body", type_of(body), "bytes or a str")
        if limits is not None and not isinstance(limits, RequestOptions):
            raise OptionError("request_options", type_of(limits), "a RequestOptions or None")
        self.kind = kind
        self.limits: RequestOptions | None = limits or RequestOptions()
        self._codec = codec
        self._request = _request(url, method.upper(), headers or {}, body)
        self._job: ReaderJob | None = None
        self._is_cancelled = False
        self.bytes = 0
        self.chunks = 0

    def start(
        self,
        reader: Reader,
        push: Callable[[Any], bool],
        end: Callable[[BaseException | None], None],
    ) -> None:
        """See `PushedSource.start`."""
        assert self.limits is not None
        limits = self.limits.replace(total_timeout=None)  # else the reader would call it an idle one
        sink = _SourceSink(self, self._codec, push, end)
        self._job = job = reader.start(_Anything(), self._request, limits, sink)
        if sink.has_ended:  # looked at afterwards, as `ended` sets it before it forgets the job
            self._job = None
        elif self._is_cancelled:
            job.cancel()

    def forget(self) -> None:
        """Let go of the job, which has ended: it knows the sink of this source, and the two would be a circle."""
        self._job = None

    def cancel(self) -> None:
        """See `PushedSource.cancel`."""
        self._is_cancelled = True
        if (job := self._job) is not None:
            job.cancel()

    def counters(self) -> Mapping[str, Any]:
        """See `PushedSource.counters`."""
        return {"source_bytes": self.bytes, "source_chunks": self.chunks, "skipped": self._codec.skipped}


def _request(url: str, method: str, headers: Mapping[str, str | Secret], body: bytes | str) -> ProviderRequest:
    plain: dict[str, str] = {}
    secret: dict[str, Secret] = {}
    for name, value in headers.items():
        if isinstance(value, Secret):
            secret[name] = value
        elif is_secret_header(name):
            secret[name] = Secret(value)
        else:
            plain[name] = value
    data = body.encode() if isinstance(body, str) else body
    return ProviderRequest(url=url, body=data, method=method, headers=plain, secret_headers=secret)


class _Anything:
    """A provider of which the body is taken as it comes."""

    name = "http"

    def request(self, call: ChatCall) -> ProviderRequest:
        raise NotImplementedError("the request is made without it")

    def decoder(self, options: RequestOptions) -> Decoder:
        return _AsBytes()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return error_response(status, headers, body)


class _AsBytes:
    """Passes chunks on, in a delta each: a reader hands over nothing else."""

    done = False
    finished = False
    skipped = 0
    model: str | None = None

    def feed(self, chunk: bytes) -> list[Delta]:
        return [TextDelta(chunk)]  # type: ignore[arg-type] # only `_SourceSink` sees it

    def close(self) -> list[Delta]:
        return []


class _SourceSink:
    """Gets the body from the reader's thread. Implements `ReaderSink` and `HeaderSink`."""

    def __init__(
        self,
        source: HttpSource,
        codec: Codec,
        push: Callable[[Any], bool],
        end: Callable[[BaseException | None], None],
    ) -> None:
        self._source = source
        self._codec = codec
        self._push = push
        self._end = end
        self._error: BaseException | None = None
        self._is_done = False  # nothing more of the body is wanted
        self.has_ended = False

    def connecting(self) -> None:
        """A thread has taken the request."""

    def waiting(self) -> None:
        """The request has been sent."""

    def answered(self, headers: Mapping[str, str]) -> None:
        self._codec.begin(headers.get("content-type", ""))

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        source, limits = self._source, self._source.limits
        for delta in deltas:
            chunk: Any = getattr(delta, "text", b"")
            source.bytes += len(chunk)
            source.chunks += 1
            if not self._take(chunk):
                return False
            if limits is not None and source.bytes > limits.max_answer_bytes:
                self._error = ProtocolError(f"the body is longer than {limits.max_answer_bytes} bytes")
                return False
        return True

    def _take(self, chunk: bytes) -> bool:
        """Push the items of a chunk; returns whether more is wanted."""
        try:
            self._is_done = not all(self._push(item) for item in self._codec.feed(chunk)) or self._codec.is_done
        except Exception as error:
            self._error = error
        return not self._is_done and self._error is None

    def ended(self, decoder: Decoder | None, error: BaseException | None) -> None:
        self.has_ended = True
        self._source.forget()
        found = self._error or (None if self._is_done else error) or self._finish()
        self._error = None  # no circle: it has come through the frame of a method of this sink
        try:
            self._end(found)
        finally:
            del found  # nor is it kept by the frame of this one

    def _finish(self) -> Exception | None:
        """Push what is left at the end of the body; returns what that has raised."""
        try:
            for item in self._codec.close():
                self._push(item)
        except Exception as problem:
            return problem
        return None
