"""The command ``serve``: the gateway as a server, until a signal ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import shlex
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from penstock.cli.asking import bypass_proxies
from penstock.cli.demo_load import demo_settings, running_load
from penstock.cli.failures import CommandLineError, check_known, explain
from penstock.cli.loading import load_settings, named_after
from penstock.cli.terminal import Output, say, write_error
from penstock.config.durations import parse_duration
from penstock.config.logs import configure_logging, get_logger
from penstock.config.providers import known_provider_names
from penstock.config.settings import DefaultProviderOptions, Settings
from penstock.errors import OptionError
from penstock.ports import ChatCall
from penstock.system import System
from penstock.telemetry.lifecycle import log_streams

if TYPE_CHECKING:
    from penstock.gateway.server import GatewayServer

__all__ = ["Serve"]

_OPTIONS: Final = {
    "gateway.keys": "--keys",
    "gateway.cors": "--cors",
    "gateway.hosts": "--allow-host",
    "gateway.drain_timeout": "--drain-timeout",
    "log.format": "--log",
    "log.level": "--log-level",
}
_DEMO_DRAIN: Final = 1.0  # seconds for streams that are read: the demo's have no end to wait for
_EXTRA: Final = ("starlette", "uvicorn", "httptools", "websockets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """One run of the command; the fields are its options, see ``penstock serve --help``."""

    host: str
    port: int
    provider: str | None
    model: str | None
    base_url: str | None
    keys: str | None
    cors: list[str]
    allow_host: list[str]
    drain_timeout: str | None
    config: str | None
    log: str | None
    log_level: str | None
    demo: bool = False

    def run(self) -> int:
        """Serve until a signal; return the exit code.

        Raises:
            PenstockError: an option or a setting is wrong, the address cannot be listened at, or the extra ``server``
                is not installed.
            OSError: standard output cannot be written.
        """
        overrides = self._overrides()
        settings = self._with_provider(load_settings(self.config, overrides, _OPTIONS))
        serve = _import_server()
        configure_logging(settings.log.level, settings.log.format, others=("uvicorn", "asyncio"))
        with contextlib.ExitStack() as running:
            if self.demo:
                bypass_proxies()
                settings = running.enter_context(demo_settings(settings))
            system = running.enter_context(System(settings))
            _observe(system)
            if self.demo:
                running.enter_context(running_load(system))
            draining = None if self._is_for_programs(settings) else partial(_say_draining, settings)
            try:
                code: int = serve(system, self.host, self.port, ready=self._announce, draining=draining)
            except OptionError as error:
                raise named_after(error, overrides, _OPTIONS) from None
        if not self._is_for_programs(settings):
            say("stopped")
        return code

    def _overrides(self) -> dict[str, dict[str, Any]]:
        for option, value in (
            ("--provider", self.provider),
            ("--model", self.model),
            ("--base-url", self.base_url),
            ("--keys", self.keys),
            ("--host", self.host),
        ):
            if value == "":  # it must not mean the default
                raise CommandLineError(f"{option} is empty; a shell variable may not be set")
        if self.demo and (self.provider or self.model or self.base_url):
            raise CommandLineError("--demo has the embedded provider; leave out --provider, --model and --base-url")
        gateway: dict[str, Any] = {"drain_timeout": _DEMO_DRAIN} if self.demo else {}
        if self.keys is not None:
            gateway["keys"] = self.keys
        if self.cors:
            gateway["cors"] = tuple(self.cors)
        if self.allow_host:
            gateway["hosts"] = tuple(self.allow_host)
        if self.drain_timeout is not None:
            gateway["drain_timeout"] = parse_duration(self.drain_timeout, field="--drain-timeout")
        log: dict[str, Any] = {"level": "error"} if self.demo else {}  # some streams of the demo fail on purpose
        log |= {name: value for name, value in (("format", self.log), ("level", self.log_level)) if value is not None}
        return {group: values for group, values in (("gateway", gateway), ("log", log)) if values}

    def _with_provider(self, settings: Settings) -> Settings:
        """The settings with the provider, model and base URL of the command line."""
        name = self.provider or ("openai" if self.demo else settings.provider.name)
        # What the settings say of their default provider is not for another one.
        group = settings.provider if name == settings.provider.name else DefaultProviderOptions(name=name)
        changes = {field: each for field, each in (("model", self.model), ("base_url", self.base_url)) if each}
        try:
            settings = dataclasses.replace(settings, provider=group.replace(**changes))
        except OptionError as error:
            option = "--" + error.field.rpartition(".")[2].replace("_", "-")
            raise OptionError(option, error.got, error.allowed, problem=error.problem) from None
        if settings.base_url(name) is None:
            check_known("provider", name, known_provider_names())
            if name == "loopback":
                bypass_proxies()
                if settings.model(name) is None:
                    settings = dataclasses.replace(settings, provider=settings.provider.replace(model="echo"))
        return settings

    @staticmethod
    def _is_for_programs(settings: Settings) -> bool:
        return settings.log.format == "json"

    def _announce(self, server: GatewayServer) -> None:
        Output().write(f"{server.url}\n")
        system = server.gateway.system
        missing = _missing(system)
        if self._is_for_programs(system.settings):
            if missing is not None:
                get_logger().warning("provider_not_usable", reason=missing)
            return
        if self.demo:
            write_error(f"\nThe dashboard, with a load that does not end, is at {server.url}/\nCtrl-C ends it.\n\n")
            return
        write_error(_instructions(server.url, system.settings.model(), has_keys=server.gateway.guard.has_keys))
        if missing is not None:
            say(f"requests for models will be refused: {missing}")


def _say_draining(settings: Settings, readers: int) -> None:
    time = settings.gateway.drain_timeout
    if readers and time > _DEMO_DRAIN:
        say(f"no new streams; readers left: {readers}, for at most {time:g} s; a second signal ends them at once")


def _import_server() -> Any:
    for name in _EXTRA:
        try:
            importlib.import_module(name)
        except ImportError:
            text = f"{name} is not installed; penstock serve needs an extra: pip install 'penstock[server]'"
            raise CommandLineError(text) from None
    from penstock.gateway.server import serve

    return serve


def _observe(system: System) -> None:
    """Log the life of every stream, and make spans of them where OpenTelemetry is installed and configured."""
    log_streams(system)
    with contextlib.suppress(ModuleNotFoundError):
        from penstock.telemetry.opentelemetry import instrument

        instrument(system)


def _missing(system: System) -> str | None:
    """Why the default provider cannot be asked, such as a missing key; None if it can."""
    model = system.settings.model() or "any"
    try:
        choice = system._catalogue.find(None, model)
        choice.provider.request(ChatCall(model=model, input=[{"role": "user", "content": "Hello"}]))
    except OptionError as error:
        return explain(error)
    return None


def _instructions(url: str, model: str | None, *, has_keys: bool) -> str:
    header = ' -H "Authorization: Bearer $KEY"' if has_keys else ""
    key = "; KEY is the key that `penstock keys new` printed" if has_keys else ""
    body = f'{{"stream_id": "hello", "model": "{model or "gpt-4.1-mini"}", "input": "Hello"}}'
    return f"""
Try it in another terminal{key}. Ctrl-C ends it here:

  curl {url}/v1/streams{header} -d {shlex.quote(body)}
  curl -N {url}/v1/streams/hello/events{header}

The base URL for clients of OpenAI is {url}/v1, for those of Anthropic {url}
The dashboard is at {url}/

"""
