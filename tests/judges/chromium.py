"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from websockets.sync.client import ClientConnection, connect

from penstock.testing import eventually

__all__ = ["Chromium", "Page", "find_chromium"]

PATIENCE_S = 60.0
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS: Final = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
    *("--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-extensions", "--no-proxy-server", "about:blank"),
)


def find_chromium() -> str | None:
    """The program: the environment variable ``PENSTOCK_CHROMIUM``, or one of the usual names."""
    names = (os.environ.get("PENSTOCK_CHROMIUM"), *_NAMES)
    return next((found for name in names if name and (found := shutil.which(name))), None)


class Chromium:
    """A browser with a profile of its own, in ``folder``.

    Attributes:
        version: as it says itself, such as ``"Chrome/156.0.8078.108"``.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.version = ""
        self._command = [program, f"--user-data-dir={folder}", *_FLAGS]
        self._port_file = folder / "DevToolsActivePort"
        self._folder = folder
        self._process: subprocess.Popen[bytes]
        self._connection: ClientConnection
        self._number = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        try:
            eventually(lambda: self._process.poll() is not None or "\n" in self._address(), PATIENCE_S)
            assert self._process.poll() is None, (self._folder / "log").read_text("utf-8", "replace")[-2000:]
            port, path = self._address().split("\n")[:2]
            self._connection = connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None)
        except BaseException:
            self._end()
            raise
        self.version = self.call("Browser.getVersion")["product"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call("Browser.close")
        self._connection.close()
        self._end()

    def _address(self) -> str:
        return self._port_file.read_text("utf-8") if self._port_file.exists() else ""

    def _end(self) -> None:
        try:
            self._process.wait(PATIENCE_S if self._process.poll() is None and self.version else 0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE_S)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._connection.recv(PATIENCE_S))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str) -> Page:
        """Open a page, and wait until it is loaded."""
        target = self.call("Target.createTarget", url=url)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        eventually(lambda: page.run("document.readyState === 'complete' && location.href !== 'about:blank'"), PATIENCE_S)
        return page


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    def run(self, script: str) -> Any:
        """Evaluate an expression; a promise is waited for. Returns its value."""
        more = {"expression": script, "awaitPromise": True, "returnByValue": True}
        answer = self._browser.call("Runtime.evaluate", self._session, **more)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def close(self) -> None:
        """Close the tab, as a user does."""
        self._browser.call("Target.closeTarget", targetId=self._target)
