"""``penstock serve`` with a store: the process is killed, and its clients go on after their cursors in the next one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import requests

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

from penstock.gateway.keys import KeyFile, new_key
from tests.integration.command import LIMIT
from tests.integration.gateway.serving import events_of
from tests.integration.test_cli_serve import serving


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(LIMIT)


def read(url: str, stream_id: str, after: str | None = None, **more: str) -> requests.Response:
    headers = {**more, **({} if after is None else {"last-event-id": after})}
    return requests.get(f"{url}/v1/streams/{stream_id}/events", headers=headers, timeout=LIMIT, stream=True)


def read_until(url: str, stream_id: str, seq: int) -> str:
    """Read a stream that goes on up to an event; returns the epoch of its ids."""
    with read(url, stream_id) as response:
        for line in response.iter_lines(chunk_size=1):
            name, _, value = line.decode().partition(": ")
            epoch, _, number = str(value).partition("-")
            if name == "id" and number == str(seq):
                return epoch
    raise AssertionError("the stream has ended")


STORE = {"PENSTOCK_STORE__DURABILITY": "sync"}


def test_a_reader_goes_on_after_its_last_event_id_in_the_next_process(tmp_path: Path) -> None:
    store = {"PENSTOCK_STORE__PATH": str(tmp_path / "a.db"), **STORE}
    with serving(tmp_path, **store) as (process, url):
        for name in ("done", "live"):
            requests.post(f"{url}/v1/streams", json={"stream_id": name}, timeout=LIMIT).raise_for_status()
            for text in ("One ", "two ", "three"):
                body = {"text": text}
                requests.post(f"{url}/v1/streams/{name}/tokens", json=body, timeout=LIMIT).raise_for_status()
                requests.post(f"{url}/v1/streams/{name}/flush", timeout=LIMIT).raise_for_status()
        requests.post(f"{url}/v1/streams/done/tokens", json={"end": True}, timeout=LIMIT).raise_for_status()
        before = events_of(read(url, "done").text)
        live = read_until(url, "live", 3)
        kill(process)
    done = before[0][0].partition("-")[0]
    assert done != live
    texts = "".join(data["text"] for _, name, data in before if name == "token")
    assert texts == "One two three"
    for _ in range(2):  # also after a second death
        with serving(tmp_path, **store) as (process, url):
            assert events_of(read(url, "done").text) == before
            assert [id for id, _, _ in events_of(read(url, "done", f"{done}-2").text)] == [f"{done}-3", f"{done}-4"]
            terminal = f"{done}-4"
            assert read(url, "done", terminal).status_code == 204
            rest = events_of(read(url, "live", f"{live}-2").text)
            assert [(id, name) for id, name, _ in rest][:2] == [
                (f"{live}-3", "token"),
                (f"{live}-4", "end"),
            ]
            assert "StreamInterrupted" in str(rest[1][2])
            gap = events_of(read(url, "live", "00000000-2").text)
            assert [name for _, name, _ in gap][:1] == ["gap"]
            assert read(url, "none").status_code == 404
            kill(process)


def test_without_a_store_a_cursor_of_the_former_process_gets_a_404(tmp_path: Path) -> None:
    with serving(tmp_path) as (process, url):
        requests.post(f"{url}/v1/streams", json={"stream_id": "s"}, timeout=LIMIT).raise_for_status()
        kill(process)
    with serving(tmp_path) as (_, url):
        assert read(url, "s", "00000000-1").status_code == 404


def test_a_stream_stays_its_owners_in_the_next_process(tmp_path: Path) -> None:
    made = [new_key(name) for name in ("one", "two")]
    KeyFile(tmp_path / "keys").write([key for _, key in made])
    store = {"PENSTOCK_STORE__PATH": str(tmp_path / "a.db"), **STORE}
    mine, other = ({"authorization": f"Bearer {text}"} for text, _ in made)
    arguments = ("--keys", "keys")
    with serving(tmp_path, *arguments, **store) as (process, url):
        body = {"stream_id": "s", "model": "echo", "messages": "Hello"}
        requests.post(f"{url}/v1/streams", json=body, headers=mine, timeout=LIMIT).raise_for_status()
        before = events_of(read(url, "s", **mine).text)
        kill(process)
    with serving(tmp_path, *arguments, **store) as (_, url):
        assert events_of(read(url, "s", **mine).text) == before
        assert read(url, "s", **other).status_code == 404
