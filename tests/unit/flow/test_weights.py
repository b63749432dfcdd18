"""About how many bytes of memory events take: the figures are estimates, but each is counted exactly."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from penstock.actors.stream.weights import cost_of, text_weight, weight_of
from penstock.events import (
    Citation,
    Event,
    FrozenDict,
    Logprobs,
    LoopDetected,
    MediaPart,
    OriginEnded,
    Progress,
    ProviderEvent,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StallDetected,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamStarted,
    TokenEvent,
    TokenLogprob,
    ToolApprovalRequested,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
)
from tests.unit.flow.common import steps

AB, ABC, ABCD, ABCDE = "ab", "abc", "abcd", "abcde"
CALL = ToolCall(id=AB, name=ABC, arguments={}, arguments_raw=ABCD, signature=ABCDE)
END = StreamCompleted(
    stream_id="s", seq=1, text=ABC, reasoning=AB, refusal="", finish_reason="stop", timestamp=0.0, metadata={}
)
MOST = ServerToolResult(id=AB, name=ABC, output=[ABCD], status=ABCDE)
COSTS: list[tuple[Event, int]] = [
    (TokenEvent("s", 1, (AB, ABC), AB + ABC, "text", 0.0, {}, 0), 160 + 2 * 5 + 60 * 2),
    (StreamReset("s", 1, "again", 0.0, {}), 160),
    (StreamStarted(model="m"), 160),
    (StallDetected(seconds=2.0, limit=1.0), 160),
    (LoopDetected(kind="text", period=1, repeats=9, start=0), 160),
    (ToolCallStarted(id=AB, name=ABC, index=0), 160 + 2 * 5),
    (ToolCallDelta(index=0, text=ABC), 160 + 2 * 3),
    (ToolCallCompleted(index=0, call=CALL), 160 + 160 + 4 * 4 + 2 * 10),
    (ToolApprovalRequested(call=CALL), 160 + 160 + 4 * 4 + 2 * 10),
    (ToolExecutionStarted(round=1, calls=(CALL, CALL)), 160 + 2 * (160 + 4 * 4 + 2 * 10)),
    (ToolProgress(call_id="c", name="f", progress=ABC), 160 + 50 + 3),
    (ToolResult(call_id="c", name="f", content=ABC), 160 + 2 * 3),
    (Citation(kind="url"), 160 + 3 * 50 + 100),
    (Citation(kind="url", url=AB, title=ABC, cited_text=ABCD, id=ABCDE), 160 + 3 * 50 + 9 + 2 * 5 + 100),
    (Citation(kind="url", location=FrozenDict(a=AB)), 160 + 3 * 50 + 100 + 50 + 50 + 2),
    (MediaPart(kind="image", data=AB, url=ABC, transcript=ABCD, id=ABCDE), 160 + 3 * 50 + 9 + 2 * 5),
    (MediaPart(kind="image", mime=ABCD), 160 + 3 * 50 + 2 * 4),
    (ServerToolCall(id=AB, name=ABC, input={"a": 1}, status=ABCD), 160 + 2 * 9 + 100 + 50 + 30),
    (MOST, 160 + 2 * 10 + 60 + 50 + 4),
    (ProviderEvent(type=ABC, payload=True), 160 + 2 * 3 + 30),
    (Progress(message=ABC), 160 + 50 + 3),
    (OriginEnded(origin="a", outcome=END), 160 + 2 * 3 + 2 * 2),
    (ReasoningBlockClosed(index=0, kind="k", signature=ABC, id=AB), 160 + 50 + 3 + 2 * 2),
    (Logprobs(tokens=()), 160),
    (
        Logprobs(tokens=(TokenLogprob(token=AB, logprob=-1.0, top=((ABC, -1.0), (ABCD, -2.0))),) * 2),
        160 + 2 * (100 * 3 + 2 * 9),
    ),
]


@pytest.mark.parametrize(("event", "cost"), COSTS, ids=lambda value: type(value).__name__)
def test_an_event_takes_so_much(event: Event, cost: int) -> None:
    assert cost_of(event) == cost


def test_each_kind_of_event_that_is_folded_is_given_here() -> None:
    terminal = {StreamCompleted, StreamFailed, StreamCancelled}
    assert set(get_args(Event)) - terminal == {type(event) for event, _ in COSTS}


@pytest.mark.parametrize(
    ("event", "texts"),
    [
        (MediaPart(kind="image", data=AB, url=ABC, transcript=ABCD, id=ABCDE), [AB, ABCD, ABC]),
        (
            Citation(kind="url", url=AB, title=ABC, cited_text=ABCD, location=FrozenDict(a=ABCDE)),
            [ABCD, ABC, AB, ABCDE],
        ),
        (ServerToolCall(id="s", name="n", input=[AB]), [AB]),
        (ServerToolResult(id="s", name="n", output=[AB]), [AB]),
        (ProviderEvent(type="t", payload=[AB]), [AB]),
        (ToolProgress(call_id="c", name="f", progress=[AB]), [AB]),
        (ReasoningBlockClosed(index=0, kind="k", signature=AB), [AB]),
        (Progress(message=AB), [AB]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_long_texts_are_weighed_by_the_function_that_is_given(event: Event, texts: list[str]) -> None:
    weighed: list[str] = []

    def weigh(text: str) -> int:
        weighed.append(text)
        return 1000

    assert cost_of(event, weigh) == 1000 * len(texts) + cost_of(event) - sum(map(text_weight, texts))
    assert weighed == texts


def test_probabilities_are_weighed_as_fast_as_tokens() -> None:
    token = TokenEvent("s", 1, (AB,), AB, "text", 0.0, {}, 0)
    assert steps(lambda: cost_of(Logprobs(tokens=()))) <= steps(lambda: cost_of(token)) + 1


def test_a_text_takes_its_characters_and_twice_as_much_if_they_are_not_ascii() -> None:
    assert [text_weight(text) for text in ("", "abc", "äbc")] == [50, 53, 56]


def test_what_json_takes_is_the_sum_of_its_parts() -> None:
    values: list[Any] = ["", "abc", 1, None, [], (), {}]
    assert [weight_of(value) for value in values] == [50, 53, 30, 30, 60, 60, 100]
    assert weight_of({"a": [1, {"b": "cd"}], "e": (2.0,)}) == (100 + 100) + (60 + 30) + (100 + 50 + 52) + (60 + 30)
