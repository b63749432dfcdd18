"""The commands ``keys new``, ``keys list`` and ``keys revoke``: the file of API keys of the gateway."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, get_args

import msgspec

from penstock.cli.failures import CommandLineError, check_known
from penstock.cli.terminal import Output, say
from penstock.errors import OptionError
from penstock.gateway.keys import Key, KeyFile, Scope, new_key

__all__ = ["list_keys", "make_key", "revoke_key"]

_LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "streams", "max_body")


def make_key(path: str, name: str, scopes: Sequence[str], **limits: int | None) -> int:
    """Add a key to a file, which is made if it does not exist. Print the key to standard output, its id to the other.

    Raises:
        PenstockError: an argument is wrong, or the file cannot be read or written.
        OSError: standard output cannot be written. The key has not been added.
    """
    if not name.isprintable():
        raise CommandLineError("--name must be printable text in one line")
    for scope in scopes:
        check_known("scope", scope, get_args(Scope))
    secret, key = new_key(name, scopes, **limits)
    output = Output()
    try:
        with KeyFile(path).changing() as keys:
            output.write(f"{secret}\n")  # before the file is written: a key that was not shown is of no use
            keys.append(key)
    except OptionError as error:
        raise _of_file(error) from None
    say(f"this is the only time that the key is shown; its id is {key.id}")
    return 0


def list_keys(path: str, *, as_json: bool) -> int:
    """Print the keys of a file, without the keys themselves and their hashes.

    Raises:
        PenstockError: the file cannot be read.
        OSError: standard output cannot be written.
    """
    file = KeyFile(path)
    try:
        file.refresh()
        keys = file.read()
    except OptionError as error:
        raise _of_file(error) from None
    output = Output()
    if as_json:
        for key in keys:
            output.write_json({name: value for name, value in msgspec.structs.asdict(key).items() if name != "hash"})
        return 0
    rows = [("ID", "NAME", "SCOPES", "LIMITS", "MADE", "REVOKED"), *map(_row, keys)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        output.write(f"{'  '.join(cells).rstrip()}\n")
    return 0


def _row(key: Key) -> tuple[str, ...]:
    limits = [f"{name.replace('_', '-')}={value}" for name in _LIMITS if (value := getattr(key, name)) is not None]
    name = "".join(char if char.isprintable() else "?" for char in key.name)
    return key.id, name or "-", ",".join(key.scopes), " ".join(limits) or "-", _day(key.created), _day(key.revoked)


def _day(seconds: int | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat() if seconds else "-"


def revoke_key(path: str, key_id: str) -> int:
    """Revoke a key by its id. One that has been revoked stays so.

    Raises:
        PenstockError: there is no such key, or the file cannot be read or written.
    """
    if key_id.startswith("pk-"):
        raise CommandLineError("ID is the key's id (key_…), not the key itself; penstock keys list FILE shows it")
    try:
        with KeyFile(path).changing() as keys:
            place = next((place for place, key in enumerate(keys) if key.id == key_id), None)
            if place is None:
                raise CommandLineError(f"{path} has no key {key_id!r}; penstock keys list FILE shows all")
            key = keys[place]
            if key.revoked is None:
                keys[place] = msgspec.structs.replace(key, revoked=int(time.time()))
    except OptionError as error:
        raise _of_file(error) from None
    named = f" ({key.name})" if key.name else ""
    say(f"{key_id}{named} {'is revoked' if key.revoked is None else 'was revoked already'}")
    return 0


def _of_file(error: OptionError) -> OptionError:
    """The error under the name of the command's argument."""
    return OptionError("FILE", error.got, error.allowed, problem=error.problem)
