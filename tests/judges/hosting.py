"""Pages that the tests serve beside a gateway."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock.gateway.asgi import Gateway

__all__ = ["beside"]


def beside(files: Mapping[str, Path]) -> Callable[[Gateway], Any]:
    """Makes a host's app: files by their path, and else the gateway."""

    def wrap(gateway: Gateway) -> Any:
        async def host(scope: Any, receive: Any, send: Any) -> None:
            found = files.get(scope["path"]) if scope["type"] == "http" else None
            if found is None:
                return await gateway(scope, receive, send)
            kind = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
            headers = [(b"content-type", f"{kind}; charset=utf-8".encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": found.read_bytes()})
            return None

        return host

    return wrap
