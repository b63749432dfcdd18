"""Answers of Gemini from the wire to the terminal event, and into the next request."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import penstock
from penstock.events import AnswerPart, StreamCompleted, TokenEvent
from penstock.testing import Collector
from tests.integration.answering import answering as answers_of
from tests.integration.raw_server import PATIENCE

THOUGHT = {"text": "hm", "thought": True, "thoughtSignature": "s1"}
SEARCH = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "id": "a", "args": {"q": 1}}, "thoughtSignature": "s2"}
FOUND = {"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "id": "a", "response": {"r": 1}}, "thoughtSignature": "s3"}
CODE = {"executableCode": {"language": "PYTHON", "code": "6*7"}}
RAN = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "42"}}
CALL = {"functionCall": {"name": "get_time", "args": {"zone": "UTC"}, "id": "f1"}, "thoughtSignature": "s4"}
SIGNED = {"text": " é🌊.", "thoughtSignature": "s5"}
END = {"text": "", "thoughtSignature": "s6"}


def said(*parts: Any, finish: str | None = None, **others: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}} | others
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], "responseId": "r"}


def wire(event: dict[str, Any]) -> bytes:
    return b"data: %s\r\n\r\n" % json.dumps(event).encode()


answering = partial(answers_of, "gemini", wire)


def test_a_signed_answer_goes_back_part_by_part_with_the_results_and_in_the_next_turn() -> None:
    asked = [
        said(THOUGHT),
        said({"text": "I "}),
        said({"text": "look:"}),
        said(SEARCH, finish="STOP"),
        said(FOUND),
        said(SIGNED),
        said(CALL, finish="STOP"),
    ]
    done = [said(CODE, finish="STOP"), said(RAN), said({"text": "It is 42."}), said(END, finish="STOP")]
    thanked = [said({"text": "Welcome."}, finish="STOP")]

    @penstock.tool
    def get_time(zone: str) -> str:
        """Tell the time."""
        return f"noon in {zone}"

    with answering(asked, done, thanked) as (system, bodies):
        agent = system.agent(model="gemini-3-pro", provider="gemini", tools=[get_time])
        first = agent.chat("Hi", timeout=PATIENCE)
        agent.chat("Thanks", timeout=PATIENCE)
        sent = [bodies.get_nowait()["contents"] for _ in range(3)]
    assert isinstance(first, StreamCompleted)
    assert first.text == "I look: é🌊.It is 42."
    hi = {"role": "user", "parts": [{"text": "Hi"}]}
    assert sent[0] == [hi]
    called = {"role": "model", "parts": [THOUGHT, {"text": "I look:"}, SEARCH, FOUND, SIGNED, CALL]}
    result = {"functionResponse": {"name": "get_time", "response": {"output": "noon in UTC"}, "id": "f1"}}
    round_trip = [called, {"role": "user", "parts": [result]}]
    assert sent[1] == [hi, *round_trip]
    answer = {"role": "model", "parts": [CODE, RAN, {"text": "It is 42."}, END]}
    assert sent[2] == [hi, *round_trip, answer, {"role": "user", "parts": [{"text": "Thanks"}]}]


def test_what_gemini_made_is_not_sent_to_another_account() -> None:
    with answering([said(THOUGHT), said(CODE, finish="STOP"), said(RAN), said(SIGNED, finish="STOP")]) as (system, _):
        terminal = Collector(system.chat("m", "Hi", provider="gemini")).wait_for_terminal(PATIENCE)
    assert isinstance(terminal, StreamCompleted)
    blocks = [
        {"provider": "elsewhere", "data": dict(one.data), "at": one.at, "calls": one.calls}
        for one in terminal.provider_blocks
    ]
    assert len(blocks) == 4
    history: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": terminal.text, "provider_blocks": blocks},
        {"role": "user", "content": "More"},
    ]
    with answering([said({"text": "Yes."}, finish="STOP")]) as (system, bodies):
        answered = Collector(system.chat("m", history, provider="gemini")).wait_for_terminal(PATIENCE)
        contents = bodies.get_nowait()["contents"]
    assert contents[1] == {"role": "model", "parts": [{"text": " é🌊."}]}
    assert answered.provider_metadata["dropped_blocks"] == 4


def test_a_grounded_answer_has_its_sources_parts_tools_and_metadata() -> None:
    text = "Es heißt „zwei Wörter“."
    start, end = text.index("zwei"), text.index("“")
    support = {
        "segment": {
            "startIndex": len(text[:start].encode()),
            "endIndex": len(text[:end].encode()),
            "text": text[start:end],
        },
        "groundingChunkIndices": [0],
    }
    sources = {"groundingChunks": [{"web": {"uri": "https://x", "title": "X"}}], "groundingSupports": [support]}
    tokens = {"chosenCandidates": [{"token": "“.", "logProbability": -0.5}]}
    answer = [
        said({"text": "Ich führe aus."}),
        said(CODE, finish="STOP"),
        said(RAN),
        said({"text": text[:-2]}),
        said({"text": text[-2:]}, finish="STOP", logprobsResult=tokens, groundingMetadata=sources, avgLogprobs=-0.5)
        | {"usageMetadata": {"promptTokenCount": 3, "toolUsePromptTokenCount": 9, "trafficType": "ON_DEMAND"}},
    ]
    with answering(answer) as (system, _):
        collector = Collector(system.chat("m", "Hi", provider="gemini"))
        terminal = collector.wait_for_terminal(PATIENCE)
    assert isinstance(terminal, StreamCompleted)
    assert terminal.text == "Ich führe aus." + text
    assert terminal.parts == (
        AnswerPart(index=0, kind="text", start=0, end=14),
        AnswerPart(index=1, kind="text", start=14, end=14 + len(text)),
    )
    (citation,) = terminal.citations
    assert (terminal.text[citation.start : citation.end], citation.url, citation.part) == (
        "zwei Wörter",
        "https://x",
        1,
    )
    assert [type(one).__name__ for one in terminal.server_tools] == ["ServerToolCall", "ServerToolResult"]
    assert [token.token for token in terminal.logprobs] == ["“."]
    assert [(one.provider, one.at) for one in terminal.provider_blocks] == [("gemini", 14), ("gemini", 14)]
    assert terminal.provider_metadata == {
        "response_id": "r",
        "avg_logprobs": -0.5,
        "usage_details": {"trafficType": "ON_DEMAND"},
    }
    assert terminal.usage is not None
    assert (terminal.usage.tool_input_tokens, terminal.usage.service_tier) == (9, "ON_DEMAND")
    order = [type(event).__name__ for event in collector.events if not isinstance(event, TokenEvent)]
    assert order[-3:] == ["Logprobs", "Citation", "StreamCompleted"]
