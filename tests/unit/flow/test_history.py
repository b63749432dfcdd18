"""What a model is told of a conversation: whole, within bounds, and in a form that every provider takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.actors.agent.history import (
    INTERRUPTED,
    NO_ANSWER,
    History,
    Message,
    PastTurn,
    Round,
    answer_message,
    distinct_calls,
    read_turns,
    size_of,
    user_message,
)
from penstock.actors.stream.outcome import Outcome, add_costs, all_rounds
from penstock.errors import OptionError
from penstock.events import Cost, ProviderBlock, ReasoningBlock, ToolCall, Usage


def call(id: str = "a", **fields: Any) -> ToolCall:
    return ToolCall(**{"id": id, "name": "add", "arguments": {"x": 1}, "arguments_raw": '{"x": 1}', **fields})


def check_form(messages: list[Message], *, is_request: bool = False) -> None:
    """The form of the module's docstring, which all five providers take."""
    rest = [message for message in messages if message["role"] not in ("system", "developer")]
    ids: set[str] = set()
    before = None
    while rest:
        message = rest.pop(0)
        role = message["role"]
        if role == "user":
            assert before in (None, "assistant"), f"user behind {before}"
        elif role == "tool":
            raise AssertionError("a result without its call")
        else:
            assert before in ("user", "tool"), f"assistant behind {before}"
            assert message.get("tool_calls") or message["content"].strip(), "an answer without words"
        before = role
        if message.get("tool_calls"):
            asked = [one["id"] for one in message["tool_calls"]]
            results, rest = rest[: len(asked)], rest[len(asked) :]
            assert [one.get("tool_call_id") for one in results] == asked, "half a pair"
            assert not ids & set(asked), "an id twice"
            ids.update(asked)
            before = "tool"
    assert before in (("user", "tool") if is_request else (None, "assistant")), f"ends with {before}"


# --- what one message is -------------------------------------------------------------------------------------------


def test_a_user_says_a_text_parts_or_a_whole_message() -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    assert user_message("Hi") == {"role": "user", "content": "Hi"}
    assert user_message(parts) == {"role": "user", "content": parts}
    assert user_message({"role": "user", "content": "Hi", "name": "eve"})["name"] == "eve"
    assert user_message({"content": "Hi"})["role"] == "user"


@pytest.mark.parametrize("wrong", [None, 3, [], {}, {"role": "assistant", "content": "x"}, [object()], b"bytes"])
def test_what_a_user_cannot_say_is_refused(wrong: object) -> None:
    with pytest.raises(OptionError, match="message"):
        user_message(wrong)


def test_what_json_cannot_hold_is_refused_without_being_shown() -> None:
    with pytest.raises(OptionError) as caught:
        user_message({"content": [{"type": "text", "text": "secret", "x": object()}]})
    assert "secret" not in str(caught.value)


def test_a_message_is_kept_as_it_was_when_it_was_said() -> None:
    parts = [{"type": "text", "text": "before"}]
    message = user_message(parts)
    parts[0]["text"] = "after"
    assert message["content"][0]["text"] == "before"


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_an_answer_without_words_gets_some(text: str) -> None:
    assert answer_message(text, INTERRUPTED)["content"] == INTERRUPTED
    assert answer_message("Hi ", INTERRUPTED)["content"] == "Hi "


def test_a_round_is_the_calls_and_a_result_for_each() -> None:
    block = ReasoningBlock(kind="thinking", text="hm", signature="s")
    made = Round((call("a", signature="g"), call("b")), ("1", "2"), " ", (block,)).messages()
    assert made[0]["content"] is None
    assert made[0]["reasoning_blocks"] == [
        {"kind": "thinking", "text": "hm", "signature": "s", "id": None, "provider": None}
    ]
    assert [one["id"] for one in made[0]["tool_calls"]] == ["a", "b"]
    assert made[0]["tool_calls"][0]["signature"] == "g"
    assert "signed_by" not in made[0]["tool_calls"][0]
    assert "signature" not in made[0]["tool_calls"][1]
    assert made[0]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"x": 1}'}
    assert made[1:] == [
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ]


def test_the_maker_of_a_signature_is_that_of_the_call_and_else_that_of_the_round() -> None:
    signed = (call("a", signature="g", signed_by="gemini"), call("b", signature="g"), call("c"))
    made = Round(signed, ("1", "2", "3"), provider="fallback").messages()[0]["tool_calls"]
    assert [one.get("signed_by") for one in made] == ["gemini", "fallback", None]


@pytest.mark.parametrize(
    ("arguments", "raw"), [(None, '{"x": '), ([1], "[1]"), ("s", '"s"'), ({}, ""), ({}, "null"), ({}, " null ")]
)
def test_arguments_that_are_no_object_stand_as_an_empty_one(arguments: Any, raw: str) -> None:
    made = Round((call("a", arguments=arguments, arguments_raw=raw),), ("wrong",)).messages()
    assert made[0]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_an_id_that_was_used_before_is_another_in_the_history_and_a_repeated_call_is_left_out() -> None:
    used = {"a", "a_2"}
    found = distinct_calls([call("a"), call("b"), call("b"), call("a")], used)
    assert [(told.id, kept.id) for told, kept in found] == [("a", "a_3"), ("b", "b")]
    assert used == {"a", "a_2", "a_3", "b"}


# --- a history from elsewhere --------------------------------------------------------------------------------------


def test_a_history_can_be_given_back() -> None:
    history = History([{"role": "system", "content": "Be kind."}])
    history.add(PastTurn([user_message("1 + 1?"), *Round((call(),), ("2",)).messages(), answer_message("2", "")]))
    system, exchanges = read_turns(history.messages())
    assert History(system, exchanges).messages() == history.messages()


def test_a_question_without_an_answer_gets_one() -> None:
    _, exchanges = read_turns([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    messages = History((), exchanges).messages()
    check_form(list(messages))
    assert [message["content"] for message in messages] == ["a", NO_ANSWER, "b", NO_ANSWER]


_ASK = {"role": "user", "content": "a"}
_CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "function": {"name": "f"}}]}
_RESULT = {"role": "tool", "tool_call_id": "x", "content": "1"}


@pytest.mark.parametrize(
    "messages",
    [
        "text",
        7,
        ["text"],
        [{"content": "no role"}],
        [{"role": "robot", "content": "x"}],
        [{"role": "assistant", "content": "x"}],
        [_ASK, _RESULT],
        [_ASK, _CALL],
        [_ASK, _CALL, _ASK],
        [_ASK, _CALL, _RESULT, _RESULT],
        [_ASK, _CALL | {"tool_calls": [{"id": "x"}, {"id": "x"}]}, _RESULT, _RESULT],
        [_ASK, _CALL | {"tool_calls": [{"name": "f"}]}],
        [_ASK | {"x": object()}],
    ],
)
def test_a_history_that_no_provider_would_take_is_refused(messages: Any) -> None:
    with pytest.raises(OptionError, match="history"):
        read_turns(messages)


# --- bounds --------------------------------------------------------------------------------------------------------


def exchange(number: int, rounds: int = 0, words: int = 1) -> PastTurn:
    messages = [user_message(f"question {number}")]
    for place in range(rounds):
        messages += Round((call(f"{number}.{place}.a"), call(f"{number}.{place}.b")), ("1", "2")).messages()
    return PastTurn([*messages, answer_message(f"answer {number} " * words, NO_ANSWER)])


def test_the_oldest_exchanges_are_dropped_whole_and_counted() -> None:
    history = History([{"role": "system", "content": "s"}], max_messages=6)
    for number in range(5):
        history.add(exchange(number, rounds=number % 2))
    assert [message["content"] for message in history.messages() if message["role"] == "user"] == ["question 4"]
    assert history.messages()[0]["role"] == "system"
    assert (len(history), history.dropped) == (2, 2 + 5 + 2 + 5)


def test_the_newest_exchange_is_kept_though_it_is_longer_than_the_bound() -> None:
    history = History(max_bytes=1_000)
    history.add(exchange(1))
    history.add(exchange(2, words=1_000))
    assert [message["content"] for message in history.messages() if message["role"] == "user"] == ["question 2"]


def test_a_request_has_room_for_the_turn_under_way() -> None:
    history = History(max_messages=6)
    for number in range(3):
        history.add(exchange(number))
    current = [user_message("now"), *Round((call("n"),), ("1",)).messages()]
    assert [message["content"] for message in history.request(current)][:3] == ["question 2", "answer 2 ", "now"]
    assert len(history) == 6, "looking changes nothing"


def test_a_copy_is_a_copy() -> None:
    history = History()
    history.add(exchange(1))
    history.messages()[0]["content"] = "spoiled"
    assert history.messages()[0]["content"] == "question 1"


texts = st.text(max_size=12)
tool_calls = st.lists(
    st.tuples(st.sampled_from(["a", "b", "call_0", "call_1"]), st.sampled_from([None, {}, {"x": 1}, [2], "s"])),
    min_size=1,
    max_size=3,
)
turns = st.lists(st.tuples(texts, st.lists(st.tuples(tool_calls, texts), max_size=3), texts), max_size=8)


@given(turns, st.integers(2, 20), st.integers(1_000, 3_000))
def test_whatever_was_said_the_form_is_kept_and_so_are_the_bounds(
    said: list[tuple[str, list[tuple[list[tuple[str, Any]], str]], str]], max_messages: int, max_bytes: int
) -> None:
    history = History([{"role": "system", "content": "s"}], max_messages=max_messages, max_bytes=max_bytes)
    for question, rounds, answer in said:
        current = [user_message(question)]
        used = history.call_ids()
        for asked, text in rounds:
            calls = [kept for _, kept in distinct_calls([call(id, arguments=value) for id, value in asked], used)]
            current += Round(tuple(calls), tuple("result" for _ in calls), text).messages()
            check_form(history.request(current), is_request=True)
        new = PastTurn([*current, answer_message(answer, INTERRUPTED)])
        history.add(new)
        messages = history.messages()
        check_form(list(messages))
        assert messages[0]["role"] == "system"
        assert messages[-len(new.messages) :] == new.messages, "the newest turn is there"
        size = sum(size_of(message) for message in messages[1:])
        assert (len(history) <= max_messages and size <= max_bytes) or len(history) == len(new.messages)
        system, exchanges = read_turns(messages)
        assert History(system, exchanges).messages() == messages


# --- totals --------------------------------------------------------------------------------------------------------


def test_rounds_add_up_and_what_nobody_told_stays_untold() -> None:
    rounds = [
        Outcome(finish_reason="tool_calls", tool_calls=(call("a"),), usage=Usage(input_tokens=3), text="x", model="m"),
        Outcome(raw_finish_reason="stop", usage=Usage(input_tokens=4, output_tokens=0), text="y", provider="p"),
        Outcome(tool_calls=(call("b"),)),
    ]
    total = all_rounds(rounds)
    assert (total.finish_reason, total.raw_finish_reason) == ("stop", None)
    assert [one.id for one in total.tool_calls] == ["a", "b"]
    assert total.usage == Usage(input_tokens=7, output_tokens=0)
    assert (total.text, total.model, total.provider) == ("xy", "m", "p")
    assert all_rounds([]).usage is None
    assert all_rounds([Outcome()]).usage is None


def test_costs_of_two_currencies_have_no_sum() -> None:
    assert add_costs([Cost(amount=1.0), None, Cost(amount=2.0, is_estimate=True)]) == Cost(amount=3.0, is_estimate=True)
    assert add_costs([Cost(amount=1.0), Cost(amount=2.0, currency="EUR")]) is None
    assert add_costs([None]) is None


def test_the_text_that_stands_for_a_blank_answer_is_not_cut_by_its_blocks() -> None:
    made = answer_message(" \n", "[no answer]", (), (ProviderBlock(provider="p", data={"type": "t"}, at=2),))
    assert made["content"] == "[no answer]"
    assert [block["at"] for block in made["provider_blocks"]] == [0]
