"""The settings of a command, with its options in their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.cli.failures import CommandLineError
from penstock.config.logs import configure_logging
from penstock.config.settings import Settings
from penstock.errors import OptionError

__all__ = ["load_settings", "named_after"]


def load_settings(config: str | None, overrides: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> Settings:
    """Load the settings and configure the log.

    Args:
        config: the option ``--config``.
        overrides: settings by group and name, from options of the command.
        names: the option for a setting (``log.level``), to name it in an error.

    Raises:
        PenstockError: a setting or an option is wrong.
    """
    if config == "":
        raise CommandLineError("--config is empty; give the path of a TOML file")
    try:
        settings = Settings.load(config, **overrides)
    except OptionError as error:
        raise named_after(error, overrides, names) from None
    configure_logging(settings.log.level, settings.log.format)
    return settings


def named_after(
    error: OptionError, overrides: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]
) -> OptionError:
    """The error of a setting, with the name of the option that the setting came from, if it came from one."""
    group, _, name = error.field.partition(".")
    option = names.get(error.field)
    if option is None or name not in overrides.get(group, {}):
        return error
    return OptionError(option, error.got, error.allowed, problem=error.problem)
