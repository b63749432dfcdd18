"""A provider without a network: a script says what it sends, when, and how it fails."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from penstock.config.options import RequestOptions
from penstock.errors import ApiError, OptionError, PenstockError, ProviderError
from penstock.events import FinishReason
from penstock.ports import ChatCall, Decoder, Delta, FinishDelta, ProviderRequest, Quota, TextDelta

__all__ = [
    "HANG",
    "AttemptEnd",
    "AttemptPlayback",
    "ResumableProvider",
    "ScriptedAttempt",
    "ScriptedDecoder",
    "ScriptedProvider",
    "Step",
]

HANG: Final = float("inf")
"""As a step, or a delay: nothing more happens until the request is cancelled."""

Step: TypeAlias = str | float | Delta | PenstockError | list[Delta]
"""A text; seconds to wait; a delta, or the several deltas of one read; an error that ends the attempt."""


_numbers = itertools.count(1)


class ScriptedAttempt(msgspec.Struct, frozen=True):
    """What one attempt brings.

    Attributes:
        steps: in this order; see `Step`. An attempt whose steps all run is a complete answer.
        finish: the finish reason sent after the steps; None: the body just ends, as if it were cut off.
        done: whether the end marker is sent.
        queue, connect, headers: seconds to wait for a reader, for the connection, and for the headers of the answer.
        quota: what the headers say is left of the rate limits.
        model: the model that the answer names.
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
        attempts: what the first request gets, the second, …; the last one is repeated for all later requests. A plain
            list of steps is an attempt that ends well.
        name: the name of the provider.
        base_url: the URL it claims to have; None: one that no other provider has, so that they share no limits.

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
        self.calls: list[ChatCall] = []
        """What `System.chat`, `System.respond` and agents have asked for, in order; retries are not repeated here."""

    def next_attempt(self) -> ScriptedAttempt:
        """Return what the next request gets, and count the request."""
        with self._lock:
            number, self.requests = self.requests, self.requests + 1
        return self._attempts[min(number, len(self._attempts) - 1)]

    def request(self, call: ChatCall) -> ProviderRequest:
        """Keep the call, and return an empty request; nothing is sent anywhere."""
        with self._lock:
            self.calls.append(call)
        return ProviderRequest(url=f"scripted:{call.model}", body=b"")

    def decoder(self, options: RequestOptions) -> Decoder:
        """Not supported: the script consists of deltas already."""
        raise NotImplementedError

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Return a plain `ApiError`; a script holds its errors as they are raised."""
        return ApiError(status, "scripted")

    def quota(self, headers: Mapping[str, str]) -> Quota | None:
        """Return the quota of the script."""
        return msgspec.json.decode(headers["quota"], type=Quota) if "quota" in headers else None


class ResumableProvider(ScriptedProvider):
    """A `ScriptedProvider` that can continue an answer that broke off.

    The next attempt is the whole answer again; the deltas that were already delivered are left out.

    >>> provider = ResumableProvider(["Hel", ProviderError("broken")], ["Hel", "lo"])
    """

    def __init__(self, *attempts: ScriptedAttempt | Sequence[Step], **more: Any) -> None:
        super().__init__(*attempts, **more)
        self.resumed = 0
        """How many times an answer was continued."""

    def resume(self, decoder: Decoder) -> tuple[ProviderRequest, Decoder] | None:
        """Continue after the deltas that were delivered."""
        if not isinstance(decoder, ScriptedDecoder):
            return None
        self.resumed += 1
        return ProviderRequest(url="scripted:resumed", body=b""), ScriptedDecoder(decoder.delivered)


class ScriptedDecoder:
    """The part of a `Decoder` that a sink looks at.

    Args:
        delivered: how many deltas of the script have been delivered; a new attempt leaves them out.
    """

    def __init__(self, delivered: int = 0) -> None:
        self.skipped = 0
        self.finished = False
        self.done = False
        self.model: str | None = None
        self.delivered = delivered

    def feed(self, chunk: bytes) -> list[Delta]:
        """Not supported: the script consists of deltas already."""
        raise NotImplementedError

    def close(self) -> list[Delta]:
        """Return nothing: no bytes are left."""
        return []


class AttemptEnd(msgspec.Struct, frozen=True):
    """The attempt has ended, with an error or without."""

    error: PenstockError | None


class AttemptPlayback:
    """The steps of one attempt, one after the other, with what a real reader's decoder would know of them."""

    def __init__(self, attempt: ScriptedAttempt, decoder: ScriptedDecoder) -> None:
        self.attempt = attempt
        self.decoder = decoder
        self._steps = list(attempt.steps)
        if attempt.finish is not None:
            self._steps.append(FinishDelta(attempt.finish, attempt.finish))
        self._to_skip = decoder.delivered

    def begin(self) -> Mapping[str, str] | None:
        """Begin the answer; returns its headers, or None if it is an error answer."""
        self.decoder.model = self.attempt.model
        if self._steps and isinstance(self._steps[0], PenstockError):
            return None
        quota = self.attempt.quota
        return {} if quota is None else {"quota": msgspec.json.encode(quota).decode()}

    def next(self) -> float | list[Delta] | AttemptEnd:
        """Return what comes next: seconds to wait, the deltas of one read, or the end."""
        if not self._steps:
            self.decoder.done = self.attempt.done and self.attempt.finish is not None
            return AttemptEnd(None)
        step = self._steps.pop(0)
        if isinstance(step, (int, float)):
            return step
        if isinstance(step, PenstockError):
            return AttemptEnd(step)
        if isinstance(step, str):
            step = TextDelta(step)
        deltas: list[Delta] = step if isinstance(step, list) else [step]
        skipped, self._to_skip = self._to_skip, max(0, self._to_skip - len(deltas))
        deltas = deltas[skipped:]
        if not deltas:
            return 0.0
        self.decoder.delivered += len(deltas)
        if any(isinstance(delta, FinishDelta) for delta in deltas):
            self.decoder.finished = True
        return deltas
