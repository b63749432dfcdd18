"""A headless Chromium, driven over its DevTools protocol.

``make chromium`` (``python -m tests.judges.chromium``) unpacks Debian's into ``.judges/chromium``; nothing is
installed. Tests that need it are skipped where there is none.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import ClientConnection, connect

from penstock.testing import eventually
from tests.integration.debian import Program

__all__ = ["Chromium", "Page", "running_chromium"]

PATIENCE_S = 60.0
_PROGRAM: Final = Program(
    "chromium",
    "usr/lib/chromium/chromium",
    ["chromium", "chromium-common"],
    depending="chromium",
    target="chromium",
    others=("chromium-browser", "google-chrome", "google-chrome-stable"),
)
_FLAGS: Final = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
    *("--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-extensions", "--no-proxy-server", "about:blank"),
)


@contextmanager
def running_chromium(folder: Path) -> Iterator[Chromium]:
    """A browser with a profile of its own, in ``folder``, until the block ends. Skips the test if there is none.

    The environment variable ``PENSTOCK_CHROMIUM`` names another program.
    """
    port_file = folder / "DevToolsActivePort"
    own = os.environ.get("PENSTOCK_CHROMIUM")
    command = [own or _PROGRAM.command(), f"--user-data-dir={folder}", *_FLAGS]
    environment = None if own else _PROGRAM.environment()
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            eventually(lambda: port_file.exists() and "\n" in port_file.read_text("utf-8"), PATIENCE_S)
            port, path = port_file.read_text("utf-8").split("\n")[:2]
            with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as connection:
                browser = Chromium(connection)
                yield browser
                browser.call("Browser.close")
            process.wait(PATIENCE_S)
        finally:
            process.kill()


class Chromium:
    """A browser.

    Attributes:
        version: as it says itself, such as ``"Chrome/150.0.7871.100"``.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.events: list[dict[str, Any]] = []  # that came meanwhile, of all sessions
        self.version: str = self.call("Browser.getVersion")["product"]

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._connection.recv(PATIENCE_S))
            if "method" in answer:
                self.events.append(answer)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str) -> Page:
        """Open a page, and wait until it is loaded."""
        target = self.call("Target.createTarget", url=url)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        eventually(
            lambda: page.run("document.readyState === 'complete' && location.href !== 'about:blank'"), PATIENCE_S
        )
        return page


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for this tab; returns its result."""
        return self._browser.call(method, self._session, **parameters)

    def listen(self) -> None:
        """Have what the page writes to the console, and its errors, collected from now on; see `messages`."""
        self.call("Runtime.enable")
        self.call("Log.enable")

    def messages(self) -> list[str]:
        """What the page has written to the console, and its errors."""
        self.run("0")  # what came before the answer has been read
        found = [one for one in self._browser.events if one.get("sessionId") == self._session]
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(one["params"])[:2_000] for one in found if one["method"] in names]

    def run(self, script: str) -> Any:
        """Evaluate an expression; a promise is waited for. Returns its value."""
        more = {"expression": script, "awaitPromise": True, "returnByValue": True}
        answer = self._browser.call("Runtime.evaluate", self._session, **more)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def close(self) -> None:
        """Close the tab, as a user does."""
        self._browser.call("Target.closeTarget", targetId=self._target)


if __name__ == "__main__":
    _PROGRAM.fetch()
