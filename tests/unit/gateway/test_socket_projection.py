"""The native WebSocket's events: how a stream has ended."""

from __future__ import annotations

import json

import pytest

from penstock.errors import IncompleteStream
from penstock.events import StreamCancelled, StreamCompleted, StreamFailed
from penstock.gateway.projections.frames import Opening
from penstock.gateway.projections.socket import SocketProjection


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (StreamCompleted(stream_id="s", seq=3, text="Hi"), "completed"),
        (StreamFailed(stream_id="s", seq=3, error=IncompleteStream("it broke off")), "failed"),
        (StreamCancelled(stream_id="s", seq=3, reason="user"), "cancelled"),
    ],
)
def test_an_end_says_which_one_it_is(end: StreamCompleted | StreamFailed | StreamCancelled, outcome: str) -> None:
    projection = SocketProjection(Opening(stream_id="s", epoch="e", created=1, request={}, variant={}))
    (frame,) = projection.feed(end)
    event = json.loads(frame.data.removesuffix(b","))
    assert (event["sid"], event["seq"], event["type"], event["outcome"]) == ("s", 3, "end", outcome)
