"""Where a stream's tokens come from: what its integration needs, and what has become of it so far.

Like the stream's record, it outlives the integration, which may crash and be restarted around it.
"""

from __future__ import annotations

from typing import Any

from penstock.actors.flow.log import Outcome
from penstock.actors.flow.outcome import OutcomeBuilder
from penstock.actors.runtime.process import ProcessRef
from penstock.config.options import RequestOptions
from penstock.ports import ChatCall, Provider, ProviderRequest, Reader

__all__ = ["Source"]


class Source:
    """One round of asking: a request with all its attempts. A stream that is conducted has several, one at a time.

    Args:
        provider, call, request: whom to ask, what, and in the provider's words.
        options: how.
        reader: what runs the requests.
        conductor: who is told how this ends, in the place of the stream, by `RoundEnded`.
        round: counts the sources of one stream, from 1.
    """

    def __init__(
        self,
        provider: Provider,
        call: ChatCall,
        request: ProviderRequest,
        options: RequestOptions,
        reader: Reader,
        *,
        conductor: ProcessRef | None = None,
        round: int = 1,
    ) -> None:
        self.provider = provider
        self.call = call
        self.request = request
        self.options = options
        self.reader = reader
        self.conductor = conductor
        self.round = round
        self.attempts = 0
        self.started = False  # a delta has come
        self.state = "queued"
        self.is_handed_over = False  # its conductor has been told how it ended
        self.ref: ProcessRef | None = None  # the integration at work
        self.attempt: Any = None  # its attempt under way
        self.deadline: float | None = None  # monotonic; for all attempts together
        self.builder = OutcomeBuilder(keeps_text=conductor is not None)  # of the last attempt

    def next_round(self, call: ChatCall, request: ProviderRequest) -> Source:
        """A source that asks the same provider further."""
        return Source(
            self.provider,
            call,
            request,
            self.options,
            self.reader,
            conductor=self.conductor,
            round=self.round + 1,
        )

    def outcome(self) -> Outcome:
        """What the provider has said so far beside the text. Any thread."""
        return self.builder.outcome()

    def forget_answer(self) -> None:
        """What has come so far is void, or nothing has come."""
        self.builder = OutcomeBuilder(keeps_text=self.conductor is not None)

    def abandon(self) -> None:
        """Let go of whatever it holds. Any thread; harmless if it has been."""
        attempt = self.attempt
        if attempt is not None:
            attempt.abandon()
