"""``penstock chat`` with its modes and copies, ``penstock pipe`` and ``penstock bench``, as processes."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("needs signals and devices", allow_module_level=True)

from penstock.adapters.loopback.faults import ResetAfter, Status
from penstock.adapters.loopback.request import ReceivedRequest
from penstock.adapters.loopback.script import Answer, Cycle, Replies, Script
from penstock.adapters.loopback.server import LoopbackProvider
from tests.integration.command import (
    KEY,
    LIMIT,
    PROGRAM,
    Done,
    environment,
    finish,
    in_terminal,
    interrupts_not_ignored,
    read_until,
    run,
    started,
)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def interrupts_are_not_ignored() -> Iterator[None]:
    with interrupts_not_ignored():
        yield


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    def echo(request: ReceivedRequest) -> Answer:
        words = request.last_user_text
        return Answer(words, tokens_per_second=40 if words.startswith("slow") else None)

    def odd(request: ReceivedRequest) -> Answer | Status:
        return Status(400) if request.last_user_text == "bad" else Answer("Fine.")

    models: dict[str, Replies] = {
        "echo": echo,
        "steady": Answer("one two three four", tokens_per_second=4),
        "odd": odd,
        "reset-once": Cycle((ResetAfter(2), Answer("A whole answer."))),
        "down-twice": Cycle((Status(503), Status(503), Answer("At last."))),
        "down": Status(503),
        "endless": Answer("word ", repeat=100_000, tokens_per_second=20),
    }
    with LoopbackProvider(Script(Answer("Yes."), models)) as provider:
        yield provider


def chat(tmp_path: Path, provider: LoopbackProvider, model: str, *arguments: str, stdin: str = "") -> Done:
    where = ["--base-url", provider.base_url, "--model", model]
    return run(tmp_path, "chat", *arguments, *where, stdin=stdin, OPENAI_API_KEY=KEY)


# --- modes ---------------------------------------------------------------------------------------------------------


def test_concurrent_answers_come_whole_in_the_order_of_the_prompts(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "echo", "--mode", "concurrent", "slow one two three", "quick")
    assert done.code == 0, done.err
    assert done.out == "[Stream 1]\nslow one two three\n\n[Stream 2]\nquick\n"
    assert "2 of 2 completed; " in done.complaint


def test_aggregated_text_says_where_it_comes_from_when_that_changes(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "echo", "--mode", "aggregate", "slow a a a a a a a a", "slow b b b b b b b b")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert {line[:11] for line in lines} == {"[Stream 1] ", "[Stream 2] "}
    assert all(one[:11] != other[:11] for one, other in itertools.pairwise(lines))
    for origin, letter in (("1", "a"), ("2", "b")):
        text = " ".join(line[11:] for line in lines if line.startswith(f"[Stream {origin}]"))
        assert text.split() == ["slow", *[letter] * 8]


def test_of_several_the_failure_of_one_is_said_and_the_others_are_printed(
    tmp_path: Path, provider: LoopbackProvider
) -> None:
    done = chat(tmp_path, provider, "odd", "--mode", "concurrent", "bad", "good")
    assert done.code == 4
    assert done.out.endswith("[Stream 2]\nFine.\n")
    assert "[Stream 1] HTTP 400" in done.err
    assert "1 of 2 completed" in done.err


def test_events_of_several_have_their_origin(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "echo", "--mode", "aggregate", "--json", "one", "two")
    assert done.code == 0
    origins = {event["origin"] for event in done.events if event["type"] in ("TokenEvent", "OriginEnded")}
    assert origins == {"1", "2"}
    assert done.events[-1]["texts"] == {"1": "one", "2": "two"}


def test_recovery_says_why_it_asks_again(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "reset-once", "--mode", "recovery", "Hello")
    assert done.code == 0, done.err
    assert done.out.endswith("A whole answer.")
    assert "attempt 1 of 4 failed: the stream stopped before its end" in done.err
    assert "disregard the text above" in done.err
    done = chat(tmp_path, provider, "down-twice", "--mode", "recovery", "Hello")
    assert (done.code, done.out) == (0, "At last.")
    assert [line.split(" failed")[0] for line in done.err.splitlines()] == [
        "penstock: attempt 1 of 4",
        "penstock: attempt 2 of 4",
    ]


def test_several_prompts_need_a_mode_for_them(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "echo", "Hello", "there")
    assert (done.code, "quote a prompt of several words" in done.complaint) == (2, True)
    done = chat(tmp_path, provider, "echo", "--mode", "agregate", "Hello")
    assert (done.code, "did you mean 'aggregate'?" in done.complaint) == (2, True)


def test_an_interrupt_cancels_all_of_several(tmp_path: Path, provider: LoopbackProvider) -> None:
    arguments = ["chat", "--mode", "aggregate", "a", "b", "--base-url", provider.base_url, "--model", "endless"]
    with started(tmp_path, *arguments) as process:
        before = read_until(process, b"word")
        process.send_signal(signal.SIGINT)
        done = finish(process, before)
    assert done.code == 130, done.err
    provider.wait_for(lambda seen: seen.active_connections == 0)


@pytest.mark.sample(2)
@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_in_a_terminal_bars_give_way_to_the_answers(
    tmp_path: Path, provider: LoopbackProvider, columns: int, variables: dict[str, str]
) -> None:
    where = ["--base-url", provider.base_url, "--model", "echo"]
    code, drawn = in_terminal(
        tmp_path, "chat", "--mode", "concurrent", "slow " * 30, "slow two", *where,
        columns=columns, OPENAI_API_KEY=KEY, **variables,
    )  # fmt: skip
    assert code == 0
    assert "━" in drawn
    assert "tokens" in drawn
    assert ("\x1b[3" in drawn) is not bool(variables)
    after = drawn[drawn.index("[Stream 1]") :]
    assert after.count("slow") >= 31


# --- copies --------------------------------------------------------------------------------------------------------


def test_the_answer_is_copied_to_a_file(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "echo", "Grüße\nan alle", "--output", "a.txt")
    assert (done.code, done.out) == (0, "Grüße\nan alle")
    assert (tmp_path / "a.txt").read_bytes() == "Grüße\nan alle".encode()
    assert list(tmp_path.glob("*.partial")) == []


def test_the_copies_of_several_are_events(tmp_path: Path, provider: LoopbackProvider) -> None:
    assert chat(tmp_path, provider, "echo", "--mode", "concurrent", "a", "b", "-o", "a.jsonl").code == 0
    events = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert events[-1]["texts"] == {"1": "a", "2": "b"}


def test_the_copy_of_an_answer_that_was_cancelled_is_partial(tmp_path: Path, provider: LoopbackProvider) -> None:
    arguments = ["chat", "Hello", "--base-url", provider.base_url, "--model", "endless", "--output", "a.txt"]
    with started(tmp_path, *arguments) as process:
        before = read_until(process, b"word")
        process.send_signal(signal.SIGINT)
        done = finish(process, before)
    assert done.code == 130
    assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt.partial").read_text().startswith("word")


def test_a_copy_that_cannot_be_made_is_refused_before_anything_is_printed(
    tmp_path: Path, provider: LoopbackProvider
) -> None:
    done = chat(tmp_path, provider, "echo", "Hello", "--output", "no/such/folder.txt")
    assert (done.code, done.out) == (2, "")
    assert done.complaint == "--output no/such/folder.txt: No such file or directory"


# --- pipe ----------------------------------------------------------------------------------------------------------


def test_pipe_passes_every_byte_of_text_on(tmp_path: Path) -> None:
    text = "Grüße, 水は低きに流れる。 \r\n👩‍👩‍👧‍👧\tend without a line end" * 500
    for arguments in ([], ["--tokenizer", "word"], ["--tokenizer", "3"], ["--batch", "50"]):
        done = run(tmp_path, "pipe", *arguments, stdin=text)
        assert (done.code, done.err) == (0, "")
        assert done.raw == text.encode()


def test_pipe_waits_for_the_rest_of_a_character_and_for_nothing_else(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(tmp_path), cwd=tmp_path
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        wave = "🌊".encode()
        process.stdin.write(b"a" + wave[:2])
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100) == b"a"
        process.stdin.write(wave[2:])
        process.stdin.close()
        assert process.stdout.read() == wave
        assert process.wait(LIMIT) == 0


def test_pipe_replaces_what_is_not_utf8_and_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "pipe", stdin="a\udcffb\udce2\udc82")
    assert (done.code, done.out) == (0, "a\ufffdb\ufffd")
    assert "2 byte sequences of the input are not UTF-8" in done.complaint


def test_pipe_ends_when_its_reader_is_gone_though_nothing_comes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(tmp_path), cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"first")
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100) == b"first"
        process.stdout.close()
        assert process.wait(LIMIT) == 141
        assert process.stderr.read() == b""


def test_pipe_keeps_the_pace(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = run(
        tmp_path,
        "pipe",
        "--rate",
        "20",
        stdin="word " * 30,
    )
    assert (done.code, done.out) == (0, "word " * 30)
    assert time.monotonic() - begun >= 28 / 20 - 0.1


@pytest.mark.parametrize(("pacing", "batches"), [("fixed", 1), ("adaptive", 2)])
def test_pipe_spreads_a_burst_if_its_pacing_is_adaptive(tmp_path: Path, pacing: str, batches: int) -> None:
    burst = b"x" * 2000
    with subprocess.Popen(
        [*PROGRAM, "pipe", "--pacing", pacing, "--stats"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=environment(tmp_path), cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(burst)
        process.stdin.flush()
        assert process.stdout.read(len(burst)) == burst  # before the end, at which all that waits is given at once
        process.stdin.close()
        found = re.search(rb"^batches +(\d+)", process.stderr.read(), re.MULTILINE)
        assert process.wait(LIMIT) == 0
    assert found is not None
    assert int(found[1]) == 1 if batches == 1 else int(found[1]) >= batches


def test_pipe_takes_its_pace_from_a_preset_and_other_options_take_precedence(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = run(tmp_path, "pipe", "--pacing", "chat", "--rate", "30", stdin="word " * 30)
    assert (done.code, done.out) == (0, "word " * 30)
    assert time.monotonic() - begun >= 27 / 30 - 0.1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rate", "0"],
        ["--batch", "0"],
        ["--tokenizer", "words"],
        ["--per", "byte"],
        ["--flush", "soon"],
        ["--pacing", "chatty"],
        ["--pacing", "safe"],
        ["--pacing", "adaptive", "--rate", "5"],
        ["--pacing", "adaptive", "--max-lag", "61s"],
        ["--max-lag", "1s"],
    ],
    ids=" ".join,
)
def test_pipe_refuses_a_wrong_option(tmp_path: Path, arguments: list[str]) -> None:
    assert run(tmp_path, "pipe", *arguments, stdin="x").code == 2


# --- bench ---------------------------------------------------------------------------------------------------------


def test_bench_measures_and_counts_errors(tmp_path: Path, provider: LoopbackProvider) -> None:
    where = ["--base-url", provider.base_url, "--model"]
    arguments = ["bench", "--requests", "6", "--concurrency", "3", *where]
    done = run(tmp_path, *arguments, "steady", "--json", OPENAI_API_KEY=KEY)
    assert done.code == 0, done.err
    [facts] = done.events
    assert (facts["requests"], facts["completed"], facts["errors"], facts["concurrency"]) == (6, 6, {}, 3)
    assert facts["tokens"] > 6
    assert 0 < facts["first_token_s"]["p50"] <= facts["first_token_s"]["p99"]
    assert 0.025 < facts["between_tokens_s"]["p50"] < 2.5  # 0.25
    done = run(tmp_path, *arguments, "down", OPENAI_API_KEY=KEY)
    assert done.code == 3
    assert "ApiError (HTTP 503" in done.out
    assert re.search(r"^requests +6, 3 at once$", done.out, re.MULTILINE)


def test_bench_ends_at_an_interrupt_with_what_it_has(tmp_path: Path, provider: LoopbackProvider) -> None:
    arguments = ["bench", "--base-url", provider.base_url, "--model", "endless", "--json"]
    with started(tmp_path, *arguments) as process:
        provider.wait_for(lambda seen: seen.events_sent > 20, timeout=30)
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert done.code == 130, done.err
    assert done.events[0]["completed"] == 0
