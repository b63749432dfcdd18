"""What a chat provider needs back: reasoning entries and calls' extras, from the answer to the next request."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.events import ProviderBlock, ReasoningBlock, StreamCompleted
from penstock.ports import (
    BlockDelta,
    ChatCall,
    Delta,
    FinishDelta,
    ReasoningBlockDelta,
    ReasoningDelta,
    Secret,
    TextDelta,
    ToolCallFragment,
)
from penstock.testing import Collector, ScriptedProvider, SimulatedSystem

KEY = Secret("sk-test-123")


def sse(*payloads: object) -> bytes:
    return b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)


def choice(delta: object, finish: object = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def details(*entries: object, **more: object) -> dict[str, Any]:
    return choice({"content": "", "reasoning_details": list(entries), **more})


def decode(*payloads: object) -> list[Delta]:
    """The deltas of the whole body, which are the same byte by byte."""
    body = sse(*payloads)
    decoder = ChatDecoder(1_000_000)
    whole = decoder.feed(body) + decoder.close()
    single = ChatDecoder(1_000_000)
    assert [delta for at in range(len(body)) for delta in single.feed(body[at : at + 1])] + single.close() == whole
    return whole


def blocks(deltas: list[Delta]) -> list[object]:
    return [delta.data for delta in deltas if isinstance(delta, BlockDelta)]


def sent(message: dict[str, Any], provider: str = "router") -> dict[str, Any]:
    body = json.loads(OpenAiChat(KEY).request(ChatCall(model="m", input=[message], provider=provider)).body)
    (back,) = body["messages"]
    assert isinstance(back, dict)
    return back


TEXT = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}


# --- the answer ------------------------------------------------------------------------------------------------------


def test_fragments_of_a_signed_entry_become_one_block_before_the_text() -> None:
    assert decode(
        details({**TEXT, "text": "Let "}, reasoning="Let "),
        details({**TEXT, "text": "me"}, reasoning="me"),
        details({**TEXT, "signature": "c2ln"}),
        choice({"content": "Hi"}),
        choice({"content": "!"}, "stop"),
    ) == [
        ReasoningDelta("Let "),
        ReasoningDelta("me"),
        ReasoningBlockDelta(ReasoningBlock(kind="reasoning.text", text="Let me", signature="c2ln")),
        BlockDelta({**TEXT, "text": "Let me", "signature": "c2ln"}),
        TextDelta("Hi"),
        TextDelta("!"),
        FinishDelta("stop", "stop"),
    ]


def test_a_summary_and_encrypted_data_of_one_index_are_two_blocks_in_order() -> None:
    summary = {"type": "reasoning.summary", "index": 0}
    sealed = {"type": "reasoning.encrypted", "index": 0, "id": "rs_1", "data": "gAAA"}
    deltas = decode(
        details({**summary, "summary": "a"}), details({**summary, "summary": "b"}, sealed), choice({}, "stop")
    )
    assert blocks(deltas) == [{**summary, "summary": "ab"}, sealed]
    assert [delta.block for delta in deltas if isinstance(delta, ReasoningBlockDelta)] == [
        ReasoningBlock(kind="reasoning.encrypted", signature="gAAA", id="rs_1")
    ]
    assert isinstance(deltas[-1], FinishDelta)


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        ({"text": "a", "index": 0}, {"text": "b", "index": 0}, 1),
        ({"text": "a"}, {"text": "b", "id": "x"}, 1),
        ({"text": "a", "index": 0}, {"text": "b", "index": 1}, 2),
        ({"text": "a", "id": "x"}, {"text": "b", "id": "y"}, 2),
        ({"text": "a", "index": 0, "signature": "s"}, {"text": "b", "index": 0, "signature": "t"}, 2),
        ({"data": "a", "index": 0, "id": "x"}, {"data": "b", "index": 0, "id": "x"}, 1),
        ({"data": "a", "index": 0}, {"data": "b", "index": 0}, 2),
    ],
)
def test_entries_are_told_apart_by_index_id_and_seal(first: dict[str, Any], second: dict[str, Any], count: int) -> None:
    kind = {"type": "reasoning.encrypted" if "data" in first else "reasoning.text"}
    assert len(blocks(decode(details({**kind, **first}), details({**kind, **second}), choice({}, "stop")))) == count


def test_an_entry_is_closed_by_a_call_too() -> None:
    deltas = decode(
        details({**TEXT, "text": "a", "signature": "s"}),
        choice({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}),
        choice({}, "tool_calls"),
    )
    assert [type(delta) for delta in deltas] == [
        ReasoningDelta,
        ReasoningBlockDelta,
        BlockDelta,
        ToolCallFragment,
        FinishDelta,
    ]


def test_an_entry_that_was_cut_short_is_no_block() -> None:
    body = sse(details({**TEXT, "text": "a"}), details({**TEXT, "text": "b", "signature": "s"}), choice({}, "stop"))
    for at in range(len(body) - 2):  # the last event may lack its blank line
        decoder = ChatDecoder(1_000_000)
        assert blocks(decoder.feed(body[:at]) + decoder.close()) == []
    decoder = ChatDecoder(1_000_000)
    assert len(blocks(decoder.feed(body) + decoder.close())) == 1


def test_what_is_no_entry_is_counted_and_halves_of_characters_are_joined() -> None:
    decoder = ChatDecoder(1_000_000)
    body = sse(
        details({**TEXT, "text": "\ud83d"}), details({**TEXT, "text": "\ude00\ud800"}), details(5), choice({}, "stop")
    )
    assert blocks(decoder.feed(body)) == [{**TEXT, "text": "😀\ufffd"}]
    assert decoder.skipped == 1


def test_a_calls_signature_comes_with_the_call_and_as_a_block() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert decode(choice({"tool_calls": [{**call, "extra_content": extra}]}, "stop")) == [
        ToolCallFragment(0, "c1", "f", "{}", signature="c2ln"),
        BlockDelta({"type": "tool_call.extra_content", "id": "c1", "extra_content": extra}),
        FinishDelta("tool_calls", "stop"),
    ]


@pytest.mark.parametrize("extra", [None, 5, {}, {"google": 5}, {"google": {"thought_signature": 5}}])
def test_extra_content_without_a_signature_is_no_block(extra: object) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f"}, "extra_content": extra}
    assert decode(choice({"tool_calls": [call]})) == [ToolCallFragment(0, "c1", "f")]


# --- the next request ------------------------------------------------------------------------------------------------


def given_back(deltas: list[Delta], provider: str) -> list[dict[str, Any]]:
    return [{"provider": provider, "data": data, "at": 0, "calls": 0} for data in blocks(deltas)]


def test_entries_go_back_to_their_provider_as_they_came() -> None:
    entries = [
        {**TEXT, "text": "Let me", "signature": "c2ln"},
        {"type": "reasoning.encrypted", "index": 1, "id": "r", "data": "gAAA"},
    ]
    told = decode(details(*entries), choice({"content": "Hi"}), choice({}, "stop"))
    message = {"role": "assistant", "content": "Hi", "provider_blocks": given_back(told, "router")}
    plain = {"role": "assistant", "content": "Hi"}
    assert sent(message) == {**plain, "reasoning_details": entries}
    assert sent(message, "") == {**plain, "reasoning_details": entries}
    assert sent(message, "other") == plain
    assert sent({**message, "reasoning_details": []}) == {**plain, "reasoning_details": []}


def test_blocks_of_another_form_are_never_sent() -> None:
    thinking = ProviderBlock(provider="router", data={"type": "thinking", "thinking": "x", "signature": "s"})
    signed = {"kind": "thinking", "text": "x", "signature": "s", "provider": "router"}
    message = {"role": "assistant", "content": "Hi", "provider_blocks": [thinking, 5], "reasoning_blocks": [signed]}
    assert sent(message) == {"role": "assistant", "content": "Hi"}
    assert sent({"role": "user", "content": "Hi", "provider_blocks": []}) == {"role": "user", "content": "Hi"}


def call(identifier: str, **more: object) -> dict[str, Any]:
    return {"id": identifier, "type": "function", "function": {"name": "f", "arguments": "{}"}, **more}


def test_a_calls_extras_go_back_to_their_provider_only() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    told = decode(choice({"tool_calls": [{"index": 0, **call("c1"), "extra_content": extra}]}, "stop"))
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("c0"), call("c1", signature="c2ln")],
        "provider_blocks": given_back(told, "router"),
    }
    assert sent(message)["tool_calls"] == [call("c0"), call("c1", extra_content=extra)]
    assert sent(message, "other")["tool_calls"] == [call("c0"), call("c1")]
    assert sent({**message, "provider_blocks": []})["tool_calls"] == [call("c0"), call("c1")]
    assert message["tool_calls"] == [call("c0"), call("c1", signature="c2ln")]


def test_extras_of_a_call_that_had_no_id_go_to_the_call_at_their_place() -> None:
    data = {"type": "tool_call.extra_content", "id": "", "extra_content": {"google": {"thought_signature": "s"}}}
    message = {
        "role": "assistant",
        "tool_calls": [call("made_up_0"), call("made_up_1")],
        "provider_blocks": [ProviderBlock(provider="router", data=data, calls=2)],
    }
    assert ["extra_content" in each for each in sent(message)["tool_calls"]] == [False, True]


def test_extra_content_finds_the_call_whose_id_the_history_has_made_unique() -> None:
    extra = {"google": {"thought_signature": "s"}}
    sealed = {"type": "tool_call.extra_content", "id": "call_0", "extra_content": extra}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("call_0_2"), call("call_1_2")],
        "provider_blocks": [{"provider": "router", "data": sealed, "at": 0, "calls": 1}],
    }
    assert sent(message)["tool_calls"] == [call("call_0_2", extra_content=extra), call("call_1_2")]
    message["provider_blocks"] = [{"provider": "router", "data": {**sealed, "id": "call"}, "at": 0, "calls": 1}]
    assert sent(message)["tool_calls"] == message["tool_calls"]


def test_calls_that_shared_an_id_get_each_its_own_extras() -> None:
    def block(signature: str, calls: int) -> ProviderBlock:
        extra = {"google": {"thought_signature": signature}}
        data = {"type": "tool_call.extra_content", "id": "c", "extra_content": extra}
        return ProviderBlock(provider="router", data=data, calls=calls)

    message = {
        "role": "assistant",
        "tool_calls": [call("c"), call("c_1"), 5],  # the second id was made up, as the stream does
        "provider_blocks": [block("s0", 1), block("s1", 2), block("s2", 3), block("s3", 9)],
    }
    first, second, third = sent(message)["tool_calls"]
    assert first["extra_content"] == {"google": {"thought_signature": "s0"}}
    assert second["extra_content"] == {"google": {"thought_signature": "s1"}}
    assert third == 5


def test_an_answer_goes_through_a_stream_and_back_into_the_request() -> None:
    entries = [{**TEXT, "text": "Let me", "signature": "c2ln"}, {"type": "reasoning.encrypted", "data": "gAAA"}]
    extras = [{"google": {"thought_signature": signature}} for signature in ("s0", "s1")]
    calls = [{"index": place, **call("", extra_content=extra)} for place, extra in enumerate(extras)]  # without ids
    deltas = decode(
        {**details(*entries), "id": "r1"}, choice({"content": "Hi"}), choice({"tool_calls": calls}), choice({}, "stop")
    )
    with SimulatedSystem() as system:
        stream = system.chat("m", "Hello", provider=ScriptedProvider(list(deltas), name="router"))
        end = Collector(stream).wait_for_terminal()
    assert isinstance(end, StreamCompleted)
    assert (end.text, end.reasoning, end.finish_reason) == ("Hi", "Let me", "tool_calls")
    assert [block.provider for block in end.reasoning_blocks] == ["router", "router"]
    assert end.provider_metadata == {"response_id": "r1"}
    message = {
        "role": "assistant",
        "content": end.text,
        "tool_calls": [call(each.id, signature=each.signature) for each in end.tool_calls],
        "provider_blocks": [msgspec.to_builtins(block) for block in end.provider_blocks],
    }
    back = sent(message)
    assert back["reasoning_details"] == entries
    assert [each["extra_content"] for each in back["tool_calls"]] == extras
    assert "extra_content" not in json.dumps(sent(message, "other"))


def test_custom_calls_keep_their_form_and_other_types_become_functions() -> None:
    custom = {"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    shell = {**call("c2"), "type": "local_shell"}
    message = {"role": "assistant", "content": None, "tool_calls": [custom, shell, {**call("c3"), "is_server": True}]}
    assert sent(message)["tool_calls"] == [custom, call("c2")]


SIGNED = [
    {"type": "reasoning.text", "text": "hm", "signature": "s1", "id": "r1"},
    {"type": "reasoning.summary", "summary": "so", "signature": "s2"},
    {"type": "reasoning.encrypted", "data": "s3", "id": "r3"},
]


def test_reasoning_blocks_go_back_to_the_chat_provider_that_signed_them() -> None:
    made = [
        delta.block
        for entry in SIGNED
        for delta in decode(details(entry), choice({"content": "Hi"}, "stop"))
        if isinstance(delta, ReasoningBlockDelta)
    ]
    given = [msgspec.structs.replace(block, provider="router") for block in made]
    others = [msgspec.structs.replace(block, provider="other") for block in made]
    foreign = ReasoningBlock(kind="thinking", signature="s", provider="router")
    for form in (list, lambda blocks: list(map(msgspec.to_builtins, blocks))):
        message = {"role": "assistant", "content": "Hi", "reasoning_blocks": form([*others, *given, foreign])}
        assert sent(message) == {"role": "assistant", "content": "Hi", "reasoning_details": SIGNED}
    sealed = {"provider": "router", "data": SIGNED[0], "at": 0, "calls": 0}
    message = {"role": "assistant", "content": "Hi", "reasoning_blocks": given, "provider_blocks": [sealed]}
    assert sent(message)["reasoning_details"] == SIGNED[:1]
    for dropped in (others, made):  # of other providers, and of an unknown one
        message = {"role": "assistant", "content": "Hi", "reasoning_blocks": dropped}
        assert sent(message) == {"role": "assistant", "content": "Hi"}


def entry(kind: str, index: int | None = None, **fields: str) -> dict[str, Any]:
    return {"type": f"reasoning.{kind}", **({} if index is None else {"index": index}), **fields}


@pytest.mark.parametrize(
    ("fragments", "expected"),
    [
        (
            [entry("text", 0, text="a"), entry("encrypted", 1, data="E"), entry("text", 0, text="b", signature="S")],
            [entry("text", 0, text="ab", signature="S"), entry("encrypted", 1, data="E")],
        ),
        (
            [
                entry("text", 0, text="a"),
                entry("text", 1, text="x"),
                entry("text", 0, text="b"),
                entry("text", 1, text="y"),
            ],
            [entry("text", 0, text="ab"), entry("text", 1, text="xy")],
        ),
        (
            [entry("text", text="a"), entry("encrypted", data="E"), entry("text", text="b")],
            [entry("text", text="a"), entry("encrypted", data="E"), entry("text", text="b")],
        ),
        (
            [entry("text", 0, text="a", signature="S"), entry("text", 0, text="b"), entry("text", 1, text="c")],
            [entry("text", 0, text="a", signature="S"), entry("text", 0, text="b"), entry("text", 1, text="c")],
        ),
    ],
)
def test_fragments_find_their_entry_by_its_index(fragments: list[Any], expected: list[Any]) -> None:
    for chunks in ([details(one) for one in fragments], [details(*fragments)]):
        deltas = decode(*chunks, choice({"content": "Hi"}, "stop"))
        assert blocks(deltas) == expected
        seals = [delta.block.signature for delta in deltas if isinstance(delta, ReasoningBlockDelta)]
        assert seals == [
            one.get("signature", one.get("data")) for one in expected if "S" in str(one) or "E" in str(one)
        ]


def test_a_sealed_entry_is_told_before_the_next_one_is_complete() -> None:
    first, second = entry("text", 0, text="a", signature="S"), entry("text", 1, text="b")
    deltas = decode(details(first), details(second), choice({"content": "Hi"}, "stop"))
    order = [type(delta).__name__ for delta in deltas if not isinstance(delta, (TextDelta, FinishDelta))]
    assert order.index("ReasoningBlockDelta") < len(order) - 2


def test_entries_without_end_are_not_kept_without_end() -> None:
    fragments = [entry("text", index, text=str(index)) for index in range(100)]
    decoder = ChatDecoder(1_000_000)
    told = [delta for one in fragments for delta in decoder.feed(sse(details(one)))]
    assert len(blocks(told)) > 80
    assert blocks(told + decoder.feed(sse(choice({"content": "Hi"}, "stop")))) == fragments
