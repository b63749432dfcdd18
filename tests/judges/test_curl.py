"""curl against the real gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from tests.integration.gateway.serving import Served, events_of
from tests.judges.marks import thorough
from tests.judges.real_gateway import COUNT, EVERY_TOKEN, FLOOD, FLOOD_TEXT, HI, WORDS, nothing_runs

CURL = shutil.which("curl") or ""
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(not CURL, reason="there is no curl")


def command(*arguments: str, body: Any = None) -> list[str]:
    data = () if body is None else ("-H", "content-type: application/json", "-d", json.dumps(body))
    return [CURL, "-sN", "--noproxy", "*", *data, *arguments]


def curl(*arguments: str, body: Any = None) -> str:
    """Run curl to its end; returns what it prints."""
    made = subprocess.run(command(*arguments, body=body), capture_output=True, timeout=PATIENCE_S, check=True)
    return made.stdout.decode()


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def text_of(body: str) -> str:
    """The text as a page would show it: a snapshot replaces what came before."""
    text = ""
    for _, name, data in events_of(body):
        if name in ("token", "snapshot"):
            text = data["text"] if name == "snapshot" else text + data["text"]
    return text


def ask(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": HI, "stream": True, "penstock": {"provider": "openai"}, **more}


def test_a_native_stream_is_read_and_read_on(served: Served) -> None:
    events = f"{served.url}/v1/streams/{served.open(model='counts', options=EVERY_TOKEN, on_orphan=30)}/events"
    with start(command(events)) as process:  # it leaves in the middle, and goes on after its last id
        assert process.stdout is not None
        read = b""
        while b"n30 " not in read:
            line = process.stdout.readline()
            assert line, read
            read += line
        process.terminate()
    first = read[: read.rindex(b"\n\n") + 2].decode()  # the last event is not complete
    last = events_of(first)[-1][0]
    rest = curl(events, "-H", f"Last-Event-ID: {last}")
    assert text_of(first) + text_of(rest) == COUNT
    assert events_of(rest)[-1][1] == "end"
    end = events_of(rest)[-1][0]
    assert curl(events, "-H", f"Last-Event-ID: {end}", "-w", "%{http_code}") == "204"


def test_a_chat_comes_while_it_is_made(served: Served) -> None:
    with start(command(f"{served.url}/v1/chat/completions", body=ask("endless"))) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        assert served.gateway.readers, "curl reads what has no end"
        process.terminate()
    assert lines[0].startswith(b"data: {")
    nothing_runs(served)
    served.provider.wait_for(lambda counts: counts.client_disconnects == 1)


@pytest.mark.parametrize("stream", [True, False])
def test_curl_that_leaves_before_the_first_token_ends_the_call(served: Served, stream: bool) -> None:
    with start(command(f"{served.url}/v1/chat/completions", body=ask("late", stream=stream))) as process:
        served.provider.wait_for_requests(1)
        process.terminate()
    nothing_runs(served)
    served.provider.wait_for(lambda counts: counts.client_disconnects == 1)


def test_a_chat_ends_with_done_or_with_an_error(served: Served) -> None:
    url = f"{served.url}/v1/chat/completions"
    whole = [data for _, _, data in events_of(curl(url, body=ask()))]
    assert whole[-1] == "[DONE]"
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in whole[:-1]) == WORDS
    cut = [data for _, _, data in events_of(curl(url, body=ask("cut")))]
    assert cut[-1]["error"]["code"]
    busy = curl(url, "-w", "\n%{http_code}", body=ask("busy")).splitlines()
    assert busy[-1] == "429"
    assert json.loads(busy[0])["error"]["type"] == "rate_limit_error"


@thorough
def test_curl_that_stops_reading_gets_the_rest_joined(served: Served) -> None:
    stream_id = served.open(model="floods", options=EVERY_TOKEN)
    with start(command(f"{served.url}/v1/streams/{stream_id}/events")) as process:
        assert process.stdout is not None
        first = process.stdout.read(50_000)
        served.finish(stream_id)
        body = (first + process.stdout.read()).decode()
    assert text_of(body) == FLOOD_TEXT
    assert len(events_of(body)) < len(FLOOD)
