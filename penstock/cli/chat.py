"""The command ``chat``: ask a model, print its answer, and report how it ended."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from penstock.cli.answer import AnswerPrinter, print_statistics
from penstock.cli.asking import ModelChoice
from penstock.cli.failures import CommandLineError
from penstock.cli.interrupts import Interrupts
from penstock.cli.terminal import Output, say
from penstock.system import System

__all__ = ["Chat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """One run of the command; the fields are its options, see ``penstock chat --help``."""

    prompt: str
    choice: ModelChoice
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
        messages = self.choice.messages(read_prompt(self.prompt))
        self.choice.request_parameters()
        settings = self.choice.load_settings()
        name = self.choice.check_provider(settings)
        output = Output()
        watched = sys.stderr is not None and sys.stderr.isatty()
        with Interrupts() as interrupts, System(settings) as system:
            stream = self.choice.open(system, messages, stream_id=self.stream_id)
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
                print_statistics(system, stream, end)
            return answer.conclude(end, name, interrupts.signal)


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
