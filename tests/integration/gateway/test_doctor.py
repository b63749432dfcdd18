"""``penstock doctor`` and the routes that it asks, with nothing between and behind a real nginx."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

import penstock
from penstock.cli.commands import run_command
from penstock.config.settings import Settings
from penstock.gateway import reader as reader_module
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.integration.gateway.nginx import deployed, nginx
from tests.integration.gateway.serving import PATIENCE, Served, events_of, served

Capture = pytest.CaptureFixture[str]
CLI_PAGE = Path(penstock.__file__).parents[1] / "docs" / "cli.md"
CHECKS = ["reach", "buffering", "compression", "disconnects", "time limits"]


@pytest.fixture
def client() -> Iterator[Served]:
    with penstock.System(Settings()) as system, served(system, heartbeat=2.0) as serving:
        yield serving


def doctor(capfd: Capture, url: str, *arguments: str) -> tuple[int, dict[str, tuple[str, str]], str]:
    """The exit code, mark and text by check, and standard error."""
    code = run_command(["doctor", url, *arguments])
    out, err = capfd.readouterr()
    lines = [(line[:9].strip(), *line[10:].split(": ", 1)) for line in out.splitlines()]
    return code, {name: (mark, text) for mark, name, text in lines}, err


def problems(found: dict[str, tuple[str, str]]) -> list[str]:
    return [name for name, (mark, _) in found.items() if mark == "problem"]


# --- the routes --------------------------------------------------------------------------------------------------


def test_a_probe_sends_its_frames_with_their_times_and_an_end(client: Served) -> None:
    answer = client.get("/v1/doctor/probe?seconds=0.3&interval=0.1&id=mine")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-penstock-probe-id"] == "mine"
    *frames, end = events_of(answer.text)
    assert [name for _, name, _ in frames] == ["probe"] * 4
    assert [data["n"] for _, _, data in frames] == [0, 1, 2, 3]
    assert [data["at"] for _, _, data in frames] == sorted(data["at"] for _, _, data in frames)
    first = frames[0][2]
    assert (first["id"], first["seconds"], first["interval"], first["heartbeat"]) == ("mine", 0.3, 0.1, 2.0)
    assert (end[1], end[2]["state"]) == ("end", "complete")
    seen = client.get("/v1/doctor/seen?id=mine").json()
    assert (seen["state"], seen["sent"]) == ("complete", 4)
    assert round(seen["after"], 6) >= 0.3  # the difference of two times of the clock, in binary fractions


def test_the_gateway_sees_that_a_client_has_left_before_the_next_frame(client: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=PATIENCE)
    connection.request("GET", "/v1/doctor/probe?seconds=600&interval=600&id=mine")
    response = connection.getresponse()
    response.read1(10)
    assert client.get("/v1/doctor/seen?id=mine").json()["state"] == "running"
    response.close()
    connection.close()
    eventually(lambda: client.get("/v1/doctor/seen?id=mine").json()["state"] == "left")
    seen = client.get("/v1/doctor/seen?id=mine").json()
    assert seen["sent"] == 1
    assert 0 < seen["after"] < 600


def test_a_gateway_that_ends_its_readers_ends_a_probe(client: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=PATIENCE)
    connection.request("GET", "/v1/doctor/probe?seconds=600&interval=600&id=mine")
    response = connection.getresponse()
    first = response.read1(1000)
    client.on_loop(client.gateway.end_readers())
    *_, end = events_of((first + response.read()).decode())
    connection.close()
    assert (end[1], end[2]["state"], end[2]["code"]) == ("end", "cut", "draining")
    assert client.get("/v1/doctor/probe").status_code == 503


def test_a_probe_is_one_of_the_readers_that_there_may_be() -> None:
    with penstock.System(Settings()) as system, served(system, max_readers=1) as client:
        with client.get("/v1/doctor/probe?seconds=600&interval=600&id=mine", stream=True) as answer:
            pieces = answer.iter_content(None)  # kept: the connection is closed with it
            assert next(pieces)
            assert len(client.gateway.readers) == 1
            stream_id = client.post("/v1/streams", {}).json()["stream_id"]
            for path in ("/v1/doctor/probe", f"/v1/streams/{stream_id}/events"):
                refused = client.get(path)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_readers")
        eventually(lambda: not client.gateway.readers)
        assert client.get("/v1/doctor/probe?seconds=0").status_code == 200
        system.stream(stream_id).cancel()


def test_a_probe_ends_when_its_key_is_revoked(tmp_path: Path) -> None:
    secret, key = new_key("one", ["read"])
    KeyFile(tmp_path / "keys").write([key])
    with (
        penstock.System(Settings()) as system,
        served(system, keys=str(tmp_path / "keys"), heartbeat=0.05) as client,
        client.get("/v1/doctor/probe?seconds=600&interval=600", headers={"x-api-key": secret}, stream=True) as answer,
    ):
        pieces = answer.iter_content(None)
        assert next(pieces)
        KeyFile(tmp_path / "keys").write([msgspec.structs.replace(key, revoked=1)])
        (end,) = events_of(b"".join(pieces).decode())
        assert (end[1], end[2]["state"], end[2]["code"]) == ("end", "cut", "key_revoked")


def test_a_probe_of_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_STUCK", 0.0)
    with penstock.System(Settings()) as system, served(system, heartbeat=0.05) as client:

        async def run() -> None:
            waits = asyncio.Event()

            async def receive() -> Any:
                if not asked:
                    asked.append(True)
                    return {"type": "http.request", "body": b""}
                return await asyncio.get_running_loop().create_future()

            async def send(message: Any) -> None:
                waits.set()
                await asyncio.get_running_loop().create_future()

            asked: list[bool] = []
            scope = {"type": "http", "method": "GET", "path": "/v1/doctor/probe", "query_string": b"id=mine"}
            task = asyncio.ensure_future(client.gateway({**scope, "headers": []}, receive, send))
            await waits.wait()
            await asyncio.wait([task])
            assert (task.cancelled(), task.exception(), task.cancelling()) == (False, None, 0)

        client.on_loop(run())
        assert client.get("/v1/doctor/seen?id=mine").json()["state"] == "cut"
        assert not client.gateway.readers


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("seconds=x", "seconds"),
        ("seconds=-1", "seconds"),
        ("seconds=3601", "seconds"),
        ("seconds=nan", "seconds"),
        ("interval=0", "interval"),
        ("seconds=3600&interval=0.01", "interval"),
        ("id=a%20b", "id"),
        ("id=" + "a" * 65, "id"),
    ],
)
def test_a_probe_with_a_wrong_parameter_is_refused(client: Served, query: str, param: str) -> None:
    answer = client.get(f"/v1/doctor/probe?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_what_was_seen_of_a_probe_is_told_to_its_own_key_only(tmp_path: Path) -> None:
    (one, first), (two, second), (three, third) = new_key("one", ["read"]), new_key("two"), new_key("three", ["admin"])
    KeyFile(tmp_path / "keys").write([first, second, third])
    with penstock.System(Settings()) as system, served(system, keys=str(tmp_path / "keys")) as client:
        client.get("/v1/doctor/probe?seconds=0&id=mine", headers={"x-api-key": one})
        statuses = [
            client.get("/v1/doctor/seen?id=mine", headers={"x-api-key": key} if key else {}).status_code
            for key in (one, two, three, "")
        ]
        assert statuses == [200, 404, 404, 401]
        assert client.get("/v1/doctor/probe?seconds=0").status_code == 401


# --- the command, with nothing between ---------------------------------------------------------------------------


def test_with_nothing_between_all_is_well(client: Served, capfd: Capture) -> None:
    code, found, err = doctor(capfd, client.url, "--seconds", "2")
    assert (code, err) == (0, "")
    assert list(found) == CHECKS
    assert problems(found) == []
    assert found["time limits"][1] == "a stream of 2 s with a sign of life every 2 s was not cut"


def test_quick_leaves_the_long_probe_out(client: Served, capfd: Capture) -> None:
    code, found, _ = doctor(capfd, client.url, "--quick")
    assert code == 0
    assert found["time limits"][0] == "left out"


def test_every_check_is_in_the_document() -> None:
    page = CLI_PAGE.read_text("utf-8")
    for check in CHECKS:
        assert f"\n| {check} | " in page


def test_a_key_is_taken_from_the_environment_and_never_shown(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, key = new_key("doctor", ["read"])
    KeyFile(tmp_path / "keys").write([key])
    monkeypatch.setenv("GATEWAY_KEY", secret)
    with penstock.System(Settings()) as system, served(system, keys=str(tmp_path / "keys")) as client:
        code, found, err = doctor(capfd, client.url, "--quick")
        assert (code, problems(found)) == (1, ["key"])
        assert "--key-env NAME" in found["key"][1]
        code, found, err = doctor(capfd, client.url, "--quick", "--key-env", "GATEWAY_KEY")
        assert (code, problems(found), err) == (0, [], "")
        assert secret not in str(found)


def test_a_gateway_that_drains_is_a_problem(client: Served, capfd: Capture) -> None:
    client.gateway.is_draining = True
    code, found, _ = doctor(capfd, client.url)
    assert (code, found) == (1, {"reach": ("problem", "the gateway is shutting down (/ready answers 503)")})


def test_what_is_no_gateway_and_what_cannot_be_reached_are_problems(capfd: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code, found, err = doctor(capfd, f"http://127.0.0.1:{port}")
    assert (code, err) == (1, "")
    assert found == {"reach": ("problem", "cannot reach 127.0.0.1: connection refused")}
    with other_server() as url:
        code, found, err = doctor(capfd, url)
    assert (code, err) == (1, "")
    assert found["reach"][1].startswith(
        f"{url}/live answers 200, not as a gateway of Penstock; if the gateway is mounted"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["llm.example.com"], "URL must be like https://host/path, without user, query or fragment"),
        (["https://user:secret@host"], "URL must be like https://host/path, without user, query or fragment"),
        (["http://h", "--key-env", "NO_SUCH"], "--key-env names 'NO_SUCH', an environment variable that is not set"),
        (["http://h", "--key-env", "ODD_KEY"], "the key in ODD_KEY has characters that no key has"),
        (["http://h", "--seconds", "0"], "Invalid value for '--seconds'"),
        ([], "Missing argument 'URL'"),
    ],
)
def test_a_wrong_argument_is_one_line_and_code_2(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    monkeypatch.setenv("ODD_KEY", "a b\n")
    assert run_command(["doctor", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"penstock: {complaint}")
    assert "secret" not in err
    assert len(err.splitlines()) == 1


class other_server:  # noqa: N801
    """An HTTP server that is no gateway."""

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client has left, and its connection was reset
                    super().handle()

            def do_GET(self) -> None:
                body = json.dumps({"status": "up"}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


# --- behind nginx ------------------------------------------------------------------------------------------------


def test_behind_an_nginx_as_it_comes_all_is_well(client: Served, capfd: Capture, tmp_path: Path) -> None:
    with nginx(tmp_path / "one", client.url) as url:
        code, found, _ = doctor(capfd, url, "--quick")
    assert (code, problems(found)) == (0, [])
    assert "; responses pass through nginx/" in found["reach"][1]


@pytest.mark.parametrize("is_buffering", [True, False], ids=["proxy_buffering on", "proxy_buffering off"])
def test_a_second_nginx_that_buffers_is_found(
    client: Served, capfd: Capture, tmp_path: Path, is_buffering: bool
) -> None:
    setting = f"proxy_buffering {'on' if is_buffering else 'off'};"
    with nginx(tmp_path / "one", client.url) as inner, nginx(tmp_path / "two", inner, setting) as url:
        code, found, _ = doctor(capfd, url, "--quick")
    if is_buffering:
        assert code == 1
        assert "buffering" in problems(found)
        assert found["buffering"][1].startswith("frames are held back for up to ")
        assert found["buffering"][1].endswith("; nginx: proxy_buffering off;")
    else:
        assert (code, problems(found)) == (0, [])


def test_an_nginx_that_compresses_is_found(client: Served, capfd: Capture, tmp_path: Path) -> None:
    setting = "gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 0;"
    with nginx(tmp_path / "one", client.url, setting) as url:
        code, found, _ = doctor(capfd, url, "--quick")
    assert (code, problems(found)) == (1, ["compression"])
    assert "(gzip)" in found["compression"][1]
    assert "nginx: gzip off;" in found["compression"][1]


def test_an_nginx_that_hides_disconnects_is_found(client: Served, capfd: Capture, tmp_path: Path) -> None:
    with nginx(tmp_path / "one", client.url, "proxy_ignore_client_abort on;") as url:
        code, found, _ = doctor(capfd, url, "--quick")
    assert (code, problems(found)) == (1, ["disconnects"])
    assert found["disconnects"][1].endswith("nginx: proxy_ignore_client_abort off;")


def test_an_nginx_that_cuts_silent_streams_is_found(client: Served, capfd: Capture, tmp_path: Path) -> None:
    with nginx(tmp_path / "one", client.url, "proxy_read_timeout 1s;") as url:
        code, found, _ = doctor(capfd, url, "--seconds", "3")
    assert (code, problems(found)) == (1, ["time limits"])
    assert "s of silence (" in found["time limits"][1]
    assert "nginx: proxy_read_timeout 3600s;, or set gateway.heartbeat below " in found["time limits"][1]


def test_the_nginx_of_the_folder_deploy_passes_everything_at_once(
    client: Served, capfd: Capture, tmp_path: Path
) -> None:
    text = (Path(penstock.__file__).parents[1] / "deploy" / "nginx.conf").read_text("utf-8")
    with deployed(tmp_path / "one", text, {"node-1:8900": client.url, "node-2:8900": client.url}) as url:
        code, found, _ = doctor(capfd, url, "--seconds", "3")
        assert (code, problems(found)) == (0, [])
        assert "; responses pass through nginx" in found["reach"][1]
        host, _, port = url.partition("://")[2].partition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as sock:
            sock.sendall(
                b"GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
                b"sec-websocket-protocol: penstock.v1\r\n\r\n"
            )
            assert sock.recv(64).startswith(b"HTTP/1.1 101 ")


def test_a_streams_tokens_pass_an_nginx_that_buffers_one_by_one(client: Served, tmp_path: Path) -> None:
    """The gateway's header asks it not to."""
    stream = client.system.open_stream("mine")
    stream.process_token("token 0")
    with nginx(tmp_path / "one", client.url, "proxy_buffering on;") as url:
        connection = http.client.HTTPConnection(url.partition("://")[2], timeout=PATIENCE)
        connection.request("GET", "/v1/streams/mine/events")
        response = connection.getresponse()
        body = b""
        for number in range(5):
            while f"token {number}".encode() not in body:
                piece = response.read1(1000)
                assert piece, "the stream has ended"
                body += piece
            stream.process_token(f"token {number + 1}")
        connection.close()
