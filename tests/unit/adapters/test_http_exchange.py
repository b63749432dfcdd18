"""One exchange without a network: how much of an error's body is read, and that the response is closed."""

from __future__ import annotations

import gc
import io
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from urllib3 import HTTPResponse

from penstock.adapters.http import exchange
from penstock.adapters.http.handle import RequestCancelled
from penstock.config.options import RequestOptions
from penstock.errors import ApiError, IncompleteStream, OptionError, PenstockError, ProtocolError, ProviderTimeout
from penstock.ports import Decoder, Delta, ProviderRequest, Secret, TextDelta


class Body:
    """A body that gives as much as it is asked for, up to its length, and then fails if it is to."""

    def __init__(self, length: int, *, most: int = 1 << 30, fails: bool = False) -> None:
        self.headers: dict[str, str] = {}
        self._left = length
        self._most = most
        self._fails = fails

    def read1(self, size: int, *, decode_content: bool) -> bytes:
        assert decode_content
        count = min(size, self._left, self._most)
        if not count and self._fails:
            raise OSError("the connection is lost")
        self._left -= count
        return b"x" * count


@pytest.mark.parametrize("most", [1 << 30, 40_000, 1_000])
@pytest.mark.parametrize(("length", "read"), [(0, 0), (5_000, 5_000), (65_536, 65_536), (200_000, 65_536)])
def test_an_errors_body_is_read_up_to_its_limit_however_it_arrives(length: int, read: int, most: int) -> None:
    body: Any = Body(length, most=most)
    assert len(exchange._read_error_body(body)) == read


def test_what_came_of_an_errors_body_before_a_failure_is_kept() -> None:
    body: Any = Body(700, most=500, fails=True)
    assert exchange._read_error_body(body) == b"x" * 700


class Sink:
    def __init__(self, *, wants_more: bool) -> None:
        self.wants_more = wants_more
        self.ends: list[PenstockError | None] = []

    def connecting(self) -> None:
        return

    def waiting(self) -> None:
        return

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        return self.wants_more

    def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
        self.ends.append(error)


class OneDelta:
    """A decoder that reads a delta from every chunk, or fails."""

    done = False

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    def feed(self, chunk: bytes) -> list[Delta]:
        if self.fails:
            raise ProtocolError("no")
        return [TextDelta("a")]

    def close(self) -> list[Delta]:
        return []


@pytest.mark.parametrize(
    ("status", "wants_more", "fails", "end"),
    [
        (200, True, False, None),
        (200, False, False, None),
        (200, True, True, ProtocolError),
        (500, True, False, ApiError),
    ],
)
def test_however_the_reading_ends_the_response_is_closed_though_it_is_still_referred_to(
    status: int, wants_more: bool, fails: bool, end: type[PenstockError] | None
) -> None:
    raw = HTTPResponse(io.BytesIO(b"x" * 200_000), {"Content-Type": "text/event-stream"}, preload_content=False)
    response = requests.Response()
    response.status_code, response.raw, response.headers = status, raw, raw.headers  # type: ignore[assignment]
    provider: Any = SimpleNamespace(
        decoder=lambda options: OneDelta(fails=fails), error=lambda status, headers, body: ApiError(status, "no")
    )
    sink = Sink(wants_more=wants_more)
    request = ProviderRequest(url="http://127.0.0.1/v1", body=b"")
    job = exchange.HttpExchange(provider, request, RequestOptions(), sink, lambda _: None)
    job.run(lambda: lambda prepared, timeouts, verify: response)
    assert [None if error is None else type(error) for error in sink.ends] == [end]
    assert raw.closed


@pytest.mark.parametrize(("total", "longest"), [(7.0, 7.0), (None, 86_400.0), (100_000.0, 86_400.0)])
def test_no_wait_on_the_socket_is_longer_than_the_total_time_or_a_day(total: float | None, longest: float) -> None:
    seen: list[tuple[float, float]] = []

    def transport(prepared: object, timeouts: tuple[float, float], verify: object) -> requests.Response:
        seen.append(timeouts)
        raise ConnectionError

    sink = Sink(wants_more=True)
    request = ProviderRequest(url="http://127.0.0.1/v1", body=b"")
    options = RequestOptions(total_timeout=total, connect_timeout=3.0)
    provider: Any = SimpleNamespace()
    exchange.HttpExchange(provider, request, options, sink, lambda _: None).run(lambda: transport)
    assert seen == [(3.0, longest)]
    assert len(sink.ends) == 1


KEY = "sk-0123456789abcdef"


class Line:
    """An exchange, and a transport that does what it is told to."""

    def __init__(self, act: Callable[[Line], Any], decoder: Any = None, sink: Sink | None = None) -> None:
        self.act = act
        self.sink = sink or Sink(wants_more=True)
        self.cancelled: list[exchange.HttpExchange] = []
        provider: Any = SimpleNamespace(
            decoder=lambda options: decoder or OneDelta(fails=False),
            error=lambda status, headers, body: ApiError(status, f"{headers} {body.decode()}"),
        )
        request = ProviderRequest(
            url="http://user:hush@host.example:8080/v1", body=b"", secret_headers={"X-Key": Secret(KEY)}
        )
        options = RequestOptions(connect_timeout=3.0, total_timeout=7.0)
        self.job = exchange.HttpExchange(provider, request, options, self.sink, self.cancelled.append)

    def run(self) -> PenstockError:
        self.job.run(lambda: lambda prepared, timeouts, verify: self.act(self))
        (end,) = self.sink.ends
        assert self.job.has_ended
        assert end is not None
        return end


def responded(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"x") -> requests.Response:
    fields = {"Content-Type": "text/event-stream", **(headers or {})}
    raw = HTTPResponse(io.BytesIO(body), fields, preload_content=False)
    response = requests.Response()
    response.status_code, response.raw, response.headers = status, raw, raw.headers  # type: ignore[assignment]
    return response


def fail(error: BaseException) -> Any:
    raise error


def test_a_request_that_was_cancelled_in_the_queue_is_never_sent_and_ends_once() -> None:
    line = Line(lambda line: fail(AssertionError("sent")))
    assert (line.job.queued, line.job.has_ended, line.job._sent) == (True, False, False)
    line.job.cancel()
    assert line.cancelled == [line.job]
    assert not line.job.has_ended
    line.job.dismiss()
    assert [str(end) for end in line.sink.ends] == [str(IncompleteStream("cancelled"))]
    assert line.job.has_ended


@pytest.mark.parametrize("kind", [OSError, RequestCancelled])
def test_a_request_that_fails_leaves_nothing_to_the_collector_though_a_frame_keeps_the_exception(
    kind: type[Exception],
) -> None:
    def send(prepared: Any, timeouts: Any, verify: Any) -> requests.Response:
        try:
            raise OSError("the connection is lost")
        except OSError as lost:
            kept = lost  # as in urllib3's `urlopen`
            if kind is RequestCancelled:
                raise RequestCancelled from kept
            raise

    gc.disable()
    try:
        sink = Sink(wants_more=True)
        request = ProviderRequest(url="http://127.0.0.1/v1", body=b"")
        provider: Any = SimpleNamespace()
        job = exchange.HttpExchange(provider, request, RequestOptions(), sink, lambda _: None)
        left = weakref.ref(job)
        job.run(lambda: send)
        assert len(sink.ends) == 1
        del job
        assert left() is None
    finally:
        gc.enable()


def test_a_dismissed_request_says_that_it_was_not_sent() -> None:
    line = Line(lambda line: None)
    line.job.dismiss()
    assert [str(end) for end in line.sink.ends] == [str(IncompleteStream("cancelled before it was sent"))]


def test_a_request_that_was_cancelled_before_its_thread_took_it_is_never_sent() -> None:
    line = Line(lambda line: fail(AssertionError("sent")))
    sent: list[None] = []
    line.act = lambda line: sent.append(None)
    line.job.cancel()
    assert isinstance(line.run(), IncompleteStream)
    assert sent == []


def test_whatever_a_cancelled_request_fails_with_it_ends_as_cancelled() -> None:
    def act(line: Line) -> None:
        line.job.cancel()
        raise ConnectionResetError

    end = Line(act).run()
    assert isinstance(end, IncompleteStream)
    assert str(end) == str(IncompleteStream("cancelled"))


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_time_out_is_one_of_the_connection_until_the_request_is_sent(is_sent: bool) -> None:
    def act(line: Line) -> None:
        if is_sent:
            line.job._handle.sent()
        raise TimeoutError

    end = Line(act).run()
    assert isinstance(end, ProviderTimeout)
    assert (end.which, end.timeout) == (("first_token", 7.0) if is_sent else ("connect", 3.0))


def test_an_error_names_the_proxy_it_came_through_and_no_key() -> None:
    def act(line: Line) -> None:
        line.job._handle.proxy = "http://proxy.example"
        raise ProtocolError(f"no {KEY}")

    end = Line(act).run()
    assert str(end) == "no *** (through the proxy http://proxy.example)"
    assert KEY not in repr(end)


def test_a_job_and_its_errors_show_the_host_and_no_password() -> None:
    line = Line(lambda line: fail(ConnectionRefusedError()))
    assert repr(line.job) == "HttpExchange(host.example:8080)"
    assert line.job.endpoint == "host.example:8080"
    assert str(line.run()) == "cannot reach host.example:8080: connection refused"


@pytest.mark.parametrize(("status", "is_read"), [(399, False), (400, True)])
def test_the_provider_reads_the_errors_from_400_on(status: int, is_read: bool) -> None:
    end = Line(lambda line: responded(status, {"X-Echo": KEY}, f"what {KEY} means".encode())).run()
    assert isinstance(end, ApiError)
    assert ("what *** means" in str(end)) == is_read
    assert ("'x-echo': '***'" in str(end)) == is_read


def test_a_sink_that_reads_headers_gets_them_with_lower_case_names_before_the_body() -> None:
    said: list[Any] = []

    class Reads(Sink):
        def answered(self, headers: Mapping[str, str]) -> None:
            said.append(dict(headers))

        def deltas(self, deltas: Sequence[Delta]) -> bool:
            said.append(len(deltas))
            return False

    line = Line(lambda line: responded(200, {"X-Limit": "7"}), sink=Reads(wants_more=False))
    line.job.run(lambda: lambda prepared, timeouts, verify: line.act(line))
    assert said == [{"content-type": "text/event-stream", "x-limit": "7"}, 1]


@pytest.mark.parametrize(("has_socket", "is_closed"), [(True, False), (True, True), (False, False), (False, True)])
def test_the_last_chunk_is_waited_for_briefly_if_the_connection_can_be_kept(has_socket: bool, is_closed: bool) -> None:
    done: list[Any] = []

    def read1(size: int, *, decode_content: bool) -> bytes:
        done.append(decode_content)
        raise OSError

    sock = SimpleNamespace(settimeout=done.append) if has_socket else None
    raw: Any = SimpleNamespace(connection=SimpleNamespace(sock=sock), closed=is_closed, read1=read1)
    exchange._await_last_chunk(raw)
    assert done == ([0.01, False] if has_socket and not is_closed else [])


@pytest.mark.parametrize("is_done", [True, False])
def test_the_end_of_a_body_whose_decoder_is_done_is_waited_for(monkeypatch: pytest.MonkeyPatch, is_done: bool) -> None:
    waited_for: list[Any] = []
    monkeypatch.setattr(exchange, "_await_last_chunk", waited_for.append)
    decoder = OneDelta(fails=False)
    decoder.done = is_done
    response = responded(200)
    line = Line(lambda line: response, decoder=decoder)
    line.job.run(lambda: lambda prepared, timeouts, verify: line.act(line))
    assert waited_for == ([response.raw] if is_done else [])


def test_a_fault_of_the_options_is_not_blamed_on_the_proxy() -> None:
    def act(line: Line) -> None:
        line.job._handle.proxy = "http://proxy.example"
        raise OptionError("x", 1, "a path")

    assert "proxy" not in str(Line(act).run())


def test_what_a_sink_raises_at_the_end_is_reported_by_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))

    class Fails(Sink):
        def ended(self, decoder: Decoder | None, error: PenstockError | None) -> None:
            raise LookupError

    Line(lambda line: None, sink=Fails(wants_more=True)).job.dismiss()
    assert told == [LookupError]


@pytest.mark.parametrize("key", ["clé", "a\nb"])
def test_a_key_that_is_not_printable_ascii_is_refused_before_anything_is_sent(key: str) -> None:
    line = Line(lambda line: fail(AssertionError("sent")))
    line.job._handle.secret_headers = {"X-Key": key}
    assert isinstance(line.run(), OptionError)


class Says:
    """A decoder that gives one delta for a chunk that is not empty, and another at the end of the body."""

    done = False

    def feed(self, chunk: bytes) -> list[Delta]:
        return [] if chunk == b"x" else [TextDelta("a")]

    def close(self) -> list[Delta]:
        return [TextDelta("z")]


class Notes(Sink):
    def __init__(self) -> None:
        super().__init__(wants_more=True)
        self.said: list[Sequence[Delta]] = []

    def deltas(self, deltas: Sequence[Delta]) -> bool:
        self.said.append(deltas)
        return True


@pytest.mark.parametrize(
    ("chunks", "cancelled_at", "said"),
    [([b"x", b"y", b"x", b""], 9, ["a", "z"]), ([b"y", b"y", b""], 1, ["a"]), ([b"y", b""], 1, ["a"])],
)
def test_a_sink_gets_what_was_decoded_until_the_request_is_cancelled(
    chunks: list[bytes], cancelled_at: int, said: list[str]
) -> None:
    reads = iter(range(9))

    def read1(size: int, *, decode_content: bool) -> bytes:
        number = next(reads)
        if number == cancelled_at:
            line.job.cancel()
        return chunks[number]

    response: Any = responded(200)
    response.raw.read1 = read1
    sink = Notes()
    line = Line(lambda line: response, decoder=Says(), sink=sink)
    line.job.run(lambda: lambda prepared, timeouts, verify: line.act(line))
    assert [delta.text for deltas in sink.said for delta in deltas] == said  # type: ignore[union-attr]
    assert all(sink.said)
    assert len(sink.ends) == 1
