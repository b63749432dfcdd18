"""How a request's body is waited for, and how that ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.config.gateway import GatewayOptions
from penstock.gateway import exchange as exchange_module
from penstock.gateway.exchange import Exchange
from penstock.gateway.problems import Problem, RequestRefused

STOP = Problem(status=503, type="server_error", code="draining", message="Stop.")


def test_a_body_is_refused_at_the_moment_at_which_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "_PATIENCE", 0.0)

    async def main() -> None:
        async def receive() -> Any:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                exchange.refuse(STOP)

        async def send(message: Any) -> None:
            raise NotImplementedError

        scope = {"method": "POST", "path": "/", "headers": []}
        exchange = Exchange(scope, receive, send, GatewayOptions())
        with pytest.raises(RequestRefused) as refused:
            await exchange.body()
        assert refused.value.problem is STOP

    asyncio.run(main())
