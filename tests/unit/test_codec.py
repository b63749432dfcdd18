"""`penstock.events.codec`: every event and error as bytes, and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock import errors, events
from penstock.events import FrozenDict, TokenEvent, codec, freeze
from tests.unit.test_errors import MESSAGES

METADATA = FrozenDict({"user": "u1", "tags": ["a"]})
CITATION = events.Citation(kind="url", url="https://a", seq=3, stream_id="s", metadata=METADATA)
CALL = events.ToolCall(id="c", name="f", arguments_raw='{"a": [1]}', arguments={"a": [1]})
EVENTS: list[events.Event] = [
    TokenEvent("s", 1, ("Hel", "lo"), "Hello", "text", 1.5, METADATA),
    TokenEvent("s", 2, ("x",), "x", "reasoning", 1.5, METADATA, 3, 2, "commentary", "b"),
    TokenEvent("s", 2, ("y",), "y", "refusal", 1.5, FrozenDict({"other": 1})),
    TokenEvent("s", 3, ("\ud800", "\u2028ok\x00"), "\ud800\u2028ok\x00", "text", 1.5, METADATA),
    events.StreamReset("s", 4, "broke off \udc00", 2.0, METADATA, None),
    CITATION,
    events.ToolCallCompleted(
        stream_id="s",
        seq=5,
        metadata=METADATA,
        index=0,
        call=CALL,
    ),
    events.ServerToolCall(
        stream_id="s", seq=5, metadata=METADATA, id="w", name="search", input={"q": ["x", {"y": 2**70}]}
    ),
    events.ProviderEvent(stream_id="s", seq=5, metadata=METADATA, type="odd", payload={"a": [1, None, 2.5]}),
    events.StreamCompleted(
        stream_id="s",
        seq=6,
        text="Hello",
        metadata=METADATA,
        usage=events.Usage(input_tokens=3, server_tool_requests={"web": 1}),
        cost=events.Cost(amount=0.5),
        citations=(CITATION,),
        parts=(events.AnswerPart(kind="text", index=0, start=0, end=5),),
        provider_metadata=FrozenDict({"response_id": "r"}),
        costs=FrozenDict({"a": events.Cost(amount=1.0), "b": None}),
        texts=FrozenDict({"a": "x"}),
        tool_calls=(CALL,),
    ),
    events.StreamFailed(stream_id="s", seq=6, metadata=METADATA, error=errors.RateLimited(429, "no", code="x")),
    events.StreamCancelled(stream_id="s", seq=6, metadata=METADATA, reason="enough", partial="He"),
    events.OriginEnded(
        stream_id="s",
        seq=6,
        metadata=METADATA,
        origin="a",
        outcome=events.StreamFailed(stream_id="t", seq=2, error=errors.StreamInterrupted("t")),
    ),
]


def same(one: Any, other: Any) -> bool:
    """Whether two events are equal, errors by their class and attributes."""
    if isinstance(one, errors.PenstockError):
        return type(one) is type(other) and one.args == other.args and vars(one).keys() == vars(other).keys()
    if isinstance(one, msgspec.Struct):
        return type(one) is type(other) and all(
            same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__
        )
    if isinstance(one, tuple):
        return type(other) is tuple and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one == other
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_as_it_was(event: events.Event) -> None:
    (back,) = codec.decode_events(codec.encode_events([event], METADATA), "s", METADATA)
    assert same(event, back), back
    if event.metadata is METADATA:
        assert back.metadata is METADATA


def test_the_events_of_a_frame_come_back_in_order_and_share_their_metadata() -> None:
    data = codec.encode_events(EVENTS, METADATA)
    back = codec.decode_events(data, "s", METADATA)
    assert all(map(same, EVENTS, back))
    assert len(back) == len(EVENTS)
    assert data.count(b"user") == 0
    other = FrozenDict({"user": "u2"})
    changed = [msgspec.structs.replace(event, metadata=other) for event in EVENTS[:2]]
    data = codec.encode_events(changed, METADATA)
    assert data.count(b"user") == 1
    assert [event.metadata for event in codec.decode_events(data, "s", METADATA)] == [other, other]


def test_what_comes_back_is_read_only() -> None:
    event = events.ProviderEvent(stream_id="s", seq=1, type="odd", payload={"a": [1]})
    (back,) = codec.decode_events(codec.encode_events([event], METADATA), "s", METADATA)
    assert isinstance(back, events.ProviderEvent)
    with pytest.raises(TypeError):
        back.payload["a"].append(2)


@pytest.mark.parametrize(("error", "message"), MESSAGES, ids=lambda value: type(value).__name__)
def test_every_error_comes_back_with_its_message_and_facts(error: errors.PenstockError, message: str) -> None:
    back = codec.decode_value(codec.encode_value(error))
    assert type(back) is type(error)
    assert str(back) == message
    assert vars(back).keys() == vars(error).keys()


def test_an_error_of_another_program_comes_back_as_the_nearest_of_ours() -> None:
    class TenantError(errors.RateLimited):
        """An error of a user's."""

    back = codec.decode_value(codec.encode_value(TenantError(429, "no", code="x")))
    assert type(back) is errors.RateLimited
    assert (back.status, back.code, str(back)) == (429, "x", "HTTP 429 x: no")


def test_what_is_no_plain_data_becomes_words() -> None:
    class Odd:
        pass

    value = {"a": Odd(), 1: {2}, "k": Odd, "n": -(2**90), "t": (1, [2]), "b": b"\xff"}
    back = codec.decode_value(codec.encode_value(value))
    assert back == {"a": "Odd", "1": [2], "k": "Odd", "n": -(2**90), "t": (1, [2]), "b": b"\xff"}
    endless: list[Any] = []
    endless.append(endless)
    assert codec.decode_value(codec.encode_value(endless))


def frame_of(*events: Any) -> bytes:
    return codec.encode_value([None, msgspec.msgpack.encode(list(events))])


def struct_of(name: str, **fields: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(1, msgspec.msgpack.encode([name, fields]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"text",
        codec.encode_value([1, 2]),
        codec.encode_value([None, b"\x91\x01"]),
        frame_of([1, ["a"], 9, 1.0]),
        frame_of([1]),
        frame_of(7),
        frame_of(msgspec.msgpack.Ext(99, b"\xc0")),
        frame_of(struct_of("os")),
        frame_of(struct_of("Usage")),
        frame_of(struct_of("Citation", zzz=1)),
        frame_of(struct_of("StreamReset")),
        codec.encode_events(EVENTS, METADATA)[:-3],
    ],
)
def test_bytes_from_elsewhere_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(codec.CodecError):
        codec.decode_events(data, "s", METADATA)


def test_every_kind_of_event_and_value_can_be_encoded() -> None:
    left_out = {"FrozenDict", "FrozenJson", "FrozenList", "Disconnected"}
    kinds = {name for name in events.__all__ if isinstance(getattr(events, name), type)} - left_out
    assert kinds <= set(codec._CLASSES)
    assert freeze({"a": [1]}) == {"a": [1]}
