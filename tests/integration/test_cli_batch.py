"""``penstock batch`` as a process: files, signals, kills, full disks, and a provider that refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("needs signals and devices", allow_module_level=True)

import fcntl
import resource

from penstock.adapters.loopback.faults import ResetAfter, Status
from penstock.adapters.loopback.request import ReceivedRequest
from penstock.adapters.loopback.script import Answer, Cycle, Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.testing import eventually
from tests.integration.command import KEY, Done, environment, finish, interrupts_not_ignored, run, started

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def interrupts_are_not_ignored() -> Iterator[None]:
    with interrupts_not_ignored():
        yield


class Gate:
    """Answers with the prompt's own text; while it is closed, the answers wait after their first token."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()

    def __call__(self, request: ReceivedRequest) -> Answer:
        with self.lock:
            self.asked[request.last_user_text] += 1
        return Answer(f"re: {request.last_user_text}", tokens_per_second=self.pace)

    pace: float | None = None


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def provider(gate: Gate) -> Iterator[LoopbackProvider]:
    key = Cycle((Answer("Yes."), Answer("Yes."), Status(401)))
    models: dict[str, Any] = {
        "gate": gate,
        "key": key,
        "forbidden": Status(403),
        "unknown": Status(404, code="model_not_found"),
        "quota": Status(429, code="insufficient_quota"),
        "busy": Cycle((Status(429, retry_after=1), Answer("Yes."))),
        "bad": Status(400),
        "reset-once": Cycle((ResetAfter(2), Answer("Whole."))),
    }
    with LoopbackProvider(Script(Answer("Yes."), models)) as provider:
        yield provider


def write(tmp_path: Path, *lines: Any) -> None:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (tmp_path / "in.jsonl").write_text(text, "utf-8")


def prompts(count: int) -> list[dict[str, Any]]:
    return [{"id": f"q{number}", "prompt": f"prompt {number}"} for number in range(count)]


def words(provider: LoopbackProvider, model: str, *more: str) -> list[str]:
    where = ["--base-url", provider.base_url, "--model", model]
    return ["batch", "in.jsonl", "--output", "out.jsonl", *where, *more]


def batch(tmp_path: Path, provider: LoopbackProvider, model: str, *more: str, stdin: str = "") -> Done:
    return run(tmp_path, *words(provider, model, *more), stdin=stdin, OPENAI_API_KEY=KEY)


def results(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]


# --- results -------------------------------------------------------------------------------------------------------


def test_each_prompt_has_one_line_with_everything(tmp_path: Path, provider: LoopbackProvider) -> None:
    write(tmp_path, *prompts(20), {"id": "m", "messages": [{"role": "user", "content": "Hi"}], "metadata": {"k": [1]}})
    done = batch(tmp_path, provider, "gate")
    assert (done.code, done.out) == (0, "")
    assert "21 completed" in done.err
    lines = results(tmp_path)
    assert sorted(line["id"] for line in lines) == sorted(["m", *(f"q{number}" for number in range(20))])
    one = next(line for line in lines if line["id"] == "m")
    assert list(one) == [
        *("id", "line", "status", "text", "reasoning", "tool_calls", "finish_reason", "usage", "cost", "model"),
        *("provider", "attempts", "first_token_s", "seconds", "error", "metadata", "input_sha256", "finished_at"),
    ]
    assert (one["line"], one["status"], one["text"], one["metadata"]) == (21, "completed", "re: Hi", {"k": [1]})
    assert (one["finish_reason"], one["attempts"], one["error"]) == ("stop", 1, None)
    assert one["usage"]["output_tokens"] > 0


def test_without_ids_the_number_of_the_line_is_the_id(tmp_path: Path, provider: LoopbackProvider) -> None:
    write(tmp_path, "\ufeff" + json.dumps({"prompt": "same"}), "", {"prompt": "same"}, {"prompt": "other"})
    assert batch(tmp_path, provider, "gate").code == 0
    assert {line["id"]: line["text"] for line in results(tmp_path)} == {1: "re: same", 3: "re: same", 4: "re: other"}


def test_the_form_of_openais_batch_api_goes_in_and_comes_out(tmp_path: Path, provider: LoopbackProvider) -> None:
    body = {"model": "gate", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    line = {"custom_id": "c-1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    write(tmp_path, line, {**line, "custom_id": "c-2", "body": {**body, "model": "bad"}})
    assert batch(tmp_path, provider, "gate", "--format", "openai").code == 4
    good, bad = sorted(results(tmp_path), key=lambda found: str(found["custom_id"]))
    assert list(good) == ["id", "custom_id", "response", "error"]
    assert good["response"]["status_code"] == 200
    assert good["response"]["body"]["choices"][0]["message"]["content"] == "re: Hi"
    assert (bad["response"]["status_code"], bad["error"]["code"] is not None) == (400, True)
    again = batch(tmp_path, provider, "gate", "--format", "openai", "--resume")
    assert (again.code, len(results(tmp_path))) == (4, 2)
    assert "every prompt has a result" in again.err


def test_standard_input_and_a_system_message(tmp_path: Path, provider: LoopbackProvider) -> None:
    arguments = ["batch", "-", "--output", "out.jsonl", "--base-url", provider.base_url, "--model", "gate"]
    done = run(tmp_path, *arguments, "--system", "Be brief.", stdin='{"prompt": "Hi"}\n', OPENAI_API_KEY=KEY)
    assert done.code == 0, done.err
    assert [line["text"] for line in results(tmp_path)] == ["re: Hi"]
    assert "Be brief." in str(provider.requests[-1].body)


def test_in_order_the_results_are_those_of_the_input(tmp_path: Path, provider: LoopbackProvider) -> None:
    texts = [{"id": f"q{n}", "prompt": "word " * (40 if n % 3 == 0 else 1)} for n in range(15)]
    write(tmp_path, *texts)
    assert batch(tmp_path, provider, "gate", "--ordered", "--limit", "4").code == 0
    assert [line["line"] for line in results(tmp_path)] == [1, 2, 3, 4]
    assert batch(tmp_path, provider, "gate", "--ordered", "--resume").code == 0
    assert [line["line"] for line in results(tmp_path)] == list(range(1, 16))


def test_an_answer_that_breaks_off_is_asked_for_again(tmp_path: Path, provider: LoopbackProvider) -> None:
    write(tmp_path, {"prompt": "a"})
    assert batch(tmp_path, provider, "reset-once").code == 0
    [line] = results(tmp_path)
    assert (line["text"], line["attempts"]) == ("Whole.", 2)


def test_a_dry_run_asks_nothing_and_makes_no_file(tmp_path: Path, provider: LoopbackProvider, gate: Gate) -> None:
    write(tmp_path, *prompts(7))
    done = batch(tmp_path, provider, "gate", "--dry-run", "--limit", "5")
    assert (done.code, gate.asked.total(), (tmp_path / "out.jsonl").exists()) == (0, 0, False)
    assert "7 prompts, 0 of them have a result; 5 would be asked" in done.complaint


# --- refusals before the first call ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (['{"id": "a", "prompt": "x"}', '{"id": "a", "prompt": "y"}'], "line 2: the id 'a' is that of line 1 too"),
        (['{"id": 1, "prompt": "x"}', '{"id": "1", "prompt": "y"}'], "line 2: the id '1' is that of line 1 too"),
        (['{"id": "a", "prompt": "x"}', '{"prompt": "y"}'], "line 2: line 1 has an id, line 2 has none"),
        (['{"prompt": "x"}', "", '{"id": "a", "prompt": "y"}'], "line 3: line 3 has an id, line 1 has none"),
        (['{"prompt": "x"}', '{"prompt": "y"'], "line 2: not JSON"),
        (['{"prompt": "x"}', '"y"'], "line 2: not an object"),
        (['{"promt": "x"}'], "line 1: promt: unknown field (did you mean 'prompt'?)"),
        (['{"prompt": "x"}', "[", "]"], "(and 1 more bad lines)"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_asked(
    tmp_path: Path, provider: LoopbackProvider, gate: Gate, lines: list[str], complaint: str
) -> None:
    write(tmp_path, *lines)
    done = batch(tmp_path, provider, "gate")
    assert (done.code, gate.asked.total()) == (2, 0)
    assert done.complaint.startswith("in.jsonl, line ")
    assert complaint in done.complaint
    assert not (tmp_path / "out.jsonl").exists()


def test_an_output_with_results_is_refused_without_resume(
    tmp_path: Path, provider: LoopbackProvider, gate: Gate
) -> None:
    write(tmp_path, *prompts(1))
    (tmp_path / "out.jsonl").write_text("my notes\n")
    assert "out.jsonl is not empty; --resume goes on" in batch(tmp_path, provider, "gate").complaint
    done = batch(tmp_path, provider, "gate", "--resume")
    assert done.code == 0, "one line that is no result is taken for a torn one"
    (tmp_path / "out.jsonl").write_text("my notes\nmore notes\n")
    done = batch(tmp_path, provider, "gate", "--resume")
    assert (done.code, gate.asked.total()) == (2, 1)
    assert "line 1: not a result" in done.complaint
    assert (tmp_path / "out.jsonl").read_text() == "my notes\nmore notes\n"


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--concurrency", "0"], "--concurrency: got 0"),
        (["--max-errors", "many"], "--max-errors: got 'many'"),
        (["--max-cost=-1"], "--max-cost: got -1"),
        (["--format", "csv"], "unknown format 'csv'"),
        (["--param", "stream_id=x"], "--param cannot set 'stream_id'"),
    ],
)
def test_a_wrong_option_is_refused(tmp_path: Path, provider: LoopbackProvider, more: list[str], complaint: str) -> None:
    write(tmp_path, *prompts(1))
    done = batch(tmp_path, provider, "gate", *more)
    assert done.code == 2
    assert complaint in done.err


def test_without_a_key_or_a_model_nothing_is_asked(tmp_path: Path) -> None:
    write(tmp_path, *prompts(1))
    done = run(tmp_path, "batch", "in.jsonl", "--output", "out.jsonl", "--model", "gpt-4.1-mini")
    assert (done.code, "OPENAI_API_KEY" in done.err) == (2, True)
    done = run(tmp_path, "batch", "in.jsonl", "--output", "out.jsonl", OPENAI_API_KEY=KEY)
    assert (done.code, "no model; give --model" in done.err) == (2, True)


def test_two_runs_do_not_write_to_one_file(tmp_path: Path, provider: LoopbackProvider) -> None:
    write(tmp_path, *prompts(1))
    with (tmp_path / "out.jsonl").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = batch(tmp_path, provider, "gate")
    assert (done.code, "another run of penstock batch writes to it" in done.complaint) == (2, True)


# --- resuming ------------------------------------------------------------------------------------------------------


def test_a_kill_in_the_middle_repeats_no_more_calls_than_ran(
    tmp_path: Path, provider: LoopbackProvider, gate: Gate
) -> None:
    gate.pace = 30
    write(tmp_path, *prompts(40))
    with started(tmp_path, *words(provider, "gate", "--concurrency", "4")) as process:
        out = tmp_path / "out.jsonl"
        eventually(lambda: out.exists() and out.read_bytes().count(b"\n") >= 10, timeout=30)
        process.kill()
        process.wait()
    with out.open("ab") as file:
        file.write(b'{"id":"q39","line":40,"status":"comp')  # what a kill in the middle of a write leaves
    gate.pace = None
    done = batch(tmp_path, provider, "gate", "--concurrency", "4", "--resume")
    assert done.code == 0, done.err
    assert "the last line was cut off" in done.err
    lines = results(tmp_path)
    assert Counter(line["id"] for line in lines) == Counter(f"q{number}" for number in range(40))
    repeated = sum(count - 1 for count in gate.asked.values())
    assert repeated <= 4, gate.asked
    assert gate.asked.total() >= 40


def test_a_torn_last_line_is_cut_off_and_a_missing_line_end_is_not_a_tear(
    tmp_path: Path, provider: LoopbackProvider, gate: Gate
) -> None:
    write(tmp_path, *prompts(3))
    assert batch(tmp_path, provider, "gate", "--limit", "2").code == 0
    out = tmp_path / "out.jsonl"
    whole = out.read_bytes()
    out.write_bytes(whole.rstrip(b"\n"))
    assert batch(tmp_path, provider, "gate", "--resume").code == 0
    assert out.read_bytes().startswith(whole)
    assert len(results(tmp_path)) == 3
    assert gate.asked.total() == 3


def test_failed_prompts_stay_unless_they_are_to_be_asked_again(
    tmp_path: Path, provider: LoopbackProvider, gate: Gate
) -> None:
    write(tmp_path, {"id": "good", "prompt": "a"}, {"id": "bad", "prompt": "b", "model": "bad"})
    assert batch(tmp_path, provider, "gate").code == 4
    failed = next(line for line in results(tmp_path) if line["status"] == "failed")
    assert (failed["id"], failed["error"]["status"], failed["error"]["retryable"]) == ("bad", 400, False)
    done = batch(tmp_path, provider, "gate", "--resume")
    assert (done.code, "--retry-failed asks them again" in done.err) == (4, True)
    before = len(provider.requests)
    assert batch(tmp_path, provider, "gate", "--resume", "--retry-failed").code == 4
    assert len(provider.requests) == before + 1
    assert sorted(line["id"] for line in results(tmp_path)) == ["bad", "good"]
    assert sorted(path.name for path in tmp_path.glob("*.jsonl*")) == ["in.jsonl", "out.jsonl"]


def test_a_line_that_has_changed_since_its_result_is_refused(
    tmp_path: Path, provider: LoopbackProvider, gate: Gate
) -> None:
    write(tmp_path, *prompts(2))
    assert batch(tmp_path, provider, "gate", "--limit", "1").code == 0
    write(tmp_path, {"id": "q0", "prompt": "another"}, *prompts(2)[1:])
    done = batch(tmp_path, provider, "gate", "--resume")
    assert (done.code, gate.asked.total()) == (2, 1)
    assert "line 1: the output has a result of the id 'q0' for another line" in done.complaint


def test_the_file_on_the_disk_grows_line_by_line(tmp_path: Path, provider: LoopbackProvider, gate: Gate) -> None:
    gate.pace = 20
    write(tmp_path, *prompts(12))
    with started(tmp_path, *words(provider, "gate", "--concurrency", "2")) as process:
        out = tmp_path / "out.jsonl"
        eventually(lambda: out.exists() and out.read_bytes().count(b"\n") >= 3, timeout=30)
        seen = out.read_bytes()
        assert seen.endswith(b"\n")
        [json.loads(line) for line in seen.splitlines()]
        assert process.poll() is None


# --- stops ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "complaint"),
    [("key", "HTTP 401"), ("forbidden", "HTTP 403"), ("unknown", "HTTP 404"), ("quota", "HTTP 429")],
)
def test_what_every_prompt_would_meet_stops_the_run(
    tmp_path: Path, provider: LoopbackProvider, model: str, complaint: str
) -> None:
    write(tmp_path, *prompts(50))
    done = batch(tmp_path, provider, model, "--concurrency", "2")
    assert done.code == 3
    assert f"penstock: stopped: {complaint}" in done.err
    assert len(provider.requests) <= 6
    assert all(line["status"] == "completed" for line in results(tmp_path)), "the others are undone, not failed"
    assert "not done (--resume goes on)" in done.err


def test_a_429_pauses_all_starts(tmp_path: Path, provider: LoopbackProvider) -> None:
    write(tmp_path, *prompts(4))
    begun = time.monotonic()
    done = batch(tmp_path, provider, "busy", "--concurrency", "1", "--retries", "0")
    assert done.code == 0, done.err
    assert time.monotonic() - begun >= 4  # each other request is refused, for a second


def test_at_the_most_cost_nothing_more_is_started(tmp_path: Path, provider: LoopbackProvider) -> None:
    table = ['names = ["openai"]', 'as_of = "now"', 'source = "here"', 'cached = "inside"', 'reasoning = "inside"']
    models = ["[openai.models]", "gate = { input = 100000.0, output = 100000.0 }", ""]
    prices = "\n".join(['currency = "USD"', "[openai]", *table, *models])
    (tmp_path / "prices.toml").write_text(prices)
    write(tmp_path, *prompts(30))
    done = run(
        tmp_path, *words(provider, "gate", "--concurrency", "1", "--max-cost", "5"), OPENAI_API_KEY=KEY,
        PENSTOCK_PRICES=str(tmp_path / "prices.toml"),
    )  # fmt: skip
    assert done.code == 4, done.err
    assert len(results(tmp_path)) < 30
    assert "stopped: " in done.err
    assert "5 may be" in done.err


def test_too_many_failures_stop_the_run(tmp_path: Path, provider: LoopbackProvider) -> None:
    write(tmp_path, *prompts(40))
    done = batch(tmp_path, provider, "bad", "--concurrency", "1", "--max-errors", "5%")
    assert done.code == 4
    assert len(results(tmp_path)) == 3  # 5 % of 40 may fail, and one more is seen
    assert "3 prompts have failed, 2 may" in done.err


def test_the_first_interrupt_lets_the_calls_finish(tmp_path: Path, provider: LoopbackProvider, gate: Gate) -> None:
    gate.pace = 10
    write(tmp_path, *prompts(40))
    with started(tmp_path, *words(provider, "gate", "--concurrency", "4")) as process:
        eventually(lambda: gate.asked.total() >= 4, timeout=30)
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert done.code == 4, done.err
    assert "finishing the calls under way; Ctrl-C again cancels them" in done.err
    assert len(results(tmp_path)) == gate.asked.total() < 40
    assert {line["status"] for line in results(tmp_path)} == {"completed"}


def test_the_second_interrupt_cancels_the_calls(tmp_path: Path, provider: LoopbackProvider, gate: Gate) -> None:
    gate.pace = 0.1
    write(tmp_path, *prompts(40))
    with started(tmp_path, *words(provider, "gate", "--concurrency", "4")) as process:
        eventually(lambda: gate.asked.total() >= 4, timeout=30)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"Ctrl-C again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert done.code == 130, done.err
    assert "0 completed, 40 not done" in done.err
    assert results(tmp_path) == []
    provider.wait_for(lambda seen: seen.active_connections == 0)


def test_a_termination_cancels_the_calls_at_once(tmp_path: Path, provider: LoopbackProvider, gate: Gate) -> None:
    gate.pace = 0.1
    write(tmp_path, *prompts(9))
    with started(tmp_path, *words(provider, "gate")) as process:
        eventually(lambda: gate.asked.total() >= 4, timeout=30)
        process.send_signal(signal.SIGTERM)
        done = finish(process)
    assert done.code == 143, done.err


def test_a_full_disk_ends_the_run_and_leaves_whole_lines(tmp_path: Path, provider: LoopbackProvider) -> None:
    write(tmp_path, *prompts(60))
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); "
        f"sys.argv = ['penstock', *{words(provider, 'gate', '--concurrency', '3')!r}]; "
        "runpy.run_module('penstock', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited], env=environment(tmp_path, OPENAI_API_KEY=KEY), cwd=tmp_path,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 74, done.stderr
    assert b"out.jsonl: File too large" in done.stderr
    assert b"Traceback" not in done.stderr
    before = results(tmp_path)
    assert 5 < len(before) < 60
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert batch(tmp_path, provider, "gate", "--resume").code == 0
    assert len({line["id"] for line in results(tmp_path)}) == len(results(tmp_path)) == 60
    assert os.access(tmp_path / "out.jsonl", os.W_OK)
