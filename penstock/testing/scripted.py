"""A provider without a network: what it says, when, and how it fails is a script; time is the runtime's."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import msgspec

from penstock.actors.call.record import Resumed
from penstock.actors.runtime.process import ProcessRef
from penstock.actors.runtime.runtime import Runtime
from penstock.actors.runtime.statem import StateMachine
from penstock.actors.runtime.transitions import (
    Cast,
    Event,
    Internal,
    Next,
    StateTimeout,
    Stop,
    Transition,
    state_timeout,
)
from penstock.config.options import RequestOptions
from penstock.errors import ApiError, IncompleteStream, OptionError, PenstockError, ProviderError
from penstock.events import FinishReason
from penstock.ports import (
    ChatCall,
    Decoder,
    Delta,
    FinishDelta,
    HeaderSink,
    OfferSink,
    Provider,
    ProviderRequest,
    Quota,
    ReaderJob,
    ReaderSink,
    TextDelta,
)

__all__ = ["HANG", "ResumableProvider", "ScriptedAttempt", "ScriptedProvider", "ScriptedReader", "Step"]

HANG: Final = float("inf")
"""As a step, or a delay: nothing more happens until somebody gives up."""

Step: TypeAlias = str | float | Delta | PenstockError | list[Delta]
"""A text; seconds to wait; a delta, or several that came in one read; an error that ends the attempt."""


_numbers = itertools.count(1)


class ScriptedAttempt(msgspec.Struct, frozen=True):
    """What one attempt brings.

    Attributes:
        steps: in this order; see `Step`. A script that runs to its end has answered completely.
        finish: the reason that is told at the end; None: the body just ends, as if cut off.
        done: whether the end marker comes.
        queue, connect, headers: seconds to wait for a reader, for the connection, and for the answer's headers.
        quota: what the headers say is left of rate limits.
        model: what the answer calls the model.
    """

    steps: tuple[Step, ...] = ()
    finish: FinishReason | None = "stop"
    done: bool = True
    queue: float = 0.0
    connect: float = 0.0
    headers: float = 0.0
    quota: Quota | None = None
    model: str | None = None


class ScriptedProvider:
    """Implements `Provider` for a `ScriptedReader`.

    Args:
        attempts: what the first request gets, the second, …; the last one is for all that follow. A plain list of
            steps is an attempt that ends well.
        name: the provider's.
        base_url: where it is said to be; None: where no other provider is, so that they share no limits.

    >>> provider = ScriptedProvider([ProviderError("busy")], ["Hello"])
    >>> [len(provider.next_attempt().steps) for _ in range(3)]
    [1, 1, 1]
    >>> provider.requests
    3
    """

    name = "scripted"

    def __init__(
        self, *attempts: ScriptedAttempt | Sequence[Step], name: str = "scripted", base_url: str | None = None
    ) -> None:
        if not attempts:
            raise OptionError("attempts", attempts, "at least one")
        self._attempts = [one if isinstance(one, ScriptedAttempt) else ScriptedAttempt(tuple(one)) for one in attempts]
        self._lock = threading.Lock()
        self.name = name
        self.base_url = base_url or f"http://scripted-{next(_numbers)}"
        self.requests = 0
        """How many requests have been made."""

    def next_attempt(self) -> ScriptedAttempt:
        """What the next request gets."""
        with self._lock:
            number, self.requests = self.requests, self.requests + 1
        return self._attempts[min(number, len(self._attempts) - 1)]

    def request(self, call: ChatCall) -> ProviderRequest:
        """An empty request: nothing is sent anywhere."""
        return ProviderRequest(url=f"scripted:{call.model}", body=b"")

    def decoder(self, options: RequestOptions) -> Decoder:
        """Not needed: the script is in deltas already."""
        raise NotImplementedError

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Not needed: the script holds errors as they are."""
        return ApiError(status, "scripted")

    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        """What the script says."""
        return msgspec.json.decode(headers["quota"], type=Quota) if "quota" in headers else None


class ResumableProvider(ScriptedProvider):
    """The same, able to go on with an answer that broke: the next script is the whole answer again, and what has been
    told of it is left out.

    >>> provider = ResumableProvider(["Hel", ProviderError("broken")], ["Hel", "lo"])
    """

    def __init__(self, *attempts: ScriptedAttempt | Sequence[Step], **more: Any) -> None:
        super().__init__(*attempts, **more)
        self.resumed = 0
        """How often it was asked to go on."""

    def resume(self, decoder: Decoder) -> tuple[ProviderRequest, Decoder] | None:
        """Behind the deltas that were told."""
        if not isinstance(decoder, _Spoken):
            return None
        self.resumed += 1
        return ProviderRequest(url="scripted:resumed", body=b""), _Spoken(decoder.told)


class ScriptedReader:
    """Implements `Reader` without sockets and threads: each request is a small process on the runtime.

    What goes on can be seen: ``open`` requests (begun, and neither ended nor cancelled), and how many were
    ``cancelled``. It never blocks: while a stream has no credit, its request just waits.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._open: dict[ProcessRef, None] = {}
        self.started = 0
        self.cancelled = 0

    @property
    def open(self) -> int:
        """Requests under way."""
        return len(self._open)

    def start(
        self, provider: Provider, request: ProviderRequest, options: RequestOptions, sink: ReaderSink
    ) -> ReaderJob:
        """Begin what the provider's script says.

        Raises:
            OptionError: ``provider`` is not scripted.
        """
        spoken = _Spoken()
        if isinstance(provider, Resumed):
            spoken, provider = cast(_Spoken, provider.decoder(options)), provider.provider
        if not isinstance(provider, ScriptedProvider):
            raise OptionError("provider", type(provider).__name__, "a ScriptedProvider, with this reader")
        with self._lock:
            self.started += 1
        ref = self._runtime.spawn(_Request, self, provider.next_attempt(), cast(OfferSink, sink), spoken)
        return _Job(ref)

    def statistics(self) -> Mapping[str, int]:
        """The counters of a `Reader`."""
        return {"active": self.open, "queued": 0, "started": self.started, "threads": 0, "leaked": 0}

    def close(self, timeout: float) -> int:
        """Cancel everything."""
        for ref in tuple(self._open):
            ref.tell("cancel")
        return 0

    def _begun(self, ref: ProcessRef) -> None:
        with self._lock:
            self._open[ref] = None

    def _ended(self, ref: ProcessRef, *, cancelled: bool) -> None:
        with self._lock:
            self._open.pop(ref, None)
            self.cancelled += cancelled


class _Job:
    def __init__(self, ref: ProcessRef) -> None:
        self._ref = ref

    def cancel(self) -> None:
        self._ref.tell("cancel")


class _Spoken:
    """The little of a `Decoder` that its sink looks at. The first ``told`` deltas of its script are not told."""

    def __init__(self, told: int = 0) -> None:
        self.skipped = 0
        self.finished = False
        self.done = False
        self.model: str | None = None
        self.told = told

    def feed(self, chunk: bytes) -> list[Delta]:
        """Not needed: the script is in deltas already."""
        raise NotImplementedError

    def close(self) -> list[Delta]:
        """Nothing is left."""
        return []


_GO: Final = Internal("go")


class _Request(StateMachine):
    """One attempt. ``queued`` → ``connecting`` → ``waiting`` → ``reading`` ⇄ ``held``."""

    def init(self, reader: ScriptedReader, attempt: ScriptedAttempt, sink: OfferSink, spoken: _Spoken) -> Next:
        self._reader = reader
        self._attempt = attempt
        self._sink = sink
        self._spoken = spoken
        self._to_skip = spoken.told
        self._script = list(attempt.steps)
        reader._begun(self.ref)
        if attempt.finish is not None:
            self._script.append(FinishDelta(attempt.finish, attempt.finish))
        return self._after("queued", attempt.queue)

    def _after(self, state: str, seconds: float) -> Next:
        if seconds == HANG:
            return Next(state)
        # Even no time is a step of its own, so that others may come in between.
        return Next(state, state_timeout(max(seconds, 1e-9)))

    def queued(self, event: Event) -> Transition:
        """No reader is free."""
        if event.__class__ is not StateTimeout:
            return self._cancelled(event)
        self._sink.connecting()
        return self._after("connecting", self._attempt.connect)

    def connecting(self, event: Event) -> Transition:
        """Until the connection stands."""
        if event.__class__ is not StateTimeout:
            return self._cancelled(event)
        self._sink.waiting()
        return self._after("waiting", self._attempt.headers)

    def waiting(self, event: Event) -> Transition:
        """Until the answer begins."""
        if event.__class__ is not StateTimeout:
            return self._cancelled(event)
        self._spoken.model = self._attempt.model
        if isinstance(self._sink, HeaderSink) and self._begins_well():
            quota = self._attempt.quota
            self._sink.answered({} if quota is None else {"quota": msgspec.json.encode(quota).decode()})
        return self._next()

    def _begins_well(self) -> bool:
        """Whether a stream begins, and not an error answer."""
        return not (self._script and isinstance(self._script[0], PenstockError))

    def reading(self, event: Event) -> Transition:
        """Between two reads."""
        if event.__class__ is not StateTimeout:
            return self._cancelled(event)
        return self._next()

    def held(self, event: Event) -> Transition:
        """The stream has no room."""
        if isinstance(event, Cast) and event.message == "room":
            return self._offer(())
        return self._cancelled(event)

    def _next(self) -> Transition:
        if not self._script:
            self._spoken.done = self._attempt.done and self._attempt.finish is not None
            return self._close(None)
        step = self._script.pop(0)
        if isinstance(step, (int, float)):
            return self._after("reading", step)
        if isinstance(step, PenstockError):
            return self._close(step)
        if isinstance(step, str):
            step = TextDelta(step)
        deltas = step if isinstance(step, list) else [step]
        skipped, self._to_skip = self._to_skip, max(0, self._to_skip - len(deltas))
        deltas = deltas[skipped:]
        if not deltas:
            return self._after("reading", 0.0)
        self._spoken.told += len(deltas)
        return self._offer(deltas)

    def _offer(self, deltas: Sequence[Delta]) -> Transition:
        if any(isinstance(delta, FinishDelta) for delta in deltas):
            self._spoken.finished = True
        tell = self.ref.tell
        wanted = self._sink.offer(deltas, lambda: tell("room"))
        if wanted is None:
            return Next("held")
        return self._after("reading", 0.0) if wanted else self._close(IncompleteStream("nobody wants more"))

    def _cancelled(self, event: Event) -> Transition:
        if isinstance(event, Cast) and event.message == "cancel":
            return self._close(IncompleteStream("cancelled"), cancelled=True)
        if isinstance(event, Cast) and event.message == "room":
            return None  # it had been cancelled, or woken twice
        return self.unhandled(event)

    def _close(self, error: PenstockError | None, *, cancelled: bool = False) -> Transition:
        self._reader._ended(self.ref, cancelled=cancelled)
        self._sink.ended(cast(Any, self._spoken), error)
        return Stop()
