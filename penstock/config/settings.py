"""Everything that can be set from outside, in one frozen value.

`Settings()` is the defaults and reads nothing. `Settings.load` reads, the first that names a setting winning:

1. its arguments: ``Settings.load(stream={"batch_size": 20})``
2. the environment: ``PENSTOCK_STREAM__BATCH_SIZE=20``; an empty variable counts as not set
3. the TOML file: its argument ``path``, else ``PENSTOCK_CONFIG``, else ``./penstock.toml`` if there is one
4. the providers' own variables: ``OPENAI_API_KEY``, ``ANTHROPIC_BASE_URL``, ``OLLAMA_HOST`` …
5. the defaults

A ``preset`` is the ground that a group's other settings stand on, wherever either comes from. Text may say durations
as ``"100ms"``, ``"2s"``, ``"1.5m"``, ``"1h"``; a number is seconds. ``"none"`` is None where None is allowed.

Whatever is unknown, unreadable or not allowed is an `OptionError` that names the setting, the value, what is allowed
and where it was found; the value of a key, or of a setting nobody knows, is never shown.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints
from urllib.parse import urlsplit

from penstock.config.agents import AgentOptions
from penstock.config.durations import (
    is_without,
    parse_duration,
    parse_number,
    parse_optional_duration,
    parse_rate,
)
from penstock.config.limits import BreakerOptions, LimitOptions, RetryBudgetOptions, check_limits
from penstock.config.loading import STARS, Found, Item, Place, Schema, read_all, type_of
from penstock.config.logs import LogFormat, LogLevel
from penstock.config.options import RequestOptions, StreamOptions, _Options, check_choice, check_number
from penstock.config.presets import CHAT_DEFAULTS, PRESETS, RESPONSE_DEFAULTS
from penstock.config.tokenizers import find_tokenizer
from penstock.errors import OptionError

if TYPE_CHECKING:
    from pydantic import SecretStr

__all__ = [
    "DefaultProviderOptions",
    "LogOptions",
    "ProviderOptions",
    "RuntimeOptions",
    "Settings",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions(_Options):
    """The machinery under a `System`. Durations in seconds.

    Attributes:
        workers: threads that run actors, 1 … 64.
        max_spares: threads that may join while workers are blocked, 0 … 10,000.
        throughput: messages of one actor that a worker runs before the next actor's turn, 1 … 1,000,000.
        hold_warning: an actor that holds its worker longer is named in the log once, 0.01 … 3600.
        reader_threads: provider requests that run at once, 1 … 100,000.
        reader_queue: provider requests that may wait for a thread, 0 … 10,000,000.
        call_timeout: how long a call to an actor waits for its answer, 0.001 … 86400.
        shutdown_timeout: how long stopping the system may take, 0 … 3600.
    """

    workers: int = 2
    max_spares: int = 256
    throughput: int = 64
    hold_warning: float = 1.0
    reader_threads: int = 600
    reader_queue: int = 10_000
    call_timeout: float = 5.0
    shutdown_timeout: float = 10.0

    def __post_init__(self) -> None:
        check_number("workers", self.workers, 1, 64, whole=True)
        check_number("max_spares", self.max_spares, 0, 10_000, whole=True)
        check_number("throughput", self.throughput, 1, 1_000_000, whole=True)
        check_number("hold_warning", self.hold_warning, 0.01, 3600)
        check_number("reader_threads", self.reader_threads, 1, 100_000, whole=True)
        check_number("reader_queue", self.reader_queue, 0, 10_000_000, whole=True)
        check_number("call_timeout", self.call_timeout, 0.001, 86_400)
        check_number("shutdown_timeout", self.shutdown_timeout, 0, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions(_Options):
    """What `penstock.config.logs.configure_logging` takes; see there."""

    level: LogLevel = "warning"
    format: LogFormat = "auto"

    def __post_init__(self) -> None:
        check_choice("level", self.level, get_args(LogLevel))
        check_choice("format", self.format, get_args(LogFormat))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderOptions:
    """How to reach one provider, and how much to use it. What is None is left to the provider's adapter.

    Attributes:
        base_url: http or https, without user, query or fragment.
        model: the model to ask when the caller names none.
        api_key: shown nowhere; a plain str is wrapped.
        requests_per_minute: as in `LimitOptions`, like the rest; where none of them is set, its defaults hold.
    """

    base_url: str | None = None
    model: str | None = None
    api_key: SecretStr | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_streams: int | None = None
    max_queue: int | None = None
    queue_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.api_key is not None:
            object.__setattr__(self, "api_key", _wrapped_key(self.api_key))
        if self.api_key and not re.fullmatch(r"[!-~]+", self.api_key.get_secret_value()):
            # Anything else could not be sent in a header, or would break out of it.
            raise OptionError("api_key", STARS, "visible ASCII characters, no blanks")
        _check_base_url(self.base_url)
        if self.model is not None and (not isinstance(self.model, str) or not self.model.strip()):
            raise OptionError("model", self.model, "a model's name or None")
        check_limits(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultProviderOptions(ProviderOptions):
    """The provider to ask when the caller names none; what is set here goes before ``providers.<name>``."""

    name: str = "openai"

    def __post_init__(self) -> None:
        ProviderOptions.__post_init__(self)
        _check_name("name", self.name)


def _wrapped_key(key: object) -> SecretStr:
    from pydantic import SecretStr  # 0.2 s, and most settings hold no key

    if not isinstance(key, (str, SecretStr)):
        raise OptionError("api_key", STARS, "text")
    return SecretStr(key) if isinstance(key, str) else key


def _check_name(where: str, name: object, source: str | None = None) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise OptionError(where, name, "a provider's name: small letters, digits, - and _", source=source)


def _check_path(field: str, path: object, source: str | None = None) -> None:
    """Raise `OptionError` unless ``path`` is text that may name a file, or None."""
    if path is not None and (not isinstance(path, str) or not path.strip()):
        raise OptionError(field, path if isinstance(path, str) else type_of(path), "the path of a file", source=source)


def _check_base_url(url: object) -> None:
    if url is None:
        return
    allowed = "a URL like https://host/path, without user, query or fragment"
    if not isinstance(url, str):
        raise OptionError("base_url", url, allowed)
    if any(mark in url for mark in "@?#"):
        raise OptionError("base_url", STARS, allowed)  # there may be a password or a key in it
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not url.isprintable() or " " in url:
        raise OptionError("base_url", url, allowed)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings. ``Settings()`` is the defaults and reads nothing; `load` reads environment and file.

    Attributes:
        stream: what `System.open_stream` takes without options.
        chat: what `System.chat` takes without options.
        response: what `System.respond` takes without options.
        request: how provider requests are made.
        agent: how far an agent may go by itself.
        provider: whom to ask by default.
        providers: how to reach each provider, by name.
        breaker: when an endpoint that fails is left alone.
        retry_budget: how many retries all requests may make together.
        prices: the file of a price table that takes the place of ours; see `penstock.config.prices`.
        runtime: threads, queues, time-outs.
        log: for the command line, and for applications that pass it on to `configure_logging`.
    """

    stream: StreamOptions = field(default_factory=StreamOptions)
    chat: StreamOptions = CHAT_DEFAULTS
    response: StreamOptions = RESPONSE_DEFAULTS
    request: RequestOptions = field(default_factory=RequestOptions)
    agent: AgentOptions = field(default_factory=AgentOptions)
    provider: DefaultProviderOptions = field(default_factory=DefaultProviderOptions)
    providers: Mapping[str, ProviderOptions] = field(default_factory=dict, hash=False)
    breaker: BreakerOptions = field(default_factory=BreakerOptions)
    retry_budget: RetryBudgetOptions = field(default_factory=RetryBudgetOptions)
    prices: str | None = None
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    log: LogOptions = field(default_factory=LogOptions)

    def __post_init__(self) -> None:
        for name, kind in _GROUP_TYPES.items():
            if not isinstance(getattr(self, name), kind):
                raise OptionError(name, type_of(getattr(self, name)), f"a {kind.__name__}")
        for name, options in self.providers.items():
            _check_name("providers", name)
            if not isinstance(options, ProviderOptions):
                raise OptionError(f"providers.{name}", type_of(options), "a ProviderOptions")
        _check_path("prices", self.prices)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, **overrides: Any) -> Settings:
        """Read the environment and a TOML file; the module's docstring says in which order.

        Args:
            path: the file to read, which must be there; None looks for one.
            overrides: by group, a mapping of some of its settings, or a ready object that takes the group's place.

        Raises:
            OptionError: see the module's docstring.
        """
        ready = {name: value for name, value in overrides.items() if isinstance(value, _GROUP_TYPES.get(name, ()))}
        rest = {name: value for name, value in overrides.items() if name not in ready}
        ready_providers: dict[str, ProviderOptions] = {}
        if isinstance(given := rest.get("providers"), Mapping):
            ready_providers = {name: value for name, value in given.items() if isinstance(value, ProviderOptions)}
            rest["providers"] = {name: value for name, value in given.items() if name not in ready_providers}
        found = read_all(_SCHEMA, path, rest)
        groups = {name: _build((name,), base, found) for name, base in _GROUPS.items()}
        providers = {name: _build(("providers", name), ProviderOptions(), found) for name in _provider_names(found)}
        if (prices := found.get(("prices",))) is not None:
            groups["prices"] = prices.value
            _check_path("prices", prices.value, prices.source)
        return cls(**(groups | ready), providers=providers | ready_providers)

    def api_key(self, provider: str | None = None) -> str | None:
        """The key itself, of the default provider or of the one named; None if none is set. Wrap it at once.

        An empty key says that there is none, and keeps a source further down (``OPENAI_API_KEY``) from giving one.
        """
        key: SecretStr | None = self._of(provider, "api_key")
        return (key.get_secret_value() or None) if key is not None else None

    def base_url(self, provider: str | None = None) -> str | None:
        """The base URL of the default provider or of the one named; None leaves it to the adapter."""
        url: str | None = self._of(provider, "base_url")
        return url

    def model(self, provider: str | None = None) -> str | None:
        """The model of the default provider or of the one named, if one is set."""
        model: str | None = self._of(provider, "model")
        return model

    def limits(self, provider: str | None = None) -> LimitOptions:
        """How much of the default provider, or of the one named, may be used."""
        values = {name: self._of(provider, name) for name in _names(LimitOptions)}
        return LimitOptions(**{name: value for name, value in values.items() if value is not None})

    def _of(self, provider: str | None, what: str) -> Any:
        """What ``provider`` says for the default one only, so that no key reaches another provider than its own."""
        name = provider or self.provider.name
        places = [self.provider] if name == self.provider.name else []
        # An environment variable cannot have a hyphen in its name: PENSTOCK_PROVIDERS__OPENAI_RESPONSES__MODEL.
        groups = [self.providers[key] for key in (name, name.replace("-", "_")) if key in self.providers]
        values = (getattr(options, what) for options in [*places, *groups])
        return next((value for value in values if value is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values, for display and JSON: keys are stars, tokenisers their names."""
        plain: dict[str, Any] = _to_plain(dataclasses.asdict(self))
        return plain


_GROUPS: dict[str, Any] = {
    "stream": StreamOptions(),
    "chat": CHAT_DEFAULTS,
    "response": RESPONSE_DEFAULTS,
    "request": RequestOptions(),
    "agent": AgentOptions(),
    "provider": DefaultProviderOptions(),
    "breaker": BreakerOptions(),
    "retry_budget": RetryBudgetOptions(),
    "runtime": RuntimeOptions(),
    "log": LogOptions(),
}
_GROUP_TYPES: dict[str, type] = {name: type(base) for name, base in _GROUPS.items()}
_STREAMS = ("stream", "chat", "response")


def _names(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(kind))


_SCHEMA = Schema(
    groups={name: ("preset",) * (name in _STREAMS) + _names(kind) for name, kind in _GROUP_TYPES.items()},
    provider=_names(ProviderOptions),
    lone=("prices",),
)


# --- from what was found to the groups -------------------------------------------------------------------------------


def _provider_names(found: Found) -> list[str]:
    sources = {place[1]: item.source for place, item in found.items() if place[0] == "providers"}
    for name, source in sources.items():
        _check_name("providers", name, source)
    return list(sources)


def _build(table: Place, base: Any, found: Found) -> Any:
    """``base``, or the preset, with the settings that were found for ``table``; the options check themselves."""
    items = {place[-1]: item for place, item in found.items() if place[:-1] == table}
    try:
        if "preset" in items:
            check_choice("preset", items["preset"].value, tuple(PRESETS))
            base = PRESETS[items["preset"].value]
        values = {name: _convert(type(base), name, item.value) for name, item in items.items() if name != "preset"}
        return dataclasses.replace(base, **values)
    except OptionError as error:
        raise _placed(error, table, items) from None


def _placed(error: OptionError, table: Place, items: Mapping[str, Item]) -> OptionError:
    """The options' own refusal, with the setting's full name, what was written, and where."""
    item = items.get(error.field)
    if item is None:  # the value refused is a default that does not go with what was set
        named = [each for name, each in items.items() if name in error.allowed] or items.values()
        sources = ", ".join(dict.fromkeys(each.source for each in named))
        return OptionError(".".join((*table, error.field)), error.got, error.allowed, source=sources)
    hidden = error.got is STARS or error.field == "api_key"
    return OptionError(
        ".".join((*table, error.field)), STARS if hidden else item.value, error.allowed, source=item.source
    )


_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")


def _convert(kind: type, name: str, value: Any) -> Any:
    """Text as the type of the field ``name``; what is no text stays as it is. Ranges are the options' matter."""
    if not isinstance(value, str):
        return value
    hint = _hints(kind)[name]
    types = get_args(hint) or (hint,)
    if name == "rate_limit":
        return parse_rate(value, field=name)
    if name == "ratio":
        return parse_number(value, field=name)
    if name == "fallback":
        return () if is_without(value) else tuple(each.strip() for each in value.split(","))
    if name == "tokenizer":
        return find_tokenizer(value)
    if float in types:
        return (parse_optional_duration if NoneType in types else parse_duration)(value, field=name)
    if bool in types:
        return _parse_switch(name, value, text_allowed=str in types)
    if int in types:
        return None if NoneType in types and is_without(value) else _parse_whole(name, value)
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    from pydantic import SecretStr

    return get_type_hints(kind, localns={"SecretStr": SecretStr})


def _parse_whole(name: str, text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", text.strip().replace("_", "")):
        raise OptionError(name, text, "a whole number")
    return int(text)


def _parse_switch(name: str, text: str, *, text_allowed: bool) -> bool | str:
    word = text.strip().lower()
    if word in (*_YES, *_NO):
        return word in _YES
    if text_allowed:
        return text
    raise OptionError(name, text, "true | false | yes | no | on | off | 1 | 0")


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_plain(each) for key, each in value.items()}
    if hasattr(type(value), "get_secret_value"):
        return str(STARS)
    if isinstance(value, partial):  # fixed(n)
        return f"fixed({value.keywords['size']})" if "size" in value.keywords else repr(value.func)
    return getattr(value, "__name__", repr(value)) if callable(value) else value
