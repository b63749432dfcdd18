"""Answers of the loopback provider that have parts: probabilities, pauses, faults, and what requests give back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.adapters.loopback.encoder import AnswerContext
from penstock.adapters.loopback.faults import ErrorFrame, MalformedJson, StallAfter, TruncateAfter
from penstock.adapters.loopback.models import default_script
from penstock.adapters.loopback.request import ReceivedRequest
from penstock.adapters.loopback.resumption import KeptResponses, ResumedEncoder
from penstock.adapters.loopback.script import (
    Answer,
    Found,
    Part,
    Picture,
    Ran,
    Said,
    ScriptedCall,
    Search,
    ServerTool,
    Silence,
    Thought,
)
from penstock.adapters.loopback.timeline import (
    EndEarly,
    FaultBegins,
    Head,
    Stall,
    WaitUntil,
    stream_timeline,
    whole_timeline,
)
from penstock.events import TokenLogprob
from tests.unit.adapters.test_loopback_parts import (
    ALL,
    CONTEXT,
    DIALECTS,
    EVERY,
    encode,
    of,
    streamed,
    whole,
)

# --- probabilities ---------------------------------------------------------------------------------------------------


def likely(answer: Answer, name: str, **more: Any) -> list[Any]:
    """Tokens with their logarithms and the number of alternatives, from the wire."""
    found: list[Any] = []
    for document in streamed(answer, name, **more):
        if name in ("gemini", "gemini-array"):
            result = document["candidates"][0].get("logprobsResult")
            if result:
                [chosen] = result["chosenCandidates"]
                tops = len(result["topCandidates"][0]["candidates"]) if "topCandidates" in result else 0
                found.append((chosen["token"], chosen["logProbability"], tops))
            continue
        items: Any = document.get("logprobs") if name == "ollama" else []
        if name == "chat" and document["choices"]:
            items = (document["choices"][0]["logprobs"] or {}).get("content")
        elif name == "responses" and document["type"] == "response.output_text.delta":
            items = document["logprobs"]
        found += [(one["token"], one["logprob"], len(one["top_logprobs"])) for one in items or ()]
    return found


@pytest.mark.parametrize("name", ["chat", "responses", "gemini", "gemini-array", "ollama"])
def test_probabilities_are_sent_if_the_request_asks_or_the_answer_has_them(name: str) -> None:
    answer = Answer("a b c")
    assert likely(answer, name) == []
    made_up = [("a", -1 / 16, 0), (" b", -2 / 16, 0), (" c", -3 / 16, 0)]
    assert likely(answer, name, top_logprobs=0) == made_up
    assert [tops for *_, tops in likely(answer, name, top_logprobs=3)] == [3, 3, 3]
    assert likely(answer.replace(logprobs="always"), name) == made_up
    assert likely(answer.replace(logprobs="never"), name, top_logprobs=3) == []
    own = of(Said("x"), Said(logprobs=[TokenLogprob(token="y", logprob=-2.0, top=(("y", -2.0), ("z", -3.0)))]))
    assert likely(own, name) == [("y", -2.0, 2)]
    assert [token for token, *_ in likely(own, name, top_logprobs=0)] == ["x", "y"]
    assert likely(own.replace(logprobs="never"), name, top_logprobs=0) == []


def test_a_plain_answer_says_nothing_else_if_probabilities_are_asked_for() -> None:
    answer = Answer("a", reasoning="hm", signature="c2ln", tool_calls=(ScriptedCall("f", signature="c2ln"),))
    for name in ("chat", "ollama"):
        assert "c2ln" not in json.dumps(streamed(answer, name, top_logprobs=0))
    plain, asked = (streamed(answer, "chat", top_logprobs=count) for count in (None, 0))
    for chunk in asked:
        for choice in chunk["choices"]:
            choice["logprobs"] = None
    assert asked == plain


def test_a_whole_answer_has_its_probabilities_too() -> None:
    answer = Answer("a b", logprobs="always")
    assert len(whole(answer, "chat")["choices"][0]["logprobs"]["content"]) == 2
    assert len(whole(answer, "responses")["output"][0]["content"][0]["logprobs"]) == 2
    candidate = whole(answer, "gemini")["candidates"][0]
    assert len(candidate["logprobsResult"]["chosenCandidates"]) == 2
    assert candidate["avgLogprobs"] == -3 / 32
    assert len(whole(answer, "ollama")["logprobs"]) == 2
    assert "logprob" not in json.dumps(whole(answer, "anthropic"))


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 3}, 3),
        ("/v1/chat/completions", {"logprobs": True}, 0),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 10**9}, 20),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": "3"}, 0),
        ("/v1/chat/completions", {"logprobs": False, "top_logprobs": 3}, None),
        ("/v1/chat/completions", {"logprobs": 5}, None),
        ("/v1/responses", {"include": ["message.output_text.logprobs"], "top_logprobs": 2}, 2),
        ("/v1/responses", {"include": ["x"], "top_logprobs": 2}, None),
        ("/v1/responses", {"include": 5}, None),
        ("/api/chat", {"logprobs": True, "top_logprobs": 1}, 1),
        ("/v1beta/models/m:generateContent", {"generationConfig": {"responseLogprobs": True, "logprobs": 4}}, 4),
        ("/v1beta/models/m:streamGenerateContent", {"generationConfig": {"responseLogprobs": True}}, 0),
        ("/v1beta/models/m:generateContent", {"generationConfig": 5}, None),
        ("/v1beta/models/m:generateContent", {"logprobs": True}, None),
    ],
)
def test_a_request_asks_for_probabilities_in_its_apis_way(path: str, body: Any, count: int | None) -> None:
    request = ReceivedRequest(number=1, method="POST", path=path, model="m", body=body, headers={})
    assert request.top_logprobs == count


# --- times and faults ------------------------------------------------------------------------------------------------


def waits(steps: list[Any]) -> list[float]:
    return [step.seconds for step in steps if isinstance(step, WaitUntil)]


@EVERY
def test_a_pause_is_due_after_what_precedes_it_and_delays_what_follows(name: str) -> None:
    answer = of(Silence(1), Said(tokens=["a", "b"]), Silence(0.5), Silence(0.25), Said("c"), Silence(2))
    steps = encode(answer, name)
    told = [step.seconds if isinstance(step, WaitUntil) else step for step in steps]
    order = [
        each if isinstance(each, (int, float)) else next((mark for mark in "abc" if f'"{mark}"'.encode() in each), None)
        for each in told
        if not isinstance(each, Head)
    ]
    assert [each for each in order if each is not None] == [1, "a", "b", 1.5, 1.75, "c", 3.75]
    assert waits(encode(answer.replace(pace=10, first_token_delay=5), name)) == [
        *(6, 6, 16),  # the first pause, a, b
        *(16.5, 16.75, 26.75),  # two pauses, c
        28.75,
    ]


TOOLS: dict[str, Part] = {
    "search": Search("q", [Found("u")], takes=2),
    "code": Ran("print(1)", "RESULT", takes=2),
    "mcp": ServerTool("f", {}, "RESULT", server="s", takes=2),
    "shell": ServerTool("shell", {}, "RESULT", takes=2),
    "unknown": ServerTool("mystery", {}, "RESULT", takes=2),
}


@EVERY
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_takes_its_time_between_call_and_result(name: str, tool: str) -> None:
    answer = of(Said("a"), TOOLS[tool], Silence(1), Said("b"))
    before, after, last = (b"".join(group) for group in between_waits(encode(answer, name)))
    marks = [b"RESULT", b"sources", b"web_search_result", b"toolResponse", b"search_results"]
    assert b'"a"' in before
    assert not any(mark in before for mark in marks)
    assert b'"b"' in last
    is_said = name != "ollama" and not (name == "responses" and tool == "unknown")
    assert any(mark in after for mark in marks) == is_said
    assert waits(encode(answer, name)) == [2, 3]
    paced = waits(encode(answer.replace(pace=10), name))
    assert paced == sorted(paced)
    assert paced[-1] >= 3 + 10
    assert answer.paused_s == 3


def between_waits(steps: list[Any]) -> list[list[bytes]]:
    """The events before, between and after the steps that wait."""
    groups: list[list[bytes]] = [[]]
    for step in steps:
        if isinstance(step, WaitUntil):
            groups.append([])
        elif isinstance(step, bytes):
            groups[-1].append(step)
    return groups


def test_a_tool_without_a_result_takes_no_time() -> None:
    answer = of(Search("q", None, takes=2), Said("b"))
    assert (waits(encode(answer, "anthropic")), answer.paused_s) == ([], 0)


def test_gemini_may_finish_with_the_code_already() -> None:
    answer = of(Ran("x", "1", early_finish=True), Said("b"))
    reasons = [document["candidates"][0].get("finishReason") for document in streamed(answer, "gemini")]
    assert reasons == ["STOP", None, None, "STOP"]
    assert whole(answer, "gemini")["candidates"][0]["finishReason"] == "STOP"


@EVERY
def test_a_whole_answer_waits_for_all_its_pauses(name: str) -> None:
    parts = (Said(tokens=["a", "b"]), Silence(2), Said("c"), Ran("", "", takes=1))
    answer = of(*parts, pace=10, first_token_delay=5)
    steps = list(whole_timeline(answer, DIALECTS[name].make_encoder(answer, CONTEXT)))
    assert waits(steps) == [5 + 3 + 10 * (answer.paced_count - 1)]


@pytest.mark.parametrize("name", ["chat", "responses", "anthropic", "gemini", "gemini-array"])
@pytest.mark.parametrize(
    "tool", [Search("q", [Found("u")]), Ran("print(1)", "1"), ServerTool("f", {}, "r", server="s")]
)
def test_an_answer_can_break_off_in_the_middle_of_a_tool(name: str, tool: Part) -> None:
    answer = of(Said("a"), tool, Said("b"))
    marks = {"chat": b"executed_tools", "responses": b"in_progress", "anthropic": b"tool_use"}
    begun = marks.get(name, b"executableCode" if isinstance(tool, Ran) else b"toolCall")
    cut = encode(answer.replace(faults=(TruncateAfter(2, clean=True),)), name)
    body = b"".join(step for step in cut if isinstance(step, bytes))
    assert cut[-2:] == [FaultBegins(), EndEarly(clean=True)]
    assert begun in body
    assert b'"b"' not in body
    assert b"tool_result" not in body
    assert b"Response" not in body
    assert b"codeExecutionResult" not in body


@EVERY
def test_every_fault_may_happen_anywhere_in_an_answer_with_parts(name: str) -> None:
    count = ALL.paced_count + 2
    for place in range(count):
        steps = encode(ALL.replace(faults=(StallAfter(place, 9.0), MalformedJson(place))), name)
        assert [step for step in steps if isinstance(step, Stall)] == [Stall(9.0)]
        assert any(isinstance(step, bytes) and b"this JSON" in step for step in steps)
        errors = encode(ALL.replace(faults=(ErrorFrame(place, message="it broke"),)), name)
        assert any(isinstance(step, bytes) and b"it broke" in step for step in errors[-3:])


@EVERY
def test_a_stall_in_the_middle_changes_none_of_the_events(name: str) -> None:
    plain = [step for step in encode(ALL, name) if isinstance(step, bytes)]
    for place in range(ALL.paced_count + 1):
        steps = encode(ALL.replace(faults=(StallAfter(place, 1.0),)), name)
        assert [step for step in steps if isinstance(step, bytes)] == plain


@EVERY
def test_the_length_announced_is_the_length_sent(name: str) -> None:
    answer = ALL.replace(framing="length", timestamps=True, comments=3, bom=True)
    steps = encode(answer, name)
    [head] = [step for step in steps if isinstance(step, Head)]
    assert int(dict(head.headers)["content-length"]) == sum(len(step) for step in steps if isinstance(step, bytes))


@EVERY
def test_the_body_without_pauses_is_the_same(name: str) -> None:
    encoder = DIALECTS[name].make_encoder(ALL, CONTEXT)
    other = DIALECTS[name].make_encoder(ALL, CONTEXT)
    opened = [list(each.opening()) for each in (encoder, other)]
    assert opened[0] == opened[1]
    pieces = [list(segment.events) for segment in other.segments()]
    assert len(pieces) == 2
    assert list(encoder.body()) == list(itertools.chain(*pieces))


def test_a_response_with_parts_is_resumed_with_the_numbers_and_ids_it_had() -> None:
    kept = KeptResponses()
    answer = ALL.replace(metadata={"response_id": "resp_own"})
    context = AnswerContext(number=7, model="m", created=0, input_tokens=3, background=True)
    kept.keep(answer, context)
    resumed = kept.resume("resp_own")
    assert resumed is not None
    again, at = resumed
    first = [step for step in encode(answer, "responses", created=0, background=True) if isinstance(step, bytes)]
    for after in (-1, 0, 17, len(first) - 2, len(first) - 1):
        encoder = ResumedEncoder(again, at, after)
        steps = stream_timeline(again, lambda encoder=encoder: encoder)  # type: ignore[misc]
        rest = [step for step in steps if isinstance(step, bytes)]
        assert rest == first[after + 1 :]
        assert not any(isinstance(step, WaitUntil) for step in steps)
    assert json.loads(ResumedEncoder(again, at, -1).whole())["id"] == "resp_own"


def test_the_model_extras_says_something_of_every_kind() -> None:
    answer = default_script(1000).models["extras"]
    assert isinstance(answer, Answer)
    kinds = {type(part) for part in answer.parts}
    assert {Thought, Said, Search, Ran, Picture, Silence} <= kinds


# --- requests --------------------------------------------------------------------------------------------------------


def received(path: str, **body: Any) -> ReceivedRequest:
    return ReceivedRequest(number=1, method="POST", path=path, model="m", body=body, headers={})


def texts() -> Iterator[tuple[ReceivedRequest, list[str]]]:
    """Requests that give back what an answer had, and the types of what is given back."""
    user = {"role": "user", "content": "Hello"}
    yield (
        received(
            "/v1/responses",
            input=[
                user,
                {"type": "reasoning", "encrypted_content": "e"},
                {"type": "compaction", "encrypted_content": "e"},
                {"type": "web_search_call", "id": "ws"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
                {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"},
                {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
            ],
        ),
        ["reasoning", "compaction", "web_search_call"],
    )
    yield (
        received(
            "/v1/messages",
            messages=[
                user,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "compaction", "content": "s"},
                        {"type": "thinking", "thinking": "t", "signature": "s"},
                        {"type": "redacted_thinking", "data": "d"},
                        {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}},
                        {"type": "web_search_tool_result", "tool_use_id": "1", "content": []},
                        {"type": "text", "text": "a"},
                        {"type": "tool_use", "id": "2", "name": "f", "input": {}},
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "2", "content": "done"}]},
            ],
        ),
        ["compaction", "thinking", "redacted_thinking", "server_tool_use", "web_search_tool_result"],
    )
    yield (
        received(
            "/v1beta/models/m:generateContent",
            contents=[
                {"parts": [{"text": "Hello"}]},
                {
                    "role": "model",
                    "parts": [
                        {"executableCode": {"code": "x"}, "thoughtSignature": "s", "type": "code"},
                        {"text": "a"},
                        {"functionCall": {"name": "f"}, "thoughtSignature": "s", "type": "call"},
                    ],
                },
                {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": "done"}}}]},
            ],
        ),
        ["code", "call"],
    )
    entry = {"type": "reasoning.text", "text": "t", "signature": "s"}
    called = {"id": "1", "type": "function", "function": {"name": "f"}, "extra_content": {"google": {}}}
    yield (
        received(
            "/v1/chat/completions",
            messages=[
                user,
                {"role": "assistant", "content": "a", "reasoning_details": [entry], "tool_calls": [called]},
                {"role": "tool", "tool_call_id": "1", "content": "done"},
            ],
        ),
        ["reasoning.text", "function"],
    )


def test_a_request_shows_what_it_gives_back_and_what_the_user_said_last() -> None:
    for request, kinds in texts():
        assert [block["type"] for block in request.returned] == kinds
        assert request.last_user_text == "Hello"
        assert request.tool_result == "done"
        assert request.count_words() == (3 if "chat" in request.path else 2)
    thought = received("/api/chat", messages=[{"role": "assistant", "content": "a", "thinking": "t"}])
    assert thought.returned == [{"thinking": "t"}]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"type": "local_shell_call_output", "output": "ok"}, "ok"),
        ({"type": "shell_call_output", "output": [{"stdout": "x"}]}, '[{"stdout":"x"}]'),
        ({"type": "apply_patch_call_output", "status": "completed", "output": "ok"}, "ok"),
        ({"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "u"}}, '{"type":"com'),
        ({"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}, "true"),
        ({"type": "custom_tool_call_output", "output": [{"type": "input_text", "text": "ok"}]}, "ok"),
    ],
)
def test_results_of_every_type_are_results_of_tools(item: dict[str, Any], text: str) -> None:
    request = received("/v1/responses", input=[{"role": "user", "content": "Hello"}, item])
    assert (request.tool_result or "").startswith(text)
    assert request.last_user_text == "Hello"
