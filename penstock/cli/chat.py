"""The command ``chat``: ask a model, print its answer, and report how it ended."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import msgspec

from penstock.cli.failures import CommandLineError, check_known, code_of, explain
from penstock.cli.interrupts import Interrupts
from penstock.cli.loading import load_settings
from penstock.cli.terminal import Output, make_console, say, visible, write_error
from penstock.config.durations import parse_duration
from penstock.config.presets import PRESETS
from penstock.config.providers import known_provider_names
from penstock.config.settings import Settings
from penstock.errors import CallTimeout, OptionError
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
from penstock.system import System

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Chat", "bypass_proxies", "milliseconds"]

_LOOK: Final = 0.25  # seconds between two checks that standard output still has a reader
_OPTIONS: Final = {"request.total_timeout": "--timeout", "log.level": "--log-level"}
_TAKEN: Final = frozenset(inspect.signature(System.chat).parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """One run of the command; the fields are its options, see ``penstock chat --help``."""

    prompt: str
    provider: str | None
    model: str | None
    base_url: str | None
    system: str | None
    preset: str | None
    timeout: str | None
    parameters: list[str]
    stream_id: str | None
    as_json: bool
    stats: bool
    reasoning: bool | None
    config: str | None
    log_level: str | None

    def run(self) -> int:
        """Ask, print, report; return the exit code.

        Raises:
            PenstockError: the command line or a setting is wrong, or the system does not start.
            OSError: standard output cannot be written. The provider's call is cancelled.
        """
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": read_prompt(self.prompt)})
        parameters = _parse_parameters(self.parameters)
        settings = self._load_settings()
        name = self._check_provider(settings)
        output = Output()
        watched = sys.stderr is not None and sys.stderr.isatty()
        with Interrupts() as interrupts, System(settings) as system:
            stream = self._open(system, name, messages, parameters)
            interrupts.watch(lambda: stream.cancel("interrupted"))
            answer = AnswerPrinter(
                stream,
                output,
                look=lambda: system.get_stream_info(stream.stream_id),
                as_json=self.as_json,
                reasoning=watched if self.reasoning is None else self.reasoning,
                is_watched=watched,
            )
            try:
                end = answer.print()
            except OSError:
                stream.cancel("standard output is gone")
                raise
            if self.stats:
                _print_statistics(system, stream, end)
            return answer.conclude(end, name, interrupts.signal)

    def _load_settings(self) -> Settings:
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

    def _check_provider(self, settings: Settings) -> str:
        """Return the name of the provider that is asked, unless the model's name chooses another."""
        name = self.provider or settings.provider.name
        if self.base_url is None:
            if settings.base_url(name) is None:
                check_known("provider", name, known_provider_names())
            if name == "loopback" or (not self.provider and (self.model or "").startswith("loopback/")):
                bypass_proxies()
        return name

    def _open(self, system: System, name: str, messages: list[dict[str, str]], parameters: dict[str, Any]) -> Stream:
        try:
            return system.chat(
                self.model or _default_model(system.settings, name),
                messages,
                provider=self.provider,
                base_url=self.base_url,
                stream_id=self.stream_id,
                **parameters,
            )
        except OptionError as error:
            if error.field != "model" or self.model:
                raise
            variable = _model_variable(system.settings, name)
            raise CommandLineError(f"no model; give --model, or set {variable}") from None


# --- what the command line means -------------------------------------------------------------------------------------


def read_prompt(prompt: str) -> str:
    """Return the prompt; ``-`` reads it from standard input.

    Raises:
        CommandLineError: it is empty or not UTF-8, or standard input is closed.
    """
    if prompt == "-":
        if sys.stdin is None:
            raise CommandLineError("PROMPT is -, but standard input is closed")
        if sys.stdin.isatty():
            say("reading the prompt; end it with Ctrl-D")
        raw = sys.stdin.buffer.read()
    else:
        raw = os.fsencode(prompt)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise CommandLineError(f"PROMPT is not UTF-8: byte {error.start} of {len(raw)}") from None
    if not text.strip():
        raise CommandLineError("PROMPT is empty; write what to ask the model")
    return text


def _parse_parameters(given: list[str]) -> dict[str, Any]:
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


# --- the answer ------------------------------------------------------------------------------------------------------


class AnswerPrinter:
    """Prints one stream: text, or events as JSON, to standard output; reasoning and messages to standard error.

    Args:
        stream: the stream to print.
        output: where its text goes.
        look: returns the stream's state, to explain a long silence.
        as_json: print every event as a line of JSON instead of the text.
        reasoning: print the model's reasoning.
        is_watched: whether standard error is a terminal, so that a retry is worth a message.
    """

    def __init__(
        self,
        stream: Stream,
        output: Output,
        *,
        look: Callable[[], StreamInfo],
        as_json: bool,
        reasoning: bool,
        is_watched: bool,
    ) -> None:
        self._stream = stream
        self._output = output
        self._look = look
        self._as_json = as_json
        self._reasoning = reasoning
        self._is_watched = is_watched
        self._retries = 0
        self._text_came = False
        self._begun = time.monotonic()
        self._aside = False  # in the middle of a line on standard error

    def print(self) -> TerminalEvent:
        """Print until the stream ends; return its terminal event.

        Raises:
            OSError: standard output cannot be written.
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

    def conclude(self, end: TerminalEvent, provider: str, interrupted: int | None) -> int:
        """Say how the stream ended, unless it simply completed; return the exit code.

        Args:
            end: the stream's terminal event.
            provider: the provider's name, if the event has none.
            interrupted: the signal that ended it, if one did.
        """
        seconds = time.monotonic() - self._begun
        tokens = self._stream.statistics().tokens_delivered
        came = f"{tokens} token{'s' * (tokens != 1)} had come in {seconds:.1f} s"
        if isinstance(end, StreamCompleted):
            for call in end.tool_calls:
                self._say(f"the model asks for {call.name}({call.arguments_raw})")
            if end.refusal:
                self._say("the model refused")
            elif end.finish_reason not in ("stop", "tool_calls"):
                self._say(f"the model stopped before it was done: {end.raw_finish_reason or end.finish_reason}")
            return 0
        if isinstance(end, StreamFailed):
            self._say(explain(end.error, end.provider or provider) + (f"; {came}" if tokens else ""))
            return code_of(end.error, text_came=self._text_came or bool(end.partial))
        self._say(f"cancelled; {came if tokens else f'nothing had come in {seconds:.1f} s'}")
        return 1 if interrupted is None else 128 + interrupted

    @cached_property
    def _errors(self) -> Console:
        return make_console(stderr=True)

    def _say(self, text: str) -> None:
        self._end_aside()
        self._output.make_room()
        say(text)

    def _explain_silence(self) -> None:
        info = self._look()
        if self._is_watched and info.source == "retry_wait" and info.attempts > self._retries:
            self._retries = info.attempts
            self._say(f"attempt {info.attempts} failed; trying again")

    def _print(self, event: Event) -> None:
        self._text_came = self._text_came or (isinstance(event, TokenEvent) and event.kind == "text")
        if self._as_json:
            self._output.write_json(to_dict(event))
        elif isinstance(event, StreamReset):
            self._say("the answer broke off and begins again; disregard the text above")
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
            style = "dim" if event.kind == "reasoning" else None
            self._errors.print(visible(event.text), style=style, end="", soft_wrap=True)
        self._aside = True

    def _end_aside(self) -> None:
        if self._aside:
            write_error("\n")
        self._aside = False

    def _end_lines(self) -> None:
        self._end_aside()
        self._output.end_line()


def _print_statistics(system: System, stream: Stream, end: TerminalEvent) -> None:
    from rich.table import Table

    seen = stream.statistics()
    rows: dict[str, object] = {
        "stream": stream.stream_id,
        "model": end.model or "unknown",
        "end": type(end).__name__,
        "requests": system.get_stream_info(stream.stream_id).attempts,
        "tokens": seen.tokens_delivered,
        "batches": seen.batches_flushed,
        "first token": milliseconds(seen.time_to_first_token_s),
        "tokens/s": f"{seen.tokens_per_second:.1f}",
        "between tokens, p50": milliseconds(seen.inter_token_p50_s),
        "between tokens, p99": milliseconds(seen.inter_token_p99_s),
        "back-pressure": seen.backpressure_events,
    }
    if isinstance(end, StreamCompleted):
        rows["finish reason"] = end.finish_reason
    if end.usage is not None:
        counts = msgspec.structs.asdict(end.usage)
        rows["usage"] = ", ".join(f"{counts[each]} {each}" for each in counts if counts[each] is not None)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, visible(str(value)))
    with contextlib.suppress(OSError, ValueError):
        make_console(stderr=True).print(table)


def milliseconds(seconds: float | None) -> str:
    """Write a time in milliseconds.

    >>> milliseconds(0.0123), milliseconds(1.5), milliseconds(None)
    ('12.3 ms', '1500 ms', '-')
    """
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
