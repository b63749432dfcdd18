"""Whom a stream asks: provider and fallbacks, each with its request, its gate and its price."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock.actors.call.gate import GateTable
from penstock.actors.call.record import Candidate, Source
from penstock.actors.runtime.process import ProcessRef
from penstock.adapters.providers.catalogue import Catalogue, ProviderChoice
from penstock.adapters.providers.chat_calls import to_chat_call
from penstock.config.options import RequestOptions
from penstock.config.prices import PriceTable
from penstock.config.settings import Settings
from penstock.errors import OptionError
from penstock.ports import ChatCall, Clock, Reader

__all__ = ["Asking"]


class Asking:
    """Makes the sources of a system's streams; has what they share."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, prices: PriceTable, clock: Clock, reader: Reader
    ) -> None:
        self.gates = GateTable(clock, settings.breaker, settings.retry_budget)
        self._settings = settings
        self._catalogue = catalogue
        self._reader = reader
        self._prices = prices

    def source(
        self,
        found: ProviderChoice,
        call: ChatCall,
        options: RequestOptions | None,
        *,
        responses: bool = False,
        conductor: ProcessRef | None = None,
        fallback: Sequence[str] | None = None,
    ) -> Source:
        """A source that asks ``found``, and then the options' fallbacks.

        Args:
            found: whom first.
            call: as the caller has said it, for the Responses API where it is meant for that.
            options: None takes the settings'.
            responses: it is.
            conductor: as for `Source`.
            fallback: instead of the options'.

        Raises:
            OptionError: a request cannot be built, for a fallback neither; or a fallback is not known.
        """
        options = options or self._settings.request
        if not isinstance(options, RequestOptions):
            raise OptionError("request_options", type(options).__name__, "a RequestOptions or None")
        if fallback is not None:
            options = options.replace(fallback=fallback)
        if options.on_interrupt == "resume":
            call = msgspec.structs.replace(call, resumable=True)
        first, *others = (
            self._candidate(one, call, responses=responses)
            for one in (found, *self._fallbacks(found, options, responses=responses))
        )
        return Source(
            first.provider,
            first.call,
            first.request,
            options,
            self._reader,
            account=first.account,
            gate=first.gate,
            price=first.price,
            fallbacks=others,
            retry_budget=self.gates.retry_budget,
            conductor=conductor,
        )

    def _fallbacks(self, first: ProviderChoice, options: RequestOptions, *, responses: bool) -> list[ProviderChoice]:
        return [self._catalogue.fallback(first, name, responses=responses) for name in options.fallback]

    def _candidate(self, found: ProviderChoice, call: ChatCall, *, responses: bool) -> Candidate:
        call = msgspec.structs.replace(call, model=found.model)
        if responses and not found.has_responses:
            call = to_chat_call(call)
        return Candidate(
            provider=found.provider,
            call=call,
            request=found.provider.request(call),
            account=found.name,
            gate=self.gates.gate(
                found.account, getattr(found.provider, "base_url", ""), self._settings.limits(found.account)
            ),
            price=self._prices.find(found.account, found.model),
        )
