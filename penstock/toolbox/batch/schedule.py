"""Which prompt of a batch is asked next, and when; what becomes of one that failed. Pure: the time is passed in."""

from __future__ import annotations

import heapq
import random
from collections import deque
from typing import Final, Literal, TypeAlias

from penstock.actors.stream.outcome import add_costs
from penstock.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    CircuitOpen,
    PenstockError,
    ProviderBusy,
    RateLimited,
)
from penstock.events import Cost, StreamCompleted, StreamFailed, TerminalEvent
from penstock.ports.batch import BatchProgress, BatchPrompt, Identifier

__all__ = ["BatchJob", "Schedule", "Verdict", "stops_all"]

Verdict: TypeAlias = Literal["result", "again", "undone"]
"""Of an attempt that has ended: it is the prompt's result; the prompt is asked again; it counts as never asked."""

_BASE_DELAY: Final = 1.0  # seconds; doubles with each further attempt of a prompt, and with each pause in a row
_MOST_DELAY: Final = 60.0
_MOST_PAUSES: Final = 10
"""Pauses in a row, without one answer between them, after which the provider counts as out of order."""
_UNKNOWN_MODEL: Final = frozenset({"model_not_found", "not_found_error"})


def stops_all(error: PenstockError) -> bool:
    """Whether every other prompt would fail in the same way: wrong key, unknown model, no quota left."""
    if isinstance(error, AuthenticationError):
        return True
    if isinstance(error, RateLimited):
        return not error.retryable
    if isinstance(error, BadRequestError):
        return error.status == 404 or (error.code or "").lower() in _UNKNOWN_MODEL
    return isinstance(error, ApiError) and error.status == 402  # payment required


def _is_for_later(error: PenstockError) -> bool:
    """Whether the provider, or its gate, takes nothing at present, whatever the prompt."""
    if isinstance(error, RateLimited):
        return error.retryable
    return isinstance(error, (ProviderBusy, CircuitOpen))


class BatchJob:
    """A prompt from its reading to its result."""

    __slots__ = ("attempts", "began", "cost", "id", "number", "place", "prompt", "requests", "tries")

    def __init__(self, prompt: BatchPrompt, place: int) -> None:
        self.prompt = prompt
        self.place = place  # 1, 2, 3 … without gaps
        self.number = place if prompt.number is None else prompt.number
        self.id: Identifier = self.number if prompt.id is None else prompt.id
        self.tries = 0  # attempts that may not have been the provider's fault
        self.attempts = 0
        self.requests = 0
        self.began: float | None = None
        self.cost: Cost | None = None


class Schedule:
    """Decides what is started; its owner starts it. Not thread-safe.

    Args:
        concurrency: calls at once.
        retries: further attempts of a prompt that failed and may succeed.
        max_cost: nothing is started once so much has been spent, in the currency of the prices; None: no limit.
        max_errors: nothing is started once more prompts than that have failed; None: no limit.
        ordered: hold back whatever is more than ``concurrency`` ahead of the first prompt without a result.
        total: prompts altogether, if that is known.
        chance: spreads the retries.
    """

    def __init__(
        self,
        concurrency: int,
        retries: int,
        *,
        max_cost: float | None = None,
        max_errors: int | None = None,
        ordered: bool = False,
        total: int | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.concurrency = concurrency
        self.running: set[BatchJob] = set()
        self.stopped: PenstockError | str | None = None
        self.total = total
        self._retries = retries
        self._max_cost = max_cost
        self._max_errors = max_errors
        self._ordered = ordered
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries, hides nothing
        self._ready: deque[BatchJob] = deque()
        self._again: list[tuple[float, int, BatchJob]] = []  # a heap by time, then in the order of the prompts
        self._paused_until = 0.0
        self._pauses = 0
        self._began: float | None = None
        self._completed = self._failed = self._retried = self._tokens = self._output = self._unpriced = 0
        self._cost: Cost | None = None
        self._first_open = 1  # the place of the first prompt without a result
        self._closed: set[int] = set()  # places after it that have one

    # --- what comes in -------------------------------------------------------------------------------------------

    def add(self, job: BatchJob) -> None:
        """Take a prompt that has been read."""
        self._ready.append(job)

    @property
    def waiting(self) -> int:
        """Prompts that have been read and wait for their turn, or for another attempt."""
        return len(self._ready) + len(self._again)

    def stop(self, why: PenstockError | str) -> None:
        """Start nothing more; what runs goes on. The first reason counts."""
        if self.stopped is None:
            self.stopped = why
        self._ready.clear()
        self._again.clear()

    # --- what goes out -------------------------------------------------------------------------------------------

    def take(self, now: float) -> BatchJob | None:
        """The next prompt to ask now, which then counts as running; None if there is none."""
        if self.stopped is not None or now < self._paused_until or len(self.running) >= self.concurrency:
            return None
        job = None
        if self._again and self._again[0][0] <= now:
            job = heapq.heappop(self._again)[2]
        elif self._ready and not self._is_too_far(self._ready[0]):
            job = self._ready.popleft()
        if job is not None:
            self.running.add(job)
            job.attempts += 1
            job.tries += 1
            if job.began is None:
                job.began = now
            if self._began is None:
                self._began = now
        return job

    def _is_too_far(self, job: BatchJob) -> bool:
        return self._ordered and job.place >= self._first_open + self.concurrency

    def wake_at(self) -> float | None:
        """When `take` may give a prompt though nothing else happens; None: never."""
        if self.stopped is not None or len(self.running) >= self.concurrency:
            return None
        times = [self._again[0][0]] if self._again else []
        if self._ready and not self._is_too_far(self._ready[0]):
            times.append(0.0)
        return max(min(times), self._paused_until) if times else None

    @property
    def is_done(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self.running and not self.waiting

    # --- what becomes of it --------------------------------------------------------------------------------------

    def ended(self, job: BatchJob, end: TerminalEvent, now: float) -> Verdict:
        """Take the end of an attempt."""
        self.running.discard(job)
        self._spend(job, end)
        if isinstance(end, StreamCompleted):
            self._pauses = 0
            return self._close(job, completed=True)
        verdict = self._after_failure(job, end.error, now) if isinstance(end, StreamFailed) else "result"
        if verdict == "result":
            return self._close(job, completed=False)
        self._check_cost()
        return verdict

    def refused(self, job: BatchJob) -> None:
        """Take a prompt for which no request could be made: it has failed."""
        self.running.discard(job)
        self._close(job, completed=False)

    def _close(self, job: BatchJob, *, completed: bool) -> Verdict:
        if completed:
            self._completed += 1
        else:
            self._failed += 1
        self._closed.add(job.place)
        while self._first_open in self._closed:
            self._closed.discard(self._first_open)
            self._first_open += 1
        self._check_cost()
        if self._max_errors is not None and self._failed > self._max_errors:
            self.stop(f"{self._failed} prompts have failed, {self._max_errors} may")
        return "result"

    def _after_failure(self, job: BatchJob, error: PenstockError, now: float) -> Verdict:
        if stops_all(error):
            self.stop(error)
            return "undone"
        if _is_for_later(error):
            job.tries -= 1
            self._pause(error, now)
            return self._again_at(job, self._paused_until)
        if not getattr(error, "retryable", False) or job.tries > self._retries:
            return "result"
        longest = min(_MOST_DELAY, _BASE_DELAY * 2.0 ** (job.tries - 1))
        asked = getattr(error, "retry_after", None) or 0.0
        return self._again_at(job, now + max(asked, longest * self._chance.uniform(0.5, 1.0)))

    def _pause(self, error: PenstockError, now: float) -> None:
        """Have all starts wait. Answers that come while they do belong to the same pause."""
        if now >= self._paused_until:
            self._pauses += 1
            if self._pauses > _MOST_PAUSES:
                self.stop(error)
        longest = min(_MOST_DELAY, _BASE_DELAY * 2.0 ** (self._pauses - 1))
        asked = getattr(error, "retry_after", None)
        delay = longest * self._chance.uniform(0.5, 1.0) if asked is None else asked
        self._paused_until = max(self._paused_until, now + delay)

    def _again_at(self, job: BatchJob, when: float) -> Verdict:
        if self.stopped is not None:
            return "undone"
        self._retried += 1
        heapq.heappush(self._again, (when, job.place, job))
        return "again"

    # --- what it costs -------------------------------------------------------------------------------------------

    def _spend(self, job: BatchJob, end: TerminalEvent) -> None:
        """Count what an attempt has used. One that failed before anything came is not paid for."""
        if not isinstance(end, StreamCompleted) and not (end.text or end.reasoning or end.tool_calls):
            return
        usage = end.usage
        if usage is not None:
            spent = (usage.input_tokens or 0) + (usage.output_tokens or 0)
            self._tokens += spent if usage.total_tokens is None else usage.total_tokens
            self._output += usage.output_tokens or 0
        elif end.metrics is not None:
            self._tokens += end.metrics.tokens
            self._output += end.metrics.tokens
        if end.cost is None:
            self._unpriced += 1
            return
        job.cost = end.cost if job.cost is None else add_costs([job.cost, end.cost])
        self._cost = end.cost if self._cost is None else add_costs([self._cost, end.cost])

    def _check_cost(self) -> None:
        if self._max_cost is not None and self._cost is not None and self._cost.amount >= self._max_cost:
            self.stop(f"{self._cost.amount:.2f} {self._cost.currency} have been spent, {self._max_cost:g} may be")

    def progress(self, now: float) -> BatchProgress:
        """How far it is."""
        seconds = 0.0 if self._began is None else now - self._began
        done = self._completed + self._failed
        left = None if self.total is None else max(0, self.total - done)
        return BatchProgress(
            completed=self._completed,
            failed=self._failed,
            running=len(self.running),
            waiting=self.waiting,
            total=self.total,
            tokens=self._tokens,
            output_tokens=self._output,
            cost=self._cost,
            unpriced=self._unpriced,
            retries=self._retried,
            paused_s=max(0.0, self._paused_until - now) if self.stopped is None and self.waiting else 0.0,
            seconds=seconds,
            tokens_per_second=self._output / seconds if seconds > 0 else 0.0,
            eta_s=seconds / done * left if done and left is not None else None,
            stopped=self.stopped,
        )
