"""Answers of the Responses API that are not streamed."""

from __future__ import annotations

from typing import Any

from penstock.errors import ApiError
from penstock.events import (
    AnswerPart,
    Citation,
    MediaPart,
    ProviderBlock,
    ReasoningBlock,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamFailed,
    TokenLogprob,
)
from penstock.gateway.answers.responses import answer, in_progress, queued, replayed
from tests.unit.gateway.responses_kit import (
    SID,
    Projected,
    call_of,
    cited,
    completed,
    done,
    numbered,
    opening,
    piece,
    restarted,
    started,
    text,
)


def test_an_answer_has_the_items_and_ids_that_were_streamed() -> None:
    citation = cited(6, 9)
    search = ServerToolCall(id="t1", name="web_search", input={"query": "q"})
    found = ServerToolResult(id="t1", name="web_search", output={"sources": [{"type": "url", "url": "https://x"}]})
    picture = MediaPart(kind="image", mime="image/png", data="AA==")
    block = ReasoningBlockClosed(index=0, kind="thinking", signature="s", provider="anthropic")
    events = [
        text("Hm", "reasoning"),
        block,
        search,
        found,
        text("Hello "),
        text("you", part=1),
        citation,
        picture,
        started(),
        piece('{"x":1}'),
        completed(call_of()),
    ]
    end = done(
        "Hello you",
        reasoning="Hm",
        parts=(
            AnswerPart(index=0, kind="reasoning", start=0, end=2),
            AnswerPart(index=0, kind="text", start=0, end=6),
            AnswerPart(index=1, kind="text", start=6, end=9),
        ),
        reasoning_blocks=(ReasoningBlock(kind="thinking", text="Hm", signature="s", provider="anthropic"),),
        server_tools=(search, found),
        citations=(citation,),
        media=(picture,),
        tool_calls=(call_of(),),
        finish_reason="tool_calls",
    )
    seen = Projected([*events, end])
    assert answer(seen.events[-1], opening()) == seen.last["response"]  # type: ignore[arg-type]


def test_a_search_between_pieces_of_text_stands_where_it_was() -> None:
    search = ServerToolCall(id="t1", name="web_search", input={"query": "q"})
    found = ServerToolResult(id="t1", name="web_search", output=[{"url": "https://x.test"}])
    asked = {"type": "server_tool_use", "id": "t1", "name": "web_search", "input": {}}
    sealed = {"type": "web_search_tool_result", "tool_use_id": "t1", "content": []}
    blocks = tuple(ProviderBlock(provider="anthropic", data=data, at=3) for data in (asked, sealed))
    parts = (AnswerPart(index=0, kind="text", start=0, end=3), AnswerPart(index=1, kind="text", start=3, end=7))
    for spans in (parts, ()):
        said = "Hm.Yes."
        events = [text("Hm."), search, found, text("Yes.", part=1 if spans else 0)]
        end = done(said, parts=spans, server_tools=(search, found), provider_blocks=blocks)
        seen = Projected([*events, end])
        assert answer(seen.events[-1], opening()) == seen.last["response"]  # type: ignore[arg-type]
        assert [item["type"] for item in seen.output] == ["message", "web_search_call", "message"]


def test_the_places_of_an_agents_last_round_are_not_those_of_the_whole_text() -> None:
    search = ServerToolCall(id="t1", name="web_search", input={"query": "q"})
    block = ProviderBlock(provider="anthropic", data={"type": "server_tool_use", "id": "t1"}, at=2)
    end = done("Hello", tool_calls=(call_of(),), server_tools=(search,), provider_blocks=(block,))
    kinds = [item["type"] for item in answer(end, opening(is_turn=True))["output"]]
    assert kinds == ["web_search_call", "message"]
    kinds = [item["type"] for item in answer(end, opening())["output"]]
    assert kinds == ["message", "web_search_call", "message", "function_call"]


def test_probabilities_are_those_of_the_parts_they_belong_to() -> None:
    tokens = tuple(TokenLogprob(token=token, logprob=-0.5) for token in ("One", ".", "Two"))
    parts = (AnswerPart(index=0, kind="text", start=0, end=4), AnswerPart(index=1, kind="text", start=4, end=7))
    made = answer(done("One.Two", parts=parts, logprobs=tokens), opening())
    first, second = made["output"][0]["content"]
    assert [entry["token"] for entry in first["logprobs"]] == ["One", "."]
    assert [entry["token"] for entry in second["logprobs"]] == ["Two"]


def test_a_refusal_is_answered_as_one() -> None:
    made = answer(done("", refusal="No.", finish_reason="refusal"), opening())
    assert made["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]
    assert made["status"] == "completed"


def test_what_is_stored_of_a_failed_and_of_a_cancelled_response() -> None:
    failed = answer(StreamFailed(stream_id=SID, seq=1, partial="Hel", error=ApiError(500, "boom")), opening())
    assert (failed["status"], failed["error"]["type"]) == ("failed", "server_error")
    assert failed["output"][0]["status"] == "incomplete"
    cancelled = answer(StreamCancelled(stream_id=SID, seq=1, partial="Hel", reason="user"), opening())
    assert (cancelled["status"], cancelled["incomplete_details"]) == ("cancelled", None)
    assert cancelled["output"][0]["content"][0]["text"] == "Hel"


def test_before_anything_has_come() -> None:
    at = opening({"background": True, "model": "m", "metadata": {"a": "b"}})
    assert (queued(at)["status"], queued(at)["output"], queued(at)["background"]) == ("queued", [], True)
    assert in_progress(at)["status"] == "in_progress"
    assert in_progress(at)["metadata"] == {"a": "b"}
    assert in_progress(at)["usage"] is None


def test_a_log_that_is_not_at_its_end_is_a_response_in_progress() -> None:
    made = replayed(numbered([text("Hel"), started(), piece('{"x"')]), opening())
    assert made["status"] == "in_progress"
    assert [(item["type"], item["status"]) for item in made["output"]] == [
        ("message", "completed"),
        ("function_call", "in_progress"),
    ]
    assert made["output"][1]["arguments"] == '{"x"'


def test_a_log_with_a_reset_keeps_the_ids_that_were_streamed() -> None:
    seen = Projected([text("Hel"), restarted(), text("Hi"), done("Hi")])
    assert replayed(seen.events, opening()) == seen.last["response"]
    assert replayed(seen.events, opening())["output"][0]["id"] == "msg_resp_1_1"


def test_a_place_in_a_document_survives() -> None:
    where: dict[str, Any] = {"document_index": 2, "start_page_number": 5}
    citation = Citation(kind="document", title="a.pdf", start=0, end=2, location=where)
    made = answer(done("Hi", citations=(citation,)), opening())
    (annotation,) = made["output"][0]["content"][0]["annotations"]
    assert (annotation["index"], annotation["start_page_number"], annotation["end_index"]) == (2, 5, 2)
