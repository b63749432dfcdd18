"""`BatchRun`: the iterator over the results of many prompts, of which a few are asked at a time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.signals import SHUTDOWN
from penstock.actors.stream.subscribers.polled import StreamReader
from penstock.config.checks import check_number
from penstock.config.options import RequestOptions
from penstock.config.presets import SAFE
from penstock.errors import OptionError, PenstockError, StreamCancelledError, StreamNotFound
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed, TerminalEvent
from penstock.ports.batch import BatchProgress, BatchResult, BatchResults, Identifier, PromptForm
from penstock.stream import Stream
from penstock.system import System
from penstock.toolbox.batch.prompts import read_prompt
from penstock.toolbox.batch.reading import Exhausted, PromptReader, Read
from penstock.toolbox.batch.schedule import BatchJob, Schedule

__all__ = ["BatchRun", "start_batch"]

_TERMINAL: Final = (StreamCompleted, StreamFailed, StreamCancelled)
_OPTIONS: Final = SAFE.replace(max_buffer_size=10_000, batch_size=10_000, keep_finished=2)
"""The tokens are not read one by one. An answer is needed until its end has been taken."""
_OF_THE_BATCH: Final = frozenset({"api_key", "provider", "base_url", "options", "request_options", "fallback"})
"""Arguments that are the same for every prompt, so that a fault in them is not that prompt's."""


class BatchRun(BatchResults):
    """Asks the prompts, and gives the results; see `BatchResults` and `System.batch`."""

    def __init__(
        self,
        system: System,
        prompts: Iterable[PromptForm],
        *,
        model: str | None,
        concurrency: int,
        retries: int | None,
        on_result: Callable[[BatchResult], object] | None,
        max_cost: float | None,
        max_errors: int | None,
        ordered: bool,
        total: int | None,
        request_options: RequestOptions | None,
        parameters: Mapping[str, Any],
    ) -> None:
        check_number("concurrency", concurrency, 1, 10_000, whole=True)
        check_number("retries", retries, 0, 100, whole=True, optional=True)
        check_number("max_cost", max_cost, 0, 1e12, optional=True)
        check_number("max_errors", max_errors, 0, 2**53, whole=True, optional=True)
        check_number("total", total, 0, 2**53, whole=True, optional=True)
        options = request_options or system.settings.request
        if not isinstance(options, RequestOptions):
            raise OptionError("request_options", type(options).__name__, "a RequestOptions or None")
        if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, Iterable):
            raise OptionError("prompts", type(prompts), "an iterable of prompts")
        if on_result is not None and not callable(on_result):
            raise OptionError("on_result", on_result, "a function of one argument, or None")
        if retries is None:
            retries = options.max_retries
        if options.on_interrupt == "fail":  # the beginning has not been read
            options = options.replace(on_interrupt="restart")
        if not options.fallback:  # the batch itself retries, so that a 429 of one pauses all
            options = options.replace(max_retries=0)
        if total is None and isinstance(prompts, (list, tuple)):
            total = len(prompts)
        schedule = Schedule(
            concurrency, retries, max_cost=max_cost, max_errors=max_errors, ordered=ordered, total=total
        )
        more = {"request_options": options, "options": _OPTIONS, **parameters}
        self._run = _BatchCore(system, prompts, schedule, model, more)
        self._on_result = on_result
        self._finalizer = weakref.finalize(self, self._run.close)
        self._finalizer.atexit = False

    @property
    def progress(self) -> BatchProgress:
        """How far it is, at this moment."""
        return self._run.progress()

    @property
    def stopped(self) -> PenstockError | str | None:
        """Why no more prompts are started, though there may be more: an error of the provider, or in words."""
        return self._run.progress().stopped

    def drain(self, reason: str = "drained") -> None:
        """Start nothing more. The calls under way go on, and their results come."""
        self._run.drain(reason)

    def close(self) -> None:
        """Cancel the calls under way, and start nothing more; no further result comes. Harmless if it is over."""
        self._run.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BatchResult:
        """Wait for the next result.

        Raises:
            StopIteration: there is none.
            OptionError: a prompt has none of the forms, an id is there twice, or an argument of the batch is wrong.
            SystemStopped: the system has been stopped.
            Exception: what the iterable of prompts, or ``on_result``, raised. The calls are cancelled.
        """
        try:
            while (result := self._run.step()) is None:
                if self._run.is_over:
                    raise StopIteration
                self._run.wait()
            return self._give(result)
        except BaseException:
            self._run.close()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchResult:
        """The same as `__next__`, without blocking the event loop. Cancelling the task leaves the batch as it is."""
        try:
            while (result := self._run.step(most=1)) is None:
                if self._run.is_over:
                    raise StopAsyncIteration
                await self._run.await_()
            return self._give(result)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._run.close()
            raise

    def _give(self, result: BatchResult) -> BatchResult:
        if self._on_result is not None:
            self._on_result(result)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        seen = self.progress
        total = "" if seen.total is None else f" of {seen.total}"
        return f"<Batch, {seen.done}{total} done, {seen.failed} failed, {seen.running} running>"


def start_batch(
    system: System,
    prompts: Iterable[PromptForm],
    *,
    concurrency: int,
    retries: int | None,
    on_result: Callable[[BatchResult], object] | None,
    max_cost: float | None,
    model: str | None = None,
    max_errors: int | None = None,
    ordered: bool = False,
    total: int | None = None,
    request_options: RequestOptions | None = None,
    **parameters: Any,
) -> BatchRun:
    """Make a batch; see `System.batch`."""
    name = parameters.get("provider")
    settings = system.settings
    return BatchRun(
        system,
        prompts,
        model=model or settings.model(name if isinstance(name, str) else settings.provider.name),
        concurrency=concurrency,
        retries=retries,
        on_result=on_result,
        max_cost=max_cost,
        max_errors=max_errors,
        ordered=ordered,
        total=total,
        request_options=request_options,
        parameters=parameters,
    )


class _BatchCall:
    """One attempt of a prompt: its stream, and the reader of it."""

    __slots__ = ("began", "job", "reader", "stream")

    def __init__(self, job: BatchJob, stream: Stream, began: float) -> None:
        self.job = job
        self.stream = stream
        self.began = began
        self.reader: StreamReader


class _BatchCore:
    """What a `BatchRun` holds; the calls refer to it, and not to the batch, which can so be dropped.

    ``_lock`` guards the schedule; it is held neither while a call is opened nor while anything is waited for.
    """

    def __init__(
        self,
        system: System,
        prompts: Iterable[PromptForm],
        schedule: Schedule,
        model: str | None,
        more: dict[str, Any],
    ) -> None:
        self._system = system
        self._runtime = system.runtime
        self._schedule = schedule
        self._model = model
        self._more = more
        self._lock = threading.RLock()  # reentrant: the garbage collector may close a dropped batch anywhere
        self._bell = _Bell()
        self._calls: dict[_BatchCall, None] = {}
        self._results: deque[BatchResult] = deque()
        self._ids: set[str] = set()
        self._places = 0
        self._found: deque[Any] = deque()  # what the reader of the prompts has given
        self._asked = 0  # prompts that it has been asked for and not given
        self._is_exhausted = False
        self._is_closed = False
        self._source: Iterator[Any] = iter(prompts)
        self._reader: ProcessRef | None = None
        if not isinstance(prompts, (list, tuple)):
            context = contextvars.copy_context()
            self._reader = self._runtime.spawn(PromptReader, self._source, self._take_prompt, context)

    # --- any thread ----------------------------------------------------------------------------------------------

    def progress(self) -> BatchProgress:
        with self._lock:
            return self._schedule.progress(self._runtime.clock.monotonic())

    def drain(self, reason: str) -> None:
        with self._lock:
            self._schedule.stop(reason)
        self._let_the_reader_go()
        self._bell.ring()

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            if not self.is_over:
                self._schedule.stop("closed")
            self._is_closed = True
            calls, self._calls = self._calls, {}
            self._schedule.running.clear()
        self._results.clear()
        for call in calls:
            call.reader.close()  # the last subscriber: the call is cancelled
        self._let_the_reader_go()
        self._bell.ring()

    def _let_the_reader_go(self) -> None:
        if self._reader is not None:
            self._runtime.exit(self._reader, SHUTDOWN)

    def _take_prompt(self, found: Any) -> None:
        self._found.append(found)
        self._bell.ring()

    # --- the thread that reads the results -----------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether no further result can come."""
        if self._is_closed:
            return True
        with self._lock:
            schedule = self._schedule
            has_all = schedule.stopped is not None or (self._is_exhausted and not self._found)
            return has_all and schedule.is_done and not self._results

    def step(self, most: int | None = None) -> BatchResult | None:
        """Take what has ended, start what may start (at most ``most``), and return a result if there is one."""
        self._bell.heard()
        self._collect()
        if not self._is_closed:
            self._read()
            started = 0
            while (job := self._next_job()) is not None:
                self._start(job)
                self._read()
                started += 1
                if started == most:
                    self._bell.ring()
                    break
        return self._results.popleft() if self._results else None

    def wait(self) -> None:
        """Wait until there is news, or until something may be started."""
        self._runtime.dispatcher.wait(self._bell.latch, self._patience())

    async def await_(self) -> None:
        """The same as `wait` in an event loop."""
        loop = asyncio.get_running_loop()
        news = asyncio.Event()
        self._bell.call = lambda: loop.call_soon_threadsafe(news.set)
        try:
            if not self._bell.has_rung:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), self._patience())
            else:
                await asyncio.sleep(0)
        finally:
            self._bell.call = None

    def _patience(self) -> float | None:
        with self._lock:
            when = self._schedule.wake_at()
        return None if when is None else max(0.0, when - self._runtime.clock.monotonic())

    def _next_job(self) -> BatchJob | None:
        with self._lock:
            return None if self._is_closed else self._schedule.take(self._runtime.clock.monotonic())

    # --- prompts -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read prompts, or have them read, as long as the schedule wants more."""
        while self._found:
            self._asked -= 1
            self._accept(self._found.popleft())
        while self._wants_prompt():
            if self._reader is None:
                self._accept(next(self._source, _END))
            else:
                self._asked += 1
                self._reader.tell(Read())

    def _wants_prompt(self) -> bool:
        with self._lock:
            schedule = self._schedule
            # Results that are not taken as fast as they come hold back what is read, and so what is started.
            taken = len(schedule.running) + schedule.waiting + self._asked + len(self._results)
            room = 2 * schedule.concurrency - taken
            return room > 0 and schedule.stopped is None and not self._is_exhausted

    def _accept(self, form: Any) -> None:
        if isinstance(form, Exhausted):
            was_wanted, self._is_exhausted = not self._is_exhausted, True
            if form.error is not None and was_wanted and self._schedule.stopped is None:
                raise form.error
            return
        place = self._places + 1
        try:
            prompt = read_prompt(form)
        except OptionError as error:
            raise OptionError(f"prompts[{place - 1}]", form, "", problem=str(error)) from None
        self._check_is_new(prompt.id, place)
        self._places = place
        with self._lock:
            if self._schedule.stopped is None:
                self._schedule.add(BatchJob(prompt, place))

    def _check_is_new(self, id: Identifier | None, place: int) -> None:
        if id is None:
            return
        key = str(id)
        if key in self._ids:
            raise OptionError(f"prompts[{place - 1}]", id, "", problem=f"the id {key[:80]!r} is there twice")
        self._ids.add(key)

    # --- calls ---------------------------------------------------------------------------------------------------

    def _start(self, job: BatchJob) -> None:
        """Open the call of a prompt that the schedule has given."""
        began = self._runtime.clock.monotonic()
        try:
            stream = self._open(job)
        except OptionError as error:
            if error.field in _OF_THE_BATCH or (error.field == "model" and job.prompt.model is None):
                raise
            self._refuse(job, error)
            return
        call = _BatchCall(job, stream, began)
        call.reader = stream.reader(partial(self._news, call), slow="coalesce")
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._calls[call] = None
        if is_closed:
            call.reader.close()
        else:
            self._news(call)

    def _open(self, job: BatchJob) -> Stream:
        prompt, system = job.prompt, self._system
        more = {**self._more, **prompt.parameters, "metadata": prompt.metadata}
        model = prompt.model or self._model or ""
        if prompt.responses:
            return system.respond(prompt.input, model, **more)
        return system.chat(model, prompt.input, **more)

    def _refuse(self, job: BatchJob, error: PenstockError) -> None:
        with self._lock:
            self._schedule.refused(job)
        self._results.append(self._result(job, None, error))

    def _news(self, call: _BatchCall) -> None:
        self._bell.ring(call)

    def _collect(self) -> None:
        """Take the ends of calls."""
        while (call := self._bell.next()) is not None:
            while (event := call.reader.take()) is not None:
                if isinstance(event, _TERMINAL):
                    self._ended(call, event)

    def _ended(self, call: _BatchCall, end: TerminalEvent) -> None:
        job = call.job
        job.requests += self._count_requests(call.stream)
        with self._lock:
            if self._calls.pop(call, _END) is _END:  # it was closed
                return
            verdict = self._schedule.ended(job, end, self._runtime.clock.monotonic())
        if verdict == "result":
            self._results.append(self._result(job, end, _error_of(end)))

    def _count_requests(self, stream: Stream) -> int:
        try:
            return max(1, self._system.get_stream_info(stream.stream_id).attempts)
        except StreamNotFound:
            return 1

    def _result(self, job: BatchJob, end: TerminalEvent | None, error: PenstockError | None) -> BatchResult:
        clock = self._runtime.clock
        is_whole = isinstance(end, StreamCompleted)
        began = clock.monotonic() if job.began is None else job.began
        return BatchResult(
            id=job.id,
            number=job.number,
            status="completed" if is_whole else "failed",
            text=end.text if end is not None else "",
            reasoning=end.reasoning if end is not None else "",
            tool_calls=end.tool_calls if end is not None else (),
            finish_reason=end.finish_reason if isinstance(end, StreamCompleted) else None,
            usage=end.usage if end is not None else None,
            cost=job.cost,
            model=(end.model if end is not None else None) or job.prompt.model or self._model,
            provider=end.provider if end is not None else None,
            attempts=job.requests,
            first_token_s=end.metrics.time_to_first_token_s if end is not None and end.metrics is not None else None,
            seconds=clock.monotonic() - began,
            error=error,
            metadata=job.prompt.metadata,
            sha256=job.prompt.sha256,
            finished_at=clock.time(),
            end=end,
        )


_END: Final[Any] = Exhausted()


def _error_of(end: TerminalEvent) -> PenstockError | None:
    if isinstance(end, StreamCompleted):
        return None
    if isinstance(end, StreamFailed):
        return end.error
    return StreamCancelledError(end.stream_id, end.reason, end.partial)


class _Bell:
    """Wakes the thread, or the task, that reads the results. Any thread may ring; one listens."""

    def __init__(self) -> None:
        self.latch = threading.Lock()
        self.latch.acquire()
        self.call: Callable[[], object] | None = None  # how an event loop is told
        self.has_rung = False
        self._guard = threading.RLock()
        self._calls: deque[_BatchCall] = deque()

    def ring(self, call: _BatchCall | None = None) -> None:
        """Wake the listener; ``call`` has news."""
        if call is not None:
            self._calls.append(call)
        with self._guard:
            if self.has_rung:
                return
            self.has_rung = True
            self.latch.release()
            tell = self.call
        if tell is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                tell()

    def heard(self) -> None:
        """Note that the listener is awake, before it looks."""
        with self._guard:
            self.has_rung = False
            self.latch.acquire(blocking=False)

    def next(self) -> _BatchCall | None:
        """A call that has news."""
        return self._calls.popleft() if self._calls else None
