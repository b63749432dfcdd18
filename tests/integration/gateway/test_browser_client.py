"""The browser client as the gateway serves it."""

from __future__ import annotations

from pathlib import Path

import penstock
from penstock.gateway.keys import KeyFile, new_key
from tests.integration.gateway.serving import gateway

MODULE = Path(penstock.__file__).parent / "gateway" / "browser" / "penstock.mjs"
OTHER = {"origin": "https://page.example"}


def test_the_client_is_served_to_all_and_kept_until_it_changes(tmp_path: Path) -> None:
    KeyFile(tmp_path / "keys").write([new_key("ann")[1]])
    with gateway(keys=str(tmp_path / "keys")) as server:
        answer = server.get("/penstock.mjs")
        assert (answer.status_code, answer.content) == (200, MODULE.read_bytes())
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert server.get("/penstock.mjs", headers={"if-none-match": answer.headers["etag"]}).status_code == 304
        assert "access-control-allow-origin" not in server.get("/penstock.mjs", headers=OTHER).headers


def test_pages_of_other_origins_may_load_it_if_they_are_named() -> None:
    with gateway(cors=("https://page.example",)) as server:
        headers = server.get("/penstock.mjs", headers=OTHER).headers
        assert headers["access-control-allow-origin"] == "https://page.example"
