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


def test_every_resource_stands_in_the_document() -> None:
    for route in ROUTES:
        assert route.path.partition("{")[0].rstrip("/") in DOCUMENTS, route.path


def test_schemathesis_finds_nothing(request: pytest.FixtureRequest) -> None:
    examples = "50" if request.config.getoption("--judges") else "2"
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
