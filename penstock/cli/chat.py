"""The command ``chat``: ask a model, print its answer, and report how it ended."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.cli.answer import AnswerPrinter, print_statistics
from penstock.cli.asking import ModelChoice
from penstock.cli.failures import CommandLineError, check_known, explain
from penstock.cli.interrupts import Interrupts
from penstock.cli.many import Bars, ManyAnswers
from penstock.cli.terminal import Output, say
from penstock.config.settings import Settings
from penstock.errors import PenstockError
from penstock.stream import Stream
from penstock.system import System

__all__ = ["MODES", "Chat"]

MODES: Final = ("simple", "concurrent", "aggregate", "recovery")
_RETRIES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """One run of the command; the fields are its options, see ``penstock chat --help``."""

    prompts: tuple[str, ...]
    mode: str
    choice: ModelChoice
    output: Path | None
    stream_id: str | None
    as_json: bool
    stats: bool
    reasoning: bool | None

    def run(self) -> int:
        """Ask, print, report; return the exit code.

        Raises:
            PenstockError: the command line or a setting is wrong, or the system does not start.
            OSError: standard output cannot be written. The provider's call is cancelled.
        """
        check_known("mode", self.mode, MODES)
        many = self.mode in ("concurrent", "aggregate")
        if len(self.prompts) > 1 and not many:
            raise CommandLineError(
                f"{len(self.prompts)} prompts; quote a prompt of several words, or give --mode concurrent"
            )
        if self.prompts.count("-") > 1:
            raise CommandLineError("PROMPT is - twice; standard input can be read once")
        prompts = [read_prompt(prompt) for prompt in self.prompts]
        self.choice.request_parameters()
        settings = self.choice.load_settings()
        name = self.choice.check_provider(settings)
        return self._run_many(prompts, settings, name) if many else self._run_one(prompts[0], settings, name)

    # --- one prompt ----------------------------------------------------------------------------------------------

    def _run_one(self, prompt: str, settings: Settings, name: str) -> int:
        messages = self.choice.messages(prompt)
        output = Output()
        watched = sys.stderr is not None and sys.stderr.isatty()
        with Interrupts() as interrupts, System(settings) as system:
            notes: deque[str] = deque()
            if self.mode == "recovery":
                called = stream = self._with_retries(system, messages, notes.append)
            else:
                called = stream = self.choice.open(system, messages, stream_id=self.stream_id)
            stream = self._copied(stream)
            interrupts.watch(lambda: stream.cancel("interrupted"))
            answer = AnswerPrinter(
                stream,
                output,
                look=lambda: system.get_stream_info(called.stream_id),
                notes=notes,
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
                print_statistics(system, called, end)
            return answer.conclude(end, name, interrupts.signal)

    def _with_retries(self, system: System, messages: list[dict[str, str]], note: Callable[[str], object]) -> Stream:
        """Ask in several attempts, and say why each further one is made."""
        made: list[Stream] = []
        once = system.settings.request.replace(max_retries=0)

        def attempt(number: int) -> Stream:
            if made:
                try:
                    made[-1].result(0)
                except PenstockError as error:
                    note(f"attempt {number - 1} of {_RETRIES + 1} failed: {explain(error)}; trying again")
            made.append(self.choice.open(system, messages, request_options=once))
            return made[-1]

        # The first one is made here, so that a wrong option is an error of the command.
        first: list[Stream] = [attempt(1)]
        return system.with_retry(
            lambda number: first.pop() if first else attempt(number), retries=_RETRIES, stream_id=self.stream_id
        )

    def _copied(self, stream: Stream, *, as_events: bool = False) -> Stream:
        """Copy the stream to ``--output``."""
        if self.output is None:
            return stream
        try:
            return stream.tee(self.output, mode="jsonl" if as_events or self.as_json else "text")
        except OSError as error:
            stream.cancel("its copy cannot be written")
            raise CommandLineError(f"--output {self.output}: {error.strerror or error}") from None

    # --- several -------------------------------------------------------------------------------------------------

    def _run_many(self, prompts: list[str], settings: Settings, name: str) -> int:
        if self.stream_id is not None and len(prompts) > 1:
            raise CommandLineError("--stream-id names one stream, and there are several")
        output = Output()
        begun = time.monotonic()
        at_once = self.mode == "aggregate"
        with Interrupts() as interrupts, System(settings) as system:
            streams = {
                str(number): self.choice.open(system, self.choice.messages(prompt))
                for number, prompt in enumerate(prompts, 1)
            }
            merged = self._copied(system.merge(streams, stream_id=self.stream_id), as_events=True)
            interrupts.watch(lambda: merged.cancel("interrupted"))
            answers = ManyAnswers(merged, streams, output, as_json=self.as_json, at_once=at_once)
            has_room = not output.is_terminal or not (at_once or self.as_json)
            with Bars(streams, prompts, is_shown=has_room) as bars:
                try:
                    end = answers.print(bars)
                except OSError:
                    merged.cancel("standard output is gone")
                    raise
            if self.stats:
                for stream in streams.values():
                    print_statistics(system, stream, end)
            return answers.conclude(end, name, interrupts.signal, time.monotonic() - begun)


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
