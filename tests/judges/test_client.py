"""`penstock.mjs` in Chromium: no event is lost or comes twice, whatever happens to its connections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import penstock
from penstock.adapters.loopback.script import Answer, Script
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.integration.gateway.serving import Served, gateway
from tests.judges.chromium import Chromium, Page
from tests.judges.conftest import HERE
from tests.judges.hosting import beside
from tests.judges.marks import thorough
from tests.judges.proxy import CuttingProxy, FaultyProxy, RefusingProxy
from tests.judges.real_gateway import (
    COUNT,
    EVERY_TOKEN,
    FLOOD,
    FLOOD_TEXT,
    HI,
    RESTART,
    WORDS,
    nothing_runs,
    real_gateway,
)

PATIENCE_S = 60.0
HOST = beside({"/page": HERE / "client.html"})
TRANSPORTS = pytest.mark.parametrize("transport", ["websocket", "sse"])
NUMBERS = tuple(f"n{number} " for number in range(60_000))
QUICK = {"firstPause": 5, "longestPause": 60}


class Tab:
    """The page in a tab."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def run(self, script: str) -> Any:
        """Run statements; returns what they return."""
        return self.page.run(f"(async () => {{ {script} }})()")

    def client(self, **options: Any) -> None:
        """Make ``window.client``."""
        self.run(f"window.client = new Penstock({json.dumps({**QUICK, **options})});")

    def read(self, name: str, stream_id: str, **options: Any) -> None:
        """Read a stream as ``window[name]``."""
        self.run(f"window.{name} = follow(client.read({json.dumps(stream_id)}, {json.dumps(options)}));")

    def open(self, name: str, **body: Any) -> str:
        """Open a stream and read it as ``window[name]``; returns its id."""
        self.run(
            f"""window.cuts ??= {{}};
            cuts.{name} = 0;
            const onconnection = (state) => {{ if (state === 'waiting') cuts.{name}++; }};
            window.{name} = follow(await client.open({json.dumps(ask(**body))}, {{ onconnection }}));"""
        )
        found: str = self.run(f"return {name}.id;")
        return found

    def wait(self, condition: str) -> None:
        eventually(lambda: bool(self.page.run(condition)), PATIENCE_S)

    def seen(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.page.run(f"JSON.stringify(told({name}))"))
        return found

    def whole(self, name: str) -> dict[str, Any]:
        """What was seen of a stream, at its end."""
        self.wait(f"{name}.isOver")
        return self.seen(name)


def ask(model: str = "m", **more: Any) -> dict[str, Any]:
    return {"provider": "openai", "model": model, "messages": HI, "options": EVERY_TOKEN, "on_orphan": 30, **more}


@pytest.fixture
def tab(chromium: Chromium) -> Callable[[str], Any]:
    """Opens the page of a host in a tab."""

    @contextmanager
    def opened(base: str) -> Iterator[Tab]:
        page = chromium.open(f"{base}/page")
        one = Tab(page)
        one.wait("window.isReady")
        yield one
        page.close()

    return opened


@pytest.fixture
def served() -> Iterator[Served]:
    with real_gateway(wrap=HOST) as running:
        yield running


# --- cuts --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(400)
@pytest.mark.parametrize("cuts", [12, pytest.param(200, marks=thorough)])
@TRANSPORTS
def test_no_event_is_lost_or_comes_twice(tab: Any, transport: str, cuts: int) -> None:
    script = Script(Answer("", tokens=NUMBERS, pace=0.004, reasoning="Let me count."))
    with (
        gateway(script, wrap=HOST, linger=30.0) as served,
        FaultyProxy(served.port, seed=cuts, most=cuts) as proxy,
        tab(proxy.url) as page,
    ):
        page.client(transport=transport, patience=500, requestAttempts=50, fallback=1000)
        ids = [page.open("one", on_orphan="continue")]
        page.wait("one.text.length > 100")
        proxy.begin()
        ids.append(page.open("two", on_orphan="continue"))
        eventually(lambda: proxy.cuts >= cuts, 300.0)
        assert page.run("return cuts.one;") >= cuts // 10, "of those of its connection, while it was read"
        for stream_id in ids:
            served.system.stream(stream_id).cancel("enough")
        for name in ("one", "two"):
            seen = page.whole(name)
            count = seen["text"].count(" ")
            assert seen["text"] == "".join(NUMBERS[:count]) == seen["own"], "every token once, in order"
            assert count > 20
            assert seen["reasoning"] == "Let me count."
            assert seen["seqs"] == sorted(set(seen["seqs"]))
            assert (seen["ends"], seen["outcome"], seen.get("error")) == (1, "cancelled", None)
            terminal = served.system.stream(seen["id"])._record.log.terminal
            assert isinstance(terminal, penstock.StreamCancelled)
            assert terminal.partial.startswith(seen["text"])
            assert terminal.partial.count(" ") == count + terminal.undelivered
        assert len(served.gateway.channels.all()) == 2, "a request that was sent again has opened no other stream"
        assert cuts < 100 or len(proxy.kinds) == 4


@thorough
@TRANSPORTS
def test_a_reader_that_takes_nothing_keeps_no_more_after_each_cut(served: Served, tab: Any, transport: str) -> None:
    window = 100_000
    kept = penstock.StreamOptions(retain_bytes=1 << 25, max_buffer_size=None, batch_size=1)  # so that no snapshot comes
    stream = served.system.open_stream(stream_id="long", on_orphan="continue", options=kept)
    stream.process_tokens(FLOOD)
    stream.stop()
    served.finish("long")
    with FaultyProxy(served.port) as proxy, tab(proxy.url) as page:
        page.client(transport=transport, window=window)
        page.run("window.slow = follow(client.read('long')); slow.mayTake = false;")
        for _ in range(6):
            page.wait("slow.stream.connection === 'open' && slow.stream._size > 50_000")
            most = {"websocket": 20_000, "sse": 300_000}[transport]  # one event, which the gateway joins of several
            assert page.run("return slow.stream._size;") < window + most
            page.run("window.wasCut = false; slow.stream._connection = watched(slow.stream);")
            proxy.cut_all()
            if transport == "sse":
                break  # which is noticed when it reads again
            page.wait("wasCut")
        page.run("slow.mayTake = true; slow.goOn();")
        seen = page.whole("slow")
        assert (seen["text"] == FLOOD_TEXT, seen["ends"]) == (True, 1)


@thorough
@TRANSPORTS
def test_a_slow_reader_holds_up_no_other_stream_and_gets_the_rest(served: Served, tab: Any, transport: str) -> None:
    with tab(served.url) as page:
        page.client(transport=transport, window=10_000)
        stream_id = page.open("slow", model="floods")
        page.run("slow.mayTake = false;")
        page.open("quick")
        assert page.whole("quick")["text"] == WORDS
        served.finish(stream_id)
        assert not page.run("return slow.isOver;")
        page.run("slow.mayTake = true; slow.goOn?.();")
        assert page.whole("slow")["text"] == FLOOD_TEXT


# --- where a WebSocket cannot be had -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["status", "close"])
def test_a_client_changes_to_server_sent_events_and_goes_on(tab: Any, how: str) -> None:
    script = Script(Answer("", tokens=NUMBERS, pace=0.004, reasoning="Let me count."))
    with (
        gateway(script, wrap=HOST, linger=30.0) as served,
        RefusingProxy(served.port) as proxy,
        tab(proxy.url) as page,
    ):
        page.client()
        first = page.open("one", on_orphan="continue")
        page.wait("one.text.length > 100")
        assert page.run("return client.transport;") == "websocket"
        proxy.refuse(how)
        page.wait("client.transport === 'sse'")
        assert proxy.refused == 3
        length = len(page.seen("one")["text"])
        second = page.open("two", on_orphan="continue")
        page.wait(f"one.text.length > {length + 100} && two.text.length > 100")
        assert proxy.refused == 3, "the next stream does not ask for a WebSocket first"
        proxy.allow()
        page.run("window.before = client; dispatchEvent(new Event('online'));")
        assert page.run("return client.transport;") == "websocket"
        page.client()  # as a page does that is loaded again
        passed = proxy.passed
        third = page.open("three", on_orphan="continue")
        page.wait("three.text.length > 100")
        assert (page.run("return client.transport;"), proxy.passed) == ("websocket", passed + 1)
        for stream_id in (first, second, third):
            served.system.stream(stream_id).cancel("enough")
        for name in ("one", "two", "three"):
            seen = page.whole(name)
            assert seen["text"] == "".join(NUMBERS[: seen["text"].count(" ")]) == seen["own"], "every token once"
            assert seen["reasoning"] == "Let me count."
            assert seen["seqs"] == sorted(set(seen["seqs"]))
            assert (seen["ends"], seen["outcome"], seen.get("error")) == (1, "cancelled", None)


def test_a_client_does_not_change_because_the_gateway_is_away(tab: Any) -> None:
    with gateway(wrap=HOST) as served, RefusingProxy(served.port) as proxy, tab(proxy.url) as page:
        served.system.open_stream(stream_id="fig", on_orphan="continue", options=penstock.CHAT).process_token("fig")
        port, proxy._to = proxy._to, 1  # nothing answers there
        proxy.cut_all()  # or else the browser uses its connections again
        page.client()
        page.read("fig", "fig")
        eventually(lambda: proxy.gone > 8, PATIENCE_S)
        assert page.run("return client.transport;") == "websocket"
        proxy._to = port
        page.wait("fig.text === 'fig'")
        assert page.run("return client.transport;") == "websocket"
        served.system.stream("fig").stop()
        assert page.whole("fig")["outcome"] == "completed"


# --- another gateway, and refusals -------------------------------------------------------------------------------


@thorough
@TRANSPORTS
def test_a_gateway_that_was_restarted_tells_of_the_gap(tab: Any, transport: str) -> None:
    with gateway(wrap=HOST) as second, gateway(wrap=HOST) as first, FaultyProxy(first.port) as proxy:
        for served, text in ((first, "old "), (second, "new ")):
            served.system.open_stream(stream_id="fig", on_orphan="continue", options=penstock.CHAT).process_token(text)
        first.system.open_stream(stream_id="pear", on_orphan="continue").process_token("gone")
        with tab(proxy.url) as page:
            page.client(transport=transport)
            page.read("fig", "fig")
            page.read("pear", "pear")
            page.wait("fig.text === 'old ' && pear.text === 'gone'")
            before = page.seen("fig")["epoch"]
            proxy._to = second.port
            first.on_loop(first.gateway.end_readers(1.0))
            proxy.cut_all()  # or else the browser uses its connections again
            page.wait("fig.text === 'new '")
            second.system.stream("fig").stop()
            seen = page.whole("fig")
            assert (seen["types"].count("gap"), seen["own"], seen["outcome"]) == (1, "new ", "completed")
            assert before
            assert seen["epoch"] not in ("", before)
            error = page.whole("pear")["error"]
            assert (error["status"], error["code"]) == (404, "stream_not_found")


@thorough
@TRANSPORTS
def test_a_stream_that_is_not_there_is_an_error(served: Served, tab: Any, transport: str) -> None:
    with tab(served.url) as page:
        page.client(transport=transport)
        page.read("none", "none")
        seen = page.whole("none")
        assert seen["error"]["name"] == "PenstockError"
        assert (seen["error"]["status"], seen["error"]["code"]) == (404, "stream_not_found")
        assert (seen["types"], seen["connection"]) == ([], "closed")


@thorough
@TRANSPORTS
def test_a_key_that_is_refused_missing_or_revoked_is_an_error(tmp_path: Path, tab: Any, transport: str) -> None:
    (secret, key), keys = new_key("page"), KeyFile(tmp_path / "keys")
    keys.write([key])
    with real_gateway(wrap=HOST, keys=str(tmp_path / "keys")) as served, tab(served.url) as page:
        served.session.headers["authorization"] = f"Bearer {secret}"
        stream_id = served.open(model="endless", on_orphan="continue")
        for name, more in (("wrong", {"key": "pk-wrong"}), ("missing", {})):
            page.client(transport=transport, **more)
            page.read(name, stream_id)
            error = page.whole(name)["error"]
            assert (error["status"], error["code"]) == (401, "invalid_api_key")
        page.run(f"window.client = new Penstock({{ transport: '{transport}', key: async () => '{secret}' }});")
        page.read("good", stream_id)
        page.wait("good.text.length > 20")
        keys.write([msgspec.structs.replace(key, revoked=1)])
        error = page.whole("good")["error"]
        assert (error["status"], error["code"]) == (401, "key_revoked")


@thorough
@TRANSPORTS
def test_a_gateway_that_is_not_there_is_tried_as_often_as_asked(served: Served, tab: Any, transport: str) -> None:
    with tab(served.url) as page, CuttingProxy(served.port, []) as gone:
        url = gone.url
        gone.__exit__(None, None, None)
        page.client(transport=transport, url=url, attempts=3, requestAttempts=2)
        page.read("lost", "any")
        error = page.whole("lost")["error"]
        assert (error["status"], error["code"]) == (0, "unreachable")
        code = page.run("return client.show('any').catch((error) => error.code);")
        assert code == "unreachable"


# --- leaving -----------------------------------------------------------------------------------------------------


@thorough
@TRANSPORTS
@pytest.mark.parametrize("how", ["abort", "close", "break", "client"])
def test_a_reader_that_leaves_is_gone_at_once(served: Served, tab: Any, transport: str, how: str) -> None:
    with tab(served.url) as page:
        page.client(transport=transport)
        body = json.dumps(ask("endless", on_orphan="cancel"))
        page.run(
            f"""window.ends = new AbortController(); window.took = 0; window.error = null;
            const stream = await client.open({body}, {{ signal: ends.signal }});
            window.done = (async () => {{
              try {{ for await (const event of stream) if (++took === 5 && '{how}' === 'break') break; }}
              catch (error) {{ window.error = String(error.message ?? error); }}
              return stream.connection;
            }})(); window.stream = stream;"""
        )
        page.wait("took >= 5")
        leave = {"abort": "ends.abort(new Error('enough'));", "close": "stream.close();", "client": "client.close();"}
        page.run(leave.get(how, ""))
        assert page.run("return done;") == "closed"
        assert page.run("return error;") == ("enough" if how == "abort" else None)
        assert page.run("return (await stream.next()).done;") is True
        served.provider.wait_for(lambda counts: counts.client_disconnects == 1)
        page.run("client.close();")
        nothing_runs(served)
        assert page.run("return client.isClosed;")
        code = page.run("try { client.read('x'); } catch (error) { return error.code; }")
        assert code == "closed"


@thorough
def test_streams_share_one_socket(served: Served, tab: Any) -> None:
    with tab(served.url) as page:
        page.client()
        for name in ("one", "two", "three"):
            page.open(name, model="counts")
        page.wait("one.text && two.text && three.text")
        assert len(served.gateway.readers) == 1
        code = page.run("try { client.read(one.id); } catch (error) { return error.code; }")
        assert code == "already_read"
        assert [page.whole(name)["text"] for name in ("one", "two", "three")] == [COUNT] * 3


# --- what a page does with it ------------------------------------------------------------------------------------


@thorough
@TRANSPORTS
def test_a_stream_is_paused_resumed_and_cancelled(served: Served, tab: Any, transport: str) -> None:
    with tab(served.url) as page:
        page.client(transport=transport)
        stream = served.system.stream(page.open("one", model="endless"))
        assert page.run("return (await one.stream.pause()).state;") == "paused"
        page.run("await one.stream.resume();")
        page.wait("one.text.length > 20")
        page.run("await one.stream.cancel('enough');")
        seen = page.whole("one")
        assert (seen["outcome"], stream.is_over) == ("cancelled", True)
        assert page.run("return one.stream.end.reason;") == "enough"
        assert page.run("return (await client.show(one.id)).is_over;") is True


@thorough
@TRANSPORTS
def test_reading_goes_on_from_a_snapshot(served: Served, tab: Any, transport: str) -> None:
    with tab(served.url) as page:
        page.client(transport=transport)
        page.open("one", model="counts")
        page.wait("one.text.includes('n20 ')")
        page.run("window.kept = JSON.parse(JSON.stringify(one.stream.snapshot())); one.stream.close();")
        page.run("window.more = follow(client.read(kept.id, kept));")
        seen = page.whole("more")
        kept = page.run("return kept;")
        assert kept["text"] + seen["text"] == COUNT == seen["own"]
        assert seen["seqs"][0] > kept["after"]
        page.read("over", kept["id"], after=seen["seqs"][-1], epoch=seen["epoch"])
        assert page.whole("over")["types"] == [], "nothing follows the end"
        page.read("again", kept["id"])
        assert page.whole("again")["own"] == COUNT


@thorough
@TRANSPORTS
def test_a_stream_can_be_left_and_read_on_again_and_again(tab: Any, transport: str) -> None:
    with gateway(Script(Answer(tokens=NUMBERS, pace=0.001)), wrap=HOST) as served, tab(served.url) as page:
        page.client(transport=transport)
        body = json.dumps(ask(on_orphan="continue"))
        text = page.run(
            f"""let stream = await client.open({body}), text = '', left = 40;
            while (left-- > 0) {{
              let events = 0;
              for await (const event of stream) {{
                text += event.text ?? '';
                if (++events === 3) break;
              }}
              stream = client.read(stream.id, stream.snapshot());
            }}
            stream.close();
            return [text, stream.text];"""
        )
        assert text[0] == text[1] == "".join(NUMBERS[: text[0].count(" ")])
        served.system.cancel_all("enough")


@thorough
@TRANSPORTS
def test_a_late_reader_gets_what_is_no_longer_kept_as_one(tab: Any, transport: str) -> None:
    with gateway(wrap=HOST) as served:
        options = penstock.StreamOptions(retain_bytes=1_000, batch_size=1)
        stream = served.system.open_stream(stream_id="fig", on_orphan="continue", options=options)
        stream.process_tokens(list(NUMBERS[:500]))
        stream.flush_buffer()
        with tab(served.url) as page:
            page.client(transport=transport)
            page.read("fig", "fig", after=1)
            page.wait("fig.text.endsWith('n499 ')")
            stream.stop()
            seen = page.whole("fig")
        assert "snapshot" in seen["types"]
        assert seen["text"] == seen["own"] == "".join(NUMBERS[:500])


@thorough
@TRANSPORTS
def test_what_is_void_is_taken_back_and_failures_are_ends(served: Served, tab: Any, transport: str) -> None:
    with tab(served.url) as page:
        page.client(transport=transport)
        page.open("again", model="resets", request_options=RESTART)
        seen = page.whole("again")
        assert (seen["own"], "reset" in seen["types"]) == ("Good text.", True)
        page.open("cut", model="cut")
        seen = page.whole("cut")
        assert (seen["own"], seen["outcome"], seen.get("error")) == ("one two three", "failed", None)
        assert page.run("return cut.stream.end.error.code;")


@thorough
def test_a_function_is_called_with_each_event_after_the_other(served: Served, tab: Any) -> None:
    with tab(served.url) as page:
        page.client()
        found = page.run(
            f"""const stream = await client.open({json.dumps(ask())});
            let running = 0, most = 0, text = '';
            const end = await stream.each(async (event) => {{
              most = Math.max(most, ++running);
              await new Promise((resolve) => setTimeout(resolve, 1));
              text += event.text && event.type === 'token' ? event.text : '';
              running--;
            }});
            return [most, text, end.outcome, stream.end === end];"""
        )
        assert found == [1, WORDS, "completed", True]


@thorough
def test_a_ticket_reads_one_stream_without_the_key(tmp_path: Path, tab: Any) -> None:
    secret, key = new_key("page")
    KeyFile(tmp_path / "keys").write([key])
    with real_gateway(wrap=HOST, keys=str(tmp_path / "keys")) as served, tab(served.url) as page:
        served.session.headers["authorization"] = f"Bearer {secret}"
        stream_id = served.open(on_orphan="continue")
        page.client(key=secret)
        made = page.run(f"return client.ticket({json.dumps(stream_id)});")
        assert made["url"].startswith(served.url)
        page.client()
        page.read("one", stream_id, ticket=made["ticket"])
        assert page.whole("one")["text"] == WORDS
        page.read("other", "another", ticket=made["ticket"])
        assert page.whole("other")["error"]["status"] == 401


@thorough
def test_a_request_with_the_same_idempotency_key_opens_one_stream(served: Served, tab: Any) -> None:
    with tab(served.url) as page:
        page.client()
        found = page.run(
            f"""const body = {json.dumps(ask())}, other = new Penstock();
            const streams = [await client.open(body, {{ idempotencyKey: 'k' }}),
              await other.open(body, {{ idempotencyKey: 'k' }})];
            const another = client.open({{ ...body, model: 'x' }}, {{ idempotencyKey: 'k' }});
            return [...streams.map((it) => it.id), await another.catch((it) => it.code)];"""
        )
    assert found[0] == found[1]
    assert found[2] == "idempotency_key_reused"


@thorough
def test_events_are_decoded_wherever_the_pieces_end(served: Served, tab: Any) -> None:
    text = ": hb\r\nid: a-1\r\nevent: token\r\ndata: 1\r\n\r\nid: a-2\rdata: x\rdata:  y\r\r"
    text += ": hb\ndata\nevent:z\n\n\ndata: cut"
    expected = [["a-1", "token", "1"], ["a-2", "message", "x\n y"], ["a-2", "z", ""]]
    with tab(served.url) as page:
        found = page.run(
            f"""const text = {json.dumps(text)}, all = new Set();
            for (let one = 0; one <= text.length; one++) for (let two = one; two <= text.length; two++) {{
              const decoder = new EventDecoder();
              const pieces = [text.slice(0, one), text.slice(one, two), text.slice(two)];
              const events = pieces.flatMap((piece) => decoder.feed(piece));
              all.add(JSON.stringify(events.map((it) => [it.id, it.name, it.data])));
            }}
            return [...all];"""
        )
    assert [json.loads(one) for one in found] == [expected]
