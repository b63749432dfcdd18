"""Events are shared and may be logged: they are read-only, and their reprs show no text and no metadata."""

from __future__ import annotations

import copy
import json
import pickle
from collections import ChainMap, OrderedDict, UserDict
from types import MappingProxyType
from typing import Any, get_args

import msgspec
import pytest

from penstock import errors, events
from penstock.events import FrozenDict, ToolCall
from penstock.ports import BlockDelta, MetadataDelta

SECRET = "geheim"
CALL = ToolCall(id="call_1", name="f", arguments={"pin": SECRET}, arguments_raw=SECRET, signature=SECRET)
SHARED: dict[str, Any] = {"stream_id": "s", "seq": 3, "timestamp": 1.0, "metadata": FrozenDict(user=SECRET)}
END: dict[str, Any] = {
    **SHARED,
    "reasoning": SECRET,
    "refusal": SECRET,
    "tool_calls": (CALL,),
    "reasoning_blocks": (events.ReasoningBlock(kind="thinking", text=SECRET, signature=SECRET),),
    "choices": (events.Choice(index=1, text=SECRET, tool_calls=(CALL,)),),
    "citations": (events.Citation(kind="url", url=SECRET),),
    "provider_blocks": (events.ProviderBlock(provider="p", data={"text": SECRET}),),
    "provider_metadata": FrozenDict(finish_message=SECRET),
}
PROBABLE = events.TokenLogprob(token=SECRET, logprob=-0.5, top=((SECRET, -0.5),))
EVENTS: list[Any] = [
    events.TokenEvent(**SHARED, tokens=(SECRET,), text=SECRET, kind="text"),
    events.StreamSnapshot(**SHARED, tokens=(SECRET,), text=SECRET, kind="text", reasoning=SECRET, tool_calls=(CALL,)),
    events.StreamReset(**SHARED, reason="IncompleteStream"),
    events.StreamStarted(**SHARED, model="m"),
    events.ToolCallStarted(**SHARED, id="call_1", name="f", index=0),
    events.ToolCallDelta(**SHARED, index=0, text=SECRET),
    events.ToolCallCompleted(**SHARED, index=0, call=CALL),
    events.ToolApprovalRequested(**SHARED, call=CALL),
    events.ToolExecutionStarted(**SHARED, round=1, calls=(CALL,)),
    events.ToolProgress(**SHARED, call_id="call_1", name="f", progress=SECRET),
    events.ToolResult(**SHARED, call_id="call_1", name="f", content=SECRET),
    events.Citation(**SHARED, kind="url", url=SECRET, title=SECRET, cited_text=SECRET, location={"a": SECRET}),
    events.ServerToolCall(**SHARED, id="s_1", name="web_search", input={"query": SECRET}),
    events.ServerToolResult(**SHARED, id="s_1", name="web_search", output=[SECRET]),
    events.MediaPart(**SHARED, kind="audio", data=SECRET, url=SECRET, transcript=SECRET),
    events.Logprobs(**SHARED, tokens=(PROBABLE,)),
    events.ReasoningBlockClosed(**SHARED, index=0, kind="thinking", signature=SECRET, provider="p"),
    events.ProviderEvent(**SHARED, type="t", payload={"a": SECRET}),
    events.Progress(**SHARED, message=SECRET, position=1.0, total=2.0, unit="lines"),
    events.StallDetected(**SHARED, seconds=3.0, limit=2.0),
    events.LoopDetected(**SHARED, kind="text", period=3, repeats=8, start=0),
    events.OriginEnded(**SHARED, outcome=events.StreamCompleted(**END, text=SECRET)),
    events.StreamCompleted(**END, text=SECRET),
    events.StreamFailed(**END, partial=SECRET, error=errors.IncompleteStream("cut")),
    events.StreamCancelled(**END, partial=SECRET),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_repr_shows_the_stream_and_the_number_but_no_text(event: Any) -> None:
    shown = repr(event)
    assert SECRET not in shown
    assert shown.startswith(f"{type(event).__name__}(stream_id='s', seq=3")


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_as_plain_json_types_has_everything(event: Any) -> None:
    plain = events.to_dict(event)
    assert next(iter(plain.items())) == ("type", type(event).__name__)
    assert plain["metadata"] == {"user": SECRET}
    terminal = isinstance(event, events.StreamCompleted | events.StreamFailed | events.StreamCancelled)
    also = {"text"} if terminal else {"provider_type"} if isinstance(event, events.ProviderEvent) else set()
    assert set(plain) == {"type", *event.__struct_fields__, *also}
    if terminal:
        assert plain["text"] == event.text


def test_events_in_an_event_say_their_types_and_errors_their_classes() -> None:
    end = events.StreamFailed(**END, partial=SECRET, error=errors.IncompleteStream("cut"))
    ended = events.OriginEnded(**SHARED, origin="a", outcome=end)
    plain = events.to_dict(ended)
    assert (plain["origin"], plain["outcome"]["type"], plain["outcome"]["text"]) == ("a", "StreamFailed", SECRET)
    assert plain["outcome"]["error"]["type"] == "IncompleteStream"
    cited = events.Citation(kind="url")
    folded = events.StreamSnapshot(**SHARED, tokens=(), text="", kind="text", answer_events=(cited,), notices=(ended,))
    plain = events.to_dict(folded)
    assert [one["type"] for one in (*plain["answer_events"], *plain["notices"])] == ["Citation", "OriginEnded"]
    assert plain["notices"][0]["outcome"]["error"]["type"] == "IncompleteStream"


def test_every_kind_of_event_is_tested_here() -> None:
    kinds = {type(event).__name__ for event in EVENTS}
    of_streams = {kind.__name__ for kind in get_args(events.Event)}
    assert of_streams <= kinds
    assert kinds - of_streams == {"StreamSnapshot"}


JSON = {"a": [{"b": [1]}], "c": {"d": 2}}


def changes(value: Any) -> list[Any]:
    """Attempts to change read-only JSON, one for each way and place."""
    inner, deepest = value["c"], value["a"][0]["b"]
    attempts: list[Any] = [lambda one=one, name=name: getattr(one, name)() for one in (value, inner) for name in
                           ("clear", "pop", "popitem", "setdefault", "update")]  # fmt: skip
    attempts += [lambda one=one: one.__setitem__("x", 1) for one in (value, inner)]
    attempts += [lambda one=one: one.__delitem__("c") for one in (value, inner)]
    attempts += [lambda name=name: getattr(deepest, name)() for name in
                 ("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse")]  # fmt: skip
    attempts += [lambda: deepest.__setitem__(0, 2), lambda: deepest.__delitem__(0), lambda: deepest.__iadd__([1])]
    return [*attempts, lambda: deepest.__imul__(2), lambda: value.__ior__({"x": 1})]


@pytest.mark.parametrize(
    "frozen",
    [
        events.freeze(JSON),
        events.Citation(kind="url", location=FrozenDict(JSON)).location,
        events.ServerToolCall(id="s", name="n", input=JSON).input,
        events.ServerToolResult(id="s", name="n", output=JSON).output,
        events.ProviderEvent(type="t", payload=JSON).payload,
        events.ProviderBlock(provider="p", data=JSON).data,
        BlockDelta(JSON).data,
        MetadataDelta(JSON).values,
    ],
    ids=["freeze", "location", "input", "output", "payload", "block", "BlockDelta", "MetadataDelta"],
)
def test_json_in_an_event_is_read_only_at_all_levels_and_otherwise_like_any_other(frozen: Any) -> None:
    for change in changes(frozen):
        with pytest.raises(TypeError, match="read-only"):
            change()
    assert frozen == JSON
    assert json.loads(json.dumps(frozen)) == msgspec.json.decode(msgspec.json.encode(frozen)) == JSON
    for copied in (pickle.loads(pickle.dumps(frozen)), copy.deepcopy(frozen)):
        assert copied == JSON
        assert type(copied["a"]) is type(frozen["a"]) is events.FrozenList
    assert events.freeze(frozen) is frozen
    plain = msgspec.to_builtins(frozen)
    plain["a"][0]["b"].append(2)
    assert frozen == JSON


class Own(list[Any]):
    """A list of another class."""


@pytest.mark.parametrize(
    "given",
    [
        MappingProxyType(JSON),
        OrderedDict(JSON),
        ChainMap(JSON),
        UserDict(JSON),
        {"a": Own([MappingProxyType({"b": Own([1])})]), "c": OrderedDict(d=2)},
    ],
    ids=lambda given: type(given).__name__,
)
def test_mappings_and_lists_of_any_class_become_read_only(given: Any) -> None:
    frozen = events.freeze(given)
    for change in changes(frozen):
        with pytest.raises(TypeError, match="read-only"):
            change()
    assert frozen == JSON
    assert json.loads(msgspec.json.encode(frozen)) == JSON


def test_what_stands_in_a_tuple_is_read_only_too() -> None:
    inner: dict[str, Any] = {"b": [1]}
    payload = events.ProviderEvent(type="t", payload=("x", [inner], (inner,))).payload
    inner["b"].append(2)
    assert payload == ("x", [{"b": [1]}], ({"b": [1]},))
    for one in (payload[1][0], payload[2][0]):
        with pytest.raises(TypeError, match="read-only"):
            one["b"].append(2)
    with pytest.raises(TypeError, match="read-only"):
        payload[1].append(2)
    assert events.freeze(payload) is payload
