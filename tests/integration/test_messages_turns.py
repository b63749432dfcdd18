"""Answers of the Messages API from the wire to the terminal event, and into the next request."""

from __future__ import annotations

from functools import partial
from typing import Any

import penstock
from penstock.errors import ProtocolError
from penstock.events import AnswerPart, StreamCompleted, StreamFailed
from penstock.testing import Collector
from tests.integration.answering import answering as answers_of
from tests.integration.raw_server import PATIENCE
from tests.unit.adapters.providers.test_anthropic import end, head, piece, sse, start, stop

FOUND = {"type": "web_search_tool_result", "tool_use_id": "srv1", "content": [{"encrypted_content": "sealed"}]}
STOP = {"type": "message_stop"}
SEARCH = {"type": "server_tool_use", "id": "srv1", "name": "web_search", "input": {"query": "q"}}


def text(index: int, words: str) -> list[dict[str, Any]]:
    return [start(index, type="text", text=""), piece(index, type="text_delta", text=words), stop(index)]


SEARCHING = [start(1, **SEARCH), stop(1)]


answering = partial(answers_of, "anthropic", sse)


def test_a_second_message_inside_of_the_first_fails_the_stream_with_the_text_so_far() -> None:
    with answering([head(), *text(0, "Hel"), head(), *text(0, "Hello"), end("end_turn"), STOP]) as (system, _):
        stream = system.chat("m", "Hi", provider="anthropic")
        terminal = Collector(stream).wait_for_terminal(PATIENCE)
    assert isinstance(terminal, StreamFailed)
    assert isinstance(terminal.error, ProtocolError)
    assert terminal.partial == "Hel"


def test_a_searched_answer_has_its_parts_sources_tools_and_metadata() -> None:
    source = {"type": "web_search_result_location", "url": "https://x", "title": "X", "cited_text": "w"}
    answer = [
        head(id="msg_1"),
        *text(0, "Looking."),
        *SEARCHING,
        start(2, **FOUND),
        stop(2),
        *text(3, "It says "),
        start(4, type="text", text="", citations=[]),
        piece(4, type="citations_delta", citation=source),
        piece(4, type="text_delta", text="two words"),
        stop(4),
        *text(5, "."),
        end("end_turn"),
        STOP,
    ]
    with answering(answer) as (system, _):
        terminal = Collector(system.chat("m", "Hi", provider="anthropic")).wait_for_terminal(PATIENCE)
    assert isinstance(terminal, StreamCompleted)
    assert terminal.text == "Looking.It says two words."
    assert terminal.parts == (
        AnswerPart(index=0, kind="text", start=0, end=8),
        AnswerPart(index=1, kind="text", start=8, end=26),
    )
    (citation,) = terminal.citations
    assert (terminal.text[citation.start : citation.end], citation.url, citation.part) == ("two words", "https://x", 1)
    assert [type(one).__name__ for one in terminal.server_tools] == ["ServerToolCall", "ServerToolResult"]
    assert [(one.provider, one.data["type"], one.at) for one in terminal.provider_blocks] == [
        ("anthropic", "server_tool_use", 8),
        ("anthropic", "web_search_tool_result", 8),
    ]
    assert terminal.provider_metadata["response_id"] == "msg_1"


def test_a_paused_turn_goes_on_and_the_next_request_has_it_whole() -> None:
    paused = [head(), *text(0, "Looking."), *SEARCHING, end("pause_turn"), STOP]
    rest = [head(), start(0, **FOUND), stop(0), *text(1, "Done."), end("end_turn"), STOP]
    thanked = [head(), *text(0, "Welcome."), end("end_turn"), STOP]
    with answering(paused, rest, thanked) as (system, bodies):
        agent = system.agent(model="m", provider="anthropic")
        first = agent.chat("Hi", timeout=PATIENCE)
        agent.chat("Thanks", timeout=PATIENCE)
        sent = [bodies.get_nowait()["messages"] for _ in range(3)]
    assert isinstance(first, StreamCompleted)
    assert first.text == "Looking.Done."
    looking = {"type": "text", "text": "Looking."}
    assert sent[0] == [{"role": "user", "content": "Hi"}]
    assert sent[1][1:] == [{"role": "assistant", "content": [looking, SEARCH]}]
    whole = [looking, SEARCH, FOUND, {"type": "text", "text": "Done."}]
    assert sent[2][1:] == [{"role": "assistant", "content": whole}, {"role": "user", "content": "Thanks"}]


def test_a_conversation_that_the_provider_has_summed_up_goes_on() -> None:
    summary = {"type": "compaction", "content": "They said hi."}
    summed = [head(), start(0, type="compaction"), piece(0, type="compaction_delta", content=summary["content"])]
    rest = [head(), *text(0, "Hello."), end("end_turn"), STOP]
    with answering([*summed, stop(0), end("compaction"), STOP], rest) as (system, bodies):
        answer = system.agent(model="m", provider="anthropic").chat("Hi", timeout=PATIENCE)
        sent = [bodies.get_nowait()["messages"] for _ in range(2)]
    assert isinstance(answer, StreamCompleted)
    assert answer.text == "Hello."
    assert sent[1] == [*sent[0], {"role": "assistant", "content": [summary]}]


def test_a_program_goes_on_in_its_container_with_the_results_of_the_tools() -> None:
    container = {"id": "cnt_1", "expires_at": "2026-01-01T00:00:00Z"}
    program = {"type": "server_tool_use", "id": "srv1", "name": "code_execution", "input": {"code": "roll()"}}
    asks = {"type": "tool_use", "id": "t1", "name": "roll", "input": {}, "caller": {"type": "x", "tool_id": "srv1"}}
    waits = {"type": "message_delta", "delta": {"stop_reason": "tool_use", "container": container}}
    asked = [head(), start(0, **program), stop(0), start(1, **asks), stop(1), waits, STOP]
    done = [head(), *text(0, "Four."), end("end_turn"), STOP]

    @penstock.tool
    def roll() -> int:
        """Roll a die."""
        return 4

    with answering(asked, done, done) as (system, bodies):
        agent = system.agent(model="m", provider="anthropic", tools=[roll])
        agent.chat("Roll", timeout=PATIENCE)
        agent.chat("Thanks", timeout=PATIENCE)
        sent = [bodies.get_nowait() for _ in range(3)]
    assert [body.get("container") for body in sent] == [None, "cnt_1", None]
    assert sent[1]["messages"][1]["content"] == [program, asks]
