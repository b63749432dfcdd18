"""All settings in one immutable value.

`Settings()` has the defaults and reads nothing. `Settings.load` reads these sources; the first that has a setting wins:

1. its arguments: ``Settings.load(stream={"batch_size": 20})``
2. the environment: ``PENSTOCK_STREAM__BATCH_SIZE=20``; an empty variable counts as not set
3. a TOML file: the argument ``path``, else ``PENSTOCK_CONFIG``, else ``./penstock.toml`` if it exists
4. the providers' own variables: ``OPENAI_API_KEY``, ``ANTHROPIC_BASE_URL``, ``OLLAMA_HOST`` …
5. the defaults

A ``preset`` replaces the defaults of its group, whichever source it comes from. Durations may be text: ``"100ms"``,
``"2s"``, ``"1.5m"``, ``"1h"``; a number is seconds. ``"none"`` is None where None is allowed.

An unknown setting, an unreadable source or a value that is not allowed raises `OptionError`, which names the setting,
the value, what is allowed and the source. The value of a key or of an unknown setting is never shown. If several are
wrong, one error names all of them, one line each; see `OptionError.others`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, get_args, get_type_hints
from urllib.parse import urlsplit

from penstock.config.agents import AgentOptions
from penstock.config.checks import STARS, Between, Options, Shown, check_choice, check_field, collected, type_of
from penstock.config.cluster import ClusterOptions
from penstock.config.dashboard import DashboardOptions
from penstock.config.durations import (
    is_without,
    parse_duration,
    parse_number,
    parse_optional_duration,
    parse_rate,
)
from penstock.config.gateway import GatewayOptions
from penstock.config.limits import (
    QUEUE,
    QUEUE_TIMEOUT,
    BreakerOptions,
    ConcurrentStreams,
    LimitOptions,
    RequestsPerMinute,
    RetryBudgetOptions,
    TokensPerMinute,
)
from penstock.config.loading import Found, Item, KnownSettings, Place, read_all
from penstock.config.logs import LogFormat, LogLevel
from penstock.config.options import RequestOptions, StreamOptions
from penstock.config.presets import CHAT_DEFAULTS, PRESETS, RESPONSE_DEFAULTS
from penstock.config.secret import Secret, is_secret_header
from penstock.config.server_url import shown_url
from penstock.config.store import StoreOptions
from penstock.config.telemetry import TelemetryOptions
from penstock.config.tokenizers import find_tokenizer
from penstock.errors import OptionError

if TYPE_CHECKING:
    from pydantic import SecretStr
else:
    SecretStr = Any  # for the annotations; pydantic takes 0.2 s to import, and most settings hold no key

__all__ = [
    "DefaultProviderOptions",
    "LogOptions",
    "ProviderOptions",
    "ReaderKind",
    "RuntimeOptions",
    "Settings",
]


ReaderKind: TypeAlias = Literal["auto", "threads", "loop"]


def _check_name(field: str, name: object, source: str | None = None) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        allowed = "a provider's name: a lower-case letter, then lower-case letters, digits, - and _"
        raise OptionError(field, name, allowed, source=source)


def _check_path(field: str, path: object, source: str | None = None) -> None:
    if path is not None and (not isinstance(path, str) or not path.strip()):
        raise OptionError(field, path if isinstance(path, str) else type_of(path), "the path of a file", source=source)


def _check_model(field: str, model: object) -> None:
    if model is not None and (not isinstance(model, str) or not model.strip()):
        raise OptionError(field, model, "a model's name or None")


def _check_api_key(field: str, key: object) -> None:
    if key is None:
        return
    from pydantic import SecretStr

    if not isinstance(key, (str, SecretStr)):
        raise OptionError(field, STARS, "text")
    text = key.get_secret_value() if isinstance(key, SecretStr) else key
    if not re.fullmatch(r"[!-~]*", text):  # anything else cannot be sent in a header, or would break out of it
        raise OptionError(field, STARS, "visible ASCII characters without spaces")


def _check_headers(field: str, headers: object) -> None:
    allowed = "a table of header names and values in printable ASCII"
    if not isinstance(headers, Mapping):
        raise OptionError(field, STARS, allowed)
    for name, value in headers.items():
        text = value.reveal() if isinstance(value, Secret) else value
        if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise OptionError(field, STARS, allowed)
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise OptionError(field, STARS, allowed)


def _check_base_url(field: str, url: object) -> None:
    if url is None:
        return
    allowed = "a URL like https://host/path, without user, query or fragment"
    if not isinstance(url, str):
        raise OptionError(field, url, allowed)
    if "?" in url:
        raise OptionError(field, STARS, f"{allowed}; a query is passed as query= of the provider (OpenAiChat)")
    if any(mark in url for mark in "@?#"):
        raise OptionError(field, STARS, allowed)  # it may contain a password or a key
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not url.isprintable() or " " in url:
        raise OptionError(field, url, allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions(Options):
    """Threads, queues and timeouts of a `System`.

    Attributes:
        workers: threads that run actors, 1 … 64.
        max_spares: further threads that may be started while workers are blocked, 0 … 10,000.
        throughput: messages of one actor that a worker handles before it turns to the next actor, 1 … 1,000,000.
        hold_warning: an actor that occupies its worker for longer is named in the log once, 0.01 … 3600 s.
        reader: ``"threads"`` gives each provider request a thread, ``"loop"`` reads all answers in one thread, and
            ``"auto"`` gives 64 requests at once a thread each and reads further ones in one thread. Requests that run
            code of the application (a provider or a tokenizer of its own) always have a thread.
        reader_threads: provider requests that run at once on threads of their own, 1 … 100,000.
        reader_queue: provider requests that may wait for a thread, 0 … 10,000,000.
        call_timeout: how long a call to an actor waits for the answer, 0.001 … 86,400 s.
        shutdown_timeout: how long stopping the system may take, 0 … 3600 s.
    """

    workers: Annotated[int, Between(1, 64)] = 2
    max_spares: Annotated[int, Between(0, 10_000)] = 256
    throughput: Annotated[int, Between(1, 1_000_000)] = 64
    hold_warning: Annotated[float, Between(0.01, 3600)] = 1.0
    reader: ReaderKind = "auto"
    reader_threads: Annotated[int, Between(1, 100_000)] = 600
    reader_queue: Annotated[int, Between(0, 10_000_000)] = 10_000
    call_timeout: Annotated[float, Between(0.001, 86_400)] = 5.0
    shutdown_timeout: Annotated[float, Between(0, 3600)] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions(Options):
    """The arguments of `penstock.config.logs.configure_logging`; see there."""

    level: LogLevel = "warning"
    format: LogFormat = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderOptions(Options):
    """How to reach one provider, and how much to use it. None leaves the choice to the provider's adapter.

    Attributes:
        base_url: http or https, without user, query or fragment.
        model: the model to ask when the caller names none.
        api_key: never shown; a str is wrapped in a SecretStr.
        headers: sent with every request; they replace others of the same name. The value of a header whose name speaks
            of a key, a token and the like becomes a `Secret`, which is never shown.
        requests_per_minute: as in `LimitOptions`, like the fields below; None is the default there.
    """

    base_url: Annotated[str | None, _check_base_url] = None
    model: Annotated[str | None, _check_model] = None
    api_key: Annotated[SecretStr | None, _check_api_key] = None
    headers: Annotated[Mapping[str, str | Secret], _check_headers] = field(default_factory=dict, hash=False)
    requests_per_minute: RequestsPerMinute = None
    tokens_per_minute: TokensPerMinute = None
    concurrent_streams: ConcurrentStreams = None
    max_queue: Annotated[int | None, QUEUE] = None
    queue_timeout: Annotated[float | None, QUEUE_TIMEOUT] = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the options, unless they hold a key.

        Raises:
            TypeError: they do. The error names the field.
        """
        _refuse_to_pickle_keys(type(self).__name__, self._secret_fields())
        return object.__reduce_ex__(self, protocol)

    def __copy__(self) -> Self:
        return self.replace()

    def __deepcopy__(self, memo: Any) -> Self:
        return self.replace()

    def _secret_fields(self) -> list[str]:
        """The fields with a key in them; an empty one is none."""
        fields = ["api_key"] if self.api_key is not None and self.api_key.get_secret_value() else []
        return [*fields, "headers"] if any(isinstance(each, Secret) for each in self.headers.values()) else fields

    def _check(self) -> None:
        key: object = self.api_key
        if isinstance(key, str):
            from pydantic import SecretStr

            object.__setattr__(self, "api_key", SecretStr(key))
        headers = {
            name: Secret(value) if isinstance(value, str) and is_secret_header(name) else value
            for name, value in self.headers.items()
        }
        object.__setattr__(self, "headers", headers)


def _refuse_to_pickle_keys(what: str, fields: list[str]) -> None:
    if fields:
        holds = "holds a key" if len(fields) == 1 else "hold keys"
        raise TypeError(
            f"{what} cannot be pickled: {', '.join(fields)} {holds}. Load them in the other process instead."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultProviderOptions(ProviderOptions):
    """The provider to ask when the caller names none. Values set here take precedence over ``providers.<name>``."""

    name: Annotated[str, _check_name] = "openai"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings. ``Settings()`` has the defaults and reads nothing; `load` reads environment and file.

    Settings can be copied. They can be pickled unless they hold a key, in ``api_key`` or in a header that speaks of
    one: then pickling raises a TypeError that names the field. Load them in the other process instead.

    Attributes:
        stream: the default options of `System.open_stream`.
        chat: the default options of `System.chat`.
        response: the default options of `System.respond`.
        request: how provider requests are made.
        agent: how far an agent may go on its own.
        provider: the provider to ask by default.
        providers: how to reach each provider, by name.
        breaker: when requests to a failing endpoint are suspended.
        retry_budget: how many retries all requests may make together.
        prices: a file that replaces the built-in price table; see `penstock.config.prices`.
        gateway: how streams are served over HTTP.
        dashboard: what the gateway's dashboard shows.
        telemetry: what metrics and traces show.
        store: where streams are kept so that they survive the process.
        cluster: the server that several systems share, and how.
        runtime: threads, queues, timeouts.
        log: for the command line, and for applications that pass it to `configure_logging`.
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
    gateway: GatewayOptions = field(default_factory=GatewayOptions)
    dashboard: DashboardOptions = field(default_factory=DashboardOptions)
    telemetry: TelemetryOptions = field(default_factory=TelemetryOptions)
    store: StoreOptions = field(default_factory=StoreOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    log: LogOptions = field(default_factory=LogOptions)

    def __post_init__(self) -> None:
        for name, kind in _GROUP_TYPES.items():
            if not isinstance(getattr(self, name), kind):
                raise OptionError(name, type_of(getattr(self, name)), f"an instance of {kind.__name__}")
        for name, options in self.providers.items():
            _check_name("providers", name)
            if not isinstance(options, ProviderOptions):
                raise OptionError(f"providers.{name}", type_of(options), "an instance of ProviderOptions")
        _check_path("prices", self.prices)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the settings, unless they hold a key.

        Raises:
            TypeError: they do. The error names the fields.
        """
        groups: dict[str, ProviderOptions] = {"provider": self.provider}
        groups |= {f"providers.{name}": options for name, options in self.providers.items()}
        fields = [f"{group}.{name}" for group, options in groups.items() for name in options._secret_fields()]
        _refuse_to_pickle_keys("Settings", fields)
        return object.__reduce_ex__(self, protocol)

    def __copy__(self) -> Self:
        return dataclasses.replace(self, providers=dict(self.providers))

    def __deepcopy__(self, memo: Any) -> Self:
        return copy.copy(self)  # the groups are immutable

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, **overrides: Any) -> Settings:
        """Read the environment and a TOML file, in the order given in the module's docstring.

        Args:
            path: the file to read, which must exist; None looks for one.
            overrides: for each group, a mapping of some of its settings, or an options object that replaces the group.

        Raises:
            OptionError: a setting is unknown or its value not allowed, or the file cannot be read. If there is more
                than one such fault, the error has them all.
        """
        ready = {name: value for name, value in overrides.items() if isinstance(value, _GROUP_TYPES.get(name, ()))}
        rest = {name: value for name, value in overrides.items() if name not in ready}
        ready_providers: dict[str, ProviderOptions] = {}
        if isinstance(given := rest.get("providers"), Mapping):
            ready_providers = {name: value for name, value in given.items() if isinstance(value, ProviderOptions)}
            rest["providers"] = {name: value for name, value in given.items() if name not in ready_providers}
        errors: list[OptionError] = []
        found = read_all(_KNOWN, path, rest, errors)
        groups = {name: _build((name,), base, found, errors) for name, base in _GROUPS.items()}
        names = _provider_names(found, errors)
        providers = {name: _build(("providers", name), ProviderOptions(), found, errors) for name in names}
        if (prices := found.get(("prices",))) is not None:
            groups["prices"] = prices.value
            with collected(errors):
                _check_path("prices", prices.value, prices.source)
        if errors:
            raise errors[0].joined(errors[1:])
        return cls(**(groups | ready), providers=providers | ready_providers)

    def api_key(self, provider: str | None = None) -> str | None:
        """Return the key of ``provider`` (default: the default provider) as plain text; None if none is set.

        Wrap it at once. An empty key means "no key": sources of lower precedence (``OPENAI_API_KEY``) are ignored.
        """
        key: SecretStr | None = self._of(provider, "api_key")
        return (key.get_secret_value() or None) if key is not None else None

    def headers(self, provider: str | None = None) -> Mapping[str, str | Secret]:
        """Return the headers of ``provider`` (default: the default provider)."""
        name = provider or self.provider.name
        groups = [self.providers[key] for key in (name.replace("-", "_"), name) if key in self.providers]
        if name == self.provider.name:
            groups.append(self.provider)
        return {key: value for options in groups for key, value in options.headers.items()}

    def base_url(self, provider: str | None = None) -> str | None:
        """Return the base URL of ``provider`` (default: the default provider); None leaves it to the adapter."""
        url: str | None = self._of(provider, "base_url")
        return url

    def model(self, provider: str | None = None) -> str | None:
        """Return the model of ``provider`` (default: the default provider), if one is set."""
        model: str | None = self._of(provider, "model")
        return model

    def models(self) -> tuple[str, ...]:
        """Return the models that the settings name: of providers, as fallbacks, and for telemetry; each once."""
        names = dict.fromkeys([self.provider.name, *self.providers])
        named = [model for name in names if (model := self.model(name)) is not None]
        fallbacks = [model.rpartition("/")[2] for model in self.request.fallback]
        return tuple(dict.fromkeys([*named, *self.request.fallback, *fallbacks, *self.telemetry.models]))

    def limits(self, provider: str | None = None) -> LimitOptions:
        """Return the limits of ``provider`` (default: the default provider)."""
        values = {name: self._of(provider, name) for name in _names(LimitOptions)}
        return LimitOptions(**{name: value for name, value in values.items() if value is not None})

    def _of(self, provider: str | None, what: str) -> Any:
        """Look up a setting of a provider. The group ``provider`` counts only if it is for this one.

        Otherwise a key could be sent to a provider it does not belong to.
        """
        name = provider or self.provider.name
        places = [self.provider] if name == self.provider.name else []
        # Environment variables have no hyphens in their names: PENSTOCK_PROVIDERS__OPENAI_RESPONSES__MODEL.
        groups = [self.providers[key] for key in (name, name.replace("-", "_")) if key in self.providers]
        values = (getattr(options, what) for options in [*places, *groups])
        return next((value for value in values if value is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """Convert all settings to plain values, for display and JSON. Keys become stars, tokenizers their names."""
        plain: dict[str, Any] = _to_plain(dataclasses.asdict(self))
        if self.cluster.url is not None:
            plain["cluster"]["url"] = shown_url(self.cluster.url)
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
    "gateway": GatewayOptions(),
    "dashboard": DashboardOptions(),
    "telemetry": TelemetryOptions(),
    "store": StoreOptions(),
    "cluster": ClusterOptions(),
    "runtime": RuntimeOptions(),
    "log": LogOptions(),
}
_GROUP_TYPES: dict[str, type] = {name: type(base) for name, base in _GROUPS.items()}
_STREAMS = ("stream", "chat", "response")


def _names(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(kind))


_KNOWN = KnownSettings(
    groups={name: ("preset",) * (name in _STREAMS) + _names(kind) for name, kind in _GROUP_TYPES.items()},
    provider=_names(ProviderOptions),
    lone=("prices",),
)


# --- from the values found to the groups -----------------------------------------------------------------------------


def _provider_names(found: Found, errors: list[OptionError]) -> list[str]:
    sources = {place[1]: item.source for place, item in found.items() if place[0] == "providers"}
    names = []
    for name, source in sources.items():
        with collected(errors):
            _check_name("providers", name, source)
            names.append(name)
    return names


def _build(table: Place, base: Any, found: Found, errors: list[OptionError]) -> Any:
    """Apply the settings found for ``table`` to ``base``, or to the preset. The options validate themselves.

    Errors are appended to ``errors``; the result is then ``base``, or the preset.
    """
    items = {place[-1]: item for place, item in found.items() if place[:-1] == table}
    values: dict[str, Any] = {}
    wrong: list[OptionError] = []
    for name, item in items.items():
        with collected(wrong):
            if name == "preset":
                check_choice("preset", item.value, tuple(PRESETS))
                base = PRESETS[item.value]
            else:
                values[name] = _convert(type(base), name, item.value)
                check_field(type(base), name, values[name])
    if not wrong:  # else a default in the place of a wrong value could be reported as too small for another
        with collected(wrong):
            base = base.replace(**values)
    errors += [_placed(error, table, items) for error in wrong]
    return base


def _placed(error: OptionError, table: Place, items: Mapping[str, Item]) -> OptionError:
    """Complete an error of the options: the setting's full name, the value as it was written, and the source."""
    item = items.get(error.field)
    if item is None:  # the value refused is a default that does not fit a setting, which the error names
        named = [each for name, each in items.items() if name in error.allowed] or items.values()
        got, source = error.got, ", ".join(dict.fromkeys(each.source for each in named))
    else:
        if error.field in ("api_key", "headers"):
            got = STARS
        else:
            got = error.got if isinstance(error.got, Shown) else item.value  # a text with stars, or a type
        source = item.source
    return OptionError(".".join((*table, error.field)), got, error.allowed, source=source, problem=error.problem)


_YES = ("true", "yes", "on", "1")
_NO = ("false", "no", "off", "0")


def _convert(kind: type, name: str, value: Any) -> Any:
    """Convert text to the type of the field ``name``. Other values are returned unchanged."""
    if not isinstance(value, str):
        return value
    hint = get_type_hints(kind)[name]
    types = get_args(hint) or (hint,)
    if name == "headers":
        return _parse_headers(value)
    if name == "rate_limit":
        return parse_rate(value, field=name)
    if name == "batch_size" and value.strip() == "adaptive":
        return "adaptive"
    if name == "ratio":
        return parse_number(value, field=name)
    if name == "on_orphan":
        return _parse_on_orphan(value)
    if name in ("fallback", "cors", "hosts", "models"):
        return () if is_without(value) else tuple(each.strip() for each in value.split(","))
    if name == "tokenizer":
        return find_tokenizer(value)
    if float in types:
        return (parse_optional_duration if NoneType in types else parse_duration)(value, field=name)
    if bool in types:
        return _parse_switch(name, value, text_allowed=str in types)
    if int in types:
        return None if NoneType in types and is_without(value) else _parse_whole(name, value)
    return None if {str, NoneType} <= set(types) and value.strip().lower() == "none" else value


def _parse_on_orphan(text: str) -> Any:
    if text.strip() in ("cancel", "continue"):
        return text.strip()
    return parse_optional_duration(text, field="on_orphan")


def _parse_headers(text: str) -> Any:
    """Read headers from an environment variable: a JSON object."""
    if is_without(text):
        return {}
    try:
        return json.loads(text)
    except ValueError:
        raise OptionError("headers", STARS, 'a JSON object: {"X-Name": "value"}') from None


def _parse_whole(name: str, text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", text.strip().replace("_", "")):
        raise OptionError(name, text, "a whole number, or 'adaptive'" if name == "batch_size" else "a whole number")
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
    if isinstance(value, Secret) or hasattr(type(value), "get_secret_value"):
        return str(STARS)
    if isinstance(value, partial):  # fixed(n)
        return f"fixed({value.keywords['size']})" if "size" in value.keywords else repr(value.func)
    return getattr(value, "__name__", repr(value)) if callable(value) else value
