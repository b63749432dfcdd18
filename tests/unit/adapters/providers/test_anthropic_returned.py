"""What goes back to the Messages API: the blocks it made, in their places, and nothing that it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.actors.agent.history import Round, answer_message
from penstock.actors.call.answer import OutcomeBuilder
from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.events import ProviderBlock, ReasoningBlock, ToolCall
from penstock.ports import BlockDelta, ChatCall, FinishDelta, Secret, TextDelta
from tests.unit.adapters.providers.test_anthropic import decode, head, piece, sse, start, stop

ANTHROPIC = AnthropicMessages(Secret("sk-ant-123"))
HI = {"role": "user", "content": "Hi"}
THANKS = {"role": "user", "content": "Thanks"}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
SEARCH = {"type": "server_tool_use", "id": "srv1", "name": "web_search", "input": {"query": "q"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srv1", "content": [{"encrypted_content": "e"}]}
RESULT = {"role": "tool", "tool_call_id": "t1", "content": "4"}


def block(data: object, at: object = 0, calls: object = 0, provider: str = "anthropic") -> dict[str, Any]:
    return {"provider": provider, "data": data, "at": at, "calls": calls}


def called(id: str = "t1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


def use(id: str = "t1", **more: object) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "f", "input": {"x": 1}, **more}


def words(text: str, **more: object) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def sent(*messages: dict[str, Any], provider: str = "anthropic") -> list[Any]:
    call = ChatCall(model="m", input=list(messages), provider=provider)
    before = json.dumps(messages, default=repr)
    body: dict[str, Any] = json.loads(ANTHROPIC.request(call).body)
    assert json.dumps(messages, default=repr) == before
    found: list[Any] = body["messages"]
    return found


def answered(content: object, *blocks: object, **more: object) -> Any:
    """The content that is sent for an assistant's message, after which the user says something."""
    message = {"role": "assistant", "content": content, "provider_blocks": list(blocks), **more}
    (first, answer, *_) = sent(HI, message, THANKS)
    assert first == HI
    assert set(answer) == {"role", "content"}
    return answer["content"]


# --- in their places -----------------------------------------------------------------------------------------------


def test_text_calls_and_blocks_go_back_in_the_order_in_which_they_came() -> None:
    assert answered(
        "Looking.Found it.",
        block(THOUGHT),
        block(SEARCH, 8),
        block(FOUND, 8),
        block({**THOUGHT, "signature": "s2"}, 17),
        tool_calls=[called()],
    ) == [
        THOUGHT,
        words("Looking."),
        SEARCH,
        FOUND,
        words("Found it."),
        {**THOUGHT, "signature": "s2"},
        use(),
    ]


def test_calls_stand_before_the_blocks_that_came_after_them() -> None:
    upload = {"type": "container_upload", "file_id": "f"}
    assert answered("ab", block(upload, 1, 1), block(upload, 1, 2), tool_calls=[called("a"), called("b")]) == [
        words("a"),
        use("a"),
        upload,
        use("b"),
        upload,
        words("b"),
    ]


@pytest.mark.parametrize(("at", "calls"), [(None, None), (-5, -1), ("2", "1"), (1.5, True), ([], {})])
def test_a_place_that_is_none_is_the_beginning(at: object, calls: object) -> None:
    assert answered("ab", block(THOUGHT, at, calls), tool_calls=[called()])[0] == THOUGHT


def test_a_place_beyond_the_message_is_its_end() -> None:
    assert answered("ab", block(SEARCH, 99, 99), block(FOUND, 99, 99), tool_calls=[called()]) == [
        words("ab"),
        use(),
        SEARCH,
        FOUND,
    ]
    assert answered(None, block(SEARCH, 99), block(FOUND, 3)) == [SEARCH, FOUND]


@pytest.mark.parametrize(
    "given",
    [None, 5, "blocks", {}, [None], ["x"], [[]], [{}], [{"provider": "anthropic"}], [block("x")], [block([THOUGHT])]],
)
def test_what_is_no_block_is_ignored(given: object) -> None:
    message = {"role": "assistant", "content": "a", "provider_blocks": given}
    assert sent(HI, message) == [HI, {"role": "assistant", "content": "a"}]
    asked = {"role": "user", "content": "a", "provider_blocks": given}
    assert sent(asked) == [{"role": "user", "content": "a"}]


@pytest.mark.parametrize("kind", [None, 5, "", "text", "image", "tool_result", "reasoning", "web_search_call"])
def test_a_block_of_a_kind_that_the_api_does_not_take_from_an_assistant_is_left_out(kind: object) -> None:
    assert answered("a", block({"type": kind, "text": "x"}), block({"no": "type"})) == "a"


def test_blank_text_between_blocks_is_left_out_and_other_text_keeps_its_blanks() -> None:
    assert answered("\n\n  a \n\n", block(SEARCH, 2), block(FOUND, 2), block(THOUGHT, 6), tool_calls=[called()]) == [
        SEARCH,
        FOUND,
        words("  a "),
        THOUGHT,
        use(),
    ]


def test_parts_of_a_message_are_cut_where_a_block_stands() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    picture = {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}
    content = [words("ab"), picture, words("cdef", **cached), words(""), "gh"]
    assert answered(
        content, block(THOUGHT), block(SEARCH, 2), block(FOUND, 4, 1), tool_calls=[called(), called("t2")]
    ) == [
        THOUGHT,
        words("ab"),
        picture,
        SEARCH,
        words("cd"),
        use(),
        FOUND,
        words("ef", **cached),
        words("gh"),
        use("t2"),
    ]
    twice = [words("aa", **cached)]
    assert answered(twice, block(SEARCH, 1), block(FOUND, 1)) == [words("a"), SEARCH, FOUND, words("a", **cached)]
    refused = {"type": "refusal", "refusal": "Never."}
    assert answered([refused], block(SEARCH, 3), block(FOUND, 3)) == [words("Nev"), SEARCH, FOUND, words("er.")]
    assert answered(None, block(SEARCH), block(FOUND), refusal="No.") == [SEARCH, FOUND, words("No.")]


# --- reasoning -----------------------------------------------------------------------------------------------------


def test_with_blocks_the_reasoning_blocks_are_ignored() -> None:
    reasoning = [{"kind": "thinking", "text": "hm", "signature": "s", "provider": "anthropic"}]
    assert answered("a", block(THOUGHT), reasoning_blocks=reasoning) == [THOUGHT, words("a")]
    assert answered("a", block(THOUGHT, provider="other"), reasoning_blocks=reasoning) == [THOUGHT, words("a")]


def test_reasoning_of_another_provider_is_left_out() -> None:
    blocks = [
        {"kind": "thinking", "text": "mine", "signature": "s", "provider": "anthropic"},
        ReasoningBlock(kind="thinking", text="theirs", signature="t", provider="vertex"),
        {"kind": "thinking", "text": "whose", "signature": "u"},
    ]
    message = {"role": "assistant", "content": "a", "reasoning_blocks": blocks}
    assert [one.get("thinking") for one in sent(HI, message)[1]["content"]] == ["mine", "whose", None]
    assert [one.get("thinking") for one in sent(HI, message, provider="")[1]["content"]] == [
        *("mine", "theirs", "whose", None),
    ]


def test_reasoning_at_the_end_is_left_out_and_a_message_of_it_alone_too() -> None:
    assert answered("a", block(THOUGHT, 1), block({"type": "redacted_thinking", "data": "r"}, 1)) == "a"
    alone = {"role": "assistant", "content": "", "provider_blocks": [block(THOUGHT)]}
    assert sent(HI, alone, THANKS) == [HI, THANKS]
    own = {"role": "assistant", "content": [THOUGHT]}  # in the API's form, it passes as it is
    assert sent(HI, own) == [HI, own]


# --- calls of the provider's own tools -----------------------------------------------------------------------------


def test_a_call_without_a_result_is_left_out_once_the_user_has_said_something() -> None:
    assert answered("ab", block(SEARCH, 1)) == "ab"
    assert answered("ab", block({**SEARCH, "type": "mcp_tool_use"}, 1), block(THOUGHT)) == [THOUGHT, words("ab")]
    assert answered(None, block(SEARCH), tool_calls=[called()]) == [use()]
    assert sent(HI, {"role": "assistant", "content": None, "provider_blocks": [block(SEARCH)]}, THANKS) == [HI, THANKS]


def test_a_result_without_its_call_is_left_out() -> None:
    assert answered("ab", block(FOUND, 1)) == "ab"
    other = {**FOUND, "tool_use_id": "srv2"}
    assert answered("ab", block(SEARCH), block(FOUND), block(other)) == [SEARCH, FOUND, words("ab")]


def test_a_paused_turn_is_sent_back_as_it_came() -> None:
    paused = answer_message("Looking. ", "", (), (ProviderBlock(provider="anthropic", data=SEARCH, at=9),))
    assert sent(HI, paused) == [HI, {"role": "assistant", "content": [words("Looking. "), SEARCH]}]
    silent = answer_message("", "", (), (ProviderBlock(provider="anthropic", data=SEARCH),))
    assert sent(HI, silent) == [HI, {"role": "assistant", "content": [SEARCH]}]
    done = answer_message("", "", (), tuple(ProviderBlock(provider="anthropic", data=one) for one in (SEARCH, FOUND)))
    assert sent(HI, done)[1]["content"] == [SEARCH, FOUND]


def test_a_result_may_be_in_a_later_message() -> None:
    first = {"role": "assistant", "content": "a", "provider_blocks": [block(SEARCH, 1)]}
    second = {"role": "assistant", "content": "b", "provider_blocks": [block(FOUND)]}
    assert [one["content"] for one in sent(HI, first, second, THANKS)] == [
        "Hi",
        [words("a"), SEARCH],
        [FOUND, words("b")],
        "Thanks",
    ]


PROGRAM = {"type": "server_tool_use", "id": "srv1", "name": "code_execution", "input": {"code": "roll()"}}
CALLER = {"type": "code_execution_20250825", "tool_id": "srv1"}


def test_a_program_that_waits_for_the_clients_tools_is_kept_with_its_calls() -> None:
    blocks = [block(PROGRAM), block(use(caller=CALLER), 0, 1)]
    asked = {"role": "assistant", "content": None, "tool_calls": [called()], "provider_blocks": blocks}
    assert sent(HI, asked, RESULT) == [
        HI,
        {"role": "assistant", "content": [PROGRAM, use(caller=CALLER)]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "4"}]},
    ]
    done = {"type": "code_execution_tool_result", "tool_use_id": "srv1", "content": {}}
    answer = {"role": "assistant", "content": "Four.", "provider_blocks": [block(done)]}
    kept = sent(HI, asked, RESULT, answer, THANKS)
    assert [kept[1]["content"], kept[3]["content"]] == [[PROGRAM, use(caller=CALLER)], [done, words("Four.")]]
    given_up = sent(HI, asked, RESULT, {"role": "assistant", "content": "Four."}, THANKS)
    assert given_up[1]["content"] == [use()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "cnt_2"),
        ({"container": {"skills": ["pptx"]}}, {"id": "cnt_2", "skills": ["pptx"]}),
        ({"container": {"id": "mine"}}, {"id": "mine"}),
        ({"container": "mine"}, "mine"),
    ],
)
def test_a_turn_goes_on_in_its_container(given: dict[str, Any], expected: object) -> None:
    blocks = [block({"type": "container", "id": "cnt_1"}), block(PROGRAM), block({"type": "container", "id": "cnt_2"})]
    asked = {"role": "assistant", "content": None, "tool_calls": [called()], "provider_blocks": blocks}

    def body(*messages: dict[str, Any], provider: str = "anthropic") -> Any:
        call = ChatCall(model="m", input=list(messages), provider=provider, parameters=given)
        return json.loads(ANTHROPIC.request(call).body)

    assert body(HI, asked, RESULT)["container"] == expected
    assert body(HI, asked, RESULT)["messages"] == sent(HI, asked, RESULT)
    # That of an earlier turn may have expired, and that of another account is not known.
    assert body(HI, asked, RESULT, THANKS).get("container") == given.get("container")
    assert body(HI, asked, RESULT, provider="bedrock").get("container") == given.get("container")


def test_a_container_is_announced_once_for_each_id() -> None:
    first = {"id": "cnt_1", "expires_at": "2026-01-01T00:00:00Z"}
    deltas = decode(
        head(container=None),
        {"type": "message_delta", "delta": {"container": first}},
        {"type": "message_delta", "delta": {"container": first, "stop_reason": "tool_use"}},
        {"type": "message_delta", "delta": {"container": {"expires_at": "x"}}},
        {"type": "message_delta", "delta": {"container": "cnt_1"}},
    )
    assert [delta for delta in deltas if isinstance(delta, BlockDelta)] == [BlockDelta({"type": "container", **first})]


def test_a_caller_belongs_to_the_call_of_its_id_and_to_this_provider() -> None:
    pair = [block(PROGRAM), block({"type": "code_execution_tool_result", "tool_use_id": "srv1", "content": {}})]
    other = block(use("t9", caller=CALLER), 0, 1)
    assert answered("", *pair, other, tool_calls=[called()])[-1] == use()
    foreign = block(use(caller=CALLER), 0, 1, provider="other")
    assert answered("", *pair, foreign, tool_calls=[called()])[-1] == use()
    assert answered("", *pair, block(use(caller="x"), 0, 1), tool_calls=[called()])[-1] == use()


# --- histories that move -------------------------------------------------------------------------------------------


FOREIGN = [
    block({"type": "reasoning", "id": "rs_1", "encrypted_content": "e"}, provider="openai"),
    block({"type": "web_search_call", "id": "ws_1"}, 1, provider="openai"),
    block({"executableCode": {"code": "1"}, "thoughtSignature": "t"}, 1, provider="gemini"),
    block({"type": "reasoning.encrypted", "data": "d"}, provider="openrouter"),
    block(THOUGHT, provider="vertex-anthropic"),
    block(SEARCH, provider="vertex-anthropic"),
]


@pytest.mark.parametrize("provider", ["anthropic", "gateway"])
def test_blocks_of_other_providers_are_dropped_and_the_turns_alternate(provider: str) -> None:
    asked = {"role": "assistant", "content": None, "tool_calls": [called()], "provider_blocks": FOREIGN}
    answer = {"role": "assistant", "content": "ab", "provider_blocks": FOREIGN}
    assert sent(HI, asked, RESULT, answer, THANKS, provider=provider) == [
        HI,
        {"role": "assistant", "content": [use()]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "4"}]},
        {"role": "assistant", "content": "ab"},
        THANKS,
    ]


def test_blocks_go_to_the_account_that_made_them() -> None:
    message = {"role": "assistant", "content": "ab", "provider_blocks": [block(THOUGHT, provider="gateway"), *FOREIGN]}
    assert sent(HI, message, provider="gateway")[1]["content"] == [THOUGHT, words("ab")]
    assert sent(HI, message, provider="vertex-anthropic")[1]["content"] == [THOUGHT, SEARCH, words("ab")]
    nameless = {"role": "assistant", "content": "ab", "provider_blocks": [block(THOUGHT, provider="")]}
    assert sent(HI, nameless)[1]["content"] == [THOUGHT, words("ab")]
    assert sent(HI, {**nameless, "provider_blocks": FOREIGN}, provider="")[1]["content"] == [
        THOUGHT,
        SEARCH,
        words("ab"),
    ]


def test_calls_of_every_type_become_calls_of_functions() -> None:
    calls = [
        {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "free text"}},
        {"id": "c2", "type": "local_shell", "function": {"name": "local_shell", "arguments": '{"command": ["ls"]}'}},
        {"id": "c3", "type": "mcp_approval", "function": {"name": "mcp_approval", "arguments": "no JSON"}},
    ]
    (answer, results) = sent(
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls),
    )
    assert [(one["type"], one["name"], one["input"]) for one in answer["content"]] == [
        ("tool_use", "patch", {"input": "free text"}),
        ("tool_use", "local_shell", {"command": ["ls"]}),
        ("tool_use", "mcp_approval", {}),
    ]
    assert [one["tool_use_id"] for one in results["content"]] == ["c1", "c2", "c3"]


# --- there and back ------------------------------------------------------------------------------------------------


def recorded(content: list[dict[str, Any]]) -> dict[str, Any]:
    """The history's message of an answer with this content, by way of the decoder and of the core."""
    events: list[dict[str, Any]] = []
    for index, one in enumerate(content):
        if one["type"] == "text":
            events += [start(index, type="text", text=""), piece(index, type="text_delta", text=one["text"])]
        else:
            events.append(start(index, **one))
        events.append(stop(index))
    builder, text = OutcomeBuilder(), ""
    builder.provider = "anthropic"
    for delta in MessagesDecoder(1_000_000).feed(sse(*events)):
        builder.note(delta, len(text))
        if isinstance(delta, TextDelta):
            text += delta.text
    builder.note(FinishDelta("tool_calls", "tool_use"))
    outcome = builder.outcome()
    calls = tuple(call for call in outcome.tool_calls if not call.is_server)
    sealed = outcome.provider_blocks
    if calls:
        return Round(calls, ("4",) * len(calls), text, (), sealed).messages()[0]
    return answer_message(text, "", (), sealed)


@pytest.mark.parametrize(
    "content",
    [
        [THOUGHT, words("Looking."), SEARCH, FOUND, {**THOUGHT, "signature": "s2"}, words("Done.")],
        [THOUGHT, words("Now."), use()],
        [THOUGHT, use(), use("t2")],
        [{"type": "compaction", "content": "So far.", "encrypted_content": "e"}, words("a")],
        [words("a"), SEARCH, FOUND, words("b"), {**SEARCH, "id": "srv2"}, {**FOUND, "tool_use_id": "srv2"}, words("c")],
        [PROGRAM, use(caller=CALLER)],
        [{"type": "redacted_thinking", "data": "r"}, words("\u00e9\U0001f30a"), SEARCH, FOUND, words("\u00e9")],
        [words("a"), {"type": "fallback", "from": {"model": "x"}, "to": {"model": "y"}, "trigger": {}}, words("b")],
    ],
)
def test_what_the_api_has_said_goes_back_as_it_was_said(content: list[dict[str, Any]]) -> None:
    message = json.loads(json.dumps(recorded(content)))
    assert sent(HI, message)[1] == {"role": "assistant", "content": content}


def test_texts_between_citations_go_back_as_one() -> None:
    content = [words("See "), words("two words"), words("."), SEARCH, FOUND, words("End")]
    assert sent(HI, recorded(content))[1]["content"] == [words("See two words."), SEARCH, FOUND, words("End")]


def test_a_call_that_got_another_id_keeps_its_place() -> None:
    call = ToolCall(id="t1_2", name="f", arguments={"x": 1}, arguments_raw='{"x": 1}')
    sealed = (ProviderBlock(provider="anthropic", data=use(caller=CALLER), calls=1),)
    (message, _) = Round((call,), ("4",), "a", (), sealed).messages()
    assert sent(HI, message)[1]["content"] == [words("a"), use("t1_2", caller=CALLER)]
