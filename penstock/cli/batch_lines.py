"""The input of ``penstock batch``: a prompt a line, all of them checked before the first is asked."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec

from penstock.cli.failures import CommandLineError
from penstock.errors import OptionError
from penstock.ports.batch import BatchPrompt
from penstock.toolbox.batch.prompts import read_prompt

__all__ = ["Checked", "InputLines"]

_BOM: Final = b"\xef\xbb\xbf"


class Checked(NamedTuple):
    """What a check has found.

    Attributes:
        prompts: their number.
        to_do: those without a result in the output.
        characters: of the input, roughly: bytes of the lines that are to do.
        models: named by lines, in order.
    """

    prompts: int
    to_do: int
    characters: int
    models: tuple[str, ...]


class InputLines:
    """A file of prompts; ``-`` is standard input, which is copied to a temporary file.

    Lines end in LF or CRLF. A byte order mark and blank lines are dropped; blank ones count in line numbers.

    Raises:
        CommandLineError: the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == "-" else path
        try:
            self._file: IO[bytes] = _spooled() if path == "-" else Path(path).open("rb")  # noqa: SIM115 - `close`
        except OSError as error:
            raise CommandLineError(f"{self.name}: {error.strerror or error}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def is_same_file(self, path: Path) -> bool:
        """Whether that is the same file."""
        try:
            return self._file.name == str(path) or Path(str(self._file.name)).samefile(path)
        except OSError:
            return False

    def check(self, done: Mapping[str, bytes], is_skipped: Callable[[str], bool]) -> Checked:
        """Read every line.

        Args:
            done: the SHA-256 of the line of each result, by id; empty if the output does not say.
            is_skipped: whether the prompt with that id is not asked again.

        Raises:
            CommandLineError: a line is bad, an id is there twice or only in some lines, or the line of a result is
                another now. The message names the line.
        """
        places: dict[str, int] = {}
        models: dict[str, None] = {}
        problems: list[str] = []
        prompts = to_do = characters = without = 0
        for number, raw in self._lines():
            try:
                prompt = _parse(number, raw)
            except OptionError as error:
                problems.append(f"line {number}: {error}")
                continue
            prompts += 1
            key = str(number if prompt.id is None else prompt.id)
            if prompt.id is None:
                without = without or number
            elif key in places:
                problems.append(f"line {number}: the id {key[:80]!r} is that of line {places[key]} too")
            else:
                places[key] = number
            if without and places:
                with_id = next(iter(places.values()))
                problems.append(f"line {max(without, with_id)}: line {with_id} has an id, line {without} has none")
                break
            known = done.get(key)
            if known and known != bytes.fromhex(prompt.sha256):
                problems.append(f"line {number}: the output has a result of the id {key[:80]!r} for another line")
            if not is_skipped(key):
                to_do += 1
                characters += len(raw)
                if prompt.model is not None:
                    models[prompt.model] = None
        if problems:
            more = f" (and {len(problems) - 1} more bad lines)" if len(problems) > 1 else ""
            raise CommandLineError(f"{self.name}, {problems[0]}{more}; nothing was asked")
        return Checked(prompts, to_do, characters, tuple(models))

    def prompts(self, is_skipped: Callable[[str], bool], limit: int | None) -> Iterator[BatchPrompt]:
        """Yield the prompts that are to be asked, with the id and the number of their lines; ``limit`` at most."""
        count = 0
        for number, raw in self._lines():
            if limit is not None and count >= limit:
                return
            prompt = _parse(number, raw)
            id = number if prompt.id is None else prompt.id
            if not is_skipped(str(id)):
                count += 1
                yield msgspec.structs.replace(prompt, id=id)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            raw = line.rstrip(b"\r\n")
            if number == 1:
                raw = raw.removeprefix(_BOM)
            if raw.strip():
                yield number, raw


def _spooled() -> IO[bytes]:
    if sys.stdin is None:
        raise CommandLineError("the input is -, but standard input is closed")
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the input
    shutil.copyfileobj(sys.stdin.buffer, copy)
    return copy


def _parse(number: int, raw: bytes) -> BatchPrompt:
    try:
        form: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise OptionError("line", number, "", message=f"not JSON: {_brief(error)}") from None
    except RecursionError:
        raise OptionError("line", number, "", message="nested too deeply") from None
    if not isinstance(form, dict):
        raise OptionError("line", number, "", message='not an object, such as {"id": "q1", "prompt": "…"}')
    return msgspec.structs.replace(read_prompt(form), number=number, sha256=hashlib.sha256(raw).hexdigest())


def _brief(error: Exception) -> str:
    return str(error).removeprefix("JSON is malformed: ")
