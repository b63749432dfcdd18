"""Options of a stream and of a provider request: plain, frozen, validated when made.

Durations are float seconds. Every refusal is an `OptionError` that names the field, the value and what is allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, get_args

from penstock.errors import OptionError

__all__ = [
    "OnInterrupt",
    "OnOrphan",
    "Overflow",
    "RequestOptions",
    "Restart",
    "Slow",
    "Strategy",
    "StreamOptions",
    "Tokenizer",
    "check_choice",
    "check_number",
    "check_on_orphan",
]

Strategy: TypeAlias = Literal["hybrid", "batch", "time"]
Overflow: TypeAlias = Literal["block", "drop_oldest", "drop_newest", "error"]
Slow: TypeAlias = Literal["block", "coalesce", "drop", "disconnect"]
OnInterrupt: TypeAlias = Literal["fail", "restart", "resume"]
OnOrphan: TypeAlias = Literal["cancel", "continue"] | float
Restart: TypeAlias = Literal["temporary", "transient"]
Tokenizer: TypeAlias = Callable[[str], Iterable[str]]


def check_number(
    field: str, value: object, low: float, high: float, *, whole: bool = False, optional: bool = False
) -> None:
    """Raise `OptionError` unless ``value`` is a number from ``low`` to ``high`` (or None where that is optional).

    NaN is no number, and True is no 1.

    >>> check_number("rate_limit", float("nan"), 0.001, 1e9, optional=True)
    Traceback (most recent call last):
    penstock.errors.OptionError: rate_limit: got nan, allowed: a number from 0.001 to 1000000000 or None
    """
    if value is None and optional:
        return
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    if isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high:  # type: ignore[operator]
        return
    kind = "a whole number" if whole else "a number"
    allowed = f"{kind} from {_plain(low)} to {_plain(high)}" + (" or None" if optional else "")
    raise OptionError(field, value, allowed)


def _plain(number: float) -> str:
    """A limit as one would write it: all its digits, no exponent."""
    return str(int(number)) if number == int(number) else f"{number:f}".rstrip("0")


def check_choice(field: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise `OptionError` unless ``value`` is one of ``choices``."""
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        raise OptionError(field, value, " | ".join(repr(choice) for choice in choices))


def check_on_orphan(value: object) -> None:
    """Raise `OptionError` unless ``value`` says what becomes of a stream that its last subscriber has left."""
    if value in ("cancel", "continue"):
        return
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 86_400:
        return
    raise OptionError("on_orphan", value, "'cancel' | 'continue' | seconds to linger, from 0 to 86400")


def check_metadata(value: object) -> None:
    """Raise `OptionError` unless ``value`` is a mapping, or None."""
    if value is not None and not isinstance(value, Mapping):
        raise OptionError("metadata", type(value), "a dict, or None")


class _Options:
    """What both kinds of options share: unknown names are refused by name; copies with changes."""

    def __new__(cls, *_args: object, **fields: object) -> Self:
        _refuse_unknown(cls, fields)
        return super().__new__(cls)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated as a whole.

        Raises:
            OptionError: a field is unknown or a value not allowed. Nothing is changed.
        """
        _refuse_unknown(type(self), changes)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def _refuse_unknown(cls: type, fields: dict[str, Any]) -> None:
    known = tuple(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    for name, value in fields.items():
        if name not in known:
            raise OptionError(name, value, "one of the options " + ", ".join(known))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions(_Options):
    """How one stream buffers, batches, paces and remembers.

    Attributes:
        max_buffer_size: tokens that may wait in the buffer, 1 … 10,000,000.
        batch_size: the largest number of tokens in one event, 1 … max_buffer_size.
        flush_interval: seconds a token waits at most for its batch to fill, 0.001 … 3600.
        rate_limit: tokens a second on the output, up to 1e9; None is unlimited.
        strategy: ``"hybrid"`` emits full batches at once and tails by time; ``"batch"`` emits tails only at the end;
            ``"time"`` emits only when ``flush_interval`` is over.
        overflow: what happens when the buffer is full: ``"block"`` the producer, ``"drop_oldest"``,
            ``"drop_newest"``, or raise ``"error"`` (`BufferFull`).
        push_timeout: seconds a blocked producer waits before `BufferFull`, 0 … 86400; None waits for as long as the
            stream lives.
        max_errors: failed deliveries in a row after which the stream ends with `StreamFailed`, 1 … 1,000,000.
        error_recovery: try again by itself after ``error_recovery_delay`` seconds (0 … 3600).
        auto_restart: at ``max_errors``, crash and let the supervisor restart the stream instead of ending it.
        retain_bytes: bytes of events kept one by one for late subscribers; older ones are folded into a snapshot.
            0 … 2**40.
        time_to_live: seconds after which a stream that never had a subscriber is cancelled, counted from its last
            token; up to 30 days. None lets it live.
        keep_finished: seconds for which an ended stream can still be found by its id, up to 30 days.
        tokenizer: splits text that comes in pieces of no particular size; see `penstock.config.tokenizers`.
            None takes every piece as one token.
        debug: log this stream's transitions.

    >>> StreamOptions(batch_size=5).replace(flush_interval=0.05).flush_interval
    0.05
    >>> StreamOptions(batch_size=0)
    Traceback (most recent call last):
    penstock.errors.OptionError: batch_size: got 0, allowed: a whole number from 1 to 10000000
    >>> StreamOptions(max_buffer_size=5)
    Traceback (most recent call last):
    penstock.errors.OptionError: batch_size: got 10, allowed: a whole number from 1 to max_buffer_size (5)
    """

    max_buffer_size: int = 1000
    batch_size: int = 10
    flush_interval: float = 0.1
    rate_limit: float | None = 100.0
    strategy: Strategy = "hybrid"
    overflow: Overflow = "block"
    push_timeout: float | None = 30.0
    max_errors: int = 5
    error_recovery: bool = True
    error_recovery_delay: float = 1.0
    auto_restart: bool = False
    retain_bytes: int = 1_048_576
    time_to_live: float | None = 3600.0
    keep_finished: float = 60.0
    tokenizer: Tokenizer | None = None
    debug: bool = False

    def __post_init__(self) -> None:
        check_number("max_buffer_size", self.max_buffer_size, 1, 10_000_000, whole=True)
        check_number("batch_size", self.batch_size, 1, 10_000_000, whole=True)
        if self.batch_size > self.max_buffer_size:
            raise OptionError(
                "batch_size", self.batch_size, f"a whole number from 1 to max_buffer_size ({self.max_buffer_size})"
            )
        check_number("flush_interval", self.flush_interval, 0.001, 3600)
        check_number("rate_limit", self.rate_limit, 0.001, 1e9, optional=True)
        check_choice("strategy", self.strategy, get_args(Strategy))
        check_choice("overflow", self.overflow, get_args(Overflow))
        check_number("push_timeout", self.push_timeout, 0, 86_400, optional=True)
        check_number("max_errors", self.max_errors, 1, 1_000_000, whole=True)
        check_choice("error_recovery", self.error_recovery, (True, False))
        check_number("error_recovery_delay", self.error_recovery_delay, 0, 3600)
        check_choice("auto_restart", self.auto_restart, (True, False))
        check_number("retain_bytes", self.retain_bytes, 0, 2**40, whole=True)
        check_number("time_to_live", self.time_to_live, 0, 30 * 86_400, optional=True)
        check_number("keep_finished", self.keep_finished, 0, 30 * 86_400)
        if self.tokenizer is not None and not callable(self.tokenizer):
            raise OptionError("tokenizer", self.tokenizer, "a function from text to tokens, or None")
        check_choice("debug", self.debug, (True, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions(_Options):
    """How one provider request is made: four clocks, retries, limits. All durations in seconds.

    Attributes:
        connect_timeout: until the connection stands and the request is sent, 0.001 … 3600.
        first_token_timeout: from then to the first delta, 0.001 … 86400.
        idle_timeout: between two deltas; pings are life, not progress, and do not count. 0.001 … 86400.
        reasoning_timeout: in the place of the two above while the model is known to reason, where it is longer.
            0.001 … 86400.
        total_timeout: for the whole request with all its retries, 0.001 … 30 days; None is without end.
        max_retries: attempts after the first one, before the first delta only, 0 … 100.
        retry_base_delay: the first wait; doubles with each retry, with jitter between half and all of it. 0 … 3600.
        retry_max_delay: no computed wait is longer. 0 … 3600.
        retry_after_limit: a ``Retry-After`` longer than this ends the stream instead of waiting. 0 … 86400.
        on_interrupt: what happens to a failure after the first delta: ``"fail"``, ``"restart"`` from the beginning
            after a `StreamReset`, or ``"resume"`` where it broke, which OpenAI's Responses API can (it then runs in
            background mode); any other answer fails.
        fallback: models to ask in turn when one has failed for good, by the same rules: before the first delta, or
            with ``on_interrupt="restart"``. Each is ``"provider/model"``, or a model of the same provider.
        finish_grace: how long to wait in silence, for usage, after a finish reason when no end marker comes, 0 … 60.
        max_event_bytes: the longest event a provider may send, 1,000 … 2**30.
        max_answer_bytes: the longest answer, everything the model says counted in characters, 1,000 … 2**40.
        verify_tls: verify certificates; a path names a CA bundle.

    >>> RequestOptions(connect_timeout=0)
    Traceback (most recent call last):
    penstock.errors.OptionError: connect_timeout: got 0, allowed: a number from 0.001 to 3600
    """

    connect_timeout: float = 10.0
    first_token_timeout: float = 60.0
    idle_timeout: float = 60.0
    reasoning_timeout: float = 300.0
    total_timeout: float | None = 600.0
    max_retries: int = 2
    retry_base_delay: float = 0.5
    retry_max_delay: float = 8.0
    retry_after_limit: float = 60.0
    on_interrupt: OnInterrupt = "fail"
    fallback: Sequence[str] = ()
    finish_grace: float = 2.0
    max_event_bytes: int = 4 * 1_048_576
    max_answer_bytes: int = 64 * 1_048_576
    verify_tls: bool | str = True

    def __post_init__(self) -> None:
        check_number("connect_timeout", self.connect_timeout, 0.001, 3600)
        check_number("first_token_timeout", self.first_token_timeout, 0.001, 86_400)
        check_number("idle_timeout", self.idle_timeout, 0.001, 86_400)
        check_number("total_timeout", self.total_timeout, 0.001, 30 * 86_400, optional=True)
        check_number("max_retries", self.max_retries, 0, 100, whole=True)
        check_number("retry_base_delay", self.retry_base_delay, 0, 3600)
        check_number("retry_max_delay", self.retry_max_delay, 0, 3600)
        check_number("retry_after_limit", self.retry_after_limit, 0, 86_400)
        check_number("reasoning_timeout", self.reasoning_timeout, 0.001, 86_400)
        if isinstance(self.fallback, list):
            object.__setattr__(self, "fallback", tuple(self.fallback))
        if not isinstance(self.fallback, tuple) or not all(
            isinstance(one, str) and one.strip() for one in self.fallback
        ):
            raise OptionError("fallback", self.fallback, "a list of models' names")
        check_choice("on_interrupt", self.on_interrupt, get_args(OnInterrupt))
        check_number("finish_grace", self.finish_grace, 0, 60)
        check_number("max_event_bytes", self.max_event_bytes, 1_000, 2**30, whole=True)
        check_number("max_answer_bytes", self.max_answer_bytes, 1_000, 2**40, whole=True)
        is_path = isinstance(self.verify_tls, str) and self.verify_tls.strip()  # an empty one must not mean False
        if not is_path and not isinstance(self.verify_tls, bool):
            raise OptionError("verify_tls", self.verify_tls, "True | False | the path of a CA bundle")
