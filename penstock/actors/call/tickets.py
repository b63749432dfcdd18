"""Tickets: an attempt's claim to a place at a provider's gate, and what the gate says to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from penstock.errors import ProviderError

__all__ = ["Admission", "Admitted", "Refused", "Ticket", "Wait"]


class Admitted(msgspec.Struct, frozen=True):
    """It is its turn; it has a place until it leaves."""


class Wait(msgspec.Struct, frozen=True):
    """It is in the queue. Ask again after ``seconds`` (None: no time is known), and whenever the ticket is woken."""

    seconds: float | None


class Refused(msgspec.Struct, frozen=True):
    """It is not let in: `ProviderBusy` (the queue is full) or `CircuitOpen`. It is in no queue."""

    error: ProviderError


Admission: TypeAlias = Admitted | Wait | Refused
State: TypeAlias = Literal["new", "queued", "inside", "gone"]


class Ticket:
    """One attempt's claim to a place. Used once; never shared between gates.

    Args:
        wake: called in any thread when it may be its turn; must only send a message, and may come too late or for
            nothing.
        tokens: how many the request will probably use, question and answer together; see `Gate.spent`.
        is_retry: only counted.
    """

    __slots__ = ("answered", "charged", "epoch", "heard", "is_retry", "lost", "state", "tokens", "told", "wake")

    def __init__(self, wake: Callable[[], object], tokens: int = 0, *, is_retry: bool = False) -> None:
        self.wake = wake
        self.tokens = tokens
        self.is_retry = is_retry
        # The rest is the gate's, and written under its lock only.
        self.state: State = "new"
        self.heard = 0.0  # when it asked last
        self.epoch = 0
        self.answered = False
        self.charged: int | None = None  # tokens taken for it so far; None: it was never inside
        self.told = 0  # of these, told by the provider
        self.lost: deque[int] | None = None  # where to leave the epoch of a place that was never given back

    def __del__(self) -> None:
        # Only a note: this may run anywhere, even inside the gate that would have to be told.
        if self.state == "inside" and self.lost is not None:
            self.lost.append(self.epoch)
