"""The settings of the log store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from penstock.config.checks import Between, Options, type_of
from penstock.errors import OptionError

__all__ = ["Durable", "StoreOptions", "Synchronous"]

Durable: TypeAlias = Literal["async", "sync"]
Synchronous: TypeAlias = Literal["NORMAL", "FULL"]


def _check_path(field: str, path: object) -> None:
    if path is not None and (not isinstance(path, str) or path.strip() in ("", ":memory:")):
        raise OptionError(field, path if isinstance(path, str) else type_of(path), "the path of a file, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions(Options):
    """Where streams and agents' histories are kept, so that they survive the process; see the page "Durability".

    Attributes:
        path: of a SQLite file on a local disk; None keeps everything in memory (the level ``memory``).
        durability: ``"async"``: readers get an event at once, and it is written within a frame, about 40 ms;
            ``"sync"``: they get it once it is written.
        synchronous: ``"NORMAL"``: what is written survives the process; ``"FULL"``: also a loss of power.
        keep: how long a stream is kept after its end, 0 … 315,360,000 s (10 years).
        max_bytes: the streams that ended first are removed beyond this, 100,000 … 10**13.
    """

    path: Annotated[str | None, _check_path] = None
    durability: Durable = "async"
    synchronous: Synchronous = "NORMAL"
    keep: Annotated[float, Between(0, 3_650 * 86_400)] = 7 * 86_400.0
    max_bytes: Annotated[int, Between(100_000, 10**13)] = 1 << 30
