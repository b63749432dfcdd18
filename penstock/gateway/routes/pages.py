"""The files of the dashboard, and the browser client. They are public and hold no data.

See ``docs/dashboard.md`` and ``docs/browser.md``.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from penstock.gateway.call import HttpCall
from penstock.gateway.problems import RequestRefused

__all__ = ["FILES", "client", "file", "page"]

FILES: Final[dict[str, str]] = {
    **dict.fromkeys(("app.css", "vendor/uPlot.min.css"), "text/css; charset=utf-8"),
    **dict.fromkeys(
        (
            *("app.js", "feed.js", "format.js", "live.js", "machine.js", "parts.js", "play.js", "plot.js"),
            *("providers.js", "stream.js", "tree.js"),
            *("vendor/preact.module.js", "vendor/uPlot.iife.min.js"),
        ),
        "text/javascript; charset=utf-8",
    ),
    "icon.svg": "image/svg+xml",
}
"""What is served below ``/board``, and its type."""

_POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; img-src 'self' data:;"
    " object-src 'none'"
)
_KEPT: Final = ("cache-control", "no-cache")  # asked about each time: it belongs to the version that runs
_HEADERS: Final = (("content-security-policy", _POLICY), ("x-frame-options", "DENY"), _KEPT)


async def page(call: HttpCall) -> None:
    """The dashboard's page."""
    await _send(call, "index.html", "text/html; charset=utf-8")


async def file(call: HttpCall) -> None:
    """A file of the dashboard."""
    name = call.exchange.params["name"]
    if name not in FILES:
        raise RequestRefused.not_found("The dashboard has no such file.", "not_found")
    await _send(call, name, FILES[name])


async def client(call: HttpCall) -> None:
    """The module by which pages read streams; those of other origins if ``gateway.cors`` names them."""
    await _answer(call, "browser/penstock.mjs", FILES["app.js"], (_KEPT,))


@cache
def _read(name: str) -> tuple[bytes, str]:
    data = files("penstock.gateway").joinpath(*name.split("/")).read_bytes()
    return data, f'"{hashlib.sha256(data).hexdigest()[:32]}"'


async def _send(call: HttpCall, name: str, kind: str) -> None:
    await _answer(call, f"static/{name}", kind, _HEADERS)


async def _answer(call: HttpCall, path: str, kind: str, about: tuple[tuple[str, str], ...]) -> None:
    data, tag = _read(path)
    headers = (*about, ("etag", tag))
    if call.exchange.headers.get("if-none-match") == tag:
        await call.exchange.respond(304, b"", headers)
    else:
        await call.exchange.respond(200, data, headers, kind)
