"""API keys of the gateway: a file of their hashes, and what each key allows."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from penstock.config.logs import get_logger
from penstock.errors import OptionError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["ANONYMOUS", "Key", "KeyFile", "Scope", "new_key"]

Scope: TypeAlias = Literal["read", "write", "admin"]
"""``read``: streams of the own key; ``write``: open and command them too; ``admin``: those of all keys."""

_PREFIX: Final = "pk-"
_PATIENCE: Final = 10.0  # seconds to wait for another process that changes the file
_LOOK: Final = 0.02


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as it is kept: its hash, never itself.

    Attributes:
        id: names the key in lists, logs and as the owner of streams.
        name: what it is for, as given when it was made.
        hash: SHA-256 of the key, in hexadecimal. The key is 256 bits of chance, so that no slow hash is needed.
        scopes: what it may do.
        created: when it was made, in seconds since the epoch.
        revoked: when it was revoked.
        streams: streams at once; None: any number.
        requests_per_minute, tokens_per_minute: None: any number.
        max_body: bytes of a request's body; None: the gateway's option.
    """

    id: str
    name: str = ""
    hash: str = ""
    scopes: tuple[Scope, ...] = ("read", "write")
    created: int = 0
    revoked: int | None = None
    streams: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_body: int | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the key has a scope; ``admin`` includes the others, and ``write`` includes ``read``."""
        return "admin" in self.scopes or scope in self.scopes or (scope == "read" and "write" in self.scopes)


ANONYMOUS: Final = Key(id="anonymous", scopes=("admin",))
"""Every request's, if there are no keys."""


def new_key(name: str, scopes: Sequence[str] = ("read", "write"), **limits: int | None) -> tuple[str, Key]:
    """Make a key: the text for its user, which is kept nowhere, and what is kept.

    Raises:
        OptionError: a scope is unknown, or a limit is not 1 or more.
    """
    known = get_args(Scope)
    for scope in scopes:
        if scope not in known:
            raise OptionError("scope", scope, " | ".join(known))
    for field, value in limits.items():
        if value is not None and value < 1:
            raise OptionError(field, value, "a whole number from 1")
    secret = _PREFIX + secrets.token_urlsafe(32)
    key = Key(
        id=f"key_{secrets.token_hex(6)}",
        name=name,
        hash=_hash(secret),
        scopes=tuple(dict.fromkeys(scopes)),  # type: ignore[arg-type]
        created=int(time.time()),
        **limits,
    )
    return secret, key


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class KeyFile:
    """A file with a key as JSON in each line. It is read again when it has changed.

    Args:
        path: of the file; it must exist, unless it is only written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()
        self._valid: dict[str, Key] = {}  # of these, those that have not been revoked, by id
        self._fault: str | None = None

    def find(self, secret: str) -> Key | None:
        """The key that ``secret`` is, unless it was revoked. Takes the same time for every one that is none.

        While the file cannot be read, is broken or empty, the keys that were read last stay valid; the log says so.
        """
        digest = _hash(secret)
        found = None
        for key in self._present():
            if hmac.compare_digest(key.hash, digest) and key.revoked is None:
                found = key
        return found

    def get(self, key_id: str) -> Key | None:
        """The key with that id as it is now; None: there is none, or it has been revoked."""
        self._present()
        return self._valid.get(key_id)

    def is_valid(self, key_id: str) -> bool:
        """Whether there is a key with that id that has not been revoked."""
        return self.get(key_id) is not None

    def _present(self) -> tuple[Key, ...]:
        fault = None
        try:
            self.refresh()
        except OptionError as error:
            fault = str(error)
            self._stamp = None  # so that it is read again at once when it is whole
            if fault != self._fault:
                effect = "the keys that were read last stay valid" if self._keys else "no key is valid"
                get_logger().warning("keys_unreadable", reason=fault, effect=effect)
        self._fault = fault
        return self._keys

    def refresh(self) -> None:
        """Read the file, if it has changed.

        Raises:
            OptionError: it cannot be read, or is no file of keys.
        """
        try:
            stat = os.stat(self.path)
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp != self._stamp:
                keys = tuple(self.read())
                if not keys and self._keys:  # it is being written, or was cut off: keys that are revoked stay in it
                    problem = f"{self.path} has no keys any more"
                    raise OptionError("gateway.keys", str(self.path), "a file of keys", problem=problem)
                self._keys, self._stamp = keys, stamp
                self._valid = {key.id: key for key in keys if key.revoked is None}
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def read(self) -> list[Key]:
        """Read all keys, revoked ones too."""
        _check_regular(self.path)
        keys = []
        for number, line in enumerate(self.path.read_bytes().splitlines(), 1):
            if line.strip():
                try:
                    keys.append(msgspec.json.decode(line, type=Key))
                except (msgspec.DecodeError, UnicodeError):
                    problem = f"{self.path}, line {number}, is no key; make the file by `penstock keys new`"
                    raise OptionError("gateway.keys", str(self.path), "a file of keys", problem=problem) from None
        return keys

    def write(self, keys: Sequence[Key]) -> None:
        """Replace the file, at once or not at all. Only its user may read it."""
        data = b"".join(msgspec.json.encode(key) + b"\n" for key in keys)
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise _unwritable(self.path, error) from None

    @contextlib.contextmanager
    def changing(self) -> Iterator[list[Key]]:
        """All keys as a list to change; at the end of the block they replace the file.

        Other processes wait meanwhile, by a lock on a file beside this one, which stays. After an error in the block
        nothing is written. A file that does not exist has no keys.

        Raises:
            OptionError: the file cannot be read or written, is no file of keys, or is locked for 10 seconds.
        """
        try:
            _check_regular(self.path)  # before a lock is made beside it
        except OSError as error:
            raise _unreadable(self.path, error) from None
        with self._locked():
            try:
                keys = self.read()
            except FileNotFoundError:
                keys = []
            except OSError as error:
                raise _unreadable(self.path, error) from None
            yield keys
            self.write(keys)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.path.with_name(f".{self.path.name}.lock")
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unwritable(self.path, error) from None
        try:
            until = time.monotonic() + _PATIENCE
            while not _lock(handle):
                if time.monotonic() > until:
                    problem = f"another process has held the lock {lock} for {_PATIENCE:g} s"
                    raise OptionError("keys", str(self.path), "a file that can be written", problem=problem)
                time.sleep(_LOOK)
            yield
        finally:
            os.close(handle)  # which releases the lock


def _lock(handle: int) -> bool:
    """Lock an open file for this process, if no other one has locked it."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _unreadable(path: Path, error: OSError) -> OptionError:
    problem = f"cannot read {path}: {error.strerror}"
    return OptionError("gateway.keys", str(path), "a file of keys", problem=problem)


def _check_regular(path: Path) -> None:
    """Refuse a device or a pipe, which may have no end, and which `KeyFile.write` would replace."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def _unwritable(path: Path, error: OSError) -> OptionError:
    problem = f"cannot write {path}: {error.strerror}"
    return OptionError("keys", str(path), "a file that can be written", problem=problem)
