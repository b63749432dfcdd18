"""Standard output and standard error: written through at once, safe for the terminal, and prepared to break."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Output", "make_console", "output_failed", "say", "visible", "write_error"]

# A model's text must not command the user's terminal: control characters are shown as pictures, and the overrides of
# the writing direction, which make text look like other text, as escapes.
_DIRECTIONS: Final = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE: Final[dict[int, int | str | None]] = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t\r"},
    0x0D: None,
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    **{code: f"\\u{code:04x}" for code in _DIRECTIONS},
}
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *_DIRECTIONS)}  # JSON itself leaves them


class Output:
    """Standard output, flushed after each write.

    Attributes:
        is_terminal: whether it is a terminal.
        line_open: whether the text written last does not end its line.
    """

    def __init__(self) -> None:
        if sys.stdout is None:
            raise OSError(9, "is closed")
        self.is_terminal = sys.stdout.isatty()
        self.line_open = False
        self._encoding = sys.stdout.encoding or "utf-8"
        self._buffer = sys.stdout.buffer
        if sys.platform != "win32":  # there the next write fails
            self._poll = select.poll()
            self._poll.register(self._buffer, 0)

    def write(self, text: str) -> None:
        """Write ``text``. A terminal gets it without the characters that it would obey.

        Raises:
            OSError: as for `write_bytes`.
        """
        if not text:
            return
        self.line_open = not text.endswith("\n")
        self.write_bytes((visible(text) if self.is_terminal else text).encode(self._encoding, "replace"))

    def write_bytes(self, data: bytes) -> None:
        """Write ``data``.

        Raises:
            OSError: the reader is gone, or the disk is full.
        """
        self._buffer.write(data)
        self._buffer.flush()

    def write_json(self, value: object) -> None:
        """Write ``value`` as one line of JSON. A terminal gets the characters that it would obey as JSON escapes.

        Raises:
            OSError: as for `write_bytes`.
        """
        data = msgspec.json.encode(value)
        if self.is_terminal:
            data = data.decode().translate(_ESCAPED).encode()
        self.write_bytes(data + b"\n")

    def end_line(self) -> None:
        """On a terminal, end the line of text that is open."""
        if self.is_terminal and self.line_open:
            self.write("\n")

    def make_room(self) -> None:
        """End the line of text that is open before a message is written to standard error.

        A file or a program that reads the text gets it as it is. If text and messages end up in the same place, the
        line is ended on standard error.
        """
        self.end_line()
        if self.line_open and _is_shared():
            self.line_open = False
            write_error("\n")

    def check(self) -> None:
        """Raise `BrokenPipeError` if the reader is gone, without writing anything."""
        if sys.platform == "win32":
            return
        if any(seen & (select.POLLERR | select.POLLHUP) for _, seen in self._poll.poll(0)):
            raise BrokenPipeError


def _is_shared() -> bool:
    """Whether standard error goes where standard output goes, or to a terminal that shows the pipe's reader too."""
    try:
        out, err = os.fstat(1), os.fstat(2)
        return os.path.samestat(out, err) or (stat.S_ISFIFO(out.st_mode) and os.isatty(2))
    except OSError:
        return False


def make_console(*, stderr: bool = False, force_terminal: bool | None = None) -> Console:
    """Make a console that prints text as it is. ``NO_COLOR`` switches off colours, and bold and dim with them."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))
    return Console(
        stderr=stderr,
        force_terminal=force_terminal,
        color_system=None if plain or force_terminal is False else "auto",
        markup=False,
        highlight=False,
        emoji=False,
    )


def visible(text: str) -> str:
    r"""Return ``text`` with the characters that a terminal would obey made visible.

    >>> print(visible("a\x1b[31m, b\u202ec"))
    a␛[31m, b\u202ec
    """
    return text.translate(_VISIBLE)


def say(text: str) -> None:
    """Write a message as one line to standard error. White space and unprintable characters become single blanks."""
    line = "".join(char if char.isprintable() else " " for char in text)
    write_error(f"penstock: {' '.join(line.split())}\n")


def write_error(text: str) -> None:
    """Write to standard error and flush. If it is closed or full, the text is lost."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            _silence(2)


def output_failed(error: OSError) -> int:
    """Report that standard output could not be written, unless its reader is gone; return the exit code."""
    _silence(1)
    if isinstance(error, BrokenPipeError):
        return 141
    say(f"standard output: {error.strerror or error}")
    return 74


def _silence(descriptor: int) -> None:
    """Send a broken standard stream to the null device, so that the interpreter's last flush does not fail."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
