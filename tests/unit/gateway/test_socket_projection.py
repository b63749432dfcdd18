"""The native WebSocket's events: how a stream has ended, and that they are those of the route."""

from __future__ import annotations

import json

import pytest

from penstock.errors import IncompleteStream, ProviderTimeout
from penstock.events import (
    Event,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    TokenEvent,
    ToolCallDelta,
    ToolCallStarted,
)
from penstock.gateway.problems import Problem
from penstock.gateway.projections.frames import Opening
from penstock.gateway.projections.native import NativeProjection
from penstock.gateway.projections.socket import SocketProjection
from tests.integration.gateway.serving import events_of


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


EVENTS: list[Event] = [
    TokenEvent("s", 1, ("Hi",), "Hi", "text", 5.0, {}),
    TokenEvent("s", 1, ("Hi",), "Hi", "reasoning", 5.0, {}, 2, 1, "commentary", "a"),
    ToolCallStarted(stream_id="s", seq=1, id="c1", name="f", index=0),
    ToolCallDelta(stream_id="s", seq=1, index=0, text="{"),
    StreamReset("s", 1, "IncompleteStream", 5.0, {}),
    StreamSnapshot("s", 1, ("Hi",), "Hi", "text", 5.0, {}),
    StreamCompleted(stream_id="s", seq=1, text="Hi"),
    StreamFailed(stream_id="s", seq=1, error=IncompleteStream("it broke off")),
    StreamFailed(stream_id="s", seq=1, error=ProviderTimeout("idle", 2.0)),
    StreamCancelled(stream_id="s", seq=1, reason="user"),
]


@pytest.mark.parametrize("form", ["all", "simple"])
@pytest.mark.parametrize("event", EVENTS)
def test_both_ways_of_the_native_protocol_say_the_same(event: Event, form: str) -> None:
    opening = Opening(stream_id="s", epoch="e", created=1, variant={"events": form})
    on_socket = [json.loads(frame.data.removesuffix(b",")) for frame in SocketProjection(opening).feed(event)]
    on_route = [found for frame in NativeProjection(opening).feed(event) for found in events_of(frame.data.decode())]
    assert len(on_socket) == len(on_route)
    for told, (_, name, fields) in zip(on_socket, on_route, strict=True):
        assert (told.pop("sid"), told.pop("type")) == ("s", name)
        told.pop("outcome", None)
        del fields["type"]
        assert told == fields


def test_a_short_forms_reader_is_cut_off_by_an_error_on_both_ways() -> None:
    problem = Problem(status=503, type="server_error", code="draining", message="restarting")
    opening = Opening(stream_id="s", epoch="e", created=1, variant={"events": "simple"})
    told = json.loads(SocketProjection(opening).cut(problem).removesuffix(b","))
    ((_, name, fields),) = events_of(NativeProjection(opening).cut(problem).decode())
    assert (name, fields) == ("error", {"error": {"code": "draining", "message": "restarting"}})
    assert told == {"sid": "s", "type": name, **fields}
