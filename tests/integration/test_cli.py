"""The command ``penstock`` as its users run it: a process of its own, real signals, a real provider.

What needs a pipe, a signal, a terminal or a fresh Python gets that. The others are forks: `tests.integration.forked`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

if sys.platform == "win32":
    pytest.skip("needs signals and devices", allow_module_level=True)

import penstock
from penstock.adapters.loopback.faults import (
    DelayFirstByte,
    ErrorFrame,
    MalformedJson,
    ResetAfter,
    StallAfter,
    Status,
    TruncateAfter,
)
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.script import Answer, Script, ScriptedCall
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.cli.loopback import list_models
from tests.integration.command import (
    KEY,
    LIMIT,
    PROGRAM,
    chat,
    environment,
    finish,
    in_terminal,
    interrupts_not_ignored,
    read_until,
    run,
    run_anew,
    started,
    words,
)

TEXT = "Grüße aus der Röhre: 水は低きに流れる 🌊,\nand a second line."
CLI_PAGE = Path(penstock.__file__).parents[1] / "docs" / "cli.md"
PACED = Answer("one two three ", repeat=60, tokens_per_second=100)
EVIL = "m\x1b[31m\x9b31m"


@pytest.fixture(autouse=True)
def interrupts_are_not_ignored() -> Iterator[None]:
    with interrupts_not_ignored():
        yield


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    models: dict[str, Any] = {
        "plain": Answer(TEXT),
        "paced": PACED,
        "long": Answer("word ", repeat=200_000),
        "thinks": Answer(TEXT, reasoning="Let me think."),
        "calls": Answer("", tool_calls=(ScriptedCall("get_weather", '{"city": "Wien"}'),)),
        "refuses": Answer("", refusal="I would rather not."),
        "cut": Answer(TEXT, finish_reason="length"),
        "control": Answer("red \x1b[31m, bell \x07, done"),
        EVIL: Answer("red \x9b31m\x7f, \u202edeb\u202c, \u2066x\u2069"),
        "stall": StallAfter(5),
        "silent": DelayFirstByte(None),
        "reset": ResetAfter(3),
        "reset-then-busy": [PACED.replace(faults=(ResetAfter(30),)), Status(503, retry_after=0.01)],
        "truncated": TruncateAfter(3, clean=True),
        "frame": ErrorFrame(3),
        "malformed": MalformedJson(3),
        "missing": Status(404, message="No such model.", code="model_not_found"),
        "busy": Status(503, message="Overloaded. Please try again later."),
        "busy-once": [Status(503, retry_after=0.01), Answer(TEXT)],
        "echoes-key": Status(400, message=f"Your key {KEY}\nis \x1b[31mgreat", code="bad"),
    }
    with LoopbackProvider(Script(models=models), api_key=KEY) as running:
        yield running


# --- what is printed ---------------------------------------------------------------------------------------------


def test_the_text_and_nothing_else_is_on_standard_output(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "plain")
    assert (done.code, done.out, done.err) == (0, TEXT, "")


def test_the_prompt_the_system_message_and_parameters_reach_the_provider(
    tmp_path: Path, provider: LoopbackProvider
) -> None:
    parameters = ["-p", "temperature=0.2", "-p", 'stop=["x"]', "-p", "user=me"]
    done = chat(tmp_path, provider, "plain", "--system", "Be brief.", *parameters)
    assert done.code == 0
    body = provider.requests[-1].body
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]
    assert (body["temperature"], body["stop"], body["user"]) == (0.2, ["x"], "me")


def test_a_dash_reads_the_prompt_from_standard_input(tmp_path: Path) -> None:
    done = run(tmp_path, "chat", "-", "--provider", "loopback", stdin="Grüße 水")
    assert (done.code, done.out, done.err) == (0, "Grüße 水", "")


def test_the_embedded_provider_needs_no_key_no_model_and_no_proxy(tmp_path: Path) -> None:
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "NO_PROXY": ""}
    done = run(tmp_path, "chat", "Say this", "--provider", "loopback", **proxies)
    assert (done.code, done.out, done.err) == (0, "Say this", "")


def test_json_prints_every_event_in_a_line_and_the_terminal_event_last(
    tmp_path: Path, provider: LoopbackProvider
) -> None:
    done = chat(tmp_path, provider, "paced", "--json", "--stream-id", "mine")
    assert (done.code, done.err) == (0, "")
    *tokens, last = done.events
    assert {event["type"] for event in tokens} == {"TokenEvent"}
    assert last["type"] == "StreamCompleted"
    assert last["usage"]["output_tokens"] == 60
    numbers = [event["seq"] for event in done.events]
    assert numbers == sorted(set(numbers))
    assert {event["stream_id"] for event in done.events} == {"mine"}
    assert "".join(event["text"] for event in tokens) == last["text"] == PACED.full_text
    assert all("".join(event["tokens"]) == event["text"] for event in tokens)
    shown = re.search(r'^{"type":"StreamCompleted",.*}$', CLI_PAGE.read_text("utf-8"), re.MULTILINE)
    assert shown is not None
    fields = re.findall(r'[{,]"(\w+)":', shown[0])  # of the example in the documentation
    assert [field for field in last if field in fields] == fields
    assert list(last)[:4] == fields[:4]


def test_json_is_flushed_line_by_line(tmp_path: Path, provider: LoopbackProvider) -> None:
    with started(tmp_path, *words(provider, "stall"), "--json") as process:
        line = read_until(process, b"\n")
        assert json.loads(line.splitlines()[0])["type"] == "TokenEvent"
        assert process.poll() is None


def test_json_ends_in_the_failure_and_the_error_is_said_too(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "truncated", "--json")
    assert done.code == 4
    last = done.events[-1]
    assert last["type"] == "StreamFailed"
    assert last["error"]["type"] == "IncompleteStream"
    assert "stopped before its end" in done.complaint


def test_statistics_are_on_standard_error(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "paced", "--stats")
    assert done.out == PACED.full_text
    for name in ("tokens ", "first token", "tokens/s", "requests", "usage"):
        assert re.search(rf"^{name}\s+\S", done.err, re.MULTILINE), name
    assert re.search(r"^tokens +60 *$", done.err, re.MULTILINE)


def test_reasoning_is_on_standard_error_and_only_if_asked_for(tmp_path: Path, provider: LoopbackProvider) -> None:
    quiet = chat(tmp_path, provider, "thinks")
    assert (quiet.out, quiet.err) == (TEXT, "")
    told = chat(tmp_path, provider, "thinks", "--reasoning")
    assert (told.out, told.err) == (TEXT, "Let me think.\n")


def test_a_refusal_a_tool_call_and_a_cut_are_said_on_standard_error(tmp_path: Path, provider: LoopbackProvider) -> None:
    refused = chat(tmp_path, provider, "refuses")
    assert (refused.code, refused.out) == (0, "")
    assert refused.err == "I would rather not.\npenstock: the model refused\n"
    called = chat(tmp_path, provider, "calls")
    assert (called.code, called.out) == (0, "")
    assert called.complaint == 'the model asks for get_weather({"city": "Wien"})'
    cut = chat(tmp_path, provider, "cut")
    assert (cut.code, cut.out) == (0, TEXT)
    assert "length" in cut.complaint


def test_what_is_no_terminal_gets_the_bytes_as_they_are(tmp_path: Path, provider: LoopbackProvider) -> None:
    assert chat(tmp_path, provider, "control").out == "red \x1b[31m, bell \x07, done"


def test_output_that_cannot_show_everything_shows_question_marks(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = run_anew(tmp_path, *words(provider, "plain"), OPENAI_API_KEY=KEY, PYTHONIOENCODING="ascii")
    assert (done.code, done.err) == (0, "")
    assert done.raw == TEXT.encode("ascii", "replace")


def test_a_retry_is_silent_and_counted(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "busy-once", "--stats")
    assert (done.code, done.out) == (0, TEXT)
    assert re.search(r"^requests +2 *$", done.err, re.MULTILINE)


def test_settings_come_from_the_file_and_the_environment(tmp_path: Path, provider: LoopbackProvider) -> None:
    (tmp_path / "my.toml").write_text(f'[provider]\nbase_url = "{provider.base_url}"\napi_key = "{KEY}"\n')
    done = run(tmp_path, "chat", "Hello", "--config", "my.toml", PENSTOCK_PROVIDER__MODEL="plain")
    assert (done.code, done.out, done.err) == (0, TEXT, "")


def test_the_log_is_on_standard_error_and_holds_no_key(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "busy-once", "--log-level", "debug")
    assert (done.code, done.out) == (0, TEXT)
    assert '"event": "retry"' in done.err
    assert "Röhre" not in done.err


# --- errors --------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_closed_port_is_a_provider_error(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    retries = {"PENSTOCK_REQUEST__RETRY_BASE_DELAY": "1ms", "OPENAI_API_KEY": KEY}
    done = run(tmp_path, "chat", "Hello", "--base-url", url, "-m", "m", **retries)
    assert (done.code, done.out) == (3, "")
    assert "connection refused" in done.complaint
    assert "--base-url" in done.complaint


def test_a_wrong_path_says_what_to_check(tmp_path: Path, provider: LoopbackProvider) -> None:
    url = provider.base_url.removesuffix("/v1") + "/nothing/here"
    done = run(tmp_path, "chat", "Hello", "--base-url", url, "-m", "m", OPENAI_API_KEY=KEY)
    assert done.code == 3
    assert "404" in done.complaint
    assert "--base-url" in done.complaint


def test_no_key_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    done = run(tmp_path, "chat", "Hello", "-m", "m")
    assert done.code == 2
    assert done.complaint == "No API key for openai. Set OPENAI_API_KEY, or try --provider loopback, which needs no key"


def test_a_wrong_key_is_a_provider_error_that_names_the_variable(tmp_path: Path, provider: LoopbackProvider) -> None:
    wrong = "sk-wrong-8a7b6c5d"
    done = chat(tmp_path, provider, "plain", OPENAI_API_KEY=wrong)
    assert (done.code, done.out) == (3, "")
    assert "401" in done.complaint
    assert "OPENAI_API_KEY" in done.complaint
    assert wrong not in done.err


def test_a_provider_that_echoes_the_key_makes_one_line_without_it(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "echoes-key", "--log-level", "debug", "--json")
    assert done.code == 3
    (said,) = [line for line in done.err.splitlines() if line.startswith("penstock: ")]
    assert "Your key *** is [31mgreat" in said


KEYS_OF = {
    "openai": "OPENAI_API_KEY",
    "openai-responses": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "ollama": "OLLAMA_API_KEY",
}


@pytest.mark.parametrize(("name", "variable"), KEYS_OF.items())
def test_every_provider_is_asked_in_its_own_words_with_its_own_key(
    tmp_path: Path, provider: LoopbackProvider, name: str, variable: str
) -> None:
    url = provider.base_url.removesuffix("" if name.startswith("openai") else "/v1")
    arguments = ["chat", "Hello", "--provider", name, "--base-url", url, "--model", "plain", "--json"]
    done = run(tmp_path, *arguments, **{variable: KEY})
    assert done.code == 0, done.err
    assert done.events[-1]["text"] == TEXT
    others = {each: KEY for each in KEYS_OF.values() if each != variable}
    refused = run(tmp_path, *arguments, **others)
    assert refused.code == 3
    assert variable in refused.complaint


@pytest.mark.parametrize(("name", "variable"), [each for each in KEYS_OF.items() if each[0] != "ollama"])
def test_a_missing_key_names_its_providers_variable(tmp_path: Path, name: str, variable: str) -> None:
    done = run(tmp_path, "chat", "Hello", "-m", f"{name}/m")
    assert done.code == 2
    assert f"Set {variable}," in done.complaint


def test_a_providers_model_and_url_may_be_in_the_environment(tmp_path: Path, provider: LoopbackProvider) -> None:
    url = provider.base_url.removesuffix("/v1")
    done = run(
        tmp_path,
        *("chat", "Hello", "--provider", "anthropic"),
        ANTHROPIC_API_KEY=KEY,
        ANTHROPIC_BASE_URL=url,
        PENSTOCK_PROVIDERS__ANTHROPIC__MODEL="plain",
    )
    assert done.out == TEXT
    done = run(tmp_path, "chat", "Hello", "-m", "anthropic/plain", ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=url)
    assert done.out == TEXT
    done = run(tmp_path, "chat", "Hello", "--provider", "anthropic", ANTHROPIC_API_KEY=KEY)
    assert "PENSTOCK_PROVIDERS__ANTHROPIC__MODEL" in done.complaint
    assert run(tmp_path, "chat", "Hello", "-m", "loopback/echo").out == "Hello"


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        (["--provider", "nobody"], {}, "unknown provider 'nobody'; known: openai, openai-responses, anthropic, "),
        (["--provider", "OpenAI"], {}, "unknown provider 'OpenAI' (did you mean 'openai'?); known: "),
        ([], {"PENSTOCK_PROVIDER__NAME": "nobody"}, "unknown provider 'nobody'"),
        (["--preset", "fast"], {}, "unknown preset 'fast'; known: chat, document, realtime"),
        (["--preset", "chart"], {}, "unknown preset 'chart' (did you mean 'chat'?)"),
        (["--timeout", "soon"], {}, "--timeout"),
        (["--timeout", "0"], {}, "--timeout: got"),
        (["--base-url", ""], {}, "--base-url"),
        (["--base-url", "ftp://host/v1"], {}, "base_url"),
        (["--base-url", "http://me:hush@host/v1"], {}, "base_url"),
        (["--param", "temperature"], {}, "--param"),
        (["--param", "messages=[]"], {}, "--param"),
        (["--log-level", "loud"], {}, "--log-level: got"),
        (["--param", "x=" + "[" * 100_000], {}, "--param"),
        (["--stream-id", ""], {}, "stream_id"),
        (["--config", "missing.toml"], {}, "missing.toml"),
        (["--no-such-option"], {}, "--no-such-option"),
        ([], {"PENSTOCK_CHAT__BATCH_SIZE": "0"}, "PENSTOCK_CHAT__BATCH_SIZE"),
        ([], {"PENSTOCK_NONSENSE": "1"}, "PENSTOCK_NONSENSE"),
    ],
)
def test_a_users_mistake_is_one_line_that_names_it(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], named: str
) -> None:
    done = run(tmp_path, "chat", "Hello", "-m", "m", *arguments, OPENAI_API_KEY=KEY, **variables)
    assert (done.code, done.out) == (2, "")
    assert named in done.complaint
    assert "hush" not in done.err


def test_a_missing_model_names_its_option_and_its_variable(tmp_path: Path) -> None:
    done = run(tmp_path, "chat", "Hello", OPENAI_API_KEY=KEY)
    assert done.code == 2
    assert "--model" in done.complaint
    assert "PENSTOCK_PROVIDER__MODEL" in done.complaint


def test_malformed_toml_says_where(tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text("[chat]\nbatch_size = = 3\n")
    done = run(tmp_path, "chat", "Hello", "--provider", "loopback")
    assert done.code == 2
    assert "penstock.toml, line 2" in done.complaint


def test_an_empty_prompt_and_one_that_is_not_utf8_are_refused(tmp_path: Path) -> None:
    for stdin in (" \n", "\udcff\udcfe"):
        done = run(tmp_path, "chat", "-", "--provider", "loopback", stdin=stdin)
        assert done.code == 2
        assert "PROMPT" in done.complaint


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("reset", 4, "reset"),
        ("truncated", 4, "before its end"),
        ("frame", 4, "server_error"),
        ("missing", 3, "--model"),
    ],
)
def test_a_broken_answer_keeps_what_came_and_says_what_broke(
    tmp_path: Path, provider: LoopbackProvider, model: str, code: int, said: str
) -> None:
    done = chat(tmp_path, provider, model)
    assert done.code == code
    assert said in done.complaint
    full = Answer().full_text
    assert full.startswith(done.out)
    assert bool(done.out) == (model != "missing")


def test_a_timeout_after_some_text_has_the_code_of_every_other_failure_after_some_text(
    tmp_path: Path, provider: LoopbackProvider
) -> None:
    done = chat(tmp_path, provider, "stall", PENSTOCK_REQUEST__IDLE_TIMEOUT="300ms")
    assert done.code == 4
    assert done.out
    assert "idle timeout" in done.complaint
    assert "request.idle_timeout" in done.complaint


def test_a_failure_after_text_that_a_restart_has_voided_is_one_after_some_text(
    tmp_path: Path, provider: LoopbackProvider
) -> None:
    once = {"PENSTOCK_REQUEST__ON_INTERRUPT": "restart", "PENSTOCK_REQUEST__MAX_RETRIES": "1"}
    done = chat(tmp_path, provider, "reset-then-busy", **once)
    assert done.code == 4
    assert done.out


def test_a_provider_that_says_try_again_later_is_not_echoed(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "busy", PENSTOCK_REQUEST__MAX_RETRIES="0")
    assert done.code == 3
    assert done.complaint.lower().count("try again") == 1
    assert done.complaint.endswith("Please try again later.")


def test_a_message_about_text_that_was_cut_begins_a_line_of_its_own(tmp_path: Path, provider: LoopbackProvider) -> None:
    both = subprocess.run(
        [*PROGRAM, *words(provider, "truncated")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(tmp_path, OPENAI_API_KEY=KEY),
        cwd=tmp_path,
        timeout=LIMIT,
        check=False,
    )
    text, message = both.stdout.decode().splitlines()
    assert Answer().full_text.startswith(text)
    assert message.startswith("penstock: the stream stopped before its end")
    _, drawn = in_terminal(tmp_path, *words(provider, "truncated"), OPENAI_API_KEY=KEY)
    assert "\r\npenstock: the stream stopped" in drawn


def test_a_timeout_says_how_to_allow_more(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = chat(tmp_path, provider, "silent", "--timeout", "300ms")
    assert (done.code, done.out) == (3, "")
    assert "--timeout" in done.complaint


# --- interruptions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_in_mid_stream_closes_the_connection_and_says_what_came(
    tmp_path: Path, provider: LoopbackProvider, number: int, code: int
) -> None:
    with started(tmp_path, *words(provider, "stall")) as process:
        before = read_until(process, b"down")  # the fifth token
        process.send_signal(number)
        provider.wait_for(lambda seen: seen.client_disconnects == 1)
        done = finish(process, before)
    assert done.code == code
    assert Answer().full_text.startswith(done.out)
    assert re.fullmatch(r"cancelled; 5 tokens had come in \d+\.\d s", done.complaint)


def test_an_interrupt_before_the_first_byte_closes_the_connection(tmp_path: Path, provider: LoopbackProvider) -> None:
    with started(tmp_path, *words(provider, "silent")) as process:
        provider.wait_for_requests(1, timeout=LIMIT)
        process.send_signal(signal.SIGINT)
        provider.wait_for(lambda seen: seen.client_disconnects == 1)
        done = finish(process)
    assert (done.code, done.out) == (130, "")
    assert re.fullmatch(r"cancelled; nothing had come in \d+\.\d s", done.complaint)


def test_an_interrupted_json_stream_ends_in_its_cancellation(tmp_path: Path, provider: LoopbackProvider) -> None:
    with started(tmp_path, *words(provider, "stall"), "--json") as process:
        before = read_until(process, b"\n")
        process.send_signal(signal.SIGINT)
        done = finish(process, before)
    assert done.code == 130
    assert done.events[-1]["type"] == "StreamCancelled"
    assert done.events[-1]["reason"] == "interrupted"


def test_a_second_interrupt_ends_a_process_that_cannot_write(tmp_path: Path, provider: LoopbackProvider) -> None:
    reading, full = full_pipe()
    with reading, full, started(tmp_path, *words(provider, "long"), "--json", stdout=full) as process:
        provider.wait_for(lambda seen: seen.events_sent > 100, LIMIT)
        process.send_signal(signal.SIGINT)
        provider.wait_for(lambda seen: seen.client_disconnects == 1, LIMIT)
        process.send_signal(signal.SIGINT)  # it cannot have ended: there is no room for the event that ends the stream
        assert process.wait(LIMIT) == 130


def full_pipe() -> tuple[BinaryIO, BinaryIO]:
    """The ends of a pipe into which not one byte more can be written; a write to it waits."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for size in (65_536, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"." * size)
    os.set_blocking(writing, True)
    return os.fdopen(reading, "rb"), os.fdopen(writing, "wb")


# --- output that breaks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["paced", "stall"])
def test_a_broken_pipe_ends_quietly_and_cancels_the_call(
    tmp_path: Path, provider: LoopbackProvider, model: str
) -> None:
    with started(tmp_path, *words(provider, model)) as process:
        read_until(process, b" ")
        assert process.stdout is not None
        process.stdout.close()
        provider.wait_for(lambda seen: seen.client_disconnects == 1)
        _, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_is_one_line_and_cancels_the_call(
    tmp_path: Path, provider: LoopbackProvider, options: list[str]
) -> None:
    with (
        open("/dev/full", "wb") as full,
        started(tmp_path, *words(provider, "paced"), *options, stdout=full) as process,
    ):
        provider.wait_for(lambda seen: seen.client_disconnects == 1, LIMIT)
        done = finish(process)
    assert done.code == 74
    assert "No space left" in done.complaint


def test_closed_standard_streams_do_no_harm(tmp_path: Path) -> None:
    program = " ".join(PROGRAM) + " chat Hello --provider loopback"

    def shell(command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["sh", "-c", command],
            env=environment(tmp_path),
            cwd=tmp_path,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )

    without_errors = shell(program + " 2>&- <&-")
    assert (without_errors.returncode, without_errors.stdout) == (0, b"Hello")
    without_output = shell(program + " >&-")
    assert without_output.returncode == 74
    assert without_output.stderr == b"penstock: standard output: is closed\n"


# --- in a terminal -------------------------------------------------------------------------------------------------


def test_a_terminal_is_shown_reasoning_and_is_not_commanded_by_the_model(
    tmp_path: Path, provider: LoopbackProvider
) -> None:
    code, drawn = in_terminal(tmp_path, *words(provider, "thinks"), OPENAI_API_KEY=KEY)
    assert code == 0
    assert re.search(r"\x1b\[2mLet me think\.", drawn.replace("\x1b[0m\x1b[2m", ""))
    assert drawn.endswith("second line.\r\n")
    _, drawn = in_terminal(tmp_path, *words(provider, "control"), OPENAI_API_KEY=KEY)
    assert drawn == "red ␛[31m, bell ␇, done\r\n"


def test_the_table_of_statistics_does_not_command_a_terminal(tmp_path: Path, provider: LoopbackProvider) -> None:
    code, drawn = in_terminal(tmp_path, *words(provider, EVIL), "--stats", OPENAI_API_KEY=KEY)
    assert code == 0
    assert "m␛[31m\ufffd31m" in drawn
    assert "\x1b[31m" not in drawn
    assert "\x9b" not in drawn


def test_json_in_a_terminal_escapes_what_would_command_it_and_is_the_same_json(
    tmp_path: Path, provider: LoopbackProvider
) -> None:
    code, drawn = in_terminal(tmp_path, *words(provider, EVIL), "--json", OPENAI_API_KEY=KEY)
    assert code == 0
    assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", drawn)
    assert "\\u009b31m\\u007f, \\u202edeb" in drawn
    events = [json.loads(line) for line in drawn.splitlines()]
    assert "red \x9b31m\x7f, \u202edeb\u202c, \u2066x\u2069" in events[-1].values()


def test_overrides_of_the_writing_direction_are_shown_as_escapes(tmp_path: Path, provider: LoopbackProvider) -> None:
    _, drawn = in_terminal(tmp_path, *words(provider, EVIL), OPENAI_API_KEY=KEY)
    assert "\\u202edeb\\u202c, \\u2066x\\u2069" in drawn
    assert chat(tmp_path, provider, EVIL).out.endswith("\u202edeb\u202c, \u2066x\u2069")  # no terminal: as it is


def test_no_color_switches_off_every_style(tmp_path: Path, provider: LoopbackProvider) -> None:
    for arguments in (words(provider, "thinks"), [*words(provider, "plain"), "--stats"], ["--help"]):
        code, drawn = in_terminal(tmp_path, *arguments, OPENAI_API_KEY=KEY, NO_COLOR="1")
        assert code == 0
        assert "\x1b" not in drawn


# --- loopback ------------------------------------------------------------------------------------------------------


def test_loopback_says_where_it_is_and_serves_until_interrupted(tmp_path: Path) -> None:
    with started(tmp_path, "loopback", "--port", "0") as process:
        url = read_until(process, b"\n").decode().strip()
        done = run(tmp_path, "chat", "Hi there", "--provider", "loopback", "--base-url", url)
        assert (done.code, done.out) == (0, "Hi there")
        process.send_signal(signal.SIGINT)
        served = finish(process)
    assert served.code == 130
    assert f'penstock chat "Hello" --provider loopback --base-url {url}' in served.err
    assert f"curl -N {url}/chat/completions" in served.err
    assert f"for clients of Anthropic, Ollama and Gemini is {url.removesuffix('/v1')}\n" in served.err
    assert "fault-503-once" in served.err
    assert served.err.endswith("penstock: stopped\n")


def test_loopback_serves_a_folder_of_recordings(tmp_path: Path) -> None:
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"As it was."},"finish_reason":"stop"}]}\n\n'
    (tmp_path / "of-yesterday.sse").write_bytes(chunk + b"data: [DONE]\n\n")
    with started(tmp_path, "loopback", "--port", "0", "--replay", str(tmp_path)) as process:
        url = read_until(process, b"\n").decode().strip()
        done = run(tmp_path, "chat", "Hi", "--provider", "loopback", "--base-url", url, "--model", "of-yesterday")
        assert (done.code, done.out) == (0, "As it was.")
        process.send_signal(signal.SIGTERM)
        assert finish(process).code == 143

    assert run(tmp_path, "loopback", "--replay", str(tmp_path / "nowhere")).code == 2


def test_loopback_can_want_a_key(tmp_path: Path) -> None:
    with started(
        tmp_path, "loopback", "--port", "0", "--api-key-env", "THE_KEY", variables={"THE_KEY": KEY}
    ) as process:
        url = read_until(process, b"\n").decode().strip()
        assert run(tmp_path, "chat", "Hi", "--base-url", url, "-m", "echo", OPENAI_API_KEY="other").code == 3
        assert run(tmp_path, "chat", "Hi", "--base-url", url, "-m", "echo", OPENAI_API_KEY=KEY).out == "Hi"
        process.send_signal(signal.SIGTERM)
        assert finish(process).code == 143
    done = run(tmp_path, "loopback", "--api-key-env", "NOT_SET")
    assert done.code == 2
    assert "--api-key-env" in done.complaint


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, provider: LoopbackProvider) -> None:
    done = run(tmp_path, "loopback", "--port", str(provider.port))
    assert (done.code, done.out) == (2, "")
    assert str(provider.port) in done.complaint


def test_the_table_of_models_is_complete() -> None:
    assert [name for name, _ in list_models()] == list(default_script().models)


# --- the rest ------------------------------------------------------------------------------------------------------


def test_version_help_and_nonsense(tmp_path: Path) -> None:
    assert run_anew(tmp_path, "--version").out == f"penstock {penstock.__version__}\n"
    for arguments in ([], ["--help"], ["chat", "--help"], ["loopback", "--help"], ["run", "--help"]):
        done = run(tmp_path, *arguments)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("Usage: penstock")
    assert "--preset" in run(tmp_path, "chat", "--help").out
    done = run(tmp_path, "chatt")
    assert done.code == 2
    assert "chat" in done.complaint
