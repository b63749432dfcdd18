"""Exit codes, the lines that explain failures, and the text of ``--help``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import penstock
from penstock.cli.chat import Chat
from penstock.cli.commands import run_command
from penstock.cli.failures import EXIT_CODES, CommandLineError, check_known, code_of, explain
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    CallTimeout,
    CircuitOpen,
    ConnectError,
    ContentFilterError,
    IncompleteStream,
    OptionError,
    PenstockError,
    ProtocolError,
    ProviderBusy,
    ProviderTimeout,
    RateLimited,
    StoreUnavailable,
    StreamCrashed,
)

DOCUMENT = Path(penstock.__file__).parents[1] / "docs" / "cli.md"
PROVIDERS: list[PenstockError] = [
    ConnectError("host", "connection refused"),
    ProviderTimeout("idle", 60),
    ProviderTimeout("total", 60),
    ProviderBusy("openai", "no turn"),
    CircuitOpen("openai", 10),
    ApiError(500, "broken"),
    AuthenticationError(401, "wrong key"),
    RateLimited(429, "too many"),
    ContentFilterError(400, "no"),
    ProtocolError("a web page"),
    IncompleteStream("connection reset"),
]


@pytest.mark.parametrize("error", PROVIDERS, ids=str)
def test_whatever_a_provider_does_the_code_says_only_whether_text_came(error: PenstockError) -> None:
    assert code_of(error) == 3
    assert code_of(error, text_came=True) == 4


def test_other_errors_have_their_code_whether_text_came_or_not() -> None:
    for text_came in (False, True):
        assert code_of(StreamCrashed("s", "bug"), text_came=text_came) == 1
        assert code_of(CallTimeout("a call", 5), text_came=text_came) == 1
        assert code_of(OptionError("batch_size", 0, "more"), text_came=text_came) == 2
        assert code_of(CommandLineError("no model"), text_came=text_came) == 2


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (StreamCrashed("s", "bug"), 1, "penstock: stream 's' crashed: bug\n"),
        (CommandLineError("no model"), 2, "penstock: no model\n"),
        (IncompleteStream("reset"), 3, "penstock: the stream stopped before its end: reset\n"),
        (BrokenPipeError(), 141, ""),
        (SystemExit(5), None, ""),
    ],
    ids=str,
)
def test_a_command_that_raises_ends_with_the_code_of_its_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    def fail(_self: Chat) -> int:
        raise error

    monkeypatch.setattr(Chat, "run", fail)
    monkeypatch.setattr("penstock.cli.terminal._silence", lambda descriptor: None)
    if code is None:
        with pytest.raises(SystemExit):
            run_command(["chat", "Hello"])
    else:
        assert run_command(["chat", "Hello"]) == code
    assert capsys.readouterr().err == line


def test_a_bug_is_one_line_that_says_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_self: Chat) -> int:
        raise ZeroDivisionError("hunter2")

    monkeypatch.setattr(Chat, "run", fail)
    assert run_command(["chat", "Hello"]) == 70
    said = capsys.readouterr().err
    assert re.fullmatch(r"penstock: a bug: ZeroDivisionError in test_failures\.py, line \d+; please report it\n", said)


def test_the_documents_table_of_exit_codes_is_that_of_the_command() -> None:
    table = re.findall(r"^\| (\d+) \| (.*?) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert {int(code): meaning for code, meaning in table} == EXIT_CODES


def test_a_provider_that_says_try_again_is_not_repeated() -> None:
    for text in ("Please try again later.", "Slow down; retry in 20s", "Try again in 3.5 s", "Retry after 2 s"):
        assert explain(RateLimited(429, text, retryable=True)) == f"HTTP 429: {text}"
    assert explain(RateLimited(429, "Too many.", retryable=True)) == "HTTP 429: Too many; try again later"
    assert explain(ApiError(500, "We tried.", retryable=True)) == "HTTP 500: We tried; try again later"


def test_advice_names_what_can_be_done() -> None:
    assert explain(AuthenticationError(401, "No."), "gemini").endswith(
        "; check the key in GEMINI_API_KEY or GOOGLE_API_KEY or the settings"
    )
    away = StoreUnavailable("redis://host", "Connection refused")
    assert explain(away) == (
        "redis://host: the store is not available: Connection refused; check --cluster, and whether that server runs"
    )
    assert explain(StoreUnavailable("a.db", "there is no such directory")).endswith("there is no such directory")
    assert explain(BadRequestError(404, "No such model.")) == "HTTP 404: No such model; check --model and --base-url"
    missing = OptionError(
        "api_key", None, "a key", message="No API key for openai. Set OPENAI_API_KEY or pass api_key=."
    )
    assert explain(missing) == (
        "No API key for openai. Set OPENAI_API_KEY, or try --provider loopback, which needs no key"
    )


def test_an_unknown_name_gets_the_known_ones_and_the_nearest() -> None:
    check_known("preset", "chat", ["chat", "realtime"])
    with pytest.raises(CommandLineError, match=r"^unknown preset 'nope'; known: chat, realtime$"):
        check_known("preset", "nope", ["chat", "realtime"])
    with pytest.raises(CommandLineError, match=r"^unknown preset 'Realtime' \(did you mean 'realtime'\?\); known: "):
        check_known("preset", "Realtime", ["chat", "realtime"])


@pytest.mark.parametrize(
    "command",
    [
        *([], ["chat"], ["batch"], ["pipe"], ["bench"], ["serve"], ["doctor"], ["loopback"], ["run"]),
        *(["keys"], ["keys", "new"], ["keys", "list"], ["keys", "revoke"]),
    ],
    ids=" ".join,
)
def test_help_fits_80_columns_and_breaks_no_word(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.rstrip().endswith("-")]
    assert not [line for line in lines if "..." in line.replace("[ARGS]...", "").replace("{PROMPT}...", "")]


def test_help_shows_the_table_of_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["--help"])
    shown = capsys.readouterr().out
    for code, meaning in EXIT_CODES.items():
        assert re.search(rf"^ +{code} +{re.escape(meaning)}$", shown, re.MULTILINE)
