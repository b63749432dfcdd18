"""One exchange without a network: how much of an error's body is read, and that the response is closed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from urllib3 import HTTPResponse

from penstock.adapters.http import exchange
from penstock.config.options import RequestOptions
from penstock.errors import ApiError, PenstockError, ProtocolError
from penstock.ports import Decoder, Delta, ProviderRequest, TextDelta


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
