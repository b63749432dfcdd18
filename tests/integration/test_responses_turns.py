"""Answers of the Responses API from the wire through a stream and an agent, and into the next request."""

from __future__ import annotations

import json
import queue
from functools import partial
from typing import Any

import penstock
from penstock.events import StreamCompleted
from penstock.testing import Collector
from tests.integration.answering import answering as answers_of
from tests.integration.raw_server import PATIENCE
from tests.unit.adapters.providers.responses_bodies import added, completed, delta, done, event, sse

REASONING: dict[str, Any] = {"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": "sealed"}
COMPACTION: dict[str, Any] = {"type": "compaction", "id": "k", "encrypted_content": "sealed too"}
SHELL: dict[str, Any] = {
    "type": "shell_call",
    "id": "sh",
    "call_id": "c",
    "action": {"commands": ["ls"], "timeout_ms": 5, "max_output_length": 10},
    "environment": {"type": "local"},
    "status": "completed",
}
ASKED = [done(0, **COMPACTION), done(1, **REASONING), delta("Looking.", 2), done(3, **SHELL), completed()]
ANSWERED = [delta("Done."), completed()]
USER = {"role": "user", "content": "Hi"}


answering = partial(answers_of, "openai-responses", sse)


def test_a_tool_of_the_clients_shell_runs_and_everything_goes_back_in_order() -> None:
    ran: queue.Queue[Any] = queue.Queue()

    def run(action: Any) -> Any:
        """Run commands."""
        ran.put(action)
        return {"stdout": "a.txt", "stderr": ""}

    with answering(ASKED, ANSWERED, ANSWERED) as (system, bodies):
        agent = system.agent(model="m", provider="openai-responses", tools=[penstock.tool(type="shell")(run)])
        first = agent.chat("Hi", timeout=PATIENCE)
        agent.chat("Thanks", timeout=PATIENCE)
        requests = [bodies.get_nowait() for _ in range(3)]
    assert isinstance(first, StreamCompleted)
    assert ran.get_nowait() == SHELL["action"]
    assert requests[0]["tools"] == [{"type": "shell"}]
    output = {
        "type": "shell_call_output",
        "call_id": "c",
        "output": [{"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        "max_output_length": 10,
    }
    turn = [USER, COMPACTION, REASONING, {"role": "assistant", "content": "Looking."}, SHELL, output]
    assert requests[1]["input"] == turn
    answer = {"role": "assistant", "content": "Done."}
    assert requests[2]["input"] == [*turn, answer, {"role": "user", "content": "Thanks"}]


def test_an_agent_without_the_tool_answers_the_model_so() -> None:
    with answering(ASKED, ANSWERED) as (system, bodies):
        agent = system.agent(model="m", provider="openai-responses")
        end = agent.chat("Hi", timeout=PATIENCE)
        bodies.get_nowait()
        (*_, call, output) = bodies.get_nowait()["input"]
    assert isinstance(end, StreamCompleted)
    assert end.text.endswith("Done.")
    assert (call, output["type"], output["call_id"]) == (SHELL, "shell_call_output", "c")
    assert "shell" in json.dumps(output["output"])


def test_an_answer_that_is_only_a_picture_is_a_whole_answer() -> None:
    picture = {"type": "image_generation_call", "id": "ig", "result": "QQ==", "output_format": "png"}
    with answering([done(0, **picture), completed()]) as (system, _):
        stream = system.respond("m", "Draw")
        end = Collector(stream).wait_for_terminal(PATIENCE)
    assert isinstance(end, StreamCompleted)
    assert (end.text, end.finish_reason) == ("", "stop")
    assert [(part.mime, part.data) for part in end.media] == [("image/png", "QQ==")]


def test_parts_sources_and_metadata_reach_the_terminal_event() -> None:
    source = {"type": "url_citation", "url": "https://x", "title": "X", "start_index": 5, "end_index": 8}
    body = [
        event("created", response={"id": "resp_1", "service_tier": "default"}),
        added(0, "message", phase="commentary"),
        delta("Looking."),
        done(1, "web_search_call", id="w", action={"type": "search", "query": "q"}),
        added(2, "message", phase="final_answer"),
        delta("It is two.", 2),
        event("output_text.annotation.added", output_index=2, content_index=0, annotation=source),
        completed(id="resp_1"),
    ]
    with answering(body) as (system, _):
        end = Collector(system.respond("m", "Hi")).wait_for_terminal(PATIENCE)
    assert isinstance(end, StreamCompleted)
    assert [(end.text[part.start : part.end], part.phase) for part in end.parts] == [
        ("Looking.", "commentary"),
        ("It is two.", "final_answer"),
    ]
    (citation,) = end.citations
    assert (end.text[citation.start : citation.end], citation.url, citation.part) == (" tw", "https://x", 1)
    assert end.provider_metadata == {"response_id": "resp_1", "service_tier": "default"}
    assert [block.data["type"] for block in end.provider_blocks] == ["web_search_call"]
