"""Reads the environment and a TOML file with pydantic-settings. Imported only if one of them has a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

__all__ = ["read_environment", "read_toml"]


class _Shape(BaseSettings):
    """The fields that pydantic-settings reads from our sources."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", env_ignore_empty=True)
    stream: dict[str, Any] = {}
    chat: dict[str, Any] = {}
    response: dict[str, Any] = {}
    request: dict[str, Any] = {}
    agent: dict[str, Any] = {}
    provider: dict[str, Any] = {}
    providers: dict[str, dict[str, Any]] = {}
    breaker: dict[str, Any] = {}
    retry_budget: dict[str, Any] = {}
    gateway: dict[str, Any] = {}
    dashboard: dict[str, Any] = {}
    telemetry: dict[str, Any] = {}
    store: dict[str, Any] = {}
    cluster: dict[str, Any] = {}
    prices: Any = None
    runtime: dict[str, Any] = {}
    log: dict[str, Any] = {}


class _Environment(EnvSettingsSource):
    """Does not decode values: a key of digits is not a number, and a model name in braces is not JSON."""

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        return value


def read_environment(prefix: str) -> dict[str, Any]:
    """Return the settings in variables that begin with ``prefix``, as a tree of texts."""
    return _Environment(_Shape, env_prefix=prefix)()


def read_toml(file: Path) -> dict[str, Any]:
    """Return the settings in ``file``; a missing file has none.

    Raises:
        OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError: it cannot be read.
    """
    return TomlConfigSettingsSource(_Shape, file)()
