"""Stored responses."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from penstock.gateway.channels import Channel
from penstock.gateway.stored import StoredResponse, StoredResponses


class _Faulty:
    """A channel with a log that cannot be read."""

    owner = "key"

    @property
    def record(self) -> Any:
        raise ValueError("a fault")


def test_a_response_that_cannot_be_made_keeps_no_other_one_from_being_looked_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    responses = StoredResponses()
    for name in ("resp_1", "resp_2"):
        responses.add(name, StoredResponse(cast(Channel, _Faulty()), "Hi", is_stored=True))
    with caplog.at_level(logging.ERROR):
        asyncio.run(responses.sweep(lambda channel: True))
        asyncio.run(responses.sweep(lambda channel: True))
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ["response_failed"] * 2
    assert responses.find("resp_1", "key") is None
