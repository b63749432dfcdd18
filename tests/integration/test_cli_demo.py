"""The command ``penstock run``: what it shows, in a terminal and without one."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("needs signals and devices", allow_module_level=True)

from tests.integration.command import (
    finish,
    in_terminal,
    interrupts_not_ignored,
    read_until,
    run_anew,
    started,
)
from tests.judges.marks import thorough


@pytest.fixture(autouse=True)
def interrupts_are_not_ignored() -> Iterator[None]:
    with interrupts_not_ignored():
        yield


SEEN = (
    "stream 3: the provider answered 503",
    "stream 2: a subscriber crashed",
    "stream/1-reader (TokenStream, ",
    "source/6-flood (Integration, ",
    "(AgentProcess, working)",
    "the agent: one of its two tools failed",
    "7 of 7 streams completed",
    "(attempt 2)",
    "6 of 6 subscribers got all of their",
    "The upper lake stands at 1,742 m. The level of the lower one is unknown.",
    "waits how often the provider waited",
    "the agent ran two tools at once",
    "no thread is left",
)


def test_the_demo_ends_well_without_a_terminal_whatever_the_environment_says(tmp_path: Path) -> None:
    hostile = {
        "PENSTOCK_CHAT__BATCH_SIZE": "0",
        "PENSTOCK_NONSENSE": "1",
        "OPENAI_API_KEY": "not a key",
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "NO_PROXY": "",
        "FORCE_COLOR": "1",
    }
    (tmp_path / "penstock.toml").write_text("= nonsense")
    done = run_anew(tmp_path, "run", **hostile)
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    assert "NOT AS PROMISED" not in done.out
    for said in (*SEEN, *(f"stream {number} begins: " for number in range(1, 7))):
        assert said in " ".join(done.out.split())
    assert len(set(re.findall(r"begins: (.*) …", done.out))) == 6
    assert max(map(len, done.out.splitlines())) <= 80
    assert re.search(r"all this took \d+\.\d s", done.out)


@pytest.mark.parametrize("columns", [80, pytest.param(120, marks=thorough)])
def test_the_demo_draws_in_a_terminal(tmp_path: Path, columns: int) -> None:
    code, drawn = in_terminal(tmp_path, "run", columns=columns)
    assert code == 0
    assert "\x1b[" in drawn
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).replace("\r\n", "\n")
    for said in (*SEEN, "preset how a stream is paced and batched"):
        assert said in " ".join(plain.split())
    assert max(map(len, plain.splitlines())) <= columns
    assert re.search(r"3-retried +none +\w+ +2 ", plain)


@thorough
def test_the_demo_without_colours_has_no_styles_either(tmp_path: Path) -> None:
    code, drawn = in_terminal(tmp_path, "run", NO_COLOR="1")
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*m", drawn)


def test_an_interrupted_demo_says_so(tmp_path: Path) -> None:
    with started(tmp_path, "run") as process:
        before = read_until(process, b"a subscriber crashed")
        process.send_signal(signal.SIGINT)
        done = finish(process, before)
    assert (done.code, done.err) == (130, "")
    assert "Interrupted" in done.out
    assert "What you saw" not in done.out
