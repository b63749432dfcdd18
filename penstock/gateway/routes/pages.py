"""The files of the dashboard. They are public and hold no data; see ``docs/dashboard.md``."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from penstock.gateway.call import HttpCall
from penstock.gateway.problems import RequestRefused

__all__ = ["FILES", "file", "page"]

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
_HEADERS: Final = (
    ("content-security-policy", _POLICY),
    ("x-frame-options", "DENY"),
    ("cache-control", "no-cache"),  # asked about each time: it belongs to the version that runs
)


async def page(call: HttpCall) -> None:
    """The dashboard's page."""
    await _send(call, "index.html", "text/html; charset=utf-8")


async def file(call: HttpCall) -> None:
    """A file of the dashboard."""
    name = call.exchange.params["name"]
    if name not in FILES:
        raise RequestRefused.not_found("The dashboard has no such file.", "not_found")
    await _send(call, name, FILES[name])


@cache
def _read(name: str) -> tuple[bytes, str]:
    data = files("penstock.gateway").joinpath("static", *name.split("/")).read_bytes()
    return data, f'"{hashlib.sha256(data).hexdigest()[:32]}"'


async def _send(call: HttpCall, name: str, kind: str) -> None:
    data, tag = _read(name)
    headers = (*_HEADERS, ("etag", tag))
    if call.exchange.headers.get("if-none-match") == tag:
        await call.exchange.respond(304, b"", headers)
    else:
        await call.exchange.respond(200, data, headers, kind)
