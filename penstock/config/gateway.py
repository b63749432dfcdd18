"""Options of the gateway: the server that hands streams to browsers and other clients."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from penstock.config.checks import Between, Options, check_on_orphan
from penstock.config.options import OnOrphan
from penstock.errors import OptionError

__all__ = ["GatewayOptions", "MetricsAccess", "ReasoningField", "SlowReader"]

ReasoningField: TypeAlias = Literal["reasoning_content", "reasoning"]
MetricsAccess: TypeAlias = Literal["admin", "loopback"]
SlowReader: TypeAlias = Literal["coalesce", "disconnect"]


def _check_orphan(field: str, value: object) -> None:
    if value is not None:
        try:
            check_on_orphan(value)
        except OptionError as error:
            raise OptionError(field, value, f"{error.allowed} | None") from None


def _check_origins(field: str, value: object) -> None:
    if not isinstance(value, (list, tuple)) or not all(_is_origin(each) for each in value):
        raise OptionError(field, value, "a list of origins (https://app.example.com), or ['*']")


def _is_origin(value: object) -> bool:
    return value == "*" or (isinstance(value, str) and bool(re.fullmatch(r"https?://[^/\s?#@]+", value)))


def _check_hosts(field: str, value: object) -> None:
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(each, str) and re.fullmatch(r"\*|[A-Za-z0-9.:\[\]_-]+", each) for each in value
    ):
        raise OptionError(field, value, "a list of host names without port, or ['*']")


def _check_keys(field: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise OptionError(field, value, "the path of a file of keys, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions(Options):
    """How streams are served over HTTP and WebSockets.

    Attributes:
        on_orphan: what happens to a stream when its last reader leaves, for all protocols. None: ``"cancel"`` for
            openai, responses and anthropic; for native, ui and agui it goes on for ``linger`` seconds, also before the
            first reader.
        linger: see ``on_orphan``; 0 … 86,400 s.
        heartbeat: a reader that gets nothing for this long gets a sign of life, 0.05 … 3600 s.
        first_byte_hold: how long the status line waits for the first event or error, 0 … 600 s. An error that comes
            later is sent within the stream.
        tick: the shortest time between two frames of the same stream, 0 … 10 s. What comes meanwhile is sent together.
        slow: what happens to a reader that falls behind by more than ``reader_bytes``: ``"coalesce"``: pieces of text
            are joined; ``"disconnect"``: it is cut off, and may resume.
        reader_bytes: 1,000 … 2**40.
        retain_bytes: bytes of frames that are kept one by one for each stream and protocol; older ones are joined.
            10,000 … 2**40.
        max_body: bytes of a request's body, 1,000 … 2**40.
        max_depth: levels of JSON in it, 4 … 1,000.
        max_messages: messages or items in it, 1 … 1,000,000.
        max_readers: readers at once, 1 … 10,000,000: requests that read or wait for a stream, WebSockets, probes.
        keys: a file of API keys, see ``penstock keys``; None answers every request, for loopback hosts only.
        cors: origins from which pages may use the gateway; empty: none.
        hosts: further host names that are answered. Without keys, only loopback names are answered otherwise.
        reasoning_field: the field that carries reasoning in chat completions.
        enable_compression: compress responses for clients that accept it, each frame at once.
        metrics: which requests get ``/metrics``. ``"admin"``: those with a key of that scope. ``"loopback"``: those
            too without a key that come from this machine, to a loopback host name, through no proxy that says so.
        drain_timeout: how long `Gateway.drain` lets streams go on, 0 … 3600 s.

    >>> GatewayOptions(cors="*")
    Traceback (most recent call last):
    penstock.errors.OptionError: cors: got '*', allowed: a list of origins (https://app.example.com), or ['*']
    """

    on_orphan: Annotated[OnOrphan | None, _check_orphan] = None
    linger: Annotated[float, Between(0, 86_400)] = 30.0
    heartbeat: Annotated[float, Between(0.05, 3600)] = 15.0
    first_byte_hold: Annotated[float, Between(0, 600)] = 10.0
    tick: Annotated[float, Between(0, 10)] = 0.033
    slow: SlowReader = "coalesce"
    reader_bytes: Annotated[int, Between(1_000, 2**40)] = 1_048_576
    retain_bytes: Annotated[int, Between(10_000, 2**40)] = 1_048_576
    max_body: Annotated[int, Between(1_000, 2**40)] = 32 * 1_048_576
    max_depth: Annotated[int, Between(4, 1_000)] = 100
    max_messages: Annotated[int, Between(1, 1_000_000)] = 10_000
    max_readers: Annotated[int, Between(1, 10_000_000)] = 20_000
    keys: Annotated[str | None, _check_keys] = None
    cors: Annotated[tuple[str, ...], _check_origins] = ()
    hosts: Annotated[tuple[str, ...], _check_hosts] = ()
    reasoning_field: ReasoningField = "reasoning_content"
    enable_compression: bool = False
    metrics: MetricsAccess = "admin"
    drain_timeout: Annotated[float, Between(0, 3600)] = 30.0
