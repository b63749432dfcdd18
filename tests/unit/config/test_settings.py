from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from penstock.config import presets
from penstock.config.limits import BreakerOptions, LimitOptions, RetryBudgetOptions
from penstock.config.options import RequestOptions, StreamOptions
from penstock.config.prices import PriceTable
from penstock.config.settings import DefaultProviderOptions, LogOptions, ProviderOptions, RuntimeOptions, Settings
from penstock.config.tokenizers import words
from penstock.errors import OptionError

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "configuration.md"
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but the test's own: no variable, no file."""
    for name in list(os.environ):
        if name.upper().startswith(("PENSTOCK_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "OLLAMA_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "penstock.toml") -> Path:
    file = Path(name)
    file.write_text(text, encoding="utf-8")
    return file


def refusal(*arguments: Any, **overrides: Any) -> OptionError:
    with pytest.raises(OptionError) as caught:
        Settings.load(*arguments, **overrides)
    return caught.value


def everything_shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


# --- precedence ------------------------------------------------------------------------------------------------------


def test_settings_without_load_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_STREAM__BATCH_SIZE", "20")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write("[stream]\nbatch_size = 30")
    settings = Settings()
    assert settings.stream == StreamOptions()
    assert settings.api_key() is None


def test_load_gives_the_defaults_where_nothing_is_set() -> None:
    settings = Settings.load()
    assert settings == Settings()
    assert settings.chat == presets.CHAT_DEFAULTS
    assert settings.response == presets.RESPONSE_DEFAULTS
    assert settings.request == RequestOptions()
    assert (settings.provider.name, settings.model(), settings.base_url(), settings.api_key()) == ("openai",) + (
        None,
    ) * 3


def test_arguments_go_before_environment_before_file_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[stream]\nbatch_size = 30\nmax_errors = 31\nmax_buffer_size = 32")
    monkeypatch.setenv("PENSTOCK_STREAM__BATCH_SIZE", "20")
    monkeypatch.setenv("PENSTOCK_STREAM__MAX_ERRORS", "21")
    stream = Settings.load(stream={"batch_size": 11}).stream
    assert (stream.batch_size, stream.max_errors, stream.max_buffer_size, stream.rate_limit) == (11, 21, 32, 100)


def test_a_ready_object_takes_its_groups_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_STREAM__BATCH_SIZE", "20")
    assert Settings.load(stream=StreamOptions(batch_size=7)).stream == StreamOptions(batch_size=7)


def test_the_path_goes_before_the_variable_before_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[stream]\nbatch_size = 1")
    assert Settings.load().stream.batch_size == 1
    monkeypatch.setenv("PENSTOCK_CONFIG", str(write("[stream]\nbatch_size = 2", "two.toml")))
    assert Settings.load().stream.batch_size == 2
    assert Settings.load(write("[stream]\nbatch_size = 3", "three.toml")).stream.batch_size == 3


def test_a_preset_is_what_the_other_settings_start_from_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[stream]\nbatch_size = 7\n[chat]\npreset = "realtime"')
    monkeypatch.setenv("PENSTOCK_STREAM__PRESET", "chat")
    settings = Settings.load()
    assert settings.stream == presets.CHAT.replace(batch_size=7)
    assert settings.chat == presets.REALTIME


def test_chat_and_response_start_from_their_own_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CHAT__BATCH_SIZE", "7")
    monkeypatch.setenv("PENSTOCK_RESPONSE__RATE_LIMIT", "40")
    settings = Settings.load()
    assert settings.chat == presets.CHAT_DEFAULTS.replace(batch_size=7)
    assert settings.response == presets.RESPONSE_DEFAULTS.replace(rate_limit=40)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[stream]\nbatch_size = 30")
    for name in ("PENSTOCK_STREAM__BATCH_SIZE", "PENSTOCK_CONFIG", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "")
    settings = Settings.load()
    assert settings.stream.batch_size == 30
    assert settings.api_key() is None


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "group", "field", "value"),
    [
        ("PENSTOCK_STREAM__BATCH_SIZE", "20", "stream", "batch_size", 20),
        ("PENSTOCK_STREAM__RETAIN_BYTES", "2_000_000", "stream", "retain_bytes", 2_000_000),
        ("PENSTOCK_STREAM__FLUSH_INTERVAL", "50ms", "stream", "flush_interval", 0.05),
        ("PENSTOCK_STREAM__RATE_LIMIT", "unlimited", "stream", "rate_limit", None),
        ("PENSTOCK_STREAM__RATE_LIMIT", "12.5", "stream", "rate_limit", 12.5),
        ("PENSTOCK_STREAM__TIME_TO_LIVE", "none", "stream", "time_to_live", None),
        ("PENSTOCK_STREAM__TOKENIZER", "words", "stream", "tokenizer", words),
        ("PENSTOCK_STREAM__DEBUG", "Yes", "stream", "debug", True),
        ("PENSTOCK_STREAM__ERROR_RECOVERY", "off", "stream", "error_recovery", False),
        ("PENSTOCK_STREAM__STRATEGY", "batch", "stream", "strategy", "batch"),
        ("PENSTOCK_REQUEST__CONNECT_TIMEOUT", "2s", "request", "connect_timeout", 2.0),
        ("PENSTOCK_REQUEST__TOTAL_TIMEOUT", "1.5m", "request", "total_timeout", 90.0),
        ("PENSTOCK_REQUEST__VERIFY_TLS", "false", "request", "verify_tls", False),
        ("PENSTOCK_REQUEST__VERIFY_TLS", "/etc/ca.pem", "request", "verify_tls", "/etc/ca.pem"),
        ("PENSTOCK_REQUEST__REASONING_TIMEOUT", "2m", "request", "reasoning_timeout", 120.0),
        ("PENSTOCK_REQUEST__FALLBACK", "gpt-4.1, ollama/qwen3", "request", "fallback", ("gpt-4.1", "ollama/qwen3")),
        ("PENSTOCK_REQUEST__FALLBACK", "None", "request", "fallback", ()),
        ("PENSTOCK_BREAKER__COOLDOWN", "1m", "breaker", "cooldown", 60.0),
        ("PENSTOCK_BREAKER__FAILURES", "3", "breaker", "failures", 3),
        ("PENSTOCK_BREAKER__ENABLED", "no", "breaker", "enabled", False),
        ("PENSTOCK_AGENT__TOOL_TIMEOUT", "1m", "agent", "tool_timeout", 60.0),
        ("PENSTOCK_AGENT__MAX_QUEUE", "5", "agent", "max_queue", 5),
        ("PENSTOCK_RETRY_BUDGET__RATIO", "0.5", "retry_budget", "ratio", 0.5),
        ("PENSTOCK_RETRY_BUDGET__RATIO", "none", "retry_budget", "ratio", None),
        ("PENSTOCK_RETRY_BUDGET__WINDOW", "1m", "retry_budget", "window", 60.0),
        ("PENSTOCK_PROVIDER__REQUESTS_PER_MINUTE", "500", "provider", "requests_per_minute", 500),
        ("PENSTOCK_PROVIDER__TOKENS_PER_MINUTE", "unlimited", "provider", "tokens_per_minute", None),
        ("PENSTOCK_PROVIDER__QUEUE_TIMEOUT", "500ms", "provider", "queue_timeout", 0.5),
        ("PENSTOCK_RUNTIME__CALL_TIMEOUT", "0.5", "runtime", "call_timeout", 0.5),
        ("PENSTOCK_RUNTIME__WORKERS", "8", "runtime", "workers", 8),
        ("PENSTOCK_LOG__LEVEL", "debug", "log", "level", "debug"),
        ("PENSTOCK_PROVIDER__MODEL", "123", "provider", "model", "123"),
        ("PENSTOCK_PROVIDER__MODEL", '{"a": 1}', "provider", "model", '{"a": 1}'),
        ("PENSTOCK_STORE__PATH", "none", "store", "path", None),
        ("PENSTOCK_STORE__PATH", "none.db", "store", "path", "none.db"),
        ("PENSTOCK_GATEWAY__KEYS", "None", "gateway", "keys", None),
        ("PENSTOCK_PROVIDER__BASE_URL", "none", "provider", "base_url", None),
        ("penstock_stream__batch_size", "20", "stream", "batch_size", 20),
    ],
)
def test_the_text_of_a_variable_becomes_the_settings_type(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, group: str, field: str, value: object
) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(getattr(Settings.load(), group), field) == value


def test_a_file_may_say_numbers_or_text() -> None:
    write('[stream]\nflush_interval = "1ms"\nrate_limit = "none"\nerror_recovery_delay = 2\ntokenizer = "fixed(3)"')
    stream = Settings.load().stream
    assert (stream.flush_interval, stream.rate_limit, stream.error_recovery_delay) == (0.001, None, 2)
    assert stream.tokenizer is not None
    assert list(stream.tokenizer("abcd")) == ["abc", "d"]


RUNTIME_RANGES = [
    ("workers", 1, 64, 0, 65),
    ("max_spares", 0, 10_000, -1, 10_001),
    ("throughput", 1, 1_000_000, 0, 1_000_001),
    ("hold_warning", 0.01, 3600, 0.009, 3601),
    ("reader_threads", 1, 100_000, 0, 100_001),
    ("reader_queue", 0, 10_000_000, -1, 10_000_001),
    ("call_timeout", 0.001, 86_400, 0, 86_401),
    ("shutdown_timeout", 0, 3600, -1, 3601),
]


@pytest.mark.parametrize(("field", "low", "high", "below", "above"), RUNTIME_RANGES)
def test_both_ends_of_every_runtime_range_are_allowed_and_one_beyond_is_refused(
    monkeypatch: pytest.MonkeyPatch, field: str, low: float, high: float, below: float, above: float
) -> None:
    for good in (low, high):
        assert getattr(RuntimeOptions().replace(**{field: good}), field) == good
    for bad in (below, above):
        variable = f"PENSTOCK_RUNTIME__{field.upper()}"
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(bad))
            error = refusal()
        if bad >= 0 or isinstance(getattr(RuntimeOptions(), field), int):
            assert "number from " in error.allowed
        assert (error.field, error.got, error.source) == (f"runtime.{field}", str(bad), variable)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_bad_value_in_a_variable_is_named_with_what_is_allowed_and_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_STREAM__BATCH_SIZE", "0")
    assert str(refusal()) == (
        "stream.batch_size: got '0', allowed: a whole number from 1 to 10000000, or 'adaptive'"
        " (from PENSTOCK_STREAM__BATCH_SIZE)"
    )


@pytest.mark.parametrize(
    ("text", "field", "shown"),
    [
        (
            "[stream]\nbatch_size = 0",
            "stream.batch_size",
            "got 0, allowed: a whole number from 1 to 10000000, or 'adaptive'",
        ),
        ("[stream]\nbatch_size = 1.5", "stream.batch_size", "got 1.5, allowed: a whole number"),
        ('[stream]\nbatch_size = "many"', "stream.batch_size", "got 'many', allowed: a whole number"),
        ("[stream]\nbatch_size = {}", "stream.batch_size", "got {}"),
        ('[stream]\nflush_interval = "2h"', "stream.flush_interval", "got '2h', allowed: a number from 0.001 to 3600"),
        ('[stream]\nflush_interval = "soon"', "stream.flush_interval", "100ms"),
        ("[stream]\nrate_limit = nan", "stream.rate_limit", "got nan, allowed: a number from 0.001 to 1000000000"),
        ('[chat]\npreset = "fast"', "chat.preset", "got 'fast', allowed: 'chat' | 'document' | 'realtime'"),
        ("[chat]\npreset = {}", "chat.preset", "got {}"),
        ("[stream]\ndebug = 1", "stream.debug", "got 1, allowed: True | False"),
        ('[stream]\ndebug = "perhaps"', "stream.debug", "got 'perhaps', allowed: true | false"),
        ('[stream]\ntokenizer = "wrods"', "stream.tokenizer", "allowed: words | characters"),
        ('[log]\nlevel = "loud"', "log.level", "got 'loud', allowed: 'debug' | 'info'"),
        ('[log]\nformat = "xml"', "log.format", "got 'xml', allowed: 'auto' | 'console' | 'json'"),
        ('[provider]\nname = "Open AI"', "provider.name", "got 'Open AI', allowed: a provider's name"),
        ('[provider]\nmodel = ""', "provider.model", "got '', allowed: a model's name"),
        ('[provider]\nbase_url = "api.openai.com"', "provider.base_url", "got 'api.openai.com', allowed: a URL like"),
        ('[provider]\nbase_url = "http://["', "provider.base_url", "allowed: a URL like"),
        ("[providers.x]\nbase_url = 1", "providers.x.base_url", "got 1, allowed: a URL like"),
        ("[providers.X-1]\nmodel = 'm'", "providers", "got 'X-1'"),
        ('[request]\nfallback = "a,,b"', "request.fallback", "got 'a,,b', allowed: a list of model names"),
        ("[request]\nfallback = [1]", "request.fallback", "got [1], allowed: a list of model names"),
        ('[retry_budget]\nratio = "20ms"', "retry_budget.ratio", "got '20ms', allowed: a number such as"),
        ("[breaker]\nfailures = 0", "breaker.failures", "got 0, allowed: a whole number from 1 to 1000000"),
        ("[providers.x]\nmax_queue = -1", "providers.x.max_queue", "got -1, allowed: a whole number from 0"),
        ('[provider]\nrequests_per_minute = "few"', "provider.requests_per_minute", "got 'few', allowed: a whole"),
        ('prices = ""', "prices", "got '', allowed: the path of a file"),
        ("prices = 5", "prices", "got a value of type int, allowed: the path of a file"),
        ("[prices]\nx = 5", "prices", "got a value of type dict, allowed: the path of a file"),
        ("stream = 5", "stream", "got a value of type int, allowed: a table of settings"),
        ("[providers]\nopenai = 5", "providers.openai", "got a value of type int, allowed: a table of settings"),
    ],
)
def test_a_bad_value_in_a_file_is_named_with_what_is_allowed_and_the_file(text: str, field: str, shown: str) -> None:
    error = refusal(write(text, "bad.toml"))
    assert error.field == field
    assert shown in str(error)
    assert error.source == "bad.toml"
    assert str(error).endswith("(from bad.toml)")


def test_a_default_that_does_not_go_with_what_was_set_names_what_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_STREAM__MAX_BUFFER_SIZE", "5")
    monkeypatch.setenv("PENSTOCK_STREAM__DEBUG", "true")
    error = refusal()
    assert error.source == "PENSTOCK_STREAM__MAX_BUFFER_SIZE"
    assert "stream.batch_size: got 10, allowed: a whole number from 1 to max_buffer_size (5)" in str(error)


def test_a_bad_argument_is_said_to_be_one() -> None:
    assert str(refusal(stream={"batch_size": 0})).endswith("(from an argument)")
    assert refusal(strean={}).source == "an argument"
    assert refusal(stream=5).field == "stream"
    assert refusal(stream=RequestOptions()).field == "stream"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PENSTOCK_STREAM__BACTH_SIZE", "PENSTOCK_STREAM__BATCH_SIZE"),
        ("PENSTOCK_STRAEM__BATCH_SIZE", "PENSTOCK_STREAM__BATCH_SIZE"),
        ("PENSTOCK_STREAM_BATCH_SIZE", "PENSTOCK_STREAM__BATCH_SIZE"),
        ("PENSTOCK_BATCH_SIZE", "PENSTOCK_STREAM__BATCH_SIZE"),
        ("PENSTOCK_API_KEY", "PENSTOCK_PROVIDER__API_KEY"),
        ("PENSTOCK_PROVIDERS__OLLAMA__BASEURL", "PENSTOCK_PROVIDERS__OLLAMA__BASE_URL"),
        ("PENSTOCK_PRICE", "PENSTOCK_PRICES"),
        ("PENSTOCK_PRICES__FILE", None),
        ("PENSTOCK_STREAM", None),
        ("PENSTOCK_STREAM__BATCH_SIZE__X", "PENSTOCK_STREAM__BATCH_SIZE"),
        ("PENSTOCK_", None),
        ("PENSTOCK_WHATEVER", None),
    ],
)
def test_an_unknown_variable_is_refused_with_what_was_probably_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str | None
) -> None:
    monkeypatch.setenv(name, KEY)
    error = refusal()
    assert error.source == name
    assert (f"did you mean {meant}?" in str(error)) if meant else ("did you mean" not in str(error))
    assert KEY not in everything_shown(error)


@pytest.mark.parametrize(
    ("text", "field", "meant"),
    [
        ("[stream]\nbacth_size = 1", "stream.bacth_size", "stream.batch_size"),
        ("[strean]\nbatch_size = 1", "strean", None),
        ("[providers.openai]\napi_kye = 1", "providers.openai.api_kye", "providers.openai.api_key"),
        ("batch_size = 1", "batch_size", "stream.batch_size"),
    ],
)
def test_an_unknown_setting_in_a_file_is_refused(text: str, field: str, meant: str | None) -> None:
    error = refusal(write(text))
    assert (error.field, error.source) == (field, "penstock.toml")
    assert meant is None or f"did you mean {meant}?" in str(error)


def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "PENSTOCK_SERVICE_HOST",
        "PENSTOCK_SERVICE_PORT",
        "PENSTOCK_SERVICE_PORT_HTTP",
        "PENSTOCK_PORT",
        "PENSTOCK_PORT_80_TCP",
        "PENSTOCK_PORT_80_TCP_ADDR",
        "PENSTOCK_GATEWAY_SERVICE_HOST",
    ):
        monkeypatch.setenv(name, "10.0.0.1")
    assert Settings.load() == Settings()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[stream]\nbatch_size = \n", "line 2"),
        ("[stream\n", "line 1"),
        ("a =", "at its end"),
        ('\n\nk = "x\n', "line 3"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_file_and_line(text: str, where: str) -> None:
    error = refusal(write(text, "bad.toml"))
    assert error.field == "config"
    assert error.source == f"bad.toml, {where}"


def test_a_file_that_is_not_utf8_is_refused_with_its_line_and_without_its_content() -> None:
    Path("bad.toml").write_bytes(b"[provider]\napi_key = '" + KEY.encode() + b"'\nmodel = '\xff'\n")
    error = refusal("bad.toml")
    assert error.source == "bad.toml, line 3"
    assert KEY not in everything_shown(error)


def test_a_file_nested_too_deeply_is_refused() -> None:
    assert refusal(write("a = " + "[" * 5000 + "]" * 5000)).field == "config"


def test_a_file_that_was_asked_for_and_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal("nowhere.toml")
    assert (error.field, error.got, error.source) == ("config", "nowhere.toml", "an argument")
    assert "No such file" in str(error)
    monkeypatch.setenv("PENSTOCK_CONFIG", "elsewhere.toml")
    assert refusal().source == "PENSTOCK_CONFIG"
    assert refusal(os.devnull).field == "config"


def test_a_directory_called_penstock_toml_is_refused() -> None:
    Path("penstock.toml").mkdir()
    assert refusal().source == "penstock.toml"


def test_settings_made_by_hand_are_checked() -> None:
    wrong: dict[str, Any]
    for wrong in ({"stream": {}}, {"providers": {"x": {}}}, {"providers": {"X": ProviderOptions()}}):
        with pytest.raises(OptionError):
            Settings(**wrong)


# --- providers and their keys ----------------------------------------------------------------------------------------


def test_openais_own_variables_are_the_last_resort_for_openai_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    settings = Settings.load()
    assert (settings.api_key(), settings.base_url()) == (KEY, "http://localhost:1/v1")
    assert settings.api_key("anthropic") is None
    assert Settings.load(provider={"name": "anthropic"}).api_key() is None
    assert Settings.load(provider={"name": "anthropic"}).api_key("openai") == KEY
    write('[providers.openai]\napi_key = "from-file"')
    assert Settings.load().api_key() == "from-file"
    monkeypatch.setenv("PENSTOCK_PROVIDERS__OPENAI__API_KEY", "from-variable")
    assert Settings.load().api_key() == "from-variable"
    monkeypatch.setenv("PENSTOCK_PROVIDER__API_KEY", "from-default-provider")
    assert Settings.load().api_key() == "from-default-provider"


def test_every_provider_has_its_own_variables_and_no_other_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, prefix in (("anthropic", "ANTHROPIC"), ("gemini", "GEMINI"), ("ollama", "OLLAMA")):
        monkeypatch.setenv(f"{prefix}_API_KEY", f"key-of-{name}")
    monkeypatch.setenv("GOOGLE_API_KEY", "second-choice")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://a")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://g")
    settings = Settings.load()
    for name in ("anthropic", "gemini", "ollama"):
        assert settings.api_key(name) == f"key-of-{name}"
    assert settings.api_key() is None
    assert [settings.base_url(name) for name in ("anthropic", "gemini", "ollama")] == ["http://a", "http://g", None]
    monkeypatch.setenv("GEMINI_API_KEY", " ")
    assert Settings.load().api_key("gemini") == "second-choice"
    assert KEY not in str(Settings.load().to_dict())


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost", "http://localhost:11434"),
        ("box:8080", "http://box:8080"),
        ("0.0.0.0", "http://localhost:11434"),
        ("0.0.0.0:11435", "http://localhost:11435"),
        (":11435", "http://localhost:11435"),
        ("[::]:11435", "http://localhost:11435"),
        ("[::1]", "http://[::1]:11434"),
        ("http://box", "http://box"),
        ("https://ollama.example/base/", "https://ollama.example/base"),
    ],
)
def test_the_host_that_ollama_listens_at_is_a_url(monkeypatch: pytest.MonkeyPatch, host: str, url: str) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert Settings.load().base_url("ollama") == url


@pytest.mark.parametrize("host", ["box:99999999", "me:hunter2@box", "box?hunter2", "a b"])
def test_a_host_of_ollama_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    error = refusal()
    assert error.source == "OLLAMA_HOST"
    assert "hunter2" not in everything_shown(error)


def test_an_empty_key_in_the_file_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write('[provider]\napi_key = ""')
    assert Settings.load().api_key() is None


def test_a_key_given_for_the_default_provider_is_not_used_for_another() -> None:
    settings = Settings.load(provider={"name": "ollama", "api_key": KEY, "model": "m", "base_url": "http://h"})
    assert (settings.api_key(), settings.model("ollama"), settings.base_url("ollama")) == (KEY, "m", "http://h")
    assert (settings.api_key("openai"), settings.model("openai"), settings.base_url("openai")) == (None, None, None)


def test_providers_may_be_given_as_ready_objects() -> None:
    settings = Settings.load(providers={"openai": ProviderOptions(api_key=SecretStr(KEY))})
    assert settings.api_key("openai") == KEY


def test_a_bad_url_in_openais_variable_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost")
    assert refusal().source == "OPENAI_BASE_URL"


@pytest.mark.parametrize("url", ["http://user:hunter2@host/v1", "https://host/v1?key=hunter2", "https://h/#hunter2"])
def test_a_url_that_may_hold_a_secret_is_refused_without_showing_it(url: str) -> None:
    error = refusal(provider={"base_url": url})
    assert error.field == "provider.base_url"
    assert "hunter2" not in everything_shown(error)


@pytest.mark.parametrize("bad", [KEY + " x", KEY + "\nx", KEY + "é", KEY + "\x00"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(bad: str) -> None:
    for overrides in ({"provider": {"api_key": bad}}, {"providers": {"openai": {"api_key": bad}}}):
        error = refusal(**overrides)
        assert "api_key: got ***, allowed: visible ASCII" in str(error)
        assert KEY not in everything_shown(error)
    with pytest.raises(OptionError) as caught:
        ProviderOptions(api_key=SecretStr(bad))
    assert KEY not in everything_shown(caught.value)


def test_a_key_that_is_no_text_is_refused_without_showing_it() -> None:
    error = refusal(provider={"api_key": {"value": KEY}})
    assert "provider.api_key: got ***, allowed: text" in str(error)
    assert KEY not in everything_shown(error)


def test_no_form_of_the_settings_shows_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = Settings.load(provider={"api_key": KEY + "1"}, providers={"x": {"api_key": KEY + "2"}})
    shown = [repr(settings), str(settings), f"{settings}", repr(settings.provider), repr(settings.providers)]
    shown += [json.dumps(settings.to_dict()), json.dumps(vars(settings), default=str)]
    assert not [text for text in shown if KEY in text]
    assert settings.to_dict()["provider"]["api_key"] == "***"


def test_a_key_given_as_plain_text_is_wrapped() -> None:
    options = DefaultProviderOptions(api_key=KEY)  # type: ignore[arg-type]
    assert KEY not in repr(options)
    assert Settings(provider=options).api_key() == KEY


def test_settings_as_plain_values_name_their_tokenisers() -> None:
    settings = Settings.load(stream={"tokenizer": "words"}, chat={"tokenizer": "fixed(3)"})
    plain = settings.to_dict()
    assert (plain["stream"]["tokenizer"], plain["chat"]["tokenizer"]) == ("words", "fixed(3)")
    assert plain["response"]["tokenizer"] is None


def test_settings_are_frozen_and_hashable() -> None:
    with pytest.raises(AttributeError):
        Settings().stream = StreamOptions()  # type: ignore[misc]
    assert hash(Settings()) == hash(Settings.load())


# --- limits, breaker, budget, prices ---------------------------------------------------------------------------------


def test_a_providers_limits_come_from_its_own_table_and_for_the_default_one_from_there_first() -> None:
    settings = Settings.load(
        provider={"name": "openai", "requests_per_minute": 10},
        providers={
            "openai": {"requests_per_minute": 20, "concurrent_streams": 3},
            "open_router": {"tokens_per_minute": 1000, "queue_timeout": "2s", "max_queue": 0},
        },
    )
    assert settings.limits() == settings.limits("openai") == LimitOptions(requests_per_minute=10, concurrent_streams=3)
    assert settings.limits("open-router") == LimitOptions(tokens_per_minute=1000, queue_timeout=2.0, max_queue=0)
    assert settings.limits("ollama") == LimitOptions()
    assert LimitOptions() == LimitOptions(max_queue=1000, queue_timeout=30.0)


def test_breaker_budget_and_prices_have_their_documented_defaults() -> None:
    settings = Settings()
    assert settings.breaker == BreakerOptions(failures=5, span=5.0, cooldown=30.0, enabled=True)
    assert settings.retry_budget == RetryBudgetOptions(ratio=0.2, floor=100, window=10.0)
    assert settings.prices is None


def test_a_price_table_is_named_by_argument_variable_or_file_in_that_order(monkeypatch: pytest.MonkeyPatch) -> None:
    write('prices = "file.toml"')
    assert Settings.load().prices == "file.toml"
    monkeypatch.setenv("PENSTOCK_PRICES", "variable.toml")
    assert Settings.load().prices == "variable.toml"
    assert Settings.load(prices="argument.toml").prices == "argument.toml"
    with pytest.raises(OptionError, match=r"^prices: got '', allowed: the path of a file"):
        Settings(prices="")


# --- the documentation -----------------------------------------------------------------------------------------------


def test_the_documented_example_file_loads() -> None:
    example = re.search(r"```toml\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    assert example
    settings = Settings.load(write(example[1]))
    assert settings.stream == presets.DOCUMENT.replace(batch_size=25, flush_interval=0.2)
    assert settings.chat == presets.CHAT_DEFAULTS.replace(rate_limit=40)
    assert settings.base_url("ollama") == "http://localhost:11434"
    assert settings.model() == "gpt-4.1-mini"
    assert settings.log == LogOptions(level="info", format="json")


GROUPS = (
    "stream",
    "request",
    "agent",
    "provider",
    "breaker",
    "retry_budget",
    "dashboard",
    "telemetry",
    "store",
    "cluster",
    "runtime",
    "log",
)


def test_every_setting_is_documented_with_its_default_and_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = re.findall(
        r"^\| `(\w+)\.(\w+)` \| `(\w+)` \| [^|]+ \| `([^`]*)` \|", DOCUMENTATION.read_text(), re.MULTILINE
    )
    documented = {(group, name) for group, name, _, _ in rows}
    plain = Settings().to_dict()
    expected = {(group, name) for group in GROUPS for name in plain[group]}
    assert documented == expected | {("stream", "preset")}
    for group, name, variable, default in rows:
        if default == "none" and name not in ("tokenizer",):
            assert plain[group].get(name) in (None, (), "none")
            continue
        monkeypatch.setenv(variable, default)
    assert Settings.load() == Settings()


# --- long numbers, several errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field", "line"),
    [
        ("[stream]\n\nbatch_size = {}", "stream.batch_size", 3),
        ("[stream]\nbatch_size = -{}\n", "stream.batch_size", 2),
        ("[stream]\nbatch_size = 1_{}\n", "stream.batch_size", 2),
        ("stream.max_errors = +{}", "stream.max_errors", 1),
        ("[request]\nfallback = [\n  'a',\n  {},\n]", "request.fallback", 4),
        ("# {0}\n[providers.openai]\nmodel = '{0}'\nmax_queue = {0}", "providers.openai.max_queue", 4),
        ("[stream]\nrate_limit = {0}.5\nbatch_size = {0}", "stream.batch_size", 3),
    ],
)
def test_a_number_with_too_many_digits_is_refused_with_file_line_and_key(text: str, field: str, line: int) -> None:
    error = refusal(write(text.format("7" * 5000)))
    assert error.field == field
    assert error.source == f"penstock.toml, line {line}"
    assert re.search(r"got a number of 500[01] digits, allowed: a number of at most \d+ digits", str(error))


def test_all_numbers_with_too_many_digits_are_named_and_a_fault_of_the_syntax_too() -> None:
    digits = "7" * 5000
    error = refusal(write(f"[stream]\nbatch_size = {digits}\nmax_errors = {digits}\nbatch = 1"))
    assert [each.field for each in (error, *error.others)] == [
        "stream.batch_size",
        "stream.max_errors",
        "stream.batch",
    ]
    assert refusal(write(f"[stream]\nbatch_size = {digits}\nmax_errors = \n")).source == "penstock.toml, line 3"


@pytest.mark.parametrize("prefix", ["0x", "0b", "0o"])
def test_a_number_that_python_reads_but_does_not_write_in_digits_is_refused_by_name(prefix: str) -> None:
    error = refusal(write(f"[stream]\nbatch_size = {prefix}{'1' * 20_000}"))
    assert error.field == "stream.batch_size"
    assert re.search(r"got a number of \d+ bits, allowed: a whole number from 1", str(error))


@pytest.mark.parametrize("group", ["stream", "request", "runtime"])
def test_such_a_number_in_an_argument_is_refused_by_name(group: str) -> None:
    name = {"stream": "flush_interval", "request": "fallback", "runtime": "workers"}[group]
    for value in (10**5000, [10**5000], {"a": -(10**5000)}):
        error = refusal(**{group: {name: value}})
        assert error.field == f"{group}.{name}"
        assert pickle.loads(pickle.dumps(error, 0)).field == error.field


def test_a_table_of_prices_with_such_a_number_is_refused_by_line() -> None:
    write(f"[x.models.m]\ninput = 1\noutput = {'7' * 5000}", "own.toml")
    with pytest.raises(OptionError) as caught:
        PriceTable.load("own.toml")
    assert (caught.value.field, caught.value.source) == ("prices: x.models.m.output", "own.toml, line 3")


def test_all_errors_of_all_sources_are_named_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_STREAM__BACTH_SIZE", "1")
    monkeypatch.setenv("PENSTOCK_CHAT__MAX_ERRORS", "many")
    monkeypatch.setenv("PENSTOCK_PROVIDER__API_KEY", KEY + " x")
    write('log = 1\n[stream]\nflush_interval = "fast"\nmax_errors = 0\n[providers."A B"]\nmodel = "m"')
    error = refusal(prices=3, wrong=1)
    lines = str(error).split("\n")
    assert lines == [line for each in (error, *error.others) for line in str(each).split("\n")[:1]]
    assert [line.split(":")[0] for line in lines] == [
        "wrong",
        "log",
        "stream.bacth_size",
        "stream.flush_interval",
        "stream.max_errors",
        "chat.max_errors",
        "provider.api_key",
        "providers",
        "prices",
    ]
    assert all("(from " in line for line in lines)
    assert (error.field, error.source) == ("wrong", "an argument")
    assert all(isinstance(each, OptionError) and not each.others for each in error.others)
    assert KEY not in everything_shown(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), list(map(str, again.others))) == (str(error), list(map(str, error.others)))


def test_one_error_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CHAT__MAX_ERRORS", "many")
    error = refusal()
    assert error.others == ()
    assert "\n" not in str(error)


def test_a_wrong_value_does_not_make_a_right_one_look_wrong() -> None:
    """Without the wrong size of the buffer, the size of the batch would be larger than the default's."""
    error = refusal(stream={"max_buffer_size": "many", "batch_size": 5000})
    assert (error.field, error.others) == ("stream.max_buffer_size", ())


# --- pickles and copies ----------------------------------------------------------------------------------------------


def without_keys() -> Settings:
    write(
        '[stream]\nbatch_size = 7\ntokenizer = "words"\n[provider]\nmodel = "m"\napi_key = ""\n'
        '[providers.openai]\nbase_url = "http://h"\nheaders = { "X-Team" = "a" }\n[request]\nfallback = ["a"]'
    )
    return Settings.load()


@pytest.mark.parametrize("make", [Settings, without_keys])
def test_settings_without_a_key_survive_pickle_and_copies(make: Any) -> None:
    settings = make()
    for again in (
        *(pickle.loads(pickle.dumps(settings, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
        copy.copy(settings),
        copy.deepcopy(settings),
    ):
        assert again is not settings
        assert again == settings
        assert again.to_dict() == settings.to_dict()


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        (Settings(provider=DefaultProviderOptions(api_key=SecretStr(KEY))), "provider.api_key holds"),
        (Settings(providers={"openai": ProviderOptions(api_key=SecretStr(KEY))}), "providers.openai.api_key holds"),
        (
            Settings(providers={"openai": ProviderOptions(headers={"Authorization": KEY})}),
            "providers.openai.headers holds",
        ),
        (
            Settings(
                provider=DefaultProviderOptions(headers={"X-Api-Key": KEY}),
                providers={"ollama": ProviderOptions(api_key=SecretStr(KEY), headers={"Cookie": KEY})},
            ),
            "provider.headers, providers.ollama.api_key, providers.ollama.headers hold",
        ),
    ],
)
def test_settings_with_a_key_are_copied_but_not_pickled(settings: Settings, fields: str) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=f"^Settings cannot be pickled: {re.escape(fields)}") as caught:
            pickle.dumps(settings, protocol)
        assert KEY not in everything_shown(caught.value)
    assert copy.copy(settings) == copy.deepcopy(settings) == settings
    options = next(each for each in (settings.provider, *settings.providers.values()) if each.headers or each.api_key)
    with pytest.raises(TypeError, match=r"ProviderOptions cannot be pickled: (api_key|headers)"):
        pickle.dumps(options)
    assert copy.copy(options) == copy.deepcopy(options) == options
    assert copy.deepcopy(options).headers is not options.headers


def test_every_group_is_read_from_the_environment_and_the_file() -> None:
    from penstock.config.sources import _Shape

    assert set(_Shape.model_fields) == {field.name for field in dataclasses.fields(Settings)}
