"""Reports of progress on standard error: a bar in a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from penstock.cli.terminal import make_console, say
from penstock.events import Cost
from penstock.ports.batch import BatchProgress

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

__all__ = ["BatchReport", "duration", "money"]

_DRAW_EVERY: Final = 0.25
_SAY_EVERY: Final = 10.0


class BatchReport:
    """Shows how far a batch is, in a thread of its own, while the ``with`` block runs.

    Args:
        look: returns the progress.
        is_quiet: show nothing before the end.
    """

    def __init__(self, look: Callable[[], BatchProgress], *, is_quiet: bool = False) -> None:
        self._look = look
        self._is_drawn = sys.stderr is not None and sys.stderr.isatty() and not is_quiet
        self._is_quiet = is_quiet
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-progress", daemon=True)
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._is_drawn:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            columns: list[str | ProgressColumn] = [
                SpinnerColumn(),
                BarColumn(bar_width=20),
                TextColumn("{task.description}"),
            ]
            self._bar = Progress(*columns, console=make_console(stderr=True), transient=True, expand=False)
            self._bar.start()
        if not self._is_quiet:
            self._thread.start()
        return self

    def note(self, text: str) -> None:
        """Say something without disturbing the bar."""
        if self._bar is None:
            say(text)
        else:
            with contextlib.suppress(OSError, ValueError):
                self._bar.console.print(f"penstock: {text}", soft_wrap=True)

    def _run(self) -> None:
        bar = self._bar
        if bar is None:
            while not self._done.wait(_SAY_EVERY):
                say(", ".join(_parts(self._look())))
            return
        task: Any = bar.add_task("", total=None)
        while True:
            seen = self._look()
            with contextlib.suppress(OSError, ValueError):
                bar.update(task, description=" · ".join(_parts(seen)), completed=seen.done, total=seen.total)
            if self._done.wait(_DRAW_EVERY):
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if not self._is_quiet:
            self._thread.join()
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.stop()


def _parts(seen: BatchProgress) -> list[str]:
    """What a line of progress says, the most important first: a narrow terminal shows its beginning."""
    total = "" if seen.total is None else f"/{seen.total:,}"
    parts = [f"{seen.done:,}{total}"]
    if seen.failed:
        parts.append(f"{seen.failed:,} failed")
    if seen.paused_s > 0:
        parts.append(f"paused {duration(seen.paused_s)}")
    elif seen.eta_s is not None and not seen.stopped:
        parts.append(f"{duration(seen.eta_s)} left")
    if seen.stopped:
        parts.append(f"{seen.running} to finish")
    parts.append(f"{seen.tokens_per_second:,.0f} tokens/s")
    if seen.cost is not None:
        parts.append(money(seen.cost))
    return parts


def duration(seconds: float) -> str:
    """Write a duration.

    >>> [duration(each) for each in (0.21, 12.4, 185, 7322)]
    ['0.2 s', '12 s', '3:05 min', '2:02 h']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def money(cost: Cost) -> str:
    """Write a cost.

    >>> money(Cost(amount=0.00123)), money(Cost(amount=12.5, is_estimate=True)), money(Cost(amount=3, currency="EUR"))
    ('$0.0012', 'about $12.50', '3.00 EUR')
    """
    amount = f"{cost.amount:.2f}" if cost.amount >= 1 or cost.amount == 0 else f"{cost.amount:.4f}"
    text = f"${amount}" if cost.currency == "USD" else f"{amount} {cost.currency}"
    return f"about {text}" if cost.is_estimate else text
