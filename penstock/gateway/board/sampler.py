"""Takes the pulse of a system once a second, while boards are open and for a while after the last one."""

from __future__ import annotations

import asyncio
from typing import Final

from penstock.actors.stream.histograms import GAP_BOUNDS, TTFT_BOUNDS
from penstock.config.logs import get_logger
from penstock.errors import describe_reason
from penstock.gateway.board.pace import LastMinute, ModelCounts, short
from penstock.gateway.board.series import LENGTH, Series
from penstock.system import System

__all__ = ["Sampler", "milliseconds"]

_SMOOTHED: Final = 10.0  # seconds over which the plotted quantiles are taken


class Sampler:
    """Keeps what has happened in the last minute, and the points of 15 minutes. Used on one event loop.

    It works while it is held, and for 15 minutes after that, so that a page that is loaded again has its plot. Then it
    forgets everything.
    """

    def __init__(self, system: System) -> None:
        self.pace = LastMinute(TTFT_BOUNDS, GAP_BOUNDS)
        self.series = Series(("tokens_per_s", "ttft_p95_ms", "gap_p95_ms", "streams"))
        self.running: dict[tuple[str, str], int] = {}  # streams by provider and model
        self._system = system
        self._clock = system.runtime.clock
        self._holders = 0
        self._left = 0.0  # seconds that it goes on without holders
        self._task: asyncio.Task[None] | None = None

    @property
    def is_working(self) -> bool:
        """Whether it looks once a second."""
        return self._task is not None

    def hold(self) -> None:
        """Have it work until `release`, which must follow."""
        self._holders += 1
        if self._task is None:
            self.sample()
            self._task = asyncio.get_running_loop().create_task(self._work())

    def release(self) -> None:
        """Undo one `hold`. It ends a while after the last one is undone."""
        self._holders -= 1
        self._left = float(LENGTH)

    def close(self) -> None:
        """End at once."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _work(self) -> None:
        while self._holders or self._left > 0:
            await asyncio.sleep(1.0 - self._clock.time() % 1.0)
            self._left -= 1.0
            try:
                self.sample()
            except Exception as error:  # a fault of ours must not end the plots
                get_logger().error("board_sample_failed", reason=describe_reason(error), exc_info=error)
        self._task = None
        self.pace.clear()
        self.series.clear()

    def sample(self) -> None:
        """Look once."""
        found = self._system.get_model_statistics()
        totals = {
            (one.provider, one.model): ModelCounts(
                one.tokens,
                one.completed,
                one.failed,
                one.cost_usd,
                one.time_to_first_token.counts,
                one.inter_token.counts,
            )
            for one in found
        }
        self.running = {(one.provider, one.model): one.running for one in found}
        self.pace.add(self._clock.monotonic(), totals)
        speed = self.pace.recent(within=1.0).tokens_per_s
        lately = self.pace.recent(within=_SMOOTHED)
        points = (short(speed), milliseconds(lately.ttft_p95), milliseconds(lately.gap_p95))
        self.series.add(int(self._clock.time()), [*points, sum(one.running for one in found)])


def milliseconds(seconds: float | None) -> float | int | None:
    """Seconds as milliseconds, with three digits."""
    return None if seconds is None else short(seconds * 1000)
