"""Options of a stream and of a provider request. All durations are float seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from penstock.config.checks import Between, Options, check_models
from penstock.errors import OptionError

__all__ = [
    "OnInterrupt",
    "OnOrphan",
    "Overflow",
    "Pacing",
    "Raw",
    "RequestOptions",
    "Restart",
    "Slow",
    "Strategy",
    "StreamOptions",
    "Tokenizer",
]

Strategy: TypeAlias = Literal["hybrid", "batch", "time"]
Overflow: TypeAlias = Literal["block", "drop_oldest", "drop_newest", "error"]
Slow: TypeAlias = Literal["block", "coalesce", "drop", "disconnect"]
OnInterrupt: TypeAlias = Literal["fail", "restart", "resume"]
Raw: TypeAlias = Literal["none", "unknown", "all"]
OnOrphan: TypeAlias = Literal["cancel", "continue"] | float
Restart: TypeAlias = Literal["temporary", "transient"]
Pacing: TypeAlias = Literal["fixed", "adaptive"]
Tokenizer: TypeAlias = Callable[[str], Iterable[str]]

_MONTH = 30 * 86_400
_LARGEST_BATCH = 10_000_000


def _check_tokenizer(field: str, value: object) -> None:
    if value is not None and not callable(value):
        raise OptionError(field, value, "a function that splits a str into tokens, or None")


def _check_batch_size(field: str, value: object) -> None:
    if value.__class__ is int and 1 <= value <= _LARGEST_BATCH:
        return
    if not isinstance(value, str) or value != "adaptive":
        raise OptionError(field, value, f"a whole number from 1 to {_LARGEST_BATCH}, or 'adaptive'")


def _check_flush_interval(field: str, value: object) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and (value == 0 or 0.001 <= value <= 3600):
        return
    raise OptionError(field, value, "a number from 0.001 to 3600, or 0")


def _check_verify_tls(field: str, value: object) -> None:
    is_path = isinstance(value, str) and value.strip()  # an empty path must not mean False
    if not is_path and not isinstance(value, bool):
        raise OptionError(field, value, "True | False | the path of a CA bundle")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions(Options):
    """How one stream buffers, batches, paces and retains its tokens.

    Attributes:
        max_buffer_size: tokens that may wait in the buffer, 1 … 10,000,000. None is unbounded, for experiments: a
            warning is logged once 100,000 tokens wait.
        batch_size: the largest number of tokens in one event, 1 … max_buffer_size. ``"adaptive"`` takes what waits, at
            most ``max_batch``, as soon as no ``block`` subscriber is slow; ``flush_interval`` then has no effect. A
            stream that works for more than a quarter of the time waits for up to half of ``target_latency`` first.
        target_latency: for ``batch_size="adaptive"``, 0.001 … 10 s.
        max_batch: the largest number of tokens in one event for ``batch_size="adaptive"``, 1 … 10,000,000.
        flush_interval: the longest time a token waits for its batch to fill, 0.001 … 3600 s; 0: no token waits.
        rate_limit: tokens delivered per second, 0.001 … 1e9; None is unlimited. It does not apply with
            ``pacing="adaptive"``.
        pacing: ``"fixed"``: by ``rate_limit``. ``"adaptive"``: at the pace of what feeds the stream, 30 times a second;
            bursts are spread over the pauses between them. Tokens of more than 12 characters are divided for it,
            between two characters as a reader sees them. Before an event that is no text, a change of the kind of text,
            and the end, all that waits is given at once. ``flush_interval`` and ``strategy`` then have no effect.
        max_lag: with ``pacing="adaptive"``, how long text waits at most, 0.1 … 60 s, and a 30th of a second more; a
            pause and a slow ``block`` subscriber do not count.
        strategy: when a batch is emitted. ``"hybrid"``: when it is full or ``flush_interval`` has passed;
            ``"batch"``: only when it is full, and at the end; ``"time"``: only when ``flush_interval`` has passed.
        overflow: what happens when the buffer is full: ``"block"`` the producer, ``"drop_oldest"``,
            ``"drop_newest"``, or ``"error"``: raise `BufferFull`.
        push_timeout: how long a blocked producer waits before `BufferFull` is raised, 0 … 86,400 s; None waits until
            the stream ends.
        max_errors: failed deliveries in a row after which the stream ends with `StreamFailed`, 1 … 1,000,000.
        error_recovery: whether a failed delivery is tried again by itself after ``error_recovery_delay``.
        error_recovery_delay: 0 … 3600 s.
        auto_restart: at ``max_errors``, crash so that the supervisor restarts the stream, instead of ending it.
        retain_bytes: bytes of events that are kept one by one for late subscribers, 0 … 2**40; older events are
            folded into a snapshot. Events that would be lost with it wait for the present subscribers, up to their
            ``window`` and 16 MiB.
        time_to_live: a stream that never had a subscriber is cancelled this long after its last token,
            0 … 2,592,000 s (30 days); None keeps it.
        keep_finished: how long a stream that has ended can still be found by its id, 0 … 2,592,000 s (30 days).
        tokenizer: splits pushed text into tokens; see `penstock.config.tokenizers`. None takes every pushed piece as
            one token.
        debug: log this stream's state transitions.

    >>> StreamOptions(batch_size=5).replace(flush_interval=0.05).flush_interval
    0.05
    >>> StreamOptions(batch_size=0)
    Traceback (most recent call last):
    penstock.errors.OptionError: batch_size: got 0, allowed: a whole number from 1 to 10000000, or 'adaptive'
    >>> StreamOptions(max_buffer_size=5)
    Traceback (most recent call last):
    penstock.errors.OptionError: batch_size: got 10, allowed: a whole number from 1 to max_buffer_size (5)
    """

    max_buffer_size: Annotated[int | None, Between(1, 10_000_000)] = 1000
    batch_size: Annotated[int | Literal["adaptive"], _check_batch_size] = 10
    flush_interval: Annotated[float, _check_flush_interval] = 0.1
    target_latency: Annotated[float, Between(0.001, 10)] = 0.05
    max_batch: Annotated[int, Between(1, _LARGEST_BATCH)] = 200
    rate_limit: Annotated[float | None, Between(0.001, 1e9)] = 100.0
    pacing: Pacing = "fixed"
    max_lag: Annotated[float, Between(0.1, 60)] = 1.0
    strategy: Strategy = "hybrid"
    overflow: Overflow = "block"
    push_timeout: Annotated[float | None, Between(0, 86_400)] = 30.0
    max_errors: Annotated[int, Between(1, 1_000_000)] = 5
    error_recovery: bool = True
    error_recovery_delay: Annotated[float, Between(0, 3600)] = 1.0
    auto_restart: bool = False
    retain_bytes: Annotated[int, Between(0, 2**40)] = 1_048_576
    time_to_live: Annotated[float | None, Between(0, _MONTH)] = 3600.0
    keep_finished: Annotated[float, Between(0, _MONTH)] = 60.0
    tokenizer: Annotated[Tokenizer | None, _check_tokenizer] = None
    debug: bool = False

    def _check(self) -> None:
        if self.batch_size == "adaptive":
            if self.strategy != "hybrid":
                raise OptionError("strategy", self.strategy, "'hybrid', where batch_size is 'adaptive'")
        elif self.max_buffer_size is not None and self.batch_size > self.max_buffer_size:
            raise OptionError(
                "batch_size", self.batch_size, f"a whole number from 1 to max_buffer_size ({self.max_buffer_size})"
            )

    @property
    def largest_batch(self) -> int:
        """The largest number of tokens in one event."""
        return self.max_batch if self.batch_size == "adaptive" else self.batch_size

    @property
    def passes(self) -> bool:
        """Whether no token waits, neither for a batch to fill nor for the rate limit."""
        if self.rate_limit is not None or self.pacing == "adaptive" or self.batch_size == "adaptive":
            return False
        if self.strategy == "hybrid":
            return self.batch_size == 1 or not self.flush_interval
        return self.strategy == "batch" and self.batch_size == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions(Options):
    """How one provider request is made: time limits, retries and sizes.

    Attributes:
        connect_timeout: until the connection stands and the request is sent, 0.001 … 3600 s.
        first_token_timeout: from then to the first delta, 0.001 … 86,400 s.
        idle_timeout: between two deltas, 0.001 … 86,400 s. Keep-alives do not count as deltas.
        reasoning_timeout: replaces the two above while the model is known to be reasoning, if it is longer;
            0.001 … 86,400 s.
        total_timeout: for the whole request, retries and fallbacks included, 0.001 … 2,592,000 s (30 days); None is
            unlimited.
        max_retries: attempts after the first one, 0 … 100. Requests are retried only before the first delta.
        retry_base_delay: the wait before the first retry, 0 … 3600 s. It doubles with each retry; the actual wait is
            a random part of it, at least half.
        retry_max_delay: the longest computed wait, 0 … 3600 s.
        retry_after_limit: if the provider's ``Retry-After`` is longer, the request fails instead of waiting,
            0 … 86,400 s.
        on_interrupt: what happens when the request fails after the first delta. ``"fail"``: the stream fails;
            ``"restart"``: a `StreamReset` is sent and the request starts again; ``"resume"``: the answer continues
            where it broke off. Only OpenAI's Responses API can resume (the request then runs in background mode); a
            stream of another provider fails. It also says what becomes of a stored stream when its process ends, or its
            node (docs/durability.md): it fails; it begins again behind a `StreamReset`; or the answer goes on where the
            log ends, and begins again only if that cannot be made certain.
        fallback: models to ask in turn when the one before has finally failed: before the first delta, or later with
            ``on_interrupt="restart"``. Each is ``"provider/model"``, or the name of a model of the same provider.
        finish_grace: how long to wait for usage after the model has finished, if no end marker comes, 0 … 60 s.
        max_event_bytes: the longest event a provider may send, 1,000 … 2**30.
        max_answer_bytes: the longest answer, 1,000 … 2**40: in characters of everything the model says, and in bytes of
            memory of what else the answer has, such as pictures, citations and results of the provider's tools. What
            is kept once counts once: previews until the whole has come, metadata until it is replaced.
        raw: whether the stream also has `ProviderEvent` events: ``"none"``; ``"unknown"``, for what no other event
            covers; ``"all"``, for everything that the provider sends.
        strict_parameters: whether a request parameter that is nearly the name of a known one is refused, instead of
            reported in the log.
        verify_tls: whether to verify certificates; a str is the path of a CA bundle.

    >>> RequestOptions(connect_timeout=0)
    Traceback (most recent call last):
    penstock.errors.OptionError: connect_timeout: got 0, allowed: a number from 0.001 to 3600
    """

    connect_timeout: Annotated[float, Between(0.001, 3600)] = 10.0
    first_token_timeout: Annotated[float, Between(0.001, 86_400)] = 60.0
    idle_timeout: Annotated[float, Between(0.001, 86_400)] = 60.0
    reasoning_timeout: Annotated[float, Between(0.001, 86_400)] = 300.0
    total_timeout: Annotated[float | None, Between(0.001, _MONTH)] = 600.0
    max_retries: Annotated[int, Between(0, 100)] = 2
    retry_base_delay: Annotated[float, Between(0, 3600)] = 0.5
    retry_max_delay: Annotated[float, Between(0, 3600)] = 8.0
    retry_after_limit: Annotated[float, Between(0, 86_400)] = 60.0
    on_interrupt: OnInterrupt = "fail"
    fallback: Annotated[Sequence[str], check_models] = ()
    finish_grace: Annotated[float, Between(0, 60)] = 2.0
    max_event_bytes: Annotated[int, Between(1_000, 2**30)] = 4 * 1_048_576
    max_answer_bytes: Annotated[int, Between(1_000, 2**40)] = 64 * 1_048_576
    raw: Raw = "none"
    strict_parameters: bool = False
    verify_tls: Annotated[bool | str, _check_verify_tls] = True

    def _check(self) -> None:
        if isinstance(self.fallback, list):
            object.__setattr__(self, "fallback", tuple(self.fallback))
