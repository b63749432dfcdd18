"""``penstock serve`` as its users run it: a process of its own, real signals, real clients."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

if sys.platform == "win32":
    pytest.skip("needs signals and devices", allow_module_level=True)

from penstock.gateway.keys import KeyFile, new_key
from tests.integration.command import (
    LIMIT,
    Done,
    environment,
    finish,
    interrupts_not_ignored,
    read_until,
    run,
    run_anew,
    started,
)
from tests.integration.gateway.serving import events_of
from tests.integration.gateway.test_board import rows_of

SERVE = ["serve", "--provider", "loopback", "--port", "0"]
TEXT = "A sentence that no log may have."


@pytest.fixture(autouse=True)
def interrupts_are_not_ignored() -> Iterator[None]:
    with interrupts_not_ignored():
        yield


@contextlib.contextmanager
def serving(tmp_path: Path, *arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process, and the base URL that it has printed."""
    with started(tmp_path, *SERVE, *arguments, variables=variables) as process:
        yield process, read_until(process, b"\n").decode().strip()


class Reader(threading.Thread):
    """A client that reads a stream to the end of the response."""

    def __init__(self, url: str, path: str) -> None:
        super().__init__(daemon=True)
        self.address = url.partition("://")[2]
        self.path = path
        self.body = b""
        self.began = threading.Event()
        self.fault: Exception | None = None

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=LIMIT)
        try:
            connection.request("GET", self.path)
            response = connection.getresponse()
            while piece := response.read1(65_536):  # raises IncompleteRead if the body has no end
                self.body += piece
                self.began.set()
        except Exception as error:
            self.fault = error
        finally:
            connection.close()

    def names(self) -> list[str]:
        self.join(LIMIT)
        assert self.fault is None
        return [name for _, name, _ in events_of(self.body.decode())]


def reading(url: str) -> Reader:
    """A reader of a stream that has a token and goes on."""
    requests.post(f"{url}/v1/streams", json={"stream_id": "mine"}, timeout=LIMIT).raise_for_status()
    requests.post(f"{url}/v1/streams/mine/tokens", json={"text": TEXT}, timeout=LIMIT).raise_for_status()
    reader = Reader(url, "/v1/streams/mine/events")
    reader.start()
    assert reader.began.wait(LIMIT)
    return reader


# --- start and end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_reader_cleanly_and_the_exit_code_is_0(tmp_path: Path, number: int) -> None:
    with serving(tmp_path, "--drain-timeout", "0s") as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        assert requests.get(f"{url}/ready", timeout=LIMIT).json() == {"status": "ready"}
        reader = reading(url)
        process.send_signal(number)
        assert reader.names() == ["token", "cut"]
        done = finish(process)
    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("penstock: stopped\n")


def test_a_second_signal_ends_readers_at_once_with_the_code_of_the_signal(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-timeout", "600s") as (process, url):
        reader = reading(url)
        process.send_signal(signal.SIGTERM)
        while requests.get(f"{url}/ready", timeout=LIMIT).status_code == 200:
            pass
        process.send_signal(signal.SIGTERM)
        assert reader.names() == ["token", "cut"]
        done = finish(process)
    assert done.code == 143
    assert "no new streams; readers left: 1, for at most 600 s; a second signal ends them at once\n" in done.err


def test_the_commands_that_it_prints_work(tmp_path: Path) -> None:
    with started(tmp_path, *SERVE) as process:
        url = read_until(process, b"\n").decode().strip()
        assert process.stderr is not None
        lines = [line.decode() for line, _ in zip(process.stderr, range(7), strict=False)]
        shown = [line.strip() for line in lines if line.strip().startswith("curl ")]
        assert all(url in line for line in shown)
        opened = subprocess.run(shown[0], shell=True, capture_output=True, timeout=LIMIT, check=True).stdout
        assert json.loads(opened)["stream_id"] == "hello"
        read = subprocess.run(shown[1], shell=True, capture_output=True, timeout=LIMIT, check=True).stdout
        assert events_of(read.decode())[-1][2]["text"] == "Hello"
        found = re.search(r"clients of OpenAI is (\S+), for those of Anthropic (\S+)", "".join(lines))
        assert found is not None
        body = {"model": "echo", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}
        chat = requests.post(f"{found[1]}/chat/completions", json=body, timeout=LIMIT).json()
        assert chat["choices"][0]["message"]["content"] == "Hello"
        message = requests.post(f"{found[2]}/v1/messages", json=body, timeout=LIMIT).json()
        assert message["content"][0]["text"] == "Hello"


def test_the_demo_has_streams_and_agents_and_a_signal_ends_it(tmp_path: Path) -> None:
    with started(tmp_path, "serve", "--demo", "--port", "0") as process:
        url = read_until(process, b"\n").decode().strip()
        assert process.stderr is not None
        said = b"".join(itertools.islice(process.stderr, 4)).decode()
        assert f"is at {url}/" in said
        assert "<title>Penstock" in requests.get(f"{url}/", timeout=LIMIT).text
        models: set[str] = set()
        with connect(f"{url.replace('http', 'ws')}/v1/ws", max_size=None) as board:
            while not models >= {"demo-chat", "demo-thinks", "demo-report", "demo-operator"}:
                board.send('{"op": "subscribe", "sid": "$board"}')  # each time with a snapshot
                frames = json.loads(board.recv(LIMIT))
                shown = [one for one in frames if "streams" in one] if isinstance(frames, list) else []
                models |= {str(row["model"]) for one in shown for row in rows_of(one["streams"])}
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert (done.code, done.out) == (0, "")
    assert done.err == "penstock: stopped\n", "what fails on purpose is not logged"


@pytest.mark.parametrize("path", ["", "none/a.db", ":memory:"])
def test_a_store_that_cannot_be_opened_is_a_wrong_setting(tmp_path: Path, path: str) -> None:
    where = path if path == ":memory:" else str(tmp_path / path)
    done = run(tmp_path, "serve", "--demo", "--port", "0", PENSTOCK_STORE__PATH=where)
    assert (done.code, done.out) == (2, "")
    assert done.complaint.startswith(f"store.path: got {path!r}" if path == ":memory:" else f"{where}: ")


def test_a_wrong_option_names_the_help_of_its_command(tmp_path: Path) -> None:
    for arguments, command in ((["serve", "--port", "x"], "penstock serve"), (["keys", "new"], "penstock keys new")):
        done = run(tmp_path, *arguments)
        assert done.code == 2
        assert done.complaint.endswith(f"(see {command} --help)")
    assert run(tmp_path, "nosuch").complaint.endswith("(see penstock --help)")


def test_the_demo_asks_no_other_provider(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--demo", "--provider", "ollama")
    assert done.code == 2
    assert "--demo" in done.complaint


def test_without_a_standard_output_that_tells_the_base_url_it_does_not_serve(tmp_path: Path) -> None:
    program = f"{sys.executable} -m penstock {' '.join(SERVE)} 1>&-"
    done = subprocess.run(
        ["sh", "-c", program], capture_output=True, timeout=LIMIT, env=environment(tmp_path), cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (74, b"penstock: standard output: is closed\n")


# --- the log -----------------------------------------------------------------------------------------------------


def test_the_json_log_has_a_line_for_each_phase_and_neither_keys_nor_text(tmp_path: Path) -> None:
    secret, key = new_key("app")
    KeyFile(tmp_path / "keys").write([key])
    arguments = ["--keys", "keys", "--log", "json", "--log-level", "debug", "--drain-timeout", "0s"]
    with serving(tmp_path, *arguments) as (process, url):
        head = {"authorization": f"Bearer {secret}"}
        body: dict[str, Any] = {"stream_id": "mine", "model": "echo", "input": TEXT}
        assert requests.post(f"{url}/v1/streams", json=body, headers=head, timeout=LIMIT).status_code == 201
        read = requests.get(f"{url}/v1/streams/mine/events", headers=head, timeout=LIMIT)
        assert TEXT in read.text
        assert requests.get(f"{url}/v1/streams?key={secret}", timeout=LIMIT).status_code == 401
        assert requests.get(f"{url}/v1/streams", headers={"x-api-key": f"{secret}x"}, timeout=LIMIT).status_code == 401
        assert (
            requests.post(f"{url}/v1/streams", data=f'{{"a": "{TEXT}', headers=head, timeout=LIMIT).status_code == 400
        )
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            client.sendall(f"{secret} {TEXT}\r\n\r\n".encode())
            assert b"400" in client.recv(1000)
        process.send_signal(signal.SIGTERM)
        done = finish(process)
    assert done.code == 0
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)
    events = [line["event"] for line in lines]
    assert [event for event in events if event in ("serving", "draining", "drained")] == [
        "serving",
        "draining",
        "drained",
    ]
    assert "Invalid HTTP request received." in events  # uvicorn's own are in this form too
    for hidden in (secret, TEXT, "no log may"):
        assert hidden not in done.err + done.out


def test_requests_are_not_logged_and_a_ticket_neither(tmp_path: Path) -> None:
    with serving(tmp_path, "--log", "json", "--log-level", "debug") as (process, url):
        requests.post(f"{url}/v1/streams", json={"stream_id": "mine"}, timeout=LIMIT)
        made = requests.post(f"{url}/v1/streams/mine/tickets", timeout=LIMIT).json()
        requests.post(f"{url}/v1/streams/mine/tokens", json={"text": TEXT, "end": True}, timeout=LIMIT)
        assert TEXT in requests.get(f"{url}{made['url']}", timeout=LIMIT).text
        process.send_signal(signal.SIGTERM)
        done = finish(process)
    assert made["ticket"] not in done.err
    assert "/v1/streams" not in done.err


# --- keys, hosts and origins ------------------------------------------------------------------------------------


def test_keys_made_and_revoked_while_it_runs_count_at_once(tmp_path: Path) -> None:
    assert run(tmp_path, "keys", "new", "keys", "--name", "first").code == 0
    with serving(tmp_path, "--keys", "keys", "--host", "0.0.0.0") as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        assert requests.get(f"{url}/v1/streams", timeout=LIMIT).status_code == 401
        made = run(tmp_path, "keys", "new", "keys")
        head = {"authorization": f"Bearer {made.out.strip()}"}
        assert requests.get(f"{url}/v1/streams", headers=head, timeout=LIMIT).status_code == 200
        key_id = made.complaint.rpartition(" ")[2]
        assert run(tmp_path, "keys", "revoke", "keys", key_id).code == 0
        assert requests.get(f"{url}/v1/streams", headers=head, timeout=LIMIT).status_code == 401
        assert process.poll() is None


def test_hosts_and_origins_of_the_command_line_are_answered(tmp_path: Path) -> None:
    origin = "https://app.example.com"
    with serving(tmp_path, "--allow-host", "llm.example.com", "--cors", origin) as (_, url):
        for host, status in (("llm.example.com", 200), ("localhost", 200), ("other.example.com", 421)):
            answer = requests.get(f"{url}/v1/streams", headers={"host": host, "origin": origin}, timeout=LIMIT)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == origin


def test_the_model_and_the_drain_timeout_of_the_environment_count(tmp_path: Path) -> None:
    variables = {"PENSTOCK_GATEWAY__DRAIN_TIMEOUT": "0s", "PENSTOCK_PROVIDER__MODEL": "gpt-none"}
    with serving(tmp_path, **variables) as (process, url):
        models = requests.get(f"{url}/v1/models", timeout=LIMIT).json()["data"]
        assert [(model["id"], model["owned_by"]) for model in models] == [("echo", "loopback")]
        reader = reading(url)
        process.send_signal(signal.SIGTERM)
        assert reader.names() == ["token", "cut"]
        assert finish(process).code == 0


def test_many_keys_new_at_once_lose_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock", "keys", "new", "keys"]
    begun = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(tmp_path)
        )
        for _ in range(4)
    ]
    secrets = [process.communicate(timeout=LIMIT)[0].decode().strip() for process in begun]
    file = KeyFile(tmp_path / "keys")
    assert all(file.find(secret) is not None for secret in secrets)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--host", "0.0.0.0"],
            r"Without API keys, only loopback addresses are listened at, and 0\.0\.0\.0 is none",
        ),
        (["--host", "a..b"], r"The host a\.\.b is not known: it is no host name\."),
        (["--host", ""], "--host is empty; "),
        (["--port", "70000"], "Invalid value for '--port': "),
        (["--keys", "missing"], "--keys: cannot read missing: No such file or directory"),
        (["--keys", "penstock.txt"], r"--keys: penstock\.txt, line 1, is no key; "),
        (["--cors", "app.example.com"], r"--cors: got \('app\.example\.com',\), allowed: a list of origins"),
        (["--allow-host", "a b"], "--allow-host: got "),
        (["--drain-timeout", "soon"], "--drain-timeout: got 'soon', allowed: a duration"),
        (["--log", "xml"], "--log: got 'xml', allowed: 'auto' | 'console' | 'json'"),
        (["--provider", "opnai"], r"unknown provider 'opnai' \(did you mean 'openai'\?\); known: "),
        (["--base-url", "ftp://x"], "--base-url: got 'ftp://x', allowed: a URL"),
        (["--config", "missing.toml"], "config: cannot read missing.toml"),
        (["--cluster", "http://me:secret@h"], r"--cluster: got 'http://\*\*\*@h', allowed: redis://host:port"),
        (["--cluster", "redis://h/one"], "--cluster: got 'redis://h/one', allowed: a whole number as the database"),
        (["--cluster", "redis://me:sec/ret@h"], r"--cluster: got 'redis://\*\*\*@h', allowed: .*%40, %2F, %3F and %23"),
        (["--cluster", "unix:///no/socket"], "unix:///no/socket: the store is .* No such file .*; check --cluster"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line_and_code_2(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "penstock.txt").write_text("not a key\n")
    done = run(tmp_path, *SERVE, *arguments)
    assert (done.code, done.out) == (2, "")
    assert re.match(complaint, done.complaint), done.complaint


def test_a_port_in_use_is_one_line_and_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run(tmp_path, *SERVE[:-1], str(port))
    assert (done.code, done.out) == (2, "")
    assert done.complaint == (
        f"Port {port} of 127.0.0.1 cannot be listened at: Address already in use. Choose another port, or 0 for a free"
        " one."
    )


@pytest.mark.parametrize("module", ["uvicorn", "starlette", "httptools", "websockets"])
def test_without_the_extra_one_line_says_how_to_get_it(tmp_path: Path, module: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{module!r}] = None\n")
    path = f"{tmp_path}:{environment(tmp_path)['PYTHONPATH']}"
    done = run_anew(tmp_path, *SERVE, PYTHONPATH=path)
    assert (done.code, done.out) == (2, "")
    assert done.complaint == f"{module} is not installed; penstock serve needs an extra: pip install 'penstock[server]'"


def test_a_missing_provider_key_is_said_and_the_rest_is_served(tmp_path: Path) -> None:
    with started(tmp_path, "serve", "--provider", "anthropic", "--port", "0") as process:
        url = read_until(process, b"\n").decode().strip()
        assert requests.get(f"{url}/ready", timeout=LIMIT).status_code == 200
        refused = requests.post(f"{url}/v1/streams", json={"model": "claude", "input": "Hi"}, timeout=LIMIT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "provider_key_missing")
        process.send_signal(signal.SIGTERM)
        done: Done = finish(process)
    assert done.code == 0
    assert "penstock: requests for models will be refused: No API key for anthropic. Set ANTHROPIC_API_KEY" in done.err
