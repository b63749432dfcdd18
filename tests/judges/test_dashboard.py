"""The dashboard in Chromium, on a live gateway: every control works, by keyboard too; axe finds nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.script import Answer
from penstock.config.dashboard import DashboardOptions
from penstock.config.settings import Settings
from penstock.gateway.keys import KeyFile, new_key
from penstock.testing import eventually
from tests.integration.gateway.serving import ONCE, Served, gateway
from tests.judges.chromium import Chromium, Page
from tests.judges.install import find_packages
from tests.judges.marks import thorough
from tests.judges.proxy import CuttingProxy

pytestmark = thorough
PATIENCE_S = 30.0
ENDLESS = Answer(tokens=("word ",), repeat=100_000, pace=0.01, reasoning="Hm.")
SETTINGS = Settings(request=ONCE, dashboard=DashboardOptions(show_text=True))


class Tab:
    """The dashboard in a tab."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        eventually(lambda: self.page.run(f"Boolean({condition})"), PATIENCE_S)

    def go(self, path: str) -> None:
        """Show a page."""
        self.page.run(f"location.hash = {json.dumps('#/' + path)}; 0")

    def text(self, selector: str = "body") -> str:
        found: str = self.page.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return found

    def wait_for(self, text: str, selector: str = "body") -> None:
        eventually(lambda: text in self.text(selector), PATIENCE_S)

    def click(self, name: str) -> None:
        """Click the button or link with that name."""
        script = f"""(() => {{ const all = [...document.querySelectorAll('button, a, summary')];
            const named = (it) => (it.getAttribute('aria-label') ?? it.innerText).trim() === {json.dumps(name)};
            const found = all.find(named); found?.click(); return Boolean(found); }})()"""
        eventually(lambda: self.page.run(script), PATIENCE_S)

    def choose(self, selector: str, value: str) -> None:
        """Set an input or a list to a value."""
        event = "new Event('input', {bubbles: true})", "new Event('change', {bubbles: true})"
        self.page.run(
            f"""(() => {{ const it = document.querySelector({json.dumps(selector)}); it.value = {json.dumps(value)};
            it.dispatchEvent({event[0]}); it.dispatchEvent({event[1]}); }})()"""
        )

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key."""
        code = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40, "ArrowUp": 38, "ArrowRight": 39, "ArrowLeft": 37}[key]
        more: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        text = {"Enter": "\r", " ": " "}.get(key)
        self.page.call("Input.dispatchKeyEvent", type="keyDown", **more, **({"text": text} if text else {}))
        self.page.call("Input.dispatchKeyEvent", type="keyUp", **more)


@pytest.fixture
def open_tab(chromium: Chromium) -> Callable[..., Any]:
    """Opens the dashboard of a host in a tab. At the end, nothing may have been written to the console."""

    @contextmanager
    def opened(
        base: str, path: str = "", *, width: int = 1280, scheme: str = "light", quiet: bool = True
    ) -> Iterator[Tab]:
        page = chromium.open("about:blank#")
        page.listen()
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.call("Page.navigate", url=f"{base}/#/{path}")
        yield Tab(page, base)
        if quiet:
            assert page.messages() == []
        page.close()

    return opened


@pytest.fixture
def served() -> Iterator[Served]:
    with gateway(ENDLESS, SETTINGS, on_orphan="continue") as running:
        yield running


def axe() -> str:
    packages = find_packages()
    if isinstance(packages, str):
        pytest.skip(packages)
    return (packages / "axe-core" / "axe.min.js").read_text("utf-8")


def violations(tab: Tab, script: str) -> list[str]:
    tab.page.run(f"{script}; 0")
    found = tab.page.run(
        "axe.run().then((it) => it.violations.map((one) => `${one.id}: ${one.nodes.map((n) => n.html.slice(0, 200))}`))"
    )
    return [str(one) for one in found]


def stuck(tab: Tab) -> bool:
    """Whether the page is wider than the window."""
    return bool(tab.page.run("document.documentElement.scrollWidth > innerWidth"))


def test_cells_that_have_not_changed_are_not_made_again(served: Served, open_tab: Any) -> None:
    with open_tab(served.url) as tab:
        tab.wait_for("Streams")
        found = tab.page.run(
            """(async () => {
              const source = document.querySelector('script[type=module]').src;
              const { Cells } = await import(new URL('live.js', source));
              const cells = new Cells(), made = [];
              const draw = (rows) => cells.draw(rows, (row, cell) => cell('text', row.text, () => {
                made.push(row.number); return { text: row.text }; }));
              const [first, second] = draw([{ number: 1, text: 'a' }, { number: 2, text: 'b' }]);
              const again = draw([{ number: 2, text: 'B' }, { number: 1, text: 'a' }]);
              draw([{ number: 2, text: 'B' }]);
              draw([{ number: 1, text: 'a' }, { number: 2, text: 'B' }]);  // the first one was gone
              return [made, again[1] === first, again[0] === second, again[0].text];
            })()"""
        )
    assert found == [[1, 2, 2, 1], True, False, "B"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])  # the last one is 1280 at 400 %
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    served: Served, open_tab: Any, width: int, scheme: str
) -> None:
    script = axe()
    stream_id = served.open()
    served.system.open_stream(stream_id="held").pause()
    with open_tab(served.url, width=width, scheme=scheme) as tab:
        for path, text in (
            ("", stream_id),
            (f"stream/{stream_id}", "Usage and origin"),
            ("stream/none", "does not know this stream"),
            ("providers", "in flight"),
            ("play", "Start"),
        ):
            tab.go(path)
            tab.wait_for(text)
            assert violations(tab, script) == [], path
            assert not stuck(tab), path


def test_a_stream_is_paused_resumed_and_cancelled_from_the_table(served: Served, open_tab: Any) -> None:
    stream_id = served.open()
    stream = served.system.stream(stream_id)
    with open_tab(served.url) as tab:
        tab.click(f"Pause {stream_id}")
        eventually(lambda: stream.state == "paused", PATIENCE_S)
        tab.wait_for("paused", ".list")
        tab.click(f"Resume {stream_id}")
        eventually(lambda: stream.state != "paused", PATIENCE_S)
        tab.wait_for("streaming", ".list")
        tab.click(f"Cancel {stream_id}")
        eventually(lambda: stream.is_over, PATIENCE_S)
        tab.wait_for("cancelled", ".list")


def test_the_table_is_filtered_and_sorted(served: Served, open_tab: Any) -> None:
    for name, tokens in (("apple", 3), ("pear", 9), ("fig", 1)):
        served.system.open_stream(stream_id=name).process_tokens(["x"] * tokens)
    served.system.stream("fig").pause()
    ids = "[...document.querySelectorAll('.list tbody th')].map((it) => it.innerText).join()"
    with open_tab(served.url) as tab:
        tab.wait(f"{ids}.split(',').length === 3")
        tab.click("tokens")
        tab.wait(f"{ids} === 'pear,apple,fig'")
        assert tab.page.run("document.querySelector('.list .c-tokens').ariaSort") == "descending"
        tab.page.run("document.querySelector('.list .c-id button').focus(); 0")
        tab.press("Enter")
        tab.wait(f"{ids} === 'apple,fig,pear'")
        assert tab.page.run("document.activeElement.closest('th')?.className").strip() == "c-id"
        tab.choose("input[type=search]", "pea")
        tab.wait(f"{ids} === 'pear'")
        tab.choose("input[type=search]", "nothing like it")
        tab.wait_for("No stream fits the filter.")
        tab.choose("input[type=search]", "")
        tab.choose(".streams select", "paused")
        tab.wait(f"{ids} === 'fig'")


def test_updates_can_be_paused(served: Served, open_tab: Any) -> None:
    served.open()
    tokens = "document.querySelector('.list tbody td:nth-child(4)').innerText"
    with open_tab(served.url) as tab:
        tab.wait_for("streaming", ".list")
        tab.click("‖ Pause updates")
        tab.wait("document.querySelector('.live').ariaPressed === 'true'")
        still = tab.page.run(tokens)
        before = served.system.statistics().tokens
        eventually(lambda: served.system.statistics().tokens > before + 200, PATIENCE_S)
        assert tab.page.run(tokens) == still
        tab.click("▶ Go on")
        tab.wait(f"{tokens} !== {json.dumps(still)}")


def test_the_page_of_a_stream_shows_it_and_its_controls_work(served: Served, open_tab: Any) -> None:
    stream_id = served.open()
    stream = served.system.stream(stream_id)
    with open_tab(served.url, f"stream/{stream_id}") as tab:
        tab.wait_for("word word word", ".text")
        tab.wait("document.querySelector('.box.on text').textContent.includes('streaming')")
        assert tab.page.run("document.querySelectorAll('.machine .box').length") == 7
        tab.wait_for("No connection reads it.")
        tab.click(f"Pause {stream_id}")
        tab.wait("document.querySelector('.box.on text').textContent.includes('paused')")
        tab.wait_for("streaming → paused")
        tab.click("Moves from here")
        tab.wait("document.querySelector('.machine details').open")
        tab.click(f"Resume {stream_id}")
        tab.wait_for("Resume", "table")
        tab.choose("[name=batch_size]", "7")
        tab.click("Change")
        eventually(lambda: stream.options.batch_size == 7, PATIENCE_S)
        tab.wait_for("Changed.")
        tab.click(f"Flush {stream_id}")
        tab.wait_for("flush: done")
        tab.choose(".stream-page select", "Anthropic")
        tab.wait_for("?as=anthropic", "pre")
        tab.click("Read new text aloud")
        tab.wait("document.querySelector('.text').ariaLive === 'polite'")
        tab.click(f"Cancel {stream_id}")
        eventually(lambda: stream.is_over, PATIENCE_S)
        tab.wait_for("cancelled", ".bar-line")


def test_without_the_setting_no_text_is_shown(open_tab: Any) -> None:
    with gateway(ENDLESS, on_orphan="continue") as server:
        stream_id = server.open()
        with open_tab(server.url, f"stream/{stream_id}") as tab:
            tab.wait_for("dashboard.show_text")
            assert "word word" not in tab.text()


def test_streams_are_started_side_by_side(served: Served, open_tab: Any) -> None:
    with open_tab(served.url, "play") as tab:
        tab.wait_for("anthropic/m")
        tab.page.run(
            "[...document.querySelectorAll('.check')].find((it) => it.innerText.includes('anthropic')).click(); 0"
        )
        tab.choose("[name=parameters]", "{")
        tab.click("Start")
        tab.wait_for("The parameters are no JSON")
        tab.choose("[name=parameters]", "")
        tab.click("Start")
        tab.wait("document.querySelectorAll('.run').length === 2")
        eventually(lambda: served.system.statistics().streams_active == 2, PATIENCE_S)
        texts = "[...document.querySelectorAll('.run div.text')]"
        tab.wait(f"{texts}.filter((it) => it.innerText.includes('word word')).length === 2")
        tab.click("Clear")
        tab.wait("document.querySelectorAll('.run').length === 0")
        eventually(lambda: served.system.statistics().streams_active == 0, PATIENCE_S)


def test_every_control_is_reached_by_keyboard(served: Served, open_tab: Any) -> None:
    stream_id = served.open()
    kinds = "a[href], button:not(:disabled), input:not(:disabled), select, textarea, summary, [tabindex='0']"
    chosen = "(it) => it.checkVisibility() && it.tabIndex >= 0"
    reachable = f"[...document.querySelectorAll({json.dumps(kinds)})].filter({chosen}).length"
    for path, text in (
        ("", stream_id),
        (f"stream/{stream_id}", "Usage"),
        ("providers", "in flight"),
        ("play", "openai/m"),
    ):
        with open_tab(served.url, path) as tab:
            tab.wait_for(text)
            tab.wait_for("up ", ".node")
            tab.page.run("window.walked = new Set(); document.body.focus(); 0")
            if path == "":
                tab.click("‖ Pause updates")
            count = tab.page.run(reachable)
            tab.page.run("document.activeElement.blur(); 0")
            for _ in range(count + 5):
                tab.press("Tab")
                tab.page.run("walked.add(document.activeElement); 0")
            missed = tab.page.run(
                reachable.replace(".length", ".filter((it) => !walked.has(it)).map((it) => it.outerHTML.slice(0, 120))")
            )
            assert missed == [], path


def test_the_tree_is_walked_by_arrow_keys(served: Served, open_tab: Any) -> None:
    served.system.open_stream(stream_id="fig")
    focus = "document.activeElement.getAttribute('aria-label') ?? ''"
    with open_tab(served.url) as tab:
        tab.wait_for("fig", ".tree")
        tab.page.run("document.querySelector('[role=treeitem][tabindex=\"0\"]').focus(); 0")
        tab.press("ArrowDown")
        tab.wait(f"({focus}).startsWith('registry')")
        tab.press("ArrowDown")
        tab.wait(f"({focus}).startsWith('streams')")
        tab.press("ArrowLeft")
        tab.wait("document.activeElement.ariaExpanded === 'false'")
        tab.press("ArrowRight")
        tab.wait("document.activeElement.ariaExpanded === 'true'")
        tab.press("ArrowRight")
        tab.wait(f"({focus}).startsWith('stream/fig')")
        tab.press("Enter")
        tab.wait("location.hash === '#/stream/fig'")
        tab.wait_for("Stream fig", "h1")


def test_a_cut_connection_is_made_again(served: Served, open_tab: Any) -> None:
    served.open()
    with CuttingProxy(served.port, [b'"type":"patch"']) as proxy, open_tab(proxy.url, quiet=False) as tab:
        tab.wait("document.querySelector('.alerts')")
        tab.page.run(
            """window.said = ''; new MutationObserver(() => { said += document.querySelector('.alerts').innerText; })
            .observe(document.body, {subtree: true, childList: true, characterData: true}); 0"""
        )
        eventually(lambda: proxy.cuts == 1, PATIENCE_S)
        tab.wait("said.includes('The connection is lost.')")
        eventually(lambda: tab.text(".alerts") == "", PATIENCE_S)
        before = tab.text(".list")
        eventually(lambda: tab.text(".list") != before, PATIENCE_S)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_values_without_a_connection_are_marked_as_old(served: Served, open_tab: Any, scheme: str) -> None:
    stream_id, script = served.open(), axe()
    with CuttingProxy(served.port, []) as proxy, open_tab(proxy.url, scheme=scheme, quiet=False) as tab:
        tab.wait_for(stream_id, ".list")
        assert not tab.page.run("document.body.classList.contains('old')")
        proxy.__exit__(None, None, None)
        tab.wait("document.body.classList.contains('old')")
        assert re.search(r"The connection is lost\. .* from \d\d:\d\d:\d\d\.", tab.text(".alerts"))
        assert violations(tab, script) == []
        before = tab.text("main")
        tab.go(f"stream/{stream_id}")
        tab.wait_for("Waiting for the first values.")
        tab.go("")
        tab.wait_for(stream_id, ".list")
        assert tab.text("main .totals") in before


def test_a_gateway_that_was_restarted_is_shown_anew(open_tab: Any) -> None:
    with gateway(ENDLESS, SETTINGS, on_orphan="continue") as second:
        other = second.open()
        with gateway(ENDLESS, SETTINGS, on_orphan="continue") as first, CuttingProxy(first.port, []) as proxy:
            stream_id = first.open()
            with open_tab(proxy.url, quiet=False) as tab:
                tab.wait_for(stream_id, ".list")
                proxy._to = second.port
                first.on_loop(first.gateway.end_readers(1.0))
                tab.wait_for(other, ".list")
                tab.wait("!document.body.classList.contains('old')")
                assert stream_id not in tab.text(".list")
                eventually(lambda: tab.text(".alerts") == "", PATIENCE_S)


def test_a_hidden_tab_gets_nothing(served: Served, open_tab: Any) -> None:
    from penstock.gateway.board.desk import desk_of

    with open_tab(served.url) as tab:
        tab.wait_for("Supervision tree")
        topic = desk_of(served.gateway).topic("$board")
        assert topic.viewings
        hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
        event = "document.dispatchEvent(new Event('visibilitychange')); 0"
        tab.page.run(hide % "true" + event)
        eventually(lambda: not topic.viewings, PATIENCE_S)
        tab.page.run(hide % "false" + event)
        eventually(lambda: bool(topic.viewings), PATIENCE_S)


def test_the_key_is_asked_for_and_kept_in_the_tab(tmp_path: Path, open_tab: Any) -> None:
    made = {scope: new_key(scope, (scope,)) for scope in ("read", "admin")}
    KeyFile(tmp_path / "keys").write([key for _, key in made.values()])
    with gateway(ENDLESS, SETTINGS, keys=str(tmp_path / "keys")) as server, open_tab(server.url) as tab:
        server.system.open_stream(stream_id="fig")
        for secret, reason in (
            ("pk-wrong", "This key is not valid."),
            (made["read"][0], "does not have the scope admin"),
        ):
            tab.wait("document.querySelector('[name=key]')")
            tab.choose("[name=key]", secret)
            tab.click("Open")
            tab.wait_for(reason)
        assert violations(tab, axe()) == []
        tab.choose("[name=key]", made["admin"][0])
        tab.click("Open")
        tab.wait_for("fig", ".list")
        tab.page.call("Page.reload")
        tab.wait_for("fig", ".list")
        assert made["admin"][0] not in tab.page.run("location.href + document.cookie + JSON.stringify(localStorage)")
        tab.click("Forget the key")
        tab.wait("document.querySelector('[name=key]')")
        assert "fig" not in tab.text()


@pytest.mark.parametrize("finished", [0, 10_000])
def test_three_hundred_streams_are_shown_however_many_have_ended(open_tab: Any, finished: int) -> None:
    with gateway() as server:
        for _ in range(finished):
            server.system.open_stream(options=penstock.SAFE.replace(keep_finished=600)).stop()
        for number in range(300):
            server.system.open_stream(stream_id=f"s-{number:03}", options=penstock.CHAT)
        eventually(lambda: server.system.statistics().streams_active == 300, PATIENCE_S)
        with open_tab(server.url) as tab:
            # The last fifty that have ended are looked for, and shown only as far as there is room.
            tab.wait_for("200 shown, 100 more run")
            assert tab.page.run("document.querySelectorAll('.list tbody tr').length") == 200
            tab.wait_for("300", ".totals")
            tab.wait_for(f"{finished:,} ended", ".totals")
