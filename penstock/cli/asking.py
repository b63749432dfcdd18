"""What a command line says of the model to ask: provider, model, address, parameters, settings."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.cli.failures import CommandLineError, check_known
from penstock.cli.loading import load_settings
from penstock.config.durations import parse_duration
from penstock.config.presets import PRESETS
from penstock.config.providers import known_provider_names
from penstock.config.settings import Settings
from penstock.errors import OptionError
from penstock.stream import Stream
from penstock.system import System

__all__ = ["ModelChoice", "bypass_proxies"]

_OPTIONS: Final = {"request.total_timeout": "--timeout", "log.level": "--log-level"}
_TAKEN: Final = frozenset(inspect.signature(System.chat).parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """The options that several commands have; see ``penstock chat --help``."""

    provider: str | None = None
    model: str | None = None
    base_url: str | None = None
    system: str | None = None
    preset: str | None = None
    timeout: str | None = None
    parameters: tuple[str, ...] = ()
    config: str | None = None
    log_level: str | None = None

    def load_settings(self) -> Settings:
        """Read the settings, with what the command line changes of them, and set up the log.

        Raises:
            CommandLineError, OptionError: an option or a setting is wrong.
        """
        overrides: dict[str, dict[str, Any]] = {}
        for option, value in (("--provider", self.provider), ("--model", self.model), ("--base-url", self.base_url)):
            if value == "":  # it must not mean the default
                raise CommandLineError(f"{option} is empty; a shell variable may not be set")
        if self.preset is not None:
            check_known("preset", self.preset, PRESETS)
            overrides["chat"] = {"preset": self.preset}
        if self.timeout is not None:
            overrides["request"] = {"total_timeout": parse_duration(self.timeout, field="--timeout")}
        if self.log_level is not None:
            overrides["log"] = {"level": self.log_level}
        return load_settings(self.config, overrides, _OPTIONS)

    def check_provider(self, settings: Settings) -> str:
        """Return the name of the provider that is asked, unless the model's name chooses another.

        Raises:
            CommandLineError: there is no such provider.
        """
        name = self.provider or settings.provider.name
        if self.base_url is None:
            if settings.base_url(name) is None:
                check_known("provider", name, known_provider_names())
            if name == "loopback" or (not self.provider and (self.model or "").startswith("loopback/")):
                bypass_proxies()
        return name

    def chosen_model(self, settings: Settings) -> str:
        """Return the model's name: that of the command line, else of the settings; empty if there is none."""
        return self.model or _default_model(settings, self.provider or settings.provider.name)

    def no_model(self, settings: Settings) -> CommandLineError:
        """The error that says where a model can be named."""
        variable = _model_variable(settings, self.provider or settings.provider.name)
        return CommandLineError(f"no model; give --model, or set {variable}")

    def request_parameters(self) -> dict[str, Any]:
        """Return what ``--param`` says.

        Raises:
            CommandLineError: one is not NAME=VALUE, or sets what the command sets itself.
        """
        return _parse_parameters(self.parameters)

    def messages(self, prompt: str) -> list[dict[str, str]]:
        """Return the conversation that begins with this prompt."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        return [*messages, {"role": "user", "content": prompt}]

    def open(self, system: System, messages: list[dict[str, str]], **more: Any) -> Stream:
        """Ask the model.

        Raises:
            CommandLineError: there is no model.
            OptionError: as for `System.chat`.
        """
        try:
            return system.chat(
                self.chosen_model(system.settings),
                messages,
                provider=self.provider,
                base_url=self.base_url,
                **{**self.request_parameters(), **more},
            )
        except OptionError as error:
            if error.field != "model" or self.model:
                raise
            raise self.no_model(system.settings) from None


def _parse_parameters(given: tuple[str, ...]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise CommandLineError(f"--param {each!r} is not NAME=VALUE; for instance: --param temperature=0.2")
        if name in _TAKEN:
            raise CommandLineError(f"--param cannot set {name!r}, which the command sets itself")
        try:
            parameters[name] = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError):
            parameters[name] = value
        except RecursionError:
            raise CommandLineError(f"--param {name}: the value is nested too deeply") from None
    return parameters


def _default_model(settings: Settings, provider: str) -> str:
    model = settings.model(provider)
    if model is None and provider == "openai-responses":
        model = settings.model("openai")
    return model or ("echo" if provider == "loopback" else "")


def _model_variable(settings: Settings, provider: str) -> str:
    if provider == settings.provider.name:
        return "PENSTOCK_PROVIDER__MODEL"
    return f"PENSTOCK_PROVIDERS__{provider.upper().replace('-', '_')}__MODEL"


def bypass_proxies() -> None:
    """Connect to the embedded provider directly, even if the environment names a proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, ["127.0.0.1", os.environ.get(name)]))
