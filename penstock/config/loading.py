"""Readers of settings: arguments, environment, TOML file, the providers' own variables.

Each reader returns the values it found by place, each with its source for error messages, and collects its errors.
pydantic-settings does the reading. Unknown names are refused here; `penstock.config.settings` interprets the values.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from penstock.config.checks import near_miss, type_of, unknown
from penstock.config.long_numbers import read_without_long_numbers
from penstock.config.providers import KNOWN_PROVIDERS
from penstock.errors import OptionError

__all__ = [
    "Found",
    "Item",
    "KnownSettings",
    "Place",
    "read_all",
]

Place: TypeAlias = tuple[str, ...]
"""``("stream", "batch_size")``, ``("providers", "openai", "api_key")``."""


class Item(NamedTuple):
    """A value and where it was found."""

    value: Any
    source: str


Found: TypeAlias = dict[Place, Item]


@dataclass(frozen=True)
class KnownSettings:
    """The names of all settings: in each group, in a table of ``providers``, and outside of groups (``lone``)."""

    groups: Mapping[str, tuple[str, ...]]
    provider: tuple[str, ...]
    lone: tuple[str, ...] = ()

    def is_table(self, place: Place) -> bool:
        """Whether ``place`` holds settings rather than being one."""
        if len(place) == 1:
            return place[0] in self.groups or place[0] == "providers"
        return len(place) == 2 and place[0] == "providers"

    def names(self, table: Place) -> tuple[str, ...]:
        """Return the settings in a table; ``()`` is the table of the lone ones. Empty if there is no such table."""
        if not table:
            return self.lone
        if len(table) == 2 and table[0] == "providers":
            return self.provider
        return self.groups.get(table[0], ()) if len(table) == 1 else ()

    def is_setting(self, place: Place) -> bool:
        """Whether ``place`` is a setting."""
        return place[-1] in self.names(place[:-1])

    def refusal(self, place: Place, source: str, spell: Callable[[Place], str] = ".".join) -> OptionError:
        """Make the error for a setting that does not exist. ``spell`` writes the one that was probably meant."""
        tables: list[Place] = [(), *((name,) for name in self.groups)]
        tables.append(("providers", place[1] if len(place) > 2 else "openai"))
        known = {"_".join((*table, name)): (*table, name) for table in tables for name in self.names(table)}
        wanted = "_".join(place)
        near = next((name for name in known if name.endswith("_" + wanted)), None) or near_miss(wanted, known)
        siblings = (place[:-1] and self.names(place[:-1])) or (*self.groups, "providers", *self.lone)
        return unknown(".".join(place), "setting", siblings, meant=spell(known[near]) if near else None, source=source)


def read_all(
    known: KnownSettings,
    path: str | os.PathLike[str] | None,
    arguments: Mapping[str, Any],
    errors: list[OptionError],
) -> Found:
    """Read all sources; each setting comes from the first source that has it.

    An error for each source that cannot be read, and for each name that is not a setting, is appended to ``errors``.
    """
    from_caller = _walk(known, arguments, lambda _: "an argument", errors)
    return _provider_variables() | _file(known, path, errors) | _environment(known, errors) | from_caller


# --- the providers' own variables ------------------------------------------------------------------------------------


def _provider_variables() -> Found:
    """Read the variables of `KNOWN_PROVIDERS`, which the providers' own tools read too."""
    found: Found = {}
    for row in KNOWN_PROVIDERS:
        if row.account:
            continue  # its account's row has the same ones
        for setting, names in (("api_key", row.key_variables), ("base_url", row.url_variables)):
            name = next((name for name in names if os.environ.get(name, "").strip()), None)
            if name is not None:
                text = os.environ[name].strip()
                place = ("providers", row.name, setting)
                found[place] = Item(_wrapped(place, _ollama_url(text) if name == "OLLAMA_HOST" else text), name)
    return found


def _ollama_url(host: str) -> str:
    """``OLLAMA_HOST`` as a URL: it is what Ollama's server listens at, mostly without a scheme, often ``0.0.0.0``."""
    scheme, given, rest = host.rpartition("://")
    try:
        parts = urlsplit(f"{scheme or 'http'}://{rest}")
        port = parts.port
    except ValueError:
        return host  # and so do things that no URL may have: the setting's own check tells what is wrong
    if any(mark in rest for mark in "@?#"):
        return host
    name = parts.hostname or "localhost"
    name = "localhost" if name in ("0.0.0.0", "::") else f"[{name}]" if ":" in name else name  # noqa: S104
    if port is None and not given:
        port = 11434
    return f"{parts.scheme}://{name}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


# --- the environment -------------------------------------------------------------------------------------------------

_PREFIX = "PENSTOCK_"
_CONFIG = "PENSTOCK_CONFIG"

# Kubernetes sets these in every pod for a service called "penstock": PENSTOCK_SERVICE_HOST, PENSTOCK_PORT_80_TCP_ADDR …
_KUBERNETES = re.compile(r"PENSTOCK_(?:[A-Z0-9_]*_)?(?:SERVICE_(?:HOST|PORT\w*)|PORT|PORT_\d+_(?:TCP|UDP|SCTP)\w*)")


def _environment(known: KnownSettings, errors: list[OptionError]) -> Found:
    variables: dict[Place, str] = {}
    for name in os.environ:
        if not name.upper().startswith(_PREFIX) or name == _CONFIG or _KUBERNETES.fullmatch(name):
            continue
        place = tuple(name[len(_PREFIX) :].lower().split("__"))
        if not known.is_setting(place):
            errors.append(known.refusal(place, name, lambda near: _PREFIX + "__".join(near).upper()))
        else:
            variables[place] = name
    if not variables:
        return {}
    from penstock.config.sources import read_environment  # pydantic-settings takes 0.3 s to import

    unknown_again: list[OptionError] = []  # the names that were refused above
    return _walk(known, read_environment(_PREFIX), lambda place: variables.get(place, ""), unknown_again)


# --- the file --------------------------------------------------------------------------------------------------------


def _file(known: KnownSettings, path: str | os.PathLike[str] | None, errors: list[OptionError]) -> Found:
    chosen = path or os.environ.get(_CONFIG)
    file = Path(chosen or "penstock.toml").expanduser()
    try:
        if not chosen and not file.exists():
            return {}
        with file.open("rb"):  # pydantic-settings silently ignores a missing file
            if not file.is_file():
                raise OSError(0, "not a file")
            tree = _read_tree(file, errors)
    except OSError as error:
        problem = f"cannot read {file}: {error.strerror}"
        where = "an argument" if path else _CONFIG if chosen else str(file)
    except tomllib.TOMLDecodeError as error:
        problem = f"the file is not valid TOML: {error}"
        line = re.search(r"at line (\d+)", str(error))
        where = f"{file}, line {line[1]}" if line else f"{file}, at its end"
    except RecursionError:
        problem = "the file is nested too deeply"
        where = str(file)
    except UnicodeDecodeError as error:
        problem = "the file is not encoded in UTF-8"
        where = f"{file}, line {1 + error.object[: error.start].count(10)}"
    else:
        return _walk(known, tree, lambda _: str(file), errors)
    # Made here, so that no chained exception holds what was read: it may be a key.
    errors.append(OptionError("config", str(file), "a TOML file in UTF-8", problem=problem, source=where))
    return {}


def _read_tree(file: Path, errors: list[OptionError]) -> dict[str, Any]:
    from penstock.config.sources import read_toml

    try:
        return read_toml(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # a number that Python refuses to convert
        tree, found = read_without_long_numbers(file.read_text("utf-8"), str(file))
        errors += found
        return tree


# --- the settings in a tree ------------------------------------------------------------------------------------------


def _walk(
    known: KnownSettings,
    tree: Mapping[str, Any],
    source_of: Callable[[Place], str],
    errors: list[OptionError],
    below: Place = (),
) -> Found:
    found: Found = {}
    for key, value in tree.items():
        place = (*below, key)
        if known.is_table(place):
            if not isinstance(value, Mapping):
                errors.append(
                    OptionError(".".join(place), type_of(value), "a table of settings", source=source_of(place))
                )
                continue
            found |= _walk(known, value, source_of, errors, place)
        elif known.is_setting(place):
            found[place] = Item(_wrapped(place, value), source_of(place))
        else:
            errors.append(known.refusal(place, source_of(place)))
    return found


def _wrapped(place: Place, value: Any) -> Any:
    if place[-1] != "api_key" or not isinstance(value, str):
        return value
    from pydantic import SecretStr

    return SecretStr(value.strip())  # white space around a key comes from copying it with its line end
