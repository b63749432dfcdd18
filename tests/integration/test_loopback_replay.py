"""Recordings served by the loopback provider."""

from __future__ import annotations

import http.client
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from penstock.adapters.loopback.faults import DelayFirstByte, HoldOpen, ResetAfter, StallAfter, TruncateAfter
from penstock.adapters.loopback.replay import Replay, recorded_models
from penstock.adapters.loopback.script import Reply, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.errors import OptionError

BODY = bytes(range(256)) * 8


def provide(*replies: Reply) -> LoopbackProvider:
    return LoopbackProvider(Script(replies))


def post(provider: LoopbackProvider, path: str = "/chat/completions", stream: bool = True) -> requests.Response:
    body = {"model": "m", "stream": stream, "messages": [], "input": ""}
    return requests.post(provider.base_url + path, json=body, timeout=10)


def writes_of(provider: LoopbackProvider) -> list[bytes]:
    """Return the HTTP chunks of a raw exchange."""
    client = http.client.HTTPConnection(provider.host, provider.port, timeout=10)
    client.connect()
    assert client.sock is not None
    body = b'{"model":"m","stream":true,"messages":[]}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sock.sendall(head.encode() + body)
    data = b"".join(iter(lambda: client.sock.recv(65_536), b""))
    client.close()
    rest = data.partition(b"\r\n\r\n")[2]
    found = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    assert found.pop() == b""
    return found


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("framing", ["chunked", "length", "close", "gzip"])
@pytest.mark.parametrize(("chunk", "pace"), [(None, 0.0), (7, 0.0), ((1, 2, 500), 0.0001)])
def test_a_recording_comes_byte_for_byte_however_it_is_sent(
    path: str, stream: bool, framing: Any, chunk: Any, pace: float
) -> None:
    replay = Replay(BODY, content_type="text/x-odd", chunk=chunk, pace=pace, framing=framing, headers=(("X-A", "b"),))
    with provide(replay) as provider:
        response = post(provider, path, stream)
        assert response.content == BODY
        assert (response.headers["content-type"], response.headers["x-a"]) == ("text/x-odd", "b")
        assert provider.wait_for(lambda s: s.responses_completed == 1).streams_completed == 1


def test_the_sizes_of_the_writes_are_taken_in_turn() -> None:
    with provide(Replay(BODY, chunk=(3, 1000))) as provider:
        assert [len(write) for write in writes_of(provider)] == [3, 1000, 3, 1000, 3, 39]


def test_a_recording_keeps_its_status() -> None:
    with provide(Replay(b'{"error":{}}', status=529, content_type="application/json")) as provider:
        response = post(provider)
        assert (response.status_code, response.json()) == (529, {"error": {}})


def test_a_recording_is_read_from_a_file_whose_name_says_what_it_is(tmp_path: Path) -> None:
    for name, kind in (
        ("a.sse", "text/event-stream; charset=utf-8"),
        ("a.ndjson", "application/x-ndjson"),
        ("a.json", "application/json"),
    ):
        (tmp_path / name).write_bytes(b"{}")
        replay = Replay(tmp_path / name)
        assert (replay.recorded, replay.media_type) == (b"{}", kind)
        assert Replay(str(tmp_path / name)) == replay == replay.replace(status=200)


@pytest.mark.parametrize("framing", ["chunked", "length", "close", "gzip"])
@pytest.mark.parametrize("count", [0, 5, 7, 2048, 9999])
def test_a_clean_truncation_gives_exactly_the_bytes_before_it(framing: Any, count: int) -> None:
    replay = Replay(BODY, chunk=7, framing=framing, faults=(TruncateAfter(count, clean=True),))
    with provide(replay) as provider:
        assert post(provider).content == BODY[:count]
        statistics = provider.wait_for(lambda s: s.responses_completed == 1)
        assert (statistics.faults_injected, statistics.streams_completed) == (1, 0)


@pytest.mark.parametrize("fault", [ResetAfter(500), TruncateAfter(500)])
def test_a_broken_recording_is_no_valid_body(fault: ResetAfter | TruncateAfter) -> None:
    with provide(Replay(BODY, faults=(fault,))) as provider, pytest.raises(requests.exceptions.RequestException):
        post(provider)


def test_the_bytes_before_a_reset_are_delivered() -> None:
    replay = Replay(BODY, framing="close", chunk=100, faults=(ResetAfter(250),))
    with provide(replay) as provider, requests.Session() as session:
        body = {"model": "m", "messages": []}
        response = session.post(f"{provider.base_url}/chat/completions", json=body, stream=True, timeout=5)
        pieces = response.iter_content(1)
        assert b"".join(next(pieces) for _ in range(250)) == BODY[:250]
        with pytest.raises(requests.exceptions.RequestException):
            next(pieces)


def test_a_stall_and_a_late_beginning_lose_nothing() -> None:
    faults = (DelayFirstByte(0.01), StallAfter(300, 0.01), StallAfter(5000, 0.01), HoldOpen(0.01))
    with provide(Replay(BODY, chunk=7, faults=faults)) as provider:
        assert post(provider).content == BODY
        assert provider.statistics().faults_injected == 4


def test_the_pace_is_kept() -> None:
    with provide(Replay(BODY, chunk=512, pace=0.02)) as provider:
        began = time.monotonic()
        assert post(provider).content == BODY
        assert time.monotonic() - began >= 0.06  # four writes


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"body": "/nowhere/at/all.sse"}, "body"),
        ({"body": 3}, "body"),
        ({"chunk": 0}, "chunk"),
        ({"chunk": ()}, "chunk"),
        ({"status": 204}, "status"),
        ({"pace": -1}, "pace"),
        ({"framing": "morse"}, "framing"),
        ({"faults": (None,)}, "faults"),
        ({"headers": (("a b", "c"),)}, "headers"),
        ({"headers": (("a", "c\r\nd: e"),)}, "headers"),
        ({"content_type": "a\r\nb"}, "headers"),
    ],
)
def test_what_cannot_be_replayed_is_refused_by_name(more: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        Replay(**{"body": b"", **more})
    assert caught.value.field == field


def test_a_folder_of_recordings_is_a_set_of_models(tmp_path: Path) -> None:
    (tmp_path / "one.sse").write_bytes(b"data: 1\n\n")
    (tmp_path / "two.ndjson").write_bytes(b"{}\n")
    (tmp_path / "two.json").write_bytes(b"not a recording")
    models = recorded_models(tmp_path)
    assert set(models) == {"one", "two"}
    assert models["two"].media_type == "application/x-ndjson"
    with pytest.raises(OptionError, match="a folder"):
        recorded_models(tmp_path / "one.sse")
    (tmp_path / "none").mkdir()
    with pytest.raises(OptionError, match="a folder with recordings"):
        recorded_models(tmp_path / "none")
