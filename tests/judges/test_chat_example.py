"""The chat of ``examples/web`` in Chromium: stop, reload, two tabs; axe finds nothing."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.adapters.loopback.script import Answer, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import eventually
from tests.integration.gateway.serving import KEY, Served, served
from tests.judges.chromium import Chromium
from tests.judges.marks import thorough
from tests.judges.proxy import FaultyProxy
from tests.judges.test_dashboard import Tab, axe, violations

EXAMPLE = Path(__file__).parents[2] / "examples" / "web" / "chat_backend.py"
NUMBERS = tuple(f"n{number} " for number in range(5_000))
MODELS: dict[str, Any] = {"m": Answer(tokens=NUMBERS, pace=0.01), "short": Answer("Water falls.")}
ANSWER = "document.querySelector('li.assistant:last-child p').textContent"


@pytest.fixture
def model() -> str:
    return "m"


@pytest.fixture
def host(model: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with LoopbackProvider(Script(models=MODELS)) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("PENSTOCK_PROVIDER__MODEL", model)
        spec = importlib.util.spec_from_file_location("chat_backend", EXAMPLE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with contextlib.closing(contextlib.ExitStack()) as after:
            after.callback(module.system.stop)
            with served(module.system, module.app) as running:
                running.gateway = module.gateway
                running.provider = provider
                yield running


@pytest.fixture
def open_chat(chromium: Chromium) -> Callable[..., Any]:
    """Opens the chat in a tab. At the end, nothing may have been written to the console."""

    @contextmanager
    def opened(url: str, *, scheme: str = "light", width: int = 1000, quiet: bool = True) -> Iterator[Tab]:
        page = chromium.open("about:blank#")
        page.listen()
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.call("Page.navigate", url=url)
        tab = Tab(page, url)
        tab.wait("document.querySelector('#again')?.href.length > 30")
        yield tab
        if quiet:
            assert page.messages() == []
        page.close()

    return opened


def ask(tab: Tab, text: str = "How does water fall?") -> None:
    tab.choose("#question", text)
    tab.page.run("document.querySelector('#question').focus(); 0")
    tab.press("Enter")


def messages(tab: Tab) -> list[str]:
    found: list[str] = tab.page.run("[...document.querySelectorAll('li')].map((it) => it.innerText)")
    return found


def is_counting(text: str) -> bool:
    return text == "".join(NUMBERS[: text.count(" ")])


@thorough
def test_an_answer_is_stopped_and_the_chat_goes_on(host: Served, open_chat: Any) -> None:
    with open_chat(host.url) as tab:
        assert tab.page.run("document.querySelector('#stop').hidden")
        ask(tab)
        tab.wait(f"{ANSWER}.includes('n5 ')")
        assert tab.page.run("document.querySelector('#send').disabled")
        tab.click("Stop")
        tab.wait_for("Stopped.", "li:last-child")
        host.provider.wait_for(lambda counts: counts.client_disconnects == 1)
        assert is_counting(tab.page.run(ANSWER))
        assert tab.page.run("document.activeElement.id") == "question"
        ask(tab, "And now?")
        tab.wait("document.querySelectorAll('li').length === 4")
        eventually(lambda: len(host.provider.requests) == 2)
        roles = [one["role"] for one in host.provider.requests[-1].body["messages"]]
        assert roles == ["user", "assistant", "user"]
        tab.click("Stop")
        tab.wait("document.querySelectorAll('.outcome').length === 2")


def test_a_page_that_is_loaded_again_goes_on(host: Served, open_chat: Any) -> None:
    with open_chat(host.url) as tab:
        ask(tab)
        tab.wait(f"{ANSWER}.includes('n5 ')")
        before = tab.page.run(ANSWER)
        tab.page.run("window.isOld = true; 0")
        tab.page.call("Page.reload")
        tab.wait(f"!window.isOld && document.querySelector('li.assistant') && {ANSWER}.length > {len(before) + 50}")
        assert is_counting(tab.page.run(ANSWER))
        assert len(host.provider.requests) == 1
        tab.click("Stop")
        tab.wait_for("Stopped.", "li:last-child")
        shown = messages(tab)
        tab.page.call("Page.reload")
        tab.wait("document.querySelectorAll('li').length === 2")
        assert messages(tab) == shown


def test_two_tabs_show_the_same_answer(host: Served, open_chat: Any) -> None:
    with open_chat(host.url) as one, open_chat(one.page.run("document.querySelector('#again').href")) as two:
        ask(one)
        for tab in (one, two):
            tab.wait(f"document.querySelector('li.assistant') && {ANSWER}.includes('n9 ')")
        assert len(host.provider.requests) == 1
        two.click("Stop")
        for tab in (one, two):
            tab.wait_for("Stopped.", "li:last-child")
        assert messages(one) == messages(two)
        assert len(messages(one)) == 2


@thorough
def test_an_answer_survives_cuts(host: Served, open_chat: Any) -> None:
    with FaultyProxy(host.port) as proxy, open_chat(proxy.url, quiet=False) as tab:
        ask(tab)
        tab.wait(f"{ANSWER}.includes('n5 ')")
        proxy.cut_all()
        tab.wait(f"{ANSWER}.includes('n200 ')")
        assert is_counting(tab.page.run(ANSWER))
        assert len(host.provider.requests) == 1


@thorough
@pytest.mark.parametrize("model", ["short"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(host: Served, open_chat: Any, scheme: str) -> None:
    script = axe()
    with open_chat(host.url, scheme=scheme, width=390) as tab:
        ask(tab)
        tab.wait_for("The answer is complete.", "#status")
        assert tab.page.run(ANSWER) == "Water falls."
        assert violations(tab, script) == []
        assert not tab.page.run("document.documentElement.scrollWidth > innerWidth")
        assert tab.page.run("getComputedStyle(document.body).colorScheme") == "light dark"
        first = tab.page.run("location.hash")
        tab.click("New chat")
        tab.wait("!document.querySelector('li')")
        tab.page.run("history.back(); 0")
        tab.wait(f"location.hash === '{first}' && document.querySelectorAll('li').length === 2")
