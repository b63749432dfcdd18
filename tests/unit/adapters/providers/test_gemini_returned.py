"""What goes back to Gemini: the parts it made, each in its place, and nothing of other providers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.actors.agent.history import Round, answer_message
from penstock.actors.call.answer import OutcomeBuilder
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.events import ProviderBlock
from penstock.ports import ChatCall, FinishDelta, Secret, TextDelta

GEMINI = Gemini(Secret("AIza-test-123"))
HI = {"role": "user", "content": "Hi"}
THANKS = {"role": "user", "content": "Thanks"}
THOUGHT = {"text": "hm", "thought": True, "thoughtSignature": "s1"}
SEARCH = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "id": "a", "args": {"q": 1}}, "thoughtSignature": "s2"}
FOUND = {"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "id": "a", "response": {"r": 1}}, "thoughtSignature": "s3"}
CODE = {"executableCode": {"language": "PYTHON", "code": "1"}}
RAN = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}
PICTURE = {"inlineData": {"mimeType": "image/png", "data": "aGk="}, "thoughtSignature": "s4"}
SIGNED_END = {"text": "", "thoughtSignature": "s5"}


def block(data: object, at: object = 0, calls: object = 0, provider: str = "gemini") -> dict[str, Any]:
    return {"provider": provider, "data": data, "at": at, "calls": calls}


def called(id: str = "c1", **more: object) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}, **more}


def use(id: str = "c1", **more: object) -> dict[str, Any]:
    return {"functionCall": {"name": "f", "args": {"x": 1}, "id": id}, **more}


def words(text: str, **more: object) -> dict[str, Any]:
    return {"text": text, **more}


def sent(*messages: dict[str, Any], provider: str = "gemini", model: str = "gemini-2.5-pro") -> list[Any]:
    call = ChatCall(model=model, input=list(messages), provider=provider)
    before = json.dumps(messages, default=repr)
    body: dict[str, Any] = json.loads(GEMINI.request(call).body)
    assert json.dumps(messages, default=repr) == before
    found: list[Any] = body["contents"]
    return found


def answered(content: object, *blocks: object, provider: str = "gemini", model: str = "m", **more: object) -> Any:
    """The parts that are sent for an assistant's message, after which the user says something."""
    message = {"role": "assistant", "content": content, "provider_blocks": list(blocks), **more}
    (_, answer, *_) = sent(HI, message, THANKS, provider=provider, model=model)
    assert set(answer) == {"role", "parts"}
    assert answer["role"] == "model"
    return answer["parts"]


# --- in their places -----------------------------------------------------------------------------------------------


def test_text_calls_and_parts_go_back_in_the_order_in_which_they_came() -> None:
    assert answered(
        "Looking.Found it.",
        block(THOUGHT),
        block(SEARCH, 8),
        block(FOUND, 8),
        block(PICTURE, 17),
        block(SIGNED_END, 17, 1),
        tool_calls=[called()],
    ) == [THOUGHT, words("Looking."), SEARCH, FOUND, words("Found it."), PICTURE, use(), SIGNED_END]


def test_all_signatures_of_texts_go_back_with_their_texts() -> None:
    first, second = words("llo", thoughtSignature="1"), words("you", thoughtSignature="2")
    assert answered("Hello you!", block(first, 5), block(second, 9)) == [
        *(words("He"), first, words(" "), second, words("!")),
    ]
    assert answered("llo", block(first, 3)) == [first]
    assert answered("llollo", block(first, 3), block(first, 6)) == [first, first]


def test_signed_text_after_a_call_stays_there() -> None:
    after = words("Wait.", thoughtSignature="1")
    assert answered("So.Wait.", block(after, 8, 1), tool_calls=[called()]) == [words("So."), use(), after]
    assert answered("Wait.", block(CODE), block(RAN), block(after, 5, 1), tool_calls=[called(), called("c2")]) == [
        *(CODE, RAN, use(), after, use("c2")),
    ]


def test_a_signature_goes_back_without_its_text_if_the_message_has_another_one() -> None:
    signed = words("llo", thoughtSignature="1")
    bare = words("", thoughtSignature="1")
    assert answered("Good day", block(signed, 5)) == [words("Good "), bare, words("day")]
    assert answered("Hello", block(signed, 99)) == [words("Hello"), bare]
    assert answered("Hello", block(signed, 1)) == [words("H"), bare, words("ello")]
    assert answered(None, block(signed, 3)) == [bare]
    assert answered("[no answer]", block(words("\n", thoughtSignature="1"))) == [bare, words("[no answer]")]


def test_signed_texts_that_would_overlap_are_taken_once() -> None:
    signed = words("ab", thoughtSignature="1")
    bare = words("", thoughtSignature="1")
    assert answered("abab", block(CODE, 3), block(RAN, 3), block(signed, 2)) == [
        *(words("aba"), CODE, RAN, bare, words("b")),
    ]
    assert answered("abab", block(signed, 4), block(signed, 4)) == [words("ab"), signed, bare]


def test_a_thoughts_text_is_not_looked_for_in_the_answer() -> None:
    assert answered("hm", block(THOUGHT, 2)) == [words("hm"), THOUGHT]


def test_places_are_counted_in_characters() -> None:
    text = "é🌊é"
    assert answered(text, block(CODE, 2), block(RAN, 2), block(words("é", thoughtSignature="1"), 3)) == [
        *(words("é🌊"), CODE, RAN, words("é", thoughtSignature="1")),
    ]


def test_content_of_several_parts_is_cut_where_a_part_stands() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    own = {"text": "gh", "partMetadata": {"k": 1}}
    content = [{"type": "text", "text": "ab"}, picture, {"type": "text", "text": "cdef"}, own]
    assert answered(
        content,
        block(THOUGHT),
        block(CODE, 2),
        block(RAN, 4, 1),
        block(words("fg", thoughtSignature="1"), 7),
        tool_calls=[called(), called("c2")],
    ) == [
        THOUGHT,
        words("ab"),
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        CODE,
        words("cd"),
        use(),
        RAN,
        words("e"),
        words("fg", thoughtSignature="1"),
        {"text": "h", "partMetadata": {"k": 1}},
        use("c2"),
    ]


@pytest.mark.parametrize(("at", "calls"), [(None, None), (-5, -1), ("2", "1"), (1.5, True), ([], {})])
def test_a_place_that_is_none_is_the_beginning(at: object, calls: object) -> None:
    assert answered("ab", block(THOUGHT, at, calls), tool_calls=[called()])[0] == THOUGHT


def test_a_place_beyond_the_message_is_its_end() -> None:
    assert answered("ab", block(CODE, 99, 99), block(RAN, 99, 99), tool_calls=[called()]) == [
        *(words("ab"), use(), CODE, RAN),
    ]
    assert answered(None, block(CODE, 99), block(RAN, 3)) == [CODE, RAN]


@pytest.mark.parametrize(
    "given",
    [None, 5, "blocks", {}, [None], ["x"], [[]], [{}], [{"provider": "gemini"}], [block("x")], [block([THOUGHT])]],
)
def test_what_is_no_block_is_ignored(given: object) -> None:
    message = {"role": "assistant", "content": "a", "provider_blocks": given, "tool_calls": [called(signature="s")]}
    assert sent(HI, message)[1] == {"role": "model", "parts": [words("a"), use(thoughtSignature="s")]}
    asked = {"role": "user", "content": "a", "provider_blocks": given}
    assert sent(asked) == [{"role": "user", "parts": [words("a")]}]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "thinking", "thinking": "x"},
        {"text": "x"},
        {"text": "x", "thoughtSignature": ""},
        {"text": "x", "thoughtSignature": 5},
        {"executableCode": "x"},
        {"inlineData": {"data": "x"}},
        use(thoughtSignature="s"),
    ],
)
def test_a_block_that_is_not_signed_and_no_tools_is_left_out(data: object) -> None:
    assert answered("a", block(data)) == [words("a")]


def test_a_message_in_geminis_own_form_has_its_parts_and_nothing_of_ours() -> None:
    own = {"role": "model", "parts": [THOUGHT], "provider_blocks": [block(CODE)], "reasoning_blocks": []}
    assert sent(HI, own)[1] == {"role": "model", "parts": [THOUGHT]}


def test_with_blocks_the_reasoning_blocks_are_ignored() -> None:
    reasoning = [{"kind": "thought", "text": "hm", "signature": "s1", "provider": "gemini"}]
    assert answered("a", block(THOUGHT), reasoning_blocks=reasoning) == [THOUGHT, words("a")]
    assert answered("a", block(THOUGHT, provider="other"), reasoning_blocks=reasoning) == [THOUGHT, words("a")]


# --- calls of Google's tools ---------------------------------------------------------------------------------------


def test_a_call_without_a_result_is_left_out_once_the_user_has_said_something() -> None:
    message = {"role": "assistant", "content": "a", "provider_blocks": [block(SEARCH, 1), block(CODE, 1)]}
    assert sent(HI, message, THANKS)[1]["parts"] == [words("a")]
    assert sent(HI, message)[1]["parts"] == [words("a"), SEARCH, CODE]
    alone = {"role": "assistant", "content": None, "provider_blocks": [block(CODE)]}
    assert [each["role"] for each in sent(HI, alone, THANKS)] == ["user", "user"]


def test_a_result_without_its_call_is_left_out() -> None:
    other = {"toolResponse": {"id": "b", "response": {}}, "thoughtSignature": "s"}
    assert answered("a", block(FOUND), block(RAN), block(other), block(SEARCH)) == [words("a")]
    assert answered("a", block(SEARCH), block(FOUND), block(other)) == [SEARCH, FOUND, words("a")]


def test_code_and_its_results_belong_together_in_their_order() -> None:
    twice = [block(CODE), block(RAN), block(RAN), block(CODE), block(RAN)]
    assert answered("a", *twice) == [CODE, RAN, RAN, CODE, RAN, words("a")]
    assert answered("a", block(CODE), block(RAN), block(CODE)) == [CODE, RAN, words("a")]


def test_one_of_a_call_and_its_result_may_have_no_id() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1", "id": "x"}}
    ran = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "id": "x"}}
    for parts in ([code, RAN], [CODE, ran], [code, RAN, ran, RAN], [CODE, code, ran, RAN]):
        assert answered("a", *map(block, parts)) == [*parts, words("a")]
    other = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "id": "y"}}
    assert answered("a", block(code), block(other), block(code), block(ran)) == [code, ran, words("a")]
    same = ProviderBlock(provider="gemini", data=CODE)
    assert answered("a", same, block(RAN), same) == [CODE, RAN, words("a")]


def test_a_result_may_be_in_a_later_message() -> None:
    first = {"role": "assistant", "content": None, "tool_calls": [called()], "provider_blocks": [block(SEARCH)]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "4"}
    second = {"role": "assistant", "content": "b", "provider_blocks": [block(FOUND)]}
    told = sent(HI, first, result, second, THANKS)
    assert [told[1]["parts"], told[3]["parts"]] == [[SEARCH, use()], [FOUND, words("b")]]


# --- histories that move -------------------------------------------------------------------------------------------

FOREIGN = [
    block({"type": "reasoning", "id": "rs_1", "encrypted_content": "e"}, provider="openai"),
    block({"type": "thinking", "thinking": "x", "signature": "t"}, 1, provider="anthropic"),
    block({"type": "tool_call.extra_content", "id": "c1", "extra_content": {}}, 1, 1, provider="openrouter"),
    block(THOUGHT, provider="vertex"),
    block(SEARCH, 1, provider="vertex"),
    block(FOUND, 1, provider="vertex"),
]


def test_blocks_of_other_providers_are_dropped() -> None:
    assert answered("ab", *FOREIGN, tool_calls=[called()]) == [words("ab"), use()]


def test_blocks_go_to_the_account_that_made_them() -> None:
    mine = block(CODE | {"thoughtSignature": "mine"}, 1)
    blocks = [*FOREIGN, mine, block(RAN, 1)]
    assert answered("ab", *blocks) == [words("a"), mine["data"], RAN, words("b")]
    assert answered("ab", *blocks, provider="vertex") == [THOUGHT, words("a"), SEARCH, FOUND, words("b")]
    nameless = [block(THOUGHT, provider=""), block(SEARCH, 1, provider=""), block(FOUND, 1, provider="")]
    assert answered("ab", *nameless) == [THOUGHT, words("a"), SEARCH, FOUND, words("b")]
    assert len(answered("ab", *blocks, provider="")) == 7


def test_signatures_of_calls_that_others_made_are_dropped() -> None:
    calls = [called(signature="theirs"), called("c2")]
    assert answered(None, *FOREIGN, tool_calls=calls) == [use(), use("c2")]
    marked = use(thoughtSignature="skip_thought_signature_validator")
    assert answered(None, *FOREIGN, tool_calls=calls, model="gemini-3-pro") == [marked, use("c2")]
    theirs = [{"kind": "thinking", "text": "x", "signature": "t", "provider": "anthropic"}]
    assert answered(None, tool_calls=calls, reasoning_blocks=theirs) == [use(), use("c2")]
    assert answered(None, tool_calls=calls) == [use(thoughtSignature="theirs"), use("c2")]
    own = block(SIGNED_END, 0, 2)
    assert answered(None, *FOREIGN, own, tool_calls=calls) == [
        *(use(thoughtSignature="theirs"), use("c2"), SIGNED_END),
    ]


@pytest.mark.parametrize(
    ("model", "is_marked"),
    [
        ("gemini-3-pro-preview", True),
        ("gemini-3.5-flash", True),
        ("gemini-flash-latest", True),
        ("models/gemini-pro-latest", True),
        ("gemini-2.5-pro", False),
        ("gemini-2.5-flash-latest", False),
        ("gemma-3", False),
        ("learnlm", False),
    ],
)
def test_calls_that_others_made_are_marked_for_the_models_that_check(model: str, is_marked: bool) -> None:
    (part,) = answered(None, tool_calls=[called()], model=model)
    assert ("thoughtSignature" in part) == is_marked


# --- there and back ------------------------------------------------------------------------------------------------


def recorded(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The history's message of an answer with these parts, by way of the decoder and of the core."""
    chunks = [{"candidates": [{"content": {"parts": [part]}}]} for part in parts]
    builder, text = OutcomeBuilder(), ""
    builder.provider = "gemini"
    for delta in GeminiDecoder(1_000_000).feed(b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in chunks)):
        builder.note(delta, len(text))
        if isinstance(delta, TextDelta):
            text += delta.text
    builder.note(FinishDelta("stop", "STOP"))
    outcome = builder.outcome()
    if outcome.tool_calls:
        results = ("4",) * len(outcome.tool_calls)
        return Round(outcome.tool_calls, results, text, (), outcome.provider_blocks).messages()[0]
    return answer_message(text, "[no answer]", outcome.reasoning_blocks, outcome.provider_blocks)


@pytest.mark.parametrize(
    "parts",
    [
        [THOUGHT, words("Looking."), SEARCH, FOUND, words("Done.", thoughtSignature="1")],
        [words("é🌊", thoughtSignature="1"), words("x", thoughtSignature="2"), words("y"), SIGNED_END],
        [CODE | {"thoughtSignature": "1"}, RAN, PICTURE, words("It is 1."), SIGNED_END],
        [words("Now."), use(thoughtSignature="1"), use("c2")],
        [THOUGHT, use(thoughtSignature="1"), words("And.", thoughtSignature="2"), use("c2", thoughtSignature="3")],
        [SEARCH, FOUND, use(thoughtSignature="1"), SIGNED_END],
        [words(" \n", thoughtSignature="1"), words("a")],
        [words("a"), {"newThing": {"x": 1}, "thoughtSignature": "1"}, words("b")],
        [words("a"), SIGNED_END],
    ],
)
def test_what_gemini_has_said_goes_back_as_it_was_said(parts: list[dict[str, Any]]) -> None:
    message = json.loads(json.dumps(recorded(parts)))
    assert sent(HI, message, THANKS)[1] == {"role": "model", "parts": parts}


def test_pieces_of_text_go_back_as_one_and_unsigned_thoughts_do_not() -> None:
    parts = [words("hm", thought=True), words("He"), words("llo"), words(" you", thoughtSignature="1")]
    assert sent(HI, recorded(parts))[1]["parts"] == [words("Hello"), words(" you", thoughtSignature="1")]


def test_a_silent_answer_keeps_its_signature() -> None:
    message = answer_message("", "[no answer]", (), (ProviderBlock(provider="gemini", data=SIGNED_END),))
    assert sent(HI, message, THANKS)[1]["parts"] == [SIGNED_END, words("[no answer]")]


def test_without_places_the_thoughts_come_first_and_the_last_signature_at_the_end() -> None:
    blocks = [{"kind": "thought", "text": "hm", "signature": "1"}, *({"kind": "thought", "signature": s} for s in "23")]
    assert sent(HI, {"role": "assistant", "content": "a", "reasoning_blocks": blocks})[1]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "1"},
        words("a", thoughtSignature="3"),
    ]
