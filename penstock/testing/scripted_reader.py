"""A reader without sockets: it plays the scripts of `ScriptedProvider` into streams, in the time of the runtime."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import msgspec

from penstock.actors.call.record import Resumed
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.signals import Ephemeral
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import Cast, Event, Next, StateTimeout, Stop, Transition, state_timeout
from penstock.config.checks import check_choice
from penstock.config.options import RequestOptions
from penstock.errors import IncompleteStream, OptionError, PenstockError
from penstock.ports import Delta, HeaderSink, OfferSink, Provider, ProviderRequest, ReaderJob, ReaderSink
from penstock.testing.scripted import HANG, AttemptEnd, AttemptPlayback, ScriptedDecoder, ScriptedProvider
from penstock.testing.simulation import SimulatedDispatcher

__all__ = ["ReaderMode", "ScriptedReader"]

ReaderMode: TypeAlias = Literal["blocking", "offer"]
"""How a reader hands deltas to its sink: by `ReaderSink.deltas`, which blocks, or by `OfferSink.offer`, which does not.

`HttpReader`, which has a thread for each call, blocks. A reader that runs all calls in one thread offers.
"""

_MOMENT_S: Final = 1e-9
"""The shortest wait between two steps: even no time is a wait of its own, so that others may run in between."""


class ScriptedReader:
    """Implements `Reader` without sockets, for providers that are `ScriptedProvider`.

    Its progress can be observed: ``open`` counts the requests that have begun and neither ended nor been cancelled,
    ``started`` and ``cancelled`` count requests since the reader was made.

    Args:
        runtime: what the requests run on.
        mode: ``"offer"``: each request is a process on the runtime and never blocks. ``"blocking"``: each request is a
            simulated thread that blocks while its stream has no room; the runtime must be that of a `Simulation`.

    Raises:
        OptionError: ``mode`` is not allowed.
    """

    def __init__(self, runtime: Runtime, mode: ReaderMode = "offer") -> None:
        check_choice("mode", mode, get_args(ReaderMode))
        self._dispatcher = runtime.dispatcher
        if mode == "blocking" and not isinstance(self._dispatcher, SimulatedDispatcher):
            raise OptionError("mode", mode, "'offer' on a runtime that is not simulated")
        self.mode = mode
        self._runtime = runtime
        self._lock = threading.Lock()
        self._open: dict[ReaderJob, None] = {}
        self.started = 0
        self.cancelled = 0

    @property
    def open(self) -> int:
        """Requests in progress."""
        return len(self._open)

    def start(
        self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink
    ) -> ReaderJob:
        """Begin the next attempt of the provider's script.

        Raises:
            OptionError: ``provider`` is not scripted.
        """
        decoder = ScriptedDecoder()
        if isinstance(provider, Resumed):
            decoder, provider = cast(ScriptedDecoder, provider.decoder(options)), provider.provider
        if not isinstance(provider, ScriptedProvider):
            raise OptionError("provider", type(provider).__name__, "a ScriptedProvider, with this reader")
        with self._lock:
            self.started += 1
        playback = AttemptPlayback(provider.next_attempt(), decoder)
        if isinstance(self._dispatcher, SimulatedDispatcher) and self.mode == "blocking":
            request_thread = _BlockingRequest(self, playback, sink, self._dispatcher)
            self._dispatcher.start_thread(request_thread.run, f"penstock-simulated-reader-{self.started}")
            return request_thread
        return _OfferingJob(self._runtime.spawn(_OfferingRequest, self, playback, cast(OfferSink, sink)))

    def statistics(self) -> Mapping[str, int]:
        """Return the counters of a `Reader`."""
        threads = self.open if self.mode == "blocking" else 0
        return {"active": self.open, "queued": 0, "started": self.started, "threads": threads, "leaked": 0}

    def close(self, timeout: float) -> int:
        """Cancel every request."""
        for job in tuple(self._open):
            job.cancel()
        return 0

    def _has_begun(self, job: ReaderJob) -> None:
        with self._lock:
            self._open[job] = None

    def _has_ended(self, job: ReaderJob, *, cancelled: bool) -> None:
        with self._lock:
            self._open.pop(job, None)
            self.cancelled += cancelled


def _begin_answer(playback: AttemptPlayback, sink: ReaderSink) -> None:
    headers = playback.begin()
    if headers is not None and isinstance(sink, HeaderSink):
        sink.answered(headers)


# --- one request that blocks ---------------------------------------------------------------------------------------


class _BlockingRequest:
    """One request in a simulated thread; the `ReaderJob` of it."""

    def __init__(
        self, reader: ScriptedReader, playback: AttemptPlayback, sink: ReaderSink, dispatcher: SimulatedDispatcher
    ) -> None:
        self._reader = reader
        self._playback = playback
        self._sink = sink
        self._dispatcher = dispatcher
        self._is_cancelled = False
        self._cancelled = threading.Semaphore(0)

    def cancel(self) -> None:
        self._is_cancelled = True
        self._cancelled.release()

    def run(self) -> None:
        """Play the attempt to its end. The thread of the request."""
        self._reader._has_begun(self)
        error = self._play()
        self._reader._has_ended(self, cancelled=self._is_cancelled)
        self._sink.ended(cast(Any, self._playback.decoder), error)

    def _play(self) -> PenstockError | None:
        playback, sink = self._playback, self._sink
        attempt = playback.attempt
        if self._pause(attempt.queue):
            return IncompleteStream("cancelled")
        sink.connecting()
        if self._pause(attempt.connect):
            return IncompleteStream("cancelled")
        sink.waiting()
        if self._pause(attempt.headers):
            return IncompleteStream("cancelled")
        _begin_answer(playback, sink)
        while True:
            step = playback.next()
            if isinstance(step, AttemptEnd):
                return step.error
            seconds = 0.0
            if isinstance(step, list):
                if not sink.deltas(step):
                    return IncompleteStream("cancelled" if self._is_cancelled else "the sink wants no more")
            else:
                seconds = step
            if self._pause(seconds):
                return IncompleteStream("cancelled")

    def _pause(self, seconds: float) -> bool:
        """Wait; returns whether the request is cancelled."""
        return self._dispatcher.wait(self._cancelled, None if seconds == HANG else max(seconds, _MOMENT_S))


# --- one request that offers ---------------------------------------------------------------------------------------


class _Word(Ephemeral):
    """A message to a request."""


_CANCEL: Final = _Word()
_ROOM: Final = _Word()  # there is room for more deltas


class _OfferingJob(msgspec.Struct, frozen=True):
    """The `ReaderJob` of a request that is a process."""

    ref: ProcessRef

    def cancel(self) -> None:
        self.ref.tell(_CANCEL)


class _OfferingRequest(StateMachine):
    """One request as a process. ``queued`` → ``connecting`` → ``waiting`` → ``reading`` ⇄ ``held``."""

    def init(self, reader: ScriptedReader, playback: AttemptPlayback, sink: OfferSink) -> Next:
        self._reader = reader
        self._playback = playback
        self._sink = sink
        reader._has_begun(_OfferingJob(self.ref))
        return self._after("queued", playback.attempt.queue)

    def _after(self, state: str, seconds: float) -> Next:
        if seconds == HANG:
            return Next(state)
        return Next(state, state_timeout(max(seconds, _MOMENT_S)))

    def queued(self, event: Event) -> Transition:
        """No reader is free."""
        if event.__class__ is not StateTimeout:
            return self._cancelled(event)
        self._sink.connecting()
        return self._after("connecting", self._playback.attempt.connect)

    def connecting(self, event: Event) -> Transition:
        """The connection is being made."""
        if event.__class__ is not StateTimeout:
            return self._cancelled(event)
        self._sink.waiting()
        return self._after("waiting", self._playback.attempt.headers)

    def waiting(self, event: Event) -> Transition:
        """The answer has not begun."""
        if event.__class__ is not StateTimeout:
            return self._cancelled(event)
        _begin_answer(self._playback, self._sink)
        return self._next()

    def reading(self, event: Event) -> Transition:
        """Between two reads."""
        if event.__class__ is not StateTimeout:
            return self._cancelled(event)
        return self._next()

    def held(self, event: Event) -> Transition:
        """The stream has no room for the rest of the last read."""
        if isinstance(event, Cast) and event.message is _ROOM:
            return self._offer([])
        return self._cancelled(event)

    def _next(self) -> Transition:
        step = self._playback.next()
        if isinstance(step, AttemptEnd):
            return self._close(step.error)
        if isinstance(step, list):
            return self._offer(step)
        return self._after("reading", step)

    def _offer(self, deltas: list[Delta]) -> Transition:
        tell = self.ref.tell
        wanted = self._sink.offer(deltas, lambda: tell(_ROOM))
        if wanted is None:
            return Next("held")
        return self._after("reading", 0.0) if wanted else self._close(IncompleteStream("the sink wants no more"))

    def _cancelled(self, event: Event) -> Transition:
        if isinstance(event, Cast) and event.message is _CANCEL:
            return self._close(IncompleteStream("cancelled"), cancelled=True)
        if isinstance(event, Cast) and event.message is _ROOM:
            return None  # it was cancelled, or woken twice
        return self.unhandled(event)

    def _close(self, error: PenstockError | None, *, cancelled: bool = False) -> Transition:
        self._reader._has_ended(_OfferingJob(self.ref), cancelled=cancelled)
        self._sink.ended(cast(Any, self._playback.decoder), error)
        return Stop()
