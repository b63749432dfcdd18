"""The command ``serve``: the gateway as a server, until a signal ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from penstock.cli.asking import bypass_proxies
from penstock.cli.demo_load import demo_settings, running_load
from penstock.cli.failures import CommandLineError, check_known, explain
from penstock.cli.loading import load_settings, named_after
from penstock.cli.terminal import Output, say, write_error
from penstock.cli.workers import ServingWorker, Workers
from penstock.cluster.node import node_name
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
    "store.path": "--store",
    "cluster.url": "--cluster",
    "cluster.node": "--node",
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
    cluster: str | None = None
    node: str | None = None
    workers: int = 1
    store: str | None = None
    demo: bool = False

    def run(self) -> int:
        """Serve until a signal; return the exit code.

        Raises:
            PenstockError: an option or a setting is wrong, the address cannot be listened at, or the extra ``server``
                is not installed.
            OSError: standard output cannot be written.
        """
        worker = ServingWorker.of(os.environ)
        overrides = self._overrides()
        settings = self._with_provider(load_settings(self.config, overrides, _OPTIONS))
        serve = _import_server()
        self._check_sharing(settings)
        if worker is not None:
            settings = dataclasses.replace(settings, cluster=settings.cluster.replace(node=worker.node))
        configure_logging(settings.log.level, settings.log.format, others=("uvicorn", "asyncio"))
        if self.workers > 1 and worker is None:
            return self._run_workers(settings, overrides)
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
                listeners = None if worker is None else worker.listeners
                ready = self._announce if worker is None else partial(_ready, worker)
                code: int = serve(system, self.host, self.port, ready=ready, draining=draining, listeners=listeners)
            except OptionError as error:
                raise named_after(error, overrides, _OPTIONS) from None
        if worker is None and not self._is_for_programs(settings):
            say("stopped")
        return code

    def _check_sharing(self, settings: Settings) -> None:
        """Refuse what does not go together, and say what is needed.

        Raises:
            CommandLineError: several processes would have no store that they can share, or the extra is missing.
        """
        if settings.cluster.url is None:
            if self.workers > 1 and settings.store.path is not None:
                text = (
                    "one process writes a SQLite file: leave out --workers, or share a server by --cluster redis://HOST"
                )
                raise CommandLineError(text)
            if self.workers > 1:
                text = "several workers need a server that they share their streams by: add --cluster redis://HOST"
                raise CommandLineError(text)
            if self.node is not None:
                raise CommandLineError("--node names a node of a cluster: add --cluster redis://HOST")
            return
        if settings.store.path is not None:
            raise CommandLineError("a cluster keeps its streams in its server: leave out --cluster, or --store")
        if self.workers > 1 and self.demo:
            raise CommandLineError("--demo runs in one process; leave out --workers")
        if self.workers > 1 and sys.platform == "win32":
            raise CommandLineError("--workers is not available on Windows; start several processes at several ports")
        try:
            importlib.import_module("redis")
        except ImportError:
            text = "redis is not installed; --cluster needs an extra: pip install 'penstock[cluster]'"
            raise CommandLineError(text) from None

    def _run_workers(self, settings: Settings, overrides: dict[str, dict[str, Any]]) -> int:
        """Serve by several processes; return the exit code."""
        from penstock.gateway.guard import Guard
        from penstock.gateway.server import listen, url_of

        name = settings.cluster.node or node_name(settings.cluster).partition("~")[0]
        try:
            listeners = listen(self.host, self.port, has_keys=Guard(settings.gateway).has_keys)
        except OptionError as error:
            raise named_after(error, overrides, _OPTIONS) from None
        url = url_of(self.host, listeners[0].getsockname()[1])
        has_keys = Guard(settings.gateway).has_keys

        def ready() -> None:
            Output().write(f"{url}\n")
            if not self._is_for_programs(settings):
                write_error(_instructions(url, settings.model(), has_keys=has_keys))

        drain_timeout = settings.gateway.drain_timeout
        code = Workers(self.workers, name, listeners, ready, drain_timeout=drain_timeout).run()
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
            ("--cluster", self.cluster),
            ("--node", self.node),
            ("--store", self.store),
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
        cluster = {name: value for name, value in (("url", self.cluster), ("node", self.node)) if value is not None}
        store = {} if self.store is None else {"path": self.store}
        groups = (("gateway", gateway), ("log", log), ("cluster", cluster), ("store", store))
        return {group: values for group, values in groups if values}

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


def _ready(worker: ServingWorker, server: GatewayServer) -> None:
    worker.ready(server.stop)


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
