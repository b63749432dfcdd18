"""The description of the gateway is true: schemathesis sends requests made of it, and checks the answers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.adapters.loopback.script import Answer, Script
from penstock.gateway.routes.table import ROUTES
from tests.integration.gateway.serving import gateway

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENTS = "".join((DOCS / name).read_text("utf-8") for name in ("gateway.md", "cli.md"))
# CPython 3.11 has a fault in its parser's count of recursion that deep examples meet; it is no finding.
FAULT_OF_CPYTHON = "AST constructor recursion depth mismatch"
_SCHEMATHESIS = "from schemathesis.cli import schemathesis; schemathesis()"
NOT_CHECKED = "positive_data_acceptance,unsupported_method"
"""A body that fits the description may still be refused: for its messages, or for a provider that there is none of."""


def test_every_route_is_described() -> None:
    with gateway() as server:
        description = server.get("/openapi.json").json()
    described = {(method.upper(), path) for path, methods in description["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    names = [operation["operationId"] for methods in description["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    assert all(operation["summary"] for methods in description["paths"].values() for operation in methods.values())


def test_what_a_reader_may_choose_is_described_with_its_values_and_nothing_else_is_taken() -> None:
    every = {
        "v": ["5.0", "5", "6", "7"],
        "events": ["plain", "numbered", "all", "simple"],
        "extras": ["none", "penstock"],
        "raw": ["0", "1"],
        "dynamic": ["0", "1"],
        "reasoning_field": ["reasoning_content", "reasoning"],
    }
    own = {
        ("get", "/v1/streams/{stream_id}/events"): every,
        ("post", "/v1/chat/completions"): {name: every[name] for name in ("reasoning_field", "extras")}
        | {"events": ["plain", "numbered"]},
        ("post", "/v1/agents/{agent_id}/messages"): {"events": ["all", "simple"]},
        ("post", "/v1/ui/chat"): {name: every[name] for name in ("v", "raw", "dynamic")},
        ("get", "/v1/ui/chat/{chat_id}/stream"): {name: every[name] for name in ("v", "raw", "dynamic")},
    }
    with gateway(Script(Answer("Hi there."))) as server:
        paths = server.get("/openapi.json").json()["paths"]
        for method, path in ((method, path) for path, methods in paths.items() for method in methods):
            listed = paths[path][method].get("parameters", ())
            found = {one["name"]: one["schema"]["enum"] for one in listed if one["name"] in every}
            assert found == own.get((method, path), {}), path
        agent = server.post("/v1/agents", {"model": "m", "provider": "openai"}).json()["agent_id"]
        chat = {"model": "m", "provider": "openai", "messages": [{"role": "user", "content": "Hi"}]}
        ui = {"id": "c1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
        asked = {
            f"/v1/streams/{server.open()}/events": None,
            "/v1/ui/chat/c1/stream": None,
            "/v1/chat/completions": chat,
            f"/v1/agents/{agent}/messages": {"message": "Hi"},
            "/v1/ui/chat": {**ui, "model": "m"},
        }
        before = server.get("/v1/streams").json()["total"]
        for path, body in asked.items():
            name = "dynamic" if "/ui/" in path else "events"
            method = "GET" if body is None else "POST"
            assert server.request(method, f"{path}?{name}=odd", json=body).status_code == 400, path
        assert server.get("/v1/streams").json()["total"] == before  # nothing was opened first


def test_every_resource_stands_in_the_document() -> None:
    for route in ROUTES:
        assert route.path.partition("{")[0].rstrip("/") in DOCUMENTS, route.path


def test_schemathesis_finds_nothing(request: pytest.FixtureRequest) -> None:
    examples = "50" if request.config.getoption("--judges") or request.config.getoption("--whole") else "2"
    with gateway(Script(Answer("Hi there.")), heartbeat=0.2, linger=1.0) as server:
        command = [sys.executable, "-c", _SCHEMATHESIS, "run", f"{server.url}/openapi.json", "--checks", "all"]
        more = [
            "--exclude-path",
            "/v1/doctor/probe",
            "--exclude-checks",
            NOT_CHECKED,
            "--max-examples",
            examples,
            "--request-timeout",
            "30",
            "--no-color",
        ]
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=500, check=False)
    counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counted is not None, done.stdout[-5_000:] + done.stderr[-2_000:]
    assert counted[1] == counted[2], done.stdout[-5_000:]
    errors = re.findall(r"^ +(\w*Error: .*)$", done.stdout, re.MULTILINE)
    assert [error for error in errors if FAULT_OF_CPYTHON not in error] == []
