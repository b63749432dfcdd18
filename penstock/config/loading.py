"""Where settings come from: arguments, environment, TOML file, the providers' own variables.

Each reader gives what it found by place, and with every value where it was found, so that a refusal can say so.
pydantic-settings reads; what is unknown is refused here; what the values mean is `penstock.config.settings`' matter.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from penstock.errors import OptionError

__all__ = [
    "STARS",
    "Found",
    "Item",
    "Place",
    "Schema",
    "Shown",
    "key_variables",
    "read_all",
    "type_of",
]

Place: TypeAlias = tuple[str, ...]
"""``("stream", "batch_size")``, ``("providers", "openai", "api_key")``."""


class Item(NamedTuple):
    """A value and where it was found."""

    value: Any
    source: str


Found: TypeAlias = dict[Place, Item]


class Shown(str):
    """Text that an error shows as it is, without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


STARS = Shown("***")
"""What an error shows of a value that may be a secret."""


def type_of(value: object) -> Shown:
    """The type of a value that may hold a secret, for an error."""
    return Shown(f"a value of type {type(value).__name__}")


@dataclass(frozen=True)
class Schema:
    """Which settings there are: names in every group, in each table below ``providers``, and in no group (``lone``)."""

    groups: Mapping[str, tuple[str, ...]]
    provider: tuple[str, ...]
    lone: tuple[str, ...] = ()

    def is_table(self, place: Place) -> bool:
        """Whether ``place`` holds settings rather than being one."""
        if len(place) == 1:
            return place[0] in self.groups or place[0] == "providers"
        return len(place) == 2 and place[0] == "providers"

    def names(self, table: Place) -> tuple[str, ...]:
        """The settings in a table, ``()`` being that of the lone ones; none if it is no table."""
        if not table:
            return self.lone
        if len(table) == 2 and table[0] == "providers":
            return self.provider
        return self.groups.get(table[0], ()) if len(table) == 1 else ()

    def is_setting(self, place: Place) -> bool:
        """Whether there is such a setting."""
        return place[-1] in self.names(place[:-1])

    def refusal(self, place: Place, source: str, spell: Callable[[Place], str] = ".".join) -> OptionError:
        """The error for a setting that does not exist, with what may have been meant. Its value may be a secret."""
        tables: list[Place] = [(), *((name,) for name in self.groups)]
        tables.append(("providers", place[1] if len(place) > 2 else "openai"))
        known = {"_".join((*table, name)): (*table, name) for table in tables for name in self.names(table)}
        meant = "_".join(place)
        near = [name for name in known if name.endswith("_" + meant)]
        near = near or difflib.get_close_matches(meant, known, n=1, cutoff=0.75)
        choices = ", ".join((place[:-1] and self.names(place[:-1])) or (*self.groups, "providers", *self.lone))
        hint = f"; did you mean {spell(known[near[0]])}?" if near else ""
        return OptionError(".".join(place), Shown("an unknown setting"), choices + hint, source=source)


def read_all(schema: Schema, path: str | os.PathLike[str] | None, arguments: Mapping[str, Any]) -> Found:
    """Everything that is set, each setting from the first source that has it.

    Raises:
        OptionError: a source cannot be read, or holds something that is no setting.
    """
    said_by_caller = _walk(schema, arguments, lambda _: "an argument")
    return _provider_variables() | _file(schema, path) | _environment(schema) | said_by_caller


# --- the providers' own variables ------------------------------------------------------------------------------------

_PROVIDER_VARIABLES: dict[Place, tuple[str, ...]] = {
    ("providers", "openai", "api_key"): ("OPENAI_API_KEY",),
    ("providers", "openai", "base_url"): ("OPENAI_BASE_URL",),
    ("providers", "anthropic", "api_key"): ("ANTHROPIC_API_KEY",),
    ("providers", "anthropic", "base_url"): ("ANTHROPIC_BASE_URL",),
    ("providers", "gemini", "api_key"): ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    ("providers", "gemini", "base_url"): ("GOOGLE_GEMINI_BASE_URL",),
    ("providers", "ollama", "api_key"): ("OLLAMA_API_KEY",),
    ("providers", "ollama", "base_url"): ("OLLAMA_HOST",),
}
"""Those that the providers' own tools read; of several the first that is set."""


def key_variables(provider: str) -> tuple[str, ...]:
    """The variables in which the users of a provider, or of a dialect of it, usually have its key."""
    account = provider.replace("_", "-").removesuffix("-chat").removesuffix("-responses")
    return _PROVIDER_VARIABLES.get(("providers", account, "api_key"), ())


def _provider_variables() -> Found:
    found: Found = {}
    for place, names in _PROVIDER_VARIABLES.items():
        name = next((name for name in names if os.environ.get(name, "").strip()), None)
        if name is not None:
            text = os.environ[name].strip()
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

# A Kubernetes service called "penstock" puts PENSTOCK_SERVICE_HOST, PENSTOCK_PORT_80_TCP_ADDR … into every pod.
_KUBERNETES = re.compile(r"PENSTOCK_(?:[A-Z0-9_]*_)?(?:SERVICE_(?:HOST|PORT\w*)|PORT|PORT_\d+_(?:TCP|UDP|SCTP)\w*)")


def _environment(schema: Schema) -> Found:
    variables: dict[Place, str] = {}
    for name in os.environ:
        if not name.upper().startswith(_PREFIX) or name == _CONFIG or _KUBERNETES.fullmatch(name):
            continue
        place = tuple(name[len(_PREFIX) :].lower().split("__"))
        if not schema.is_setting(place):
            raise schema.refusal(place, name, lambda near: _PREFIX + "__".join(near).upper())
        variables[place] = name
    if not variables:
        return {}
    from penstock.config.sources import read_environment  # pydantic-settings takes 0.3 s to import

    return _walk(schema, read_environment(_PREFIX), variables.__getitem__)


# --- the file --------------------------------------------------------------------------------------------------------


def _file(schema: Schema, path: str | os.PathLike[str] | None) -> Found:
    chosen = path or os.environ.get(_CONFIG)
    file = Path(chosen or "penstock.toml").expanduser()
    try:
        if not chosen and not file.exists():
            return {}
        with file.open("rb"):  # pydantic-settings silently passes over a file that is not there
            if not file.is_file():
                raise OSError(0, "not a file")
            from penstock.config.sources import read_toml

            tree = read_toml(file)
    # What was read may hold a key: no chained exception carries it along.
    except OSError as error:
        by = "an argument" if path else _CONFIG if chosen else str(file)
        raise OptionError("config", str(file), f"a readable TOML file; this is: {error.strerror}", source=by) from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        where = f"{file}, line {line[1]}" if line else f"{file}, at its end"
        raise OptionError("config", str(file), f"a TOML file; this has: {error}", source=where) from None
    except RecursionError:
        raise OptionError("config", str(file), "a TOML file less deeply nested", source=str(file)) from None
    except UnicodeDecodeError as error:
        where = f"{file}, line {1 + error.object[: error.start].count(10)}"
        raise OptionError("config", str(file), "a TOML file in UTF-8", source=where) from None
    return _walk(schema, tree, lambda _: str(file))


# --- a tree of settings, from wherever -------------------------------------------------------------------------------


def _walk(schema: Schema, tree: Mapping[str, Any], source_of: Callable[[Place], str], below: Place = ()) -> Found:
    found: Found = {}
    for key, value in tree.items():
        place = (*below, key)
        if schema.is_table(place):
            if not isinstance(value, Mapping):
                raise OptionError(".".join(place), type_of(value), "a table of settings", source=source_of(place))
            found |= _walk(schema, value, source_of, place)
        elif schema.is_setting(place):
            found[place] = Item(_wrapped(place, value), source_of(place))
        else:
            raise schema.refusal(place, source_of(place))
    return found


def _wrapped(place: Place, value: Any) -> Any:
    if place[-1] != "api_key" or not isinstance(value, str):
        return value
    from pydantic import SecretStr

    return SecretStr(value.strip())  # blanks around a key are the end of the line that it was copied with
