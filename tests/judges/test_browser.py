"""Chromium against the real gateway: its own EventSource, WebSocket and fetch, on a page of the gateway's origin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.gateway.asgi import Gateway
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.integration.gateway.serving import Served
from tests.judges.chromium import Chromium, Page
from tests.judges.conftest import HERE
from tests.judges.marks import thorough
from tests.judges.proxy import CuttingProxy
from tests.judges.real_gateway import COUNT, EVERY_TOKEN, FLOOD_TEXT, HI, RESTART, WORDS, nothing_runs, real_gateway

PATIENCE_S = 30.0
PAGE = (HERE / "page.html").read_bytes()

pytestmark = thorough


def with_page(gateway: Gateway) -> Callable[..., Any]:
    """A host's app: the page, and beside it the gateway."""

    async def host(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/page":
            return await gateway(scope, receive, send)
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": PAGE})
        return None

    return host


class Tab:
    """The page in a tab. What a client there has seen is in ``window.seen``."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def start(self, call: str, *arguments: Any) -> None:
        """Call a function of the page."""
        given = ", ".join(map(json.dumps, arguments))
        self.page.run(f"Promise.resolve({call}({given})).then(it => {{ window.seen = it; }})")

    def wait(self, condition: str = "seen.isOver") -> None:
        eventually(lambda: bool(self.page.run(condition)), PATIENCE_S)

    @property
    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.page.run("JSON.stringify(seen, (name, it) => (['source', 'socket'].includes(name) ? undefined : it))")
        )
        return found


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """A key, without which the gateway does not answer."""
    text, key = new_key("page")
    KeyFile(tmp_path / "keys").write([key])
    return text


@pytest.fixture
def served(tmp_path: Path, secret: str) -> Iterator[Served]:
    with real_gateway(wrap=with_page, keys=str(tmp_path / "keys")) as running:
        running.session.headers["authorization"] = f"Bearer {secret}"
        yield running


@pytest.fixture
def tab(chromium: Chromium, secret: str) -> Callable[[str], Any]:
    """Opens the page of a host in a tab."""

    @contextmanager
    def opened(base: str) -> Iterator[Tab]:
        page = chromium.open(f"{base}/page?key={secret}")
        yield Tab(page)
        page.close()

    return opened


def ask(model: str, **more: Any) -> dict[str, Any]:
    return {"provider": "openai", "model": model, "messages": HI, "options": EVERY_TOKEN, "on_orphan": 30, **more}


def test_an_event_source_with_a_ticket_reads_to_the_end(served: Served, tab: Any) -> None:
    with tab(served.url) as page:
        page.start("byEventSource", ask("m"))
        page.wait()
        seen = page.seen
    assert (seen["text"], seen["opened"], seen["ends"], seen["end"]) == (WORDS, 1, 1, "StreamCompleted")


def test_an_event_source_that_is_cut_goes_on(served: Served, tab: Any) -> None:
    with CuttingProxy(served.port, [b"n20 ", b"n21 ", b'"StreamCompleted"']) as proxy, tab(proxy.url) as page:
        page.start("byEventSource", ask("counts"))
        page.wait()
        seen = page.seen
        assert proxy.cuts == 3
    assert seen["text"] == COUNT, "every token once, in order"
    assert seen["seqs"] == sorted(set(seen["seqs"]))
    assert (seen["opened"], seen["ends"], seen["others"]) == (4, 1, [])


def test_a_web_socket_that_is_cut_goes_on_with_all_its_streams(served: Served, tab: Any) -> None:
    with CuttingProxy(served.port, [b"n20 ", b"n60 ", b'"completed"']) as proxy, tab(proxy.url) as page:
        page.start("byWebSocket", [ask("counts"), ask("counts"), ask("m")])
        page.wait()
        seen = page.seen
        assert proxy.cuts == 3
    texts = sorted(stream["text"] for stream in seen["streams"].values())
    assert texts == sorted([COUNT, COUNT, WORDS]), "every token once, in order"
    for stream in seen["streams"].values():
        assert stream["seqs"] == sorted(set(stream["seqs"]))
        assert stream["end"] == "completed"
    assert seen["opened"] == 4
    assert "error" not in seen


@pytest.mark.parametrize(("model", "text"), [("cut", "one two three"), ("busy", "")])
def test_both_are_told_of_errors(served: Served, tab: Any, model: str, text: str) -> None:
    with tab(served.url) as page:
        page.start("byEventSource", ask(model))
        page.wait("seen.end")
        source = page.seen
        page.start("byWebSocket", [ask(model)])
        page.wait()
        (stream,) = page.seen["streams"].values()
    assert (source["text"], source["end"]) == (text, "StreamFailed")
    assert (stream["text"], stream["end"]) == (text, "failed")


def test_both_take_void_text_back(served: Served, tab: Any) -> None:
    with tab(served.url) as page:
        page.start("byEventSource", ask("resets", request_options=RESTART))
        page.wait("seen.end")
        source = page.seen
        page.start("byWebSocket", [ask("resets", request_options=RESTART)])
        page.wait()
        (stream,) = page.seen["streams"].values()
    assert (source["text"], source["others"]) == ("Good text.", ["reset"])
    assert stream["text"] == "Good text."


@pytest.mark.parametrize("client", ["byEventSource", "byWebSocket"])
def test_a_tab_that_is_closed_ends_the_providers_call(served: Served, tab: Any, client: str) -> None:
    body = ask("endless", on_orphan="cancel")
    with tab(served.url) as page:
        page.start(client, body if client == "byEventSource" else [body])
        page.wait("JSON.stringify(seen).includes('word word ')" if client == "byWebSocket" else "seen.text.length > 9")
        assert served.gateway.readers
    nothing_runs(served)
    served.provider.wait_for(lambda counts: counts.client_disconnects == 1)


def test_a_web_socket_without_credit_holds_up_no_other_stream(served: Served, tab: Any) -> None:
    with tab(served.url) as page:
        page.start("byWebSocket", [ask("floods"), ask("m")], 10_000, False)
        page.wait("Object.values(seen.streams).some(it => it.end)")  # the short one
        assert not page.page.run("seen.isOver")
        eventually(lambda: all(info.state == "ended" for info in served.system.get_active_streams()))
        page.page.run("seen.acknowledge()")
        page.wait()
        texts = {stream["text"] for stream in page.seen["streams"].values()}
    assert texts == {FLOOD_TEXT, WORDS}


def test_a_page_that_stops_reading_gets_the_rest(served: Served, tab: Any) -> None:
    own = {"provider": "openai", "options": EVERY_TOKEN}
    body = {"model": "floods", "messages": HI, "stream": True, "penstock": own}
    with tab(served.url) as page:
        page.start("byFetch", "/v1/chat/completions", body)
        page.wait("seen.text")
        served.finish(page.seen["id"])
        page.page.run("seen.goesOn = true")
        page.wait()
        lines = [line[6:] for line in page.seen["text"].splitlines() if line.startswith("data: {")]
    chunks = [json.loads(line) for line in lines]
    said = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"])
    assert said == FLOOD_TEXT
