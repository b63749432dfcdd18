"""What a command has to do with its surroundings: standard streams that break, signals, errors in one line."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any, Final, Self

import msgspec
from rich.console import Console

from penstock.config.providers import key_variables
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    CallTimeout,
    ConnectError,
    ContextLengthExceeded,
    IncompleteStream,
    OptionError,
    PenstockError,
    ProviderError,
    ProviderTimeout,
    RateLimited,
)
from penstock.events import (
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TerminalEvent,
    TokenEvent,
    to_dict,
)
from penstock.inspection import StreamInfo
from penstock.stream import Stream

__all__ = [
    "EXIT_CODES",
    "Answer",
    "Interrupts",
    "Output",
    "code_of",
    "explain",
    "output_failed",
    "say",
    "visible",
    "write_error",
]

EXIT_CODES: Final[Mapping[int, str]] = {
    0: "all went well",
    1: "something of Penstock's own failed",
    2: "the command line, a setting or a file is wrong; the message names it",
    3: "the provider failed or cannot be reached",
    4: "the answer stopped before its end; what had come is on standard output",
    70: "a bug in Penstock",
    74: "standard output cannot be written",
    130: "Ctrl-C (143: terminated); the provider's call was cancelled",
    141: "nobody reads standard output any more; the provider's call was cancelled",
}

_LOOK: Final = 0.25  # seconds between two looks at whether anybody still reads standard output

# What a terminal would obey is made visible: a model's text is not to be trusted with the user's terminal.
_VISIBLE: Final = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t\r"}
    | {0x0D: None, 0x7F: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
)
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}  # all that JSON itself leaves as it is


# --- standard output -------------------------------------------------------------------------------------------------


class Output:
    """Standard output, written through at once."""

    def __init__(self) -> None:
        if sys.stdout is None:
            raise OSError(9, "is closed")
        self.is_terminal = sys.stdout.isatty()
        self._encoding = sys.stdout.encoding or "utf-8"
        self._buffer = sys.stdout.buffer
        self._poll = None
        if hasattr(select, "poll"):  # not on Windows, where the next write tells
            self._poll = select.poll()
            self._poll.register(self._buffer, 0)
        self.line_open = False

    def write(self, text: str) -> None:
        """Write text; to a terminal, only what cannot command it."""
        if not text:
            return
        self.line_open = not text.endswith("\n")
        self.write_bytes((visible(text) if self.is_terminal else text).encode(self._encoding, "replace"))

    def write_bytes(self, data: bytes) -> None:
        """Write ``data``.

        Raises:
            OSError: nobody reads, or there is no room.
        """
        self._buffer.write(data)
        self._buffer.flush()

    def write_json(self, value: object) -> None:
        """Write ``value`` as JSON in a line; to a terminal, what could command it is escaped as JSON allows it."""
        data = msgspec.json.encode(value)
        if self.is_terminal:
            data = data.decode().translate(_ESCAPED).encode()
        self.write_bytes(data + b"\n")

    def end_line(self) -> None:
        """In a terminal, go to a new line before something else is said."""
        if self.is_terminal and self.line_open:
            self.write("\n")

    def check(self) -> None:
        """Raise `BrokenPipeError` if nobody reads any more, without writing anything."""
        if self._poll is not None and any(seen & (select.POLLERR | select.POLLHUP) for _, seen in self._poll.poll(0)):
            raise BrokenPipeError


# --- what is said ----------------------------------------------------------------------------------------------------


def visible(text: str) -> str:
    """``text`` with what a terminal would obey made visible."""
    return text.translate(_VISIBLE)


def say(text: str) -> None:
    """Write one line to standard error, whatever ``text`` has in it."""
    line = "".join(char if char.isprintable() else " " for char in text)
    write_error(f"penstock: {' '.join(line.split())}\n")


def write_error(text: str) -> None:
    """Write to standard error what it can show, through to the end. Nobody is hurt if it is closed or full."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):
            _silence(2)


def _silence(descriptor: int) -> None:
    """Let what is still buffered for a broken standard stream go nowhere, so that the interpreter can end in peace."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def output_failed(error: OSError) -> int:
    """Say why standard output could not be written, unless that is only that nobody reads; return the exit code."""
    _silence(1)
    if isinstance(error, BrokenPipeError):
        return 141
    say(f"standard output: {error.strerror or error}")
    return 74


def code_of(error: PenstockError) -> int:
    """The exit code for an error."""
    if isinstance(error, OptionError):
        return 2
    if isinstance(error, IncompleteStream):
        return 4
    return 3 if isinstance(error, ProviderError) else 1


def explain(error: PenstockError, provider: str | None = None) -> str:
    """The error, and what to do about it, for one line. ``provider``: whose it is, where that is known."""
    if isinstance(error, OptionError) and error.got is None:
        if error.field == "api_key":
            problem = str(error).removesuffix(" or pass api_key=.")
            return f"{problem}, or try --provider loopback, which needs no key"
        return f"{error.field}: there is none; {error.allowed}"
    advice = _advice(error, provider)
    return f"{str(error).removesuffix('.')}; {advice}" if advice else str(error)


_TIMEOUT_ADVICE: Final = {
    "connect": "check the base URL and your network",
    "first_token": "the setting request.first_token_timeout allows more",
    "idle": "the setting request.idle_timeout allows more",
    "total": "--timeout allows more",
}


def _advice(error: PenstockError, provider: str | None) -> str:
    match error:
        case AuthenticationError():
            names = key_variables(provider or "")
            return f"check the key in {' or '.join([*names, ''])}the settings" if names else "check the provider's key"
        case ContextLengthExceeded():
            return "the prompt is too long for this model"
        case RateLimited():
            return "try again later" if error.retryable else "check your plan with the provider"
        case BadRequestError(status=404):
            return "check --model and --base-url"
        case ConnectError():
            return "check --base-url, the proxy and your network"
        case ProviderTimeout(which=which):
            return _TIMEOUT_ADVICE[which]
        case ApiError(retryable=True):
            return "try again later"
    return ""


# --- interruptions ---------------------------------------------------------------------------------------------------


class Interrupts:
    """Ctrl-C and termination: told, in a thread of its own, to who watches. The second one leaves at once.

    Nothing is raised, so that nothing is torn in its middle. A handler runs between any two instructions of the main
    thread, which may hold any lock: ``SimpleQueue.put`` is the one way to tell another thread that is made for that.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._queue: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._before: dict[int, Any] = {}

    def watch(self, then: Callable[[], object]) -> None:
        """Call ``then`` when it comes, or has come already."""

        def wait() -> None:
            if self._queue.get():
                with contextlib.suppress(PenstockError):
                    then()

        threading.Thread(target=wait, name="penstock-interrupts", daemon=True).start()

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        self._queue.put(True)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # started with nohup, or in the background
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(False)
        for number, handler in self._before.items():
            signal.signal(number, handler)


# --- a stream's answer -----------------------------------------------------------------------------------------------


class Answer:
    """Prints one stream: text, or events as JSON, on standard output; the rest on standard error."""

    def __init__(
        self,
        stream: Stream,
        output: Output,
        *,
        look: Callable[[], StreamInfo],
        as_json: bool,
        reasoning: bool,
        patient: bool,
    ) -> None:
        self._look = look
        self._stream = stream
        self._patient = patient  # somebody watches, who wants to know what takes so long
        self._retries = 0
        self._output = output
        self._as_json = as_json
        self._reasoning = reasoning
        self._errors = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._aside = False  # in the middle of a line on standard error

    def print(self) -> TerminalEvent:
        """Print until the end.

        Raises:
            OSError: standard output is no good.
        """
        with self._stream.events() as events:
            while True:
                try:
                    event = events.next(_LOOK)
                except CallTimeout:
                    self._output.check()
                    self._explain_silence()
                    continue
                self._print(event)
                if isinstance(event, StreamCompleted | StreamFailed | StreamCancelled):
                    self._end_lines()
                    return event

    def _explain_silence(self) -> None:
        info = self._look()
        if self._patient and info.source == "retry_wait" and info.attempts > self._retries:
            self._retries = info.attempts
            self._end_lines()
            say(f"attempt {info.attempts} failed; trying again")

    def _print(self, event: Event) -> None:
        if self._as_json:
            self._output.write_json(to_dict(event))
        elif isinstance(event, StreamReset):
            self._end_lines()
            say("the answer broke off and begins again; what was printed so far is void")
        elif isinstance(event, TokenEvent):
            if event.kind == "text":
                if self._aside and self._output.is_terminal:
                    self._end_aside()
                self._output.write(event.text)
            elif event.kind == "refusal" or self._reasoning:
                self._print_aside(event)

    def _print_aside(self, event: TokenEvent) -> None:
        self._output.end_line()
        with contextlib.suppress(OSError, ValueError):
            self._errors.print(visible(event.text), style="dim" if event.kind == "reasoning" else None, end="")
        self._aside = True

    def _end_aside(self) -> None:
        if self._aside:
            write_error("\n")
        self._aside = False

    def _end_lines(self) -> None:
        self._end_aside()
        self._output.end_line()
