"""The command ``bench``: how fast a model answers, under so many requests at once."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.cli.answer import milliseconds
from penstock.cli.asking import ModelChoice
from penstock.cli.batch import kind_of
from penstock.cli.failures import code_of, explain
from penstock.cli.interrupts import Interrupts
from penstock.cli.progress import duration
from penstock.cli.terminal import Output, make_console, say, write_error
from penstock.config.checks import check_number
from penstock.config.presets import SAFE
from penstock.errors import PenstockError
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed, TokenEvent
from penstock.system import System

__all__ = ["Bench", "Measured", "percentile"]

PROMPT: Final = "Write a story of about two hundred words about a mill on a river."
_SHARES: Final = (0.5, 0.95, 0.99)


@dataclass(slots=True)
class Measured:
    """What has been measured so far; times in seconds."""

    begun: float = 0.0
    completed: int = 0
    tokens: int = 0
    first: array[float] = field(default_factory=lambda: array("d"))
    """Until the first token, for each answer."""
    gaps: array[float] = field(default_factory=lambda: array("d"))
    """Between two deliveries, divided by the tokens of the second one."""
    rates: array[float] = field(default_factory=lambda: array("d"))
    """Tokens in a second after the first delivery, for each answer."""
    errors: Counter[str] = field(default_factory=Counter)
    last_error: PenstockError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One run of the command; the fields are its options, see ``penstock bench --help``."""

    choice: ModelChoice
    prompt: str | None
    concurrency: int
    requests: int
    as_json: bool

    def run(self) -> int:
        """Ask, measure, print; return the exit code.

        Raises:
            PenstockError: an option or a setting is wrong, or the system does not start.
            OSError: standard output cannot be written.
        """
        check_number("--concurrency", self.concurrency, 1, 10_000, whole=True)
        check_number("--requests", self.requests, 1, 10_000_000, whole=True)
        settings = self.choice.load_settings()
        self.choice.check_provider(settings)
        output, seen = Output(), Measured()
        with Interrupts() as interrupts, System(settings) as system:
            if not self.choice.chosen_model(settings):
                raise self.choice.no_model(settings)
            seen.begun = time.monotonic()
            asyncio.run(self._ask_all(system, seen, interrupts))
            seconds = time.monotonic() - seen.begun
        facts = _facts(seen, seconds, min(self.concurrency, self.requests))
        if self.as_json:
            output.write_json(facts)
        else:
            _print(facts, output)
        if seen.last_error is not None:
            say(explain(seen.last_error))
        if interrupts.signal is not None:
            return 128 + interrupts.signal
        return code_of(seen.last_error) if seen.last_error is not None and not seen.completed else 0

    async def _ask_all(self, system: System, seen: Measured, interrupts: Interrupts) -> None:
        left = iter(range(self.requests))
        workers = [
            asyncio.create_task(self._work(system, left, seen)) for _ in range(min(self.concurrency, self.requests))
        ]
        loop = asyncio.get_running_loop()

        def stop() -> None:
            for worker in workers:
                loop.call_soon_threadsafe(worker.cancel)

        interrupts.watch(stop)
        report = asyncio.create_task(_report(seen, self.requests))
        done = await asyncio.gather(*workers, return_exceptions=True)
        report.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await report
        for outcome in done:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    async def _work(self, system: System, left: Any, seen: Measured) -> None:
        options = system.settings.request.replace(max_retries=0)
        for _ in left:
            messages = self.choice.messages(self.prompt or PROMPT)
            stream = self.choice.open(system, messages, options=SAFE, request_options=options)
            last, begun = 0.0, 0.0
            tokens = 0
            with stream.events(slow="block") as events:
                async for event in events:
                    if isinstance(event, TokenEvent):
                        if last:
                            seen.gaps.append((event.timestamp - last) / len(event.tokens))
                            tokens += len(event.tokens)
                        else:
                            begun = event.timestamp
                        last = event.timestamp
                        seen.tokens += len(event.tokens)
                    elif isinstance(event, StreamCompleted):
                        seen.completed += 1
                        if event.metrics is not None and event.metrics.time_to_first_token_s is not None:
                            seen.first.append(event.metrics.time_to_first_token_s)
                        if last > begun:
                            seen.rates.append(tokens / (last - begun))
                    elif isinstance(event, StreamFailed):
                        seen.errors[kind_of(event.error)] += 1
                        seen.last_error = event.error
                    elif isinstance(event, StreamCancelled):
                        seen.errors["cancelled"] += 1


async def _report(seen: Measured, requests: int) -> None:
    """Show how far it is, in a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return
    try:
        while True:
            seconds = max(1e-9, time.monotonic() - seen.begun)
            done = seen.completed + seen.errors.total()
            write_error(f"\r\x1b[K{done:,}/{requests:,} · {seen.tokens / seconds:,.0f} tokens/s")
            await asyncio.sleep(0.25)
    finally:
        write_error("\r\x1b[K")


def _facts(seen: Measured, seconds: float, concurrency: int) -> dict[str, Any]:
    return {
        "requests": seen.completed + seen.errors.total(),
        "completed": seen.completed,
        "errors": dict(seen.errors),
        "concurrency": concurrency,
        "seconds": round(seconds, 3),
        "tokens": seen.tokens,
        "tokens_per_second": round(seen.tokens / seconds, 2) if seconds > 0 else 0.0,
        "requests_per_second": round(seen.completed / seconds, 3) if seconds > 0 else 0.0,
        "first_token_s": _shares(seen.first),
        "between_tokens_s": _shares(seen.gaps),
        "tokens_per_second_of_one": _shares(seen.rates),
    }


def _shares(values: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(values)
    return {f"p{share * 100:g}": percentile(ordered, share) for share in _SHARES}


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The ``share`` quantile (0 … 1) of sorted values, by the nearest rank; None if there are none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([], 0.5)
    (2.0, None)
    """
    if not ordered:
        return None
    rank = -(-len(ordered) * share // 1)
    return round(ordered[max(0, int(rank) - 1)], 6)


def _print(facts: dict[str, Any], output: Output) -> None:
    from rich.table import Table

    rows = {
        "requests": f"{facts['requests']:,}, {facts['concurrency']:,} at once",
        "completed": f"{facts['completed']:,}",
        **{f"  {kind}": f"{count:,}" for kind, count in facts["errors"].items()},
        "time": duration(facts["seconds"]),
        "tokens/s": f"{facts['tokens_per_second']:,.1f}",
        "requests/s": f"{facts['requests_per_second']:,.2f}",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    shares = Table(box=None, pad_edge=False)
    for name in ("", "p50", "p95", "p99"):
        shares.add_column(name, justify="right" if name else "left")
    for title, key in (("first token", "first_token_s"), ("between tokens", "between_tokens_s")):
        shares.add_row(title, *(milliseconds(value) for value in facts[key].values()))
    of_one = facts["tokens_per_second_of_one"].values()
    shares.add_row("tokens/s of one", *("-" if value is None else f"{value:,.1f}" for value in of_one))
    console = make_console()
    with console.capture() as captured:
        console.print(table)
        console.print()
        console.print(shares)
    text = "\n".join(line.rstrip() for line in captured.get().splitlines())
    output.write_bytes(f"{text}\n".encode(errors="replace"))
