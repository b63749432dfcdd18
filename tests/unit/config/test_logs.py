from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest
import structlog
from pydantic import SecretStr

from penstock.config.logs import LogFormat, LogLevel, configure_logging, get_logger, redact, stream_logger
from penstock.errors import OptionError, ProviderTimeout
from penstock.ports import Secret

KEY = "sk-very-secret-0123456789"
NAMES = ("penstock", "pykka", "urllib3")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore what `configure_logging` changes."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def configured(level: LogLevel = "info", format: LogFormat = "json", stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    configure_logging(level, format, stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class Loud:
    """Fails the test when it is formatted."""

    def __repr__(self) -> str:
        raise AssertionError("formatted")


def run(code: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a program in a new process, without the logging of this one."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, text=True, check=False, timeout=30, **({"capture_output": True} | arguments))


# --- unconfigured ----------------------------------------------------------------------------------------------------


def test_importing_and_making_a_logger_configures_nothing() -> None:
    done = run("""
        import logging, structlog
        import penstock.config.logs as logs
        logs.get_logger()
        assert not structlog.is_configured()
        assert not logging.getLogger().handlers
        assert not logging.getLogger("penstock").handlers
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_unconfigured_a_warning_goes_to_standard_error_and_less_goes_nowhere() -> None:
    done = run("""
        from penstock.config.logs import get_logger
        log = get_logger(stream_id="s1")
        log.info("quiet")
        log.warning("loud", attempt=2)
    """)
    assert (done.stdout, done.stderr) == ("", "loud stream_id=s1 attempt=2\n")


def test_an_applications_own_logging_gets_the_line_and_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="penstock"):
        get_logger(stream_id="s1").bind(state="idle").info("opened", buffer=3)
    (record,) = caplog.records
    assert record.getMessage() == "opened stream_id=s1 state=idle buffer=3"
    assert (record.name, record.levelname) == ("penstock", "INFO")
    assert record.funcName == "test_an_applications_own_logging_gets_the_line_and_the_fields"
    assert vars(record)["penstock"] == {"event": "opened", "stream_id": "s1", "state": "idle", "buffer": 3}


def test_structlogs_own_configuration_is_left_alone() -> None:
    configured()
    assert not structlog.is_configured()


# --- levels ----------------------------------------------------------------------------------------------------------


def test_what_is_below_the_level_is_neither_written_nor_formatted() -> None:
    stream = configured("warning")
    log = get_logger()
    log.debug("no", value=Loud())
    log.info("no", value=Loud())
    log.warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]
    assert [log.enabled(level) for level in ("debug", "info", "warning", "error")] == [False, False, True, True]


def test_every_level_has_its_method() -> None:
    stream = configured("debug")
    log = get_logger()
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)("x")
    assert [line["level"] for line in lines(stream)] == ["debug", "info", "warning", "error", "critical"]


def test_a_logger_made_before_the_configuration_follows_it() -> None:
    log = get_logger()
    stream = configured("debug")
    log.debug("seen")
    assert [line["event"] for line in lines(stream)] == ["seen"]


def test_a_debugged_streams_events_get_through_whatever_the_level() -> None:
    stream = configured("error")
    stream_logger("loud", debug=True).bind(actor="TokenStream").debug("seen")
    stream_logger("quiet", debug=False).debug("unseen", value=Loud())
    assert [(line["event"], line["stream_id"]) for line in lines(stream)] == [("seen", "loud")]
    assert stream_logger("loud", debug=True).enabled("debug")


def test_switching_all_logging_off_switches_debugged_streams_off_too() -> None:
    stream = configured("debug")
    logging.disable(logging.CRITICAL)
    try:
        stream_logger("s", debug=True).debug("unseen", value=Loud())
    finally:
        logging.disable(logging.NOTSET)
    assert stream.getvalue() == ""


# --- formats ---------------------------------------------------------------------------------------------------------


def test_json_has_one_object_a_line_in_a_fixed_order_with_utc_time() -> None:
    stream = configured()
    get_logger(attempt=1, state="waiting", actor="Integration", stream_id="s1").info("retrying")
    (line,) = stream.getvalue().splitlines()
    assert list(json.loads(line)) == ["timestamp", "level", "event", "stream_id", "actor", "state", "attempt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", json.loads(line)["timestamp"])


def test_auto_is_json_where_there_is_no_terminal() -> None:
    stream = configured(format="auto")
    get_logger().info("x")
    assert lines(stream)


def test_auto_is_console_in_a_terminal() -> None:
    stream = configured(format="auto", stream=Terminal())
    get_logger(stream_id="s1").info("opened")
    assert "opened" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    assert "\x1b[" in stream.getvalue()


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = configured(format="console", stream=Terminal())
    get_logger(stream_id="s1").info("opened")
    assert "\x1b[" not in stream.getvalue()


def test_console_without_a_terminal_has_no_colours() -> None:
    stream = configured(format="console")
    get_logger(stream_id="s1").info("opened")
    assert "opened" in stream.getvalue()
    assert "stream_id=s1" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()


def test_configuring_again_replaces_what_was_configured() -> None:
    first = configured()
    second = configured()
    get_logger().info("x")
    assert (first.getvalue(), len(lines(second))) == ("", 1)


def test_fields_cannot_take_the_place_of_time_and_level() -> None:
    stream = configured()
    get_logger().info("x", level="fake", timestamp="fake")
    assert (lines(stream)[0]["level"], "fake" in stream.getvalue()) == ("info", False)


@pytest.mark.parametrize("format", ["console", "json"])
def test_control_characters_cannot_fake_a_line_or_move_the_cursor(format: LogFormat) -> None:
    stream = configured(format=format)
    get_logger(stream_id="s\n{}\x1b[2J").info("a\r\nb", list=["x\ny"])
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


@pytest.mark.parametrize(("level", "format"), [("loud", "json"), ("INFO", "json"), ("info", "xml"), (None, "json")])
def test_a_wrong_level_or_format_is_refused_and_changes_nothing(level: Any, format: Any) -> None:
    stream = configured()
    with pytest.raises(OptionError, match=r"^(level|format): got .*, allowed: "):
        configure_logging(level, format, io.StringIO())
    get_logger().info("x")
    assert len(lines(stream)) == 1


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "apikey",
        "X-Api-Key",
        "openai_api_key",
        "Authorization",
        "token",
        "text",
        "tokens",
        "content",
        "messages",
        "prompt",
        "client_secret",
        "password",
        "Set-Cookie",
        "access_token",
    ],
)
@pytest.mark.parametrize("format", ["console", "json"])
def test_what_is_named_like_a_secret_or_token_text_is_starred(name: str, format: LogFormat) -> None:
    stream = configured(format=format)
    get_logger().info("sent", **{name: ["hunter2"], "nested": {"deep": [{name: "hunter2"}]}})
    assert "hunter2" not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_counts_and_names_that_only_sound_similar_are_shown() -> None:
    shown: dict[str, Any] = {
        "tokens_processed": 3,
        "max_tokens": 4,
        "tokens": 5,
        "context": "c",
        "ok": True,
        "no": None,
    }
    assert redact(None, "info", dict(shown)) == shown


@pytest.mark.parametrize(
    "value",
    [
        Secret(KEY),
        SecretStr(KEY),
        [Secret(KEY)],
        {"a": {"b": Secret(KEY)}},
        f"Authorization: Bearer {KEY}",
        f"bearer {KEY[3:]}",
        f"key is {KEY}",
        f"https://host/v1?key={KEY[3:]}&alt=sse",
        f"https://user:{KEY[3:]}@host/",
        ValueError(KEY[3:]),
        KEY.encode(),
        {KEY: 1},
    ],
)
def test_a_key_is_starred_wherever_it_is(value: object) -> None:
    stream = configured()
    get_logger().info(f"with {KEY}", value=value)
    assert "very-secret" not in stream.getvalue()
    assert len(lines(stream)) == 1


def test_redaction_reaches_an_applications_own_logging(caplog: pytest.LogCaptureFixture) -> None:
    get_logger().warning("x", api_key=KEY, text="hunter2", key=Secret(KEY))
    assert KEY not in caplog.text
    assert "hunter2" not in caplog.text
    assert KEY not in str(vars(caplog.records[0]))


def test_looking_for_secrets_does_not_ask_an_actor_and_ends() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> object:
            raise AssertionError("asked")

        def __repr__(self) -> str:
            return "<proxy>"

    endless: list[Any] = []
    endless.append(endless)
    stream = configured()
    get_logger().info("x", proxy=Proxy(), endless=endless)
    assert lines(stream)[0]["proxy"] == "<proxy>"


def test_a_value_that_cannot_be_shown_does_not_break_the_caller() -> None:
    stream = configured()
    get_logger().info("x", value=Loud())
    assert lines(stream)[0]["value"] == "a Loud"


def fail() -> None:
    try:
        raise KeyError("hunter2")
    except KeyError as error:
        raise ValueError(f"bad {KEY}") from error


@pytest.mark.parametrize("format", ["console", "json"])
def test_an_exception_is_logged_with_types_and_places_but_without_messages(format: LogFormat) -> None:
    stream = configured(format=format)
    try:
        fail()
    except ValueError as error:
        get_logger().exception("failed")
        get_logger().error("failed", exc_info=error)
        get_logger().error("failed", exc_info=(type(error), error, error.__traceback__))
        get_logger().error("failed", error=error)
    text = stream.getvalue()
    assert KEY not in text
    assert text.count("ValueError") >= 4
    assert text.count("KeyError") >= 3
    assert text.count("in fail") >= 6


def test_our_own_errors_are_logged_with_their_message() -> None:
    stream = configured()
    get_logger().error("failed", error=ProviderTimeout("idle", 2))
    assert lines(stream)[0]["error"] == "ProviderTimeout: idle timeout: no further token within 2 s"


def test_exc_info_without_an_exception_says_nothing() -> None:
    stream = configured()
    get_logger().error("x", exc_info=True)
    get_logger().error("x", exc_info=None)
    assert all("exception" not in line for line in lines(stream))


# --- the libraries below us ------------------------------------------------------------------------------------------


class Careless(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        raise ValueError(f"cannot do {message}")


def test_pykkas_report_of_a_crash_does_not_show_the_message() -> None:
    stream = configured("debug")
    ref = Careless.start()
    ref.tell(KEY)
    ref.actor_stopped.wait(5)
    pykka.ActorRegistry.stop_all()
    (line,) = [line for line in lines(stream) if line["logger"] == "pykka"]
    assert line["level"] == "error"
    assert "ValueError" in line["exception"]
    assert KEY not in stream.getvalue()


def test_pykkas_warning_of_an_unexpected_message_does_not_show_it() -> None:
    stream = configured("debug")
    ref = pykka.ThreadingActor.start()
    ref.tell({"text": "hunter2"})
    ref.stop()
    (line,) = [line for line in lines(stream) if line["level"] == "warning"]
    assert line["event"] == "Unexpected message received: ***"
    assert "hunter2" not in stream.getvalue()


def test_urllib3_is_heard_from_warnings_on_and_its_urls_show_no_key() -> None:
    stream = configured("debug")
    logging.getLogger("urllib3.connectionpool").debug('"POST /v1?key=hunter2 HTTP/1.1" 200')
    logging.getLogger("urllib3.connectionpool").warning("Retrying after: /v1?key=%s", "hunter2")
    (line,) = lines(stream)
    assert (line["logger"], line["event"]) == ("urllib3.connectionpool", "Retrying after: /v1?key=***")


# --- a stream that breaks --------------------------------------------------------------------------------------------


class Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [Broken, closed])
@pytest.mark.parametrize("format", ["auto", "console", "json"])
def test_a_broken_or_closed_stream_raises_nothing(
    make: Callable[[], io.StringIO], format: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", format, make())
    get_logger().error("lost")
    assert capsys.readouterr() == ("", "")


def test_the_standard_error_is_that_of_the_time_of_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging("info", "json")
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    get_logger().info("x")
    assert len(lines(later)) == 1
    monkeypatch.setattr(sys, "stderr", None)
    get_logger().info("nowhere to write")
    configure_logging()


def test_a_stream_that_cannot_encode_a_character_gets_it_escaped() -> None:
    raw = io.BytesIO()
    configure_logging("info", "console", io.TextIOWrapper(raw, encoding="ascii"))
    get_logger(user="Jörg").info("x")
    assert b"J\\xf6rg" in raw.getvalue()


def test_a_process_whose_standard_error_is_closed_ends_well() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(
            """
            from penstock.config.logs import configure_logging, get_logger
            get_logger().error("lost")
            configure_logging()
            get_logger().error("lost")
            print("alive")
            """,
            capture_output=False,
            stdout=subprocess.PIPE,
            stderr=writing,
            # Buffered, the interpreter itself finds at exit that it cannot flush, and says so with exit code 120.
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stdout) == (0, "alive\n")
