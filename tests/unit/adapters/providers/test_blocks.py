"""The blocks of an assistant's message: read without trust, put in order, counted for other providers."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.adapters.providers.shared.blocks import Text, count_foreign_blocks, interleaved, own_blocks, place_of_call
from penstock.adapters.providers.shared.messages import parse_calls, parse_reasoning_blocks
from penstock.events import ProviderBlock, ReasoningBlock


def block(name: str, at: int = 0, calls: int = 0, provider: str = "p") -> ProviderBlock:
    return ProviderBlock(provider=provider, data={"type": name}, at=at, calls=calls)


def together(text: str, calls: list[str], *blocks: ProviderBlock) -> list[Any]:
    return [
        one.text if isinstance(one, Text) else one if isinstance(one, str) else one["type"].upper()
        for one in interleaved(text, calls, blocks)
    ]


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([], ["Hello", "c1", "c2"]),
        ([block("a")], ["A", "Hello", "c1", "c2"]),
        ([block("a", 5)], ["Hello", "A", "c1", "c2"]),
        ([block("a", 2), block("b", 2, 1)], ["He", "A", "c1", "B", "llo", "c2"]),
        ([block("a", 0, 2)], ["c1", "c2", "A", "Hello"]),
        ([block("a", 99, 99), block("b", 1)], ["Hello", "c1", "c2", "A", "B"]),
    ],
)
def test_text_calls_and_blocks_come_in_the_order_of_the_answer(
    blocks: list[ProviderBlock], expected: list[str]
) -> None:
    assert together("Hello", ["c1", "c2"], *blocks) == expected


def test_the_pieces_are_never_empty_and_lose_nothing() -> None:
    pieces = list(interleaved("", [], [block("a", 3), block("b", 3)]))
    assert pieces == [{"type": "a"}, {"type": "b"}]


def test_only_blocks_of_this_provider_are_its_own() -> None:
    message = {
        "provider_blocks": [
            {"provider": "p", "data": {"type": "a"}, "at": 1, "calls": 2},
            {"provider": "q", "data": {"type": "b"}},
            block("c"),
            {"provider": "p", "data": "no dict"},
            {"provider": "p", "data": {"type": "d"}, "at": -4, "calls": "many"},
            "no block",
            None,
        ]
    }
    assert own_blocks(message, "p") == [block("a", 1, 2), block("c"), block("d")]
    assert own_blocks(message, "q") == [block("b", provider="q")]
    assert len(own_blocks(message, "") or ()) == 4
    assert own_blocks(message, "other") is None
    assert own_blocks({"provider_blocks": 3}, "p") is None
    assert own_blocks({}, "p") is None


def test_blocks_of_other_providers_are_counted_once() -> None:
    reasoning = {"kind": "thinking", "signature": "s", "provider": "q"}
    messages: list[Any] = [
        {"role": "user", "content": "x"},
        {
            "role": "assistant",
            "provider_blocks": [block("a"), block("b", provider="q")],
            "reasoning_blocks": [reasoning],
        },
        {
            "role": "assistant",
            "reasoning_blocks": [reasoning, {"kind": "thinking"}, ReasoningBlock(kind="t", provider="p")],
        },
        "no message",
    ]
    assert count_foreign_blocks(messages, "p") == 2
    assert count_foreign_blocks(messages, "q") == 2
    assert count_foreign_blocks("text", "p") == 0


def test_reasoning_of_another_provider_is_not_taken() -> None:
    message = {"reasoning_blocks": [{"kind": "t", "provider": "p"}, {"kind": "t", "provider": "q"}, {"kind": "t"}]}
    assert [one.provider for one in parse_reasoning_blocks(message, {"t"}, "p")] == ["p", None]
    assert len(parse_reasoning_blocks(message, {"t"})) == 3


def test_the_text_of_a_custom_call_is_an_object_for_providers_without_such_calls() -> None:
    message = {"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "patch", "input": "free text"}}]}
    (call,) = parse_calls(message)
    assert (call.id, call.name, call.arguments) == ("c", "patch", {"input": "free text"})


@pytest.mark.parametrize(
    ("ids", "name", "calls", "place"),
    [
        (["c", "c_1_2"], "c", 2, 1),
        (["c_2", "c_1_2_3"], "c", 2, 1),
        (["c_2", "c_1_2_3"], "c_1", 2, 1),
        (["c", "c_x"], "c", 2, 0),
        (["c", "d_1"], "c.", 2, None),
    ],
)
def test_a_block_finds_its_call_behind_any_numbers(ids: list[str], name: str, calls: int, place: int | None) -> None:
    assert place_of_call(ids, name, calls) == place


def test_a_signature_that_also_has_a_block_counts_once() -> None:
    calls = [{"id": name, "signature": "s", "signed_by": "p"} for name in "ab"]
    sealed = [{"provider": "p", "data": {"type": "tool_call.extra_content", "id": "a"}, "at": 0, "calls": 1}]
    for blocks, count in ((sealed, 2), ([], 2), (sealed * 3, 3)):
        message = {"role": "assistant", "content": None, "tool_calls": calls, "provider_blocks": blocks}
        assert count_foreign_blocks([message], "q") == count
        assert count_foreign_blocks([message], "p") == 0
