"""The command ``batch``: ask the prompts of a file, write a result a line, and go on after a kill."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from penstock.cli.asking import ModelChoice
from penstock.cli.batch_file import Format, OutputError, ResultFile
from penstock.cli.batch_forms import result_line
from penstock.cli.batch_lines import Checked, InputLines
from penstock.cli.failures import CommandLineError, explain
from penstock.cli.interrupts import Interrupts
from penstock.cli.progress import BatchReport, duration, money
from penstock.cli.terminal import say
from penstock.config.checks import check_number
from penstock.config.settings import Settings
from penstock.errors import OptionError, PenstockError, ProviderError
from penstock.ports.batch import BatchPrompt, BatchResult, BatchResults
from penstock.system import System

__all__ = ["BatchCommand", "kind_of"]

_CHARACTERS_A_TOKEN: Final = 4
_KINDS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCommand:
    """One run of the command; the fields are its options, see ``penstock batch --help``."""

    input: str
    output: Path
    choice: ModelChoice
    concurrency: int
    retries: int | None
    resume: bool
    retry_failed: bool
    max_cost: float | None
    max_errors: str | None
    limit: int | None
    dry_run: bool
    ordered: bool
    form: Format

    def run(self) -> int:
        """Check the input, ask, write; return the exit code.

        Raises:
            PenstockError: the command line, the input, the output or a setting is wrong. Nothing was asked, unless a
                line names a model of a provider that has no key.
        """
        for field, value, most in (("--concurrency", self.concurrency, 10_000), ("--limit", self.limit, 2**53)):
            check_number(field, value, 1, most, whole=True, optional=True)
        check_number("--max-cost", self.max_cost, 0, 1e12, optional=True)
        check_number("--retries", self.retries, 0, 100, whole=True, optional=True)
        _parse_limit(self.max_errors, 100)
        settings = self.choice.load_settings()
        self.choice.check_provider(settings)
        lines = InputLines(self.input)
        file = ResultFile(self.output, self.form)
        try:
            if lines.is_same_file(self.output):
                raise CommandLineError(f"{self.output} is both the input and the output")
            is_new = not self.output.exists()
            if not is_new:
                file.open(resume=self.resume or self.dry_run)
            checked = self._check(lines, file)
            self._check_model(settings, checked)
            if self.dry_run:
                return self._describe(checked, file, settings)
            if is_new:
                file.open(resume=self.resume)
            return self._ask(lines, file, checked, settings)
        except OutputError as error:
            say(f"{error}; what was written before is whole, and --resume goes on")
            return 74
        finally:
            file.close()
            lines.close()

    # --- before the first call -----------------------------------------------------------------------------------

    def _is_skipped(self, file: ResultFile, key: str) -> bool:
        entry = file.entries.get(key)
        return entry is not None and (entry.is_completed or not self.retry_failed)

    def _check(self, lines: InputLines, file: ResultFile) -> Checked:
        done = {entry.id: entry.sha256 for entry in file}
        checked = lines.check(done, lambda key: self._is_skipped(file, key))
        if file.was_torn:
            say(f"{self.output}: the last line was cut off by a kill or a full disk; its prompt is asked again")
        return checked

    def _check_model(self, settings: Settings, checked: Checked) -> None:
        """Refuse a batch without a model, or without a key, before anything is asked."""
        if not self.choice.chosen_model(settings) and checked.to_do and not checked.models:
            raise self.choice.no_model(settings)

    def _describe(self, checked: Checked, file: ResultFile, settings: Settings) -> int:
        model = self.choice.chosen_model(settings)
        names = [model] if model else []
        names += [name for name in checked.models if name != model]
        count = checked.to_do if self.limit is None else min(self.limit, checked.to_do)
        say(
            f"{checked.prompts:,} prompts, {len(file.entries):,} of them have a result; {count:,} would be asked, with "
            f"about {checked.characters // _CHARACTERS_A_TOKEN:,} tokens of {', '.join(names) or 'no model'}"
        )
        return 0

    # --- asking --------------------------------------------------------------------------------------------------

    def _ask(self, lines: InputLines, file: ResultFile, checked: Checked, settings: Settings) -> int:
        to_do = checked.to_do if self.limit is None else min(self.limit, checked.to_do)
        if self.retry_failed:
            file.rewrite(lambda entry: entry.is_completed)
        expected: deque[int] = deque()  # numbers of lines that have no result yet, in order

        def prompts() -> Iterator[BatchPrompt]:
            for prompt in lines.prompts(lambda key: self._is_skipped(file, key), self.limit):
                if self.ordered:
                    expected.append(prompt.number or 0)
                yield prompt

        with Interrupts(stages=2) as interrupts, System(settings) as system:
            self._check_key(system)
            with self._start(system, prompts(), to_do) as batch, BatchReport(lambda: batch.progress) as report:

                def drain() -> None:
                    report.note("finishing the calls under way; Ctrl-C again cancels them")
                    batch.drain("interrupted")

                interrupts.watch(drain, batch.close)
                failures = self._write(batch, file, expected)
            return self._conclude(batch, file, to_do, failures, interrupts)

    def _check_key(self, system: System) -> None:
        """Raise if the provider has no key, unless only the names of models choose providers."""
        model = self.choice.model or ""
        if self.choice.provider is not None or self.choice.base_url is not None or "/" not in model:
            system.provider(self.choice.provider, base_url=self.choice.base_url)

    def _start(self, system: System, prompts: Iterator[BatchPrompt], total: int) -> BatchResults:
        system_message, more = self.choice.system, self.choice.request_parameters()
        if system_message:
            prompts = (_with_system(prompt, system_message) for prompt in prompts)
        return system.batch(
            prompts,
            model=self.choice.chosen_model(system.settings) or None,
            concurrency=self.concurrency,
            retries=self.retries,
            max_cost=self.max_cost,
            max_errors=_parse_limit(self.max_errors, total),
            ordered=self.ordered,
            total=total,
            provider=self.choice.provider,
            base_url=self.choice.base_url,
            **more,
        )

    def _write(self, batch: BatchResults, file: ResultFile, expected: deque[int]) -> Counter[str]:
        """Write the results as they come, or in order; returns how often prompts failed, by kind of error."""
        failures: Counter[str] = Counter()
        held: dict[int, BatchResult] = {}
        for result in batch:
            if result.error is not None:
                failures[kind_of(result.error)] += 1
            if not self.ordered:
                file.append(result_line(result, self.form))
                continue
            held[result.number] = result
            while expected and expected[0] in held:
                file.append(result_line(held.pop(expected.popleft()), self.form))
        for number in sorted(held):  # after one that was not asked
            file.append(result_line(held[number], self.form))
        if self.ordered and file.entries:  # the lines of an earlier run come before
            file.sort()
        return failures

    # --- the end -------------------------------------------------------------------------------------------------

    def _conclude(
        self, batch: BatchResults, file: ResultFile, to_do: int, failures: Counter[str], interrupts: Interrupts
    ) -> int:
        seen = batch.progress
        undone = to_do - seen.done
        before = sum(not entry.is_completed for entry in file)
        for kind, count in failures.most_common(_KINDS_SHOWN):
            say(f"{count:,} × {kind}")
        if isinstance(seen.stopped, PenstockError):
            provider = self.choice.provider
            say(f"stopped: {explain(seen.stopped, provider)}")
        elif seen.stopped and undone and interrupts.signal is None:
            say(f"stopped: {seen.stopped}")
        if before:
            say(f"{before:,} failed in an earlier run; --retry-failed asks them again")
        if not to_do:
            say("every prompt has a result already")
            return 4 if before else 0
        parts = [f"{seen.completed:,} completed"]
        parts += [f"{seen.failed:,} failed"] if seen.failed else []
        parts += [f"{undone:,} not done (--resume goes on)"] if undone else []
        facts = [duration(seen.seconds), f"{seen.tokens:,} tokens", f"{seen.tokens_per_second:,.0f} tokens/s"]
        if seen.cost is not None:
            facts.append(money(seen.cost))
        if seen.unpriced and (seen.cost is not None or self.max_cost is not None):
            facts.append(f"the price of {seen.unpriced:,} answers is not known")
        say(f"{', '.join(parts)}; {', '.join(facts)}")
        if isinstance(seen.stopped, ProviderError):
            return 3
        if interrupts.count > 1 and interrupts.signal is not None:
            return 128 + interrupts.signal
        return 4 if undone or seen.failed or before else 0


def kind_of(error: PenstockError) -> str:
    """Name an error without what differs from prompt to prompt."""
    status = getattr(error, "status", None)
    code = getattr(error, "code", None)
    about = " ".join(str(part) for part in (f"HTTP {status}" if status else None, code) if part)
    return f"{type(error).__name__}{f' ({about})' if about else ''}"


def _with_system(prompt: BatchPrompt, text: str) -> BatchPrompt:
    """Put the command line's system message first, unless the prompt has one of its own."""
    given = prompt.input
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())
    if prompt.responses or (messages and messages[0].get("role") in ("system", "developer")):
        return prompt
    return msgspec.structs.replace(prompt, input=[{"role": "system", "content": text}, *messages])


def _parse_limit(text: str | None, total: int) -> int | None:
    """Return how many prompts may fail, of a number or a percentage.

    >>> _parse_limit("5%", 200), _parse_limit("3", 200), _parse_limit(None, 200)
    (10, 3, None)
    """
    if text is None:
        return None
    number = text.removesuffix("%")
    try:
        value = float(number) if text.endswith("%") else int(number)
    except ValueError:
        raise OptionError("--max-errors", text, "a number of prompts, or a percentage such as 5%") from None
    if not 0 <= value < (101 if text.endswith("%") else 2**53):
        raise OptionError("--max-errors", text, "a number of prompts, or a percentage such as 5%")
    return int(value * total / 100) if text.endswith("%") else int(value)
