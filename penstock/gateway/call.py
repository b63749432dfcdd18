"""One request to the gateway, with what is known of it before its route is run."""

from __future__ import annotations

import msgspec

from penstock.gateway.core import GatewayCore
from penstock.gateway.exchange import Exchange
from penstock.gateway.keys import Key
from penstock.gateway.protocols import Protocol
from penstock.gateway.trace import Trace

__all__ = ["HttpCall"]


class HttpCall(msgspec.Struct):
    """A request.

    Attributes:
        gateway: the gateway.
        exchange: the request's body, headers and parameters, and the response.
        protocol: the protocol of the route; errors have its shape.
        key: the key of the request.
        request_id: ``x-request-id``: the client's, or a new one.
        trace: its place in the client's trace, or in a new one.
        began: on the loop's clock.
        waited: seconds of it that it waited for the provider.
    """

    gateway: GatewayCore
    exchange: Exchange
    protocol: Protocol
    key: Key
    request_id: str
    trace: Trace
    began: float
    waited: float = 0.0

    def timing(self, stream_id: str) -> list[tuple[str, str]]:
        """The headers that say how long the gateway itself has taken, and for which stream."""
        spent = max(0.0, self.gateway.ticker.loop.time() - self.began - self.waited)
        self.gateway.tally.spent(spent)
        return [
            ("x-penstock-stream-id", stream_id),
            ("x-penstock-overhead-ms", f"{spent * 1000:.2f}"),
            ("server-timing", f"gateway;dur={spent * 1000:.2f}, provider;dur={self.waited * 1000:.2f}"),
        ]
