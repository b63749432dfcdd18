"""A stream's events as events of OpenAI's Responses API: one test for each row of the table of projections."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.errors import ApiError, IncompleteStream, RateLimited
from penstock.events import (
    AnswerPart,
    Choice,
    Citation,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamFailed,
    StreamSnapshot,
    StreamStarted,
    TokenLogprob,
    ToolApprovalRequested,
    ToolCall,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
    Usage,
)
from penstock.gateway.problems import Problem, RequestRefused
from penstock.gateway.projections.frames import joined
from penstock.gateway.projections.responses import ResponsesProjection, error_body
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
    read,
    restarted,
    started,
    text,
)

OPENED = ["output_item.added", "content_part.added"]
CLOSED = ["output_text.done", "content_part.done", "output_item.done"]


# --- text -------------------------------------------------------------------------------------------------------------


def test_a_text_answer_has_the_order_that_the_clients_read() -> None:
    seen = Projected([text("Hel"), text("lo"), done("Hello")])
    assert [event["sequence_number"] for event in seen.said] == list(range(len(seen.said)))
    assert seen.kinds == [*OPENED, "output_text.delta", "output_text.delta", *CLOSED, "completed"]
    first, second, added, part, one, two, said, closed, item, last = seen.said
    assert (first["type"], second["type"]) == ("response.created", "response.in_progress")
    assert first["response"]["output"] == []
    assert first["response"]["status"] == "in_progress"
    assert added == {
        "type": "response.output_item.added",
        "sequence_number": 2,
        "output_index": 0,
        "item": {
            "id": "msg_resp_1_0",
            "type": "message",
            "status": "in_progress",
            "content": [],
            "role": "assistant",
        },
    }
    place = {"item_id": "msg_resp_1_0", "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    whole = {**empty, "text": "Hello"}
    assert part == {"type": "response.content_part.added", "sequence_number": 3, **place, "part": empty}
    assert one == {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        **place,
        "delta": "Hel",
        "logprobs": [],
    }
    assert two["delta"] == "lo"
    assert said == {
        "type": "response.output_text.done",
        "sequence_number": 6,
        **place,
        "text": "Hello",
        "logprobs": [],
    }
    assert closed == {"type": "response.content_part.done", "sequence_number": 7, **place, "part": whole}
    message = {
        "id": "msg_resp_1_0",
        "type": "message",
        "status": "completed",
        "content": [whole],
        "role": "assistant",
    }
    assert item == {
        "type": "response.output_item.done",
        "sequence_number": 8,
        "output_index": 0,
        "item": message,
    }
    assert last["response"]["output"] == [message]
    assert last["response"]["status"] == "completed"
    assert seen.frames[-1].data == b"data: [DONE]\n\n"


def test_the_heartbeat_is_a_comment_with_one_line_break() -> None:
    assert ResponsesProjection.heartbeat == b": hb\n"


def test_pieces_are_merged_by_their_part_and_keep_the_last_number() -> None:
    seen = Projected([text("a"), text("b"), text("c"), text("no", "refusal"), done("abc", refusal="no")])
    events = read(joined(seen.frames, seen.projection))
    deltas = [event for event in events if event["type"].endswith(".delta")]
    assert [(event["delta"], event["sequence_number"]) for event in deltas] == [("abc", 6), ("no", 10)]
    for frame in seen.frames:
        if frame.key is not None:
            assert frame.data == seen.projection.delta(frame.key, frame.text, frame.seq, frame.number)


def test_a_reader_that_resumes_gets_what_it_has_not_seen_wherever_it_was_cut() -> None:
    events = [text("Hel", "reasoning"), text("a"), text("b"), started(), piece('{"x":1}'), text("c")]
    seen = Projected([*events, completed(call_of()), done("abc")])
    whole = "".join(event.get("delta", "") for event in seen.said)
    for cut in range(-1, len(seen.said)):
        before = [frame for frame in seen.frames if frame.number <= cut]
        after = [frame for frame in seen.frames if frame.number > cut]
        parts = [read(joined(frames, seen.projection)) for frames in (before, after)]
        assert "".join(event.get("delta", "") for part in parts for event in part) == whole
        assert all(event["sequence_number"] > cut for event in parts[1])
        assert after[-1].data == b"data: [DONE]\n\n"


def test_parts_of_one_phase_are_parts_of_one_message_and_another_phase_is_another_message() -> None:
    seen = Projected(
        [
            text("Let me", phase="commentary"),
            text(" see", part=1, phase="commentary"),
            text("42", part=2, phase="final_answer"),
            done("Let me see42"),
        ]
    )
    first, second = seen.output
    assert [part["text"] for part in first["content"]] == ["Let me", " see"]
    assert (first["phase"], second["phase"]) == ("commentary", "final_answer")
    assert [event["content_index"] for event in seen.of("output_text.delta")] == [0, 1, 0]
    assert seen.of("output_item.added")[1]["item"]["phase"] == "final_answer"


def test_a_refusal_is_a_part_of_the_message() -> None:
    seen = Projected(
        [text("Well"), text("I can't", "refusal"), done("Well", refusal="I can't", finish_reason="refusal")]
    )
    (item,) = seen.output
    assert item["content"][1] == {"type": "refusal", "refusal": "I can't"}
    assert seen.of("refusal.delta")[0]["content_index"] == 1
    assert seen.of("refusal.done")[0]["refusal"] == "I can't"
    assert seen.last["type"] == "response.completed"


# --- reasoning --------------------------------------------------------------------------------------------------------


def test_reasoning_is_a_summary_whose_parts_are_those_of_the_answer() -> None:
    block = ReasoningBlockClosed(index=0, kind="reasoning", signature="seal", id="rs_9", provider="openai")
    seen = Projected([text("One", "reasoning"), text("Two", "reasoning", 1), block, text("Hi", part=1), done("Hi")])
    assert seen.kinds[:12] == [
        "output_item.added",
        *["reasoning_summary_part.added", "reasoning_summary_text.delta"],
        *["reasoning_summary_text.done", "reasoning_summary_part.done"],
        *["reasoning_summary_part.added", "reasoning_summary_text.delta"],
        *["reasoning_summary_text.done", "reasoning_summary_part.done"],
        "output_item.done",
        *OPENED,
    ]
    assert [event["summary_index"] for event in seen.of("reasoning_summary_text.delta")] == [0, 1]
    assert seen.output[0] == {
        "id": "rs_resp_1_0",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "One"}, {"type": "summary_text", "text": "Two"}],
        "encrypted_content": "seal",
        "penstock": {"provider": "openai", "kind": "reasoning", "id": "rs_9"},
    }


def test_reasoning_of_an_open_model_is_content() -> None:
    at = opening(variant={"reasoning": "text"})
    seen = Projected([text("Hm", "reasoning"), text("Hi"), done("Hi", reasoning="Hm")], at=at)
    names = ["content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done"]
    assert seen.kinds[:6] == ["output_item.added", *names, "output_item.done"]
    assert seen.output[0]["content"] == [{"type": "reasoning_text", "text": "Hm"}]
    assert seen.output[0]["summary"] == []


def test_every_signed_block_is_an_item_of_its_own() -> None:
    def block(index: int, kind: str) -> ReasoningBlockClosed:
        return ReasoningBlockClosed(index=index, kind=kind, signature=f"s{index}", provider="anthropic")

    seen = Projected(
        [
            text("A", "reasoning"),
            block(0, "thinking"),
            block(1, "redacted_thinking"),
            text("B", "reasoning", 1),
            block(2, "thinking"),
            done(),
        ]
    )
    assert [(item["encrypted_content"], len(item["summary"])) for item in seen.output] == [
        ("s0", 1),
        ("s1", 0),
        ("s2", 1),
    ]
    assert seen.output[1]["penstock"] == {"provider": "anthropic", "kind": "redacted_thinking"}


def test_a_signature_that_comes_late_has_an_item_of_its_own_and_the_text_goes_on() -> None:
    block = ReasoningBlockClosed(index=0, kind="thought", signature="s", provider="gemini")
    seen = Projected([text("Hm", "reasoning"), text("a"), block, text("b"), done("ab")])
    assert [item["type"] for item in seen.output] == ["reasoning", "message", "reasoning"]
    assert seen.output[1]["content"][0]["text"] == "ab"


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_is_an_item_beside_the_text_that_follows_it() -> None:
    seen = Projected(
        [text("Let me"), started(), piece('{"x"'), piece(":1}"), text(" see"), completed(call_of()), done()]
    )
    assert seen.kinds == [
        *[*OPENED, "output_text.delta", *CLOSED],
        *["output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"],
        *[*OPENED, "output_text.delta"],
        *["function_call_arguments.done", "output_item.done"],
        *[*CLOSED, "completed"],
    ]
    begun = seen.of("output_item.added")[1]
    assert begun["item"] == {
        "id": "fc_resp_1_0",
        "type": "function_call",
        "status": "in_progress",
        "arguments": "",
        "call_id": "c1",
        "name": "add",
    }
    ended = seen.of("function_call_arguments.done")[0]
    assert (ended["item_id"], ended["arguments"], ended["output_index"]) == ("fc_resp_1_0", '{"x":1}', 1)
    assert seen.output[1] == begun["item"] | {"status": "completed", "arguments": '{"x":1}'}


def test_a_call_without_arguments_has_an_empty_object() -> None:
    seen = Projected([started(), completed(call_of("")), done(finish_reason="tool_calls")])
    assert seen.output[0]["arguments"] == "{}"
    assert seen.of("function_call_arguments.delta")[0]["delta"] == "{}"


def test_a_call_whose_arguments_are_no_json_is_incomplete_and_shows_them() -> None:
    broken = msgspec.structs.replace(call_of(), arguments=None, arguments_raw='{"x":')
    seen = Projected([started(), piece('{"x":'), completed(broken), done(finish_reason="tool_calls")])
    assert seen.of("function_call_arguments.done")[0]["arguments"] == '{"x":'
    assert (seen.output[0]["status"], seen.output[0]["arguments"]) == ("incomplete", '{"x":')


def test_a_custom_tool_of_the_request_has_an_item_of_its_own_type() -> None:
    at = opening({"tools": [{"type": "custom", "name": "run"}]})
    made = ToolCall(id="c1", name="run", arguments="ls -l", arguments_raw="ls -l", type="custom")
    seen = Projected([started(name="run"), piece("ls"), piece(" -l"), completed(made), done()], at=at)
    assert seen.kinds[:5] == [
        "output_item.added",
        *["custom_tool_call_input.delta"] * 2,
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    assert seen.output[0] == {
        "id": "ctc_resp_1_0",
        "type": "custom_tool_call",
        "status": "completed",
        "input": "ls -l",
        "call_id": "c1",
        "name": "run",
    }


@pytest.mark.parametrize(
    ("kind", "raw", "item"),
    [
        ("shell", '{"commands":["ls"]}', {"type": "shell_call", "action": {"commands": ["ls"]}}),
        ("computer", '{"type":"screenshot"}', {"type": "computer_call", "action": {"type": "screenshot"}}),
        (
            "apply_patch",
            '{"type":"delete_file","path":"a"}',
            {"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "a"}},
        ),
        ("tool_search", '{"goal":"x"}', {"type": "tool_search_call", "arguments": {"goal": "x"}}),
    ],
)
def test_other_calls_for_the_client_come_whole_in_their_own_type(kind: str, raw: str, item: dict[str, Any]) -> None:
    call = call_of(raw, name=kind, type=kind)
    seen = Projected([started(name=kind), piece(raw), completed(call), done(finish_reason="tool_calls")])
    assert seen.kinds == ["output_item.added", "output_item.done", "completed"]
    assert item.items() <= seen.output[0].items()
    assert (seen.output[0]["call_id"], seen.output[0]["status"]) == ("c1", "completed")


def test_a_request_for_approval_keeps_its_id() -> None:
    raw = '{"server_label":"s","name":"pay","arguments":{"sum":1}}'
    call = call_of(raw, identifier="mcpr_1", name="pay", type="mcp_approval")
    seen = Projected([started(identifier="mcpr_1", name="pay"), piece(raw), completed(call), done()])
    assert seen.output == [
        {
            "id": "mcpr_1",
            "type": "mcp_approval_request",
            "name": "pay",
            "server_label": "s",
            "arguments": '{"sum":1}',
        }
    ]


def test_ids_that_a_provider_repeats_in_the_next_round_are_told_apart() -> None:
    def round_of() -> list[Any]:
        result = ToolResult(call_id="c1", name="add")
        return [started(), completed(call_of()), ToolExecutionStarted(round=1, calls=()), result]

    seen = Projected([*round_of(), *round_of(), done()])
    assert [item["call_id"] for item in seen.output] == ["c1", "c1", "c1_1", "c1_1"]
    assert [item["id"] for item in seen.output] == ["fc_resp_1_0", "out_resp_1_0", "fc_resp_1_1", "out_resp_1_1"]


def test_a_call_that_was_left_open_ends_when_its_index_comes_again() -> None:
    seen = Projected([started(), piece("{"), started(identifier="c2"), completed(call_of(identifier="c2")), done()])
    assert [(item["call_id"], item["status"]) for item in seen.output] == [("c1", "incomplete"), ("c2", "completed")]
    assert len(seen.of("output_item.done")) == 2


def test_the_result_of_a_tool_that_was_run_here_is_an_item() -> None:
    rounds = [
        started(),
        completed(call_of()),
        ToolExecutionStarted(round=1, calls=(call_of(),)),
        ToolProgress(call_id="c1", name="add", progress=0.5),
        ToolResult(call_id="c1", name="add", content="2"),
    ]
    seen = Projected([*rounds, text("Two", part=1), done("Two")])
    assert [item["type"] for item in seen.output] == ["function_call", "function_call_output", "message"]
    assert seen.output[1] == {
        "id": "out_resp_1_0",
        "type": "function_call_output",
        "call_id": "c1",
        "output": "2",
        "status": "completed",
        "name": "add",
    }


@pytest.mark.parametrize("status", ["error", "timeout", "denied", "invalid_arguments", "cancelled"])
def test_a_result_that_is_none_is_incomplete_and_says_why(status: Any) -> None:
    failed = ToolResult(call_id="c1", name="add", status=status, content="It failed.")
    seen = Projected([started(), completed(call_of()), failed, done()])
    assert (seen.output[1]["status"], seen.output[1]["output"]) == ("incomplete", "It failed.")


def test_the_result_of_a_shell_call_has_its_own_form() -> None:
    call = call_of('{"commands":["ls"]}', name="shell", type="shell")
    seen = Projected([completed(call), ToolResult(call_id="c1", name="shell", content="a"), done()])
    outcome = {"type": "exit", "exit_code": 0}
    assert seen.output[1]["type"] == "shell_call_output"
    assert seen.output[1]["output"] == [{"stdout": "a", "stderr": "", "outcome": outcome}]


def test_approval_and_progress_and_raw_events_are_left_out() -> None:
    asked = ToolApprovalRequested(call=call_of())
    raw = ProviderEvent(type="ping", payload={})
    assert Projected([asked, ToolProgress(call_id="c", name="n", progress=1), raw]).kinds == []


def test_the_signature_of_a_call_goes_with_it() -> None:
    seen = Projected([started(), completed(call_of(signature="sig")), done()])
    assert seen.output[0]["penstock"] == {"signature": "sig"}


# --- the provider's own tools -----------------------------------------------------------------------------------------


def test_a_search_shows_its_query_and_sources() -> None:
    pages = [{"type": "web_search_result", "url": "https://x.test", "title": "X", "encrypted_content": "…"}]
    seen = Projected(
        [
            text("Let me search."),
            started(identifier="srvtoolu_1", name="web_search"),
            piece('{"query":"cats"}'),
            ServerToolCall(id="srvtoolu_1", name="web_search", input={"query": "cats"}),
            ServerToolResult(id="srvtoolu_1", name="web_search", output=pages),
            text("Cats.", part=1),
            completed(call_of('{"query":"cats"}', "srvtoolu_1", "web_search", is_server=True)),
            done("Let me search.Cats."),
        ]
    )
    assert seen.kinds[6:11] == [
        "output_item.added",
        *[f"web_search_call.{step}" for step in ("in_progress", "searching", "completed")],
        "output_item.done",
    ]
    assert [item["type"] for item in seen.output] == ["message", "web_search_call", "message"]
    assert seen.output[1] == {
        "id": "srvtoolu_1",
        "type": "web_search_call",
        "status": "completed",
        "action": {
            "type": "search",
            "query": "cats",
            "sources": [{"type": "url", "url": "https://x.test", "title": "X"}],
        },
    }


def test_a_call_that_only_turns_out_to_be_the_providers_is_no_call_for_the_client() -> None:
    call = call_of('{"q":1}', "odd", "lookup", is_server=True)
    seen = Projected([started(identifier="odd", name="lookup"), piece('{"q":1}'), completed(call), done()])
    (item,) = seen.output
    assert (item["type"], item["name"], item["arguments"]) == ("mcp_call", "lookup", '{"q":1}')
    assert seen.of("output_item.done")[0]["item"]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("name", "given", "output", "item"),
    [
        (
            "web_fetch",
            {"url": "https://x.test"},
            {"type": "web_fetch_result"},
            {
                "type": "web_search_call",
                "action": {"type": "open_page", "url": "https://x.test"},
                "results": {"type": "web_fetch_result"},
            },
        ),
        (
            "code_execution",
            {"code": "print(1)"},
            {"type": "code_execution_result", "stdout": "1\n", "stderr": "", "return_code": 0},
            {"type": "code_interpreter_call", "code": "print(1)", "outputs": [{"type": "logs", "logs": "1\n"}]},
        ),
        (
            "bash_code_execution",
            {"command": "ls"},
            "a",
            {"type": "code_interpreter_call", "code": "ls", "outputs": [{"type": "logs", "logs": "a"}]},
        ),
        (
            "file_search",
            {"queries": ["q"]},
            [{"file_id": "f"}],
            {"type": "file_search_call", "queries": ["q"], "results": [{"file_id": "f"}]},
        ),
        (
            "mcp",
            {"server_label": "s", "name": "echo", "arguments": {"a": 1}},
            "hi",
            {"type": "mcp_call", "server_label": "s", "name": "echo", "arguments": '{"a":1}', "output": "hi"},
        ),
        (
            "mcp_list_tools",
            {"server_label": "s"},
            [{"name": "echo"}],
            {"type": "mcp_list_tools", "server_label": "s", "tools": [{"name": "echo"}]},
        ),
        (
            "x_search",
            {"query": "q"},
            None,
            {"type": "x_search_call", "action": {"query": "q"}},
        ),
        (
            "lookup",
            {"a": 1},
            {"b": 2},
            {"type": "mcp_call", "name": "lookup", "arguments": '{"a":1}', "output": '{"b":2}'},
        ),
    ],
)
def test_every_tool_of_a_provider_is_the_matching_item(
    name: str, given: Any, output: Any, item: dict[str, Any]
) -> None:
    events: list[Any] = [ServerToolCall(id="t1", name=name, input=given)]
    events += [ServerToolResult(id="t1", name=name, output=output)] if output is not None else []
    (found,) = Projected([*events, done()]).output
    assert item.items() <= found.items()
    assert found["id"] == "t1"
    assert found.get("status", "completed") == "completed"


def test_a_shell_in_the_providers_container_has_two_items() -> None:
    shown = [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
    call = ServerToolCall(id="c1", name="shell", input={"commands": ["ls"]}, status="completed")
    seen = Projected([call, ServerToolResult(id="c1", name="shell", output=shown, status="completed"), done()])
    first, second = seen.output
    assert (first["type"], first["call_id"], first["environment"]["type"]) == (
        "shell_call",
        "c1",
        "container_reference",
    )
    assert (second["type"], second["call_id"], second["output"]) == ("shell_call_output", "c1", shown)


def test_what_is_nested_very_deeply_is_cut_and_stops_nothing() -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    call = ServerToolCall(id="t1", name="x_search", input=deep)
    result = ServerToolResult(id="t1", name="x_search", output={"found": deep})
    seen = Projected([call, result, completed(call_of("[" * 900 + "]" * 900, name="shell", type="shell")), done()])
    assert seen.last["type"] == "response.completed"
    assert "nested too deeply" in str(seen.output)


def test_a_tool_of_the_provider_that_failed_says_so() -> None:
    error = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    call = ServerToolCall(id="t1", name="web_search", input={"query": "q"})
    seen = Projected([call, ServerToolResult(id="t1", name="web_search", output=error, is_error=True), done()])
    assert (seen.output[0]["status"], seen.output[0]["error"]) == ("failed", error)
    assert "web_search_call.completed" not in seen.kinds


def test_a_tool_without_a_result_ends_before_what_follows_if_its_status_says_so() -> None:
    over = ServerToolCall(id="t1", name="web_search", input={"type": "search", "query": "q"}, status="completed")
    seen = Projected([over, text("Hi"), done("Hi")])
    assert seen.kinds[3:6] == ["web_search_call.completed", "output_item.done", "output_item.added"]
    waits = ServerToolCall(id="t1", name="web_search", input={"query": "q"})
    seen = Projected([waits, text("Hi"), done("Hi")])
    assert seen.kinds[3] == "output_item.added"
    assert seen.output[0]["status"] == "completed"


def test_a_tool_that_is_over_ends_before_the_result_of_another_one() -> None:
    first = ServerToolCall(id="t1", name="x_search", input={})
    second = ServerToolCall(id="t2", name="x_search", input={}, status="completed")
    seen = Projected([first, second, ServerToolResult(id="t1", name="x_search", output="a"), done()])
    assert [event["item"]["id"] for event in seen.of("output_item.done")] == ["t2", "t1"]
    picture = MediaPart(kind="image", data="AA==", id="ig_1", is_partial=True)
    seen = Projected([picture, second, MediaPart(kind="image", data="BB==", id="ig_1"), done()])
    assert [event["item"]["id"] for event in seen.of("output_item.done")] == ["t2", "ig_1"]


def test_a_tool_whose_id_comes_again_ends_before_the_next_one() -> None:
    again = ServerToolCall(id="server_0", name="x_search", input={})
    seen = Projected([again, again, ServerToolResult(id="server_0", name="x_search", output="a"), done()])
    assert [event["item"]["id"] for event in seen.of("output_item.done")] == ["server_0", "server_0_1"]
    assert "output" not in seen.output[0]


# --- pictures and sound -----------------------------------------------------------------------------------------------


def test_a_picture_is_an_item_with_its_previews() -> None:
    seen = Projected(
        [
            MediaPart(kind="image", mime="image/png", data="AA==", id="ig_1", is_partial=True),
            MediaPart(kind="image", mime="image/png", data="BB==", id="ig_1", is_partial=True),
            ServerToolCall(id="ig_1", name="image_generation", input={"size": "1024x1024"}, status="completed"),
            MediaPart(kind="image", mime="image/png", data="CC==", id="ig_1"),
            text("There."),
            done("There."),
        ]
    )
    shown = seen.of("image_generation_call.partial_image")
    assert [(event["partial_image_index"], event["partial_image_b64"]) for event in shown] == [(0, "AA=="), (1, "BB==")]
    assert {event["output_format"] for event in shown} == {"png"}
    assert len(seen.of("image_generation_call.completed")) == 1
    assert seen.output[0] == {
        "id": "ig_1",
        "type": "image_generation_call",
        "status": "completed",
        "result": "CC==",
        "size": "1024x1024",
        "output_format": "png",
    }


def test_pictures_of_other_providers_are_items_too() -> None:
    seen = Projected(
        [
            MediaPart(kind="image", mime="image/jpeg", data="AA=="),
            MediaPart(kind="image", mime="image/png", url="https://x.test/a.png"),
            done(),
        ]
    )
    first, second = seen.output
    assert (first["id"], first["result"], first["output_format"]) == ("ig_resp_1_0", "AA==", "jpeg")
    assert (second["id"], second["result"], second["image_url"]) == ("ig_resp_1_1", None, "https://x.test/a.png")


def test_sound_comes_in_events_and_a_whole_one_only_without_pieces() -> None:
    def sound(data: str, words: str = "", *, is_partial: bool = True) -> MediaPart:
        return MediaPart(kind="audio", data=data, transcript=words, is_partial=is_partial)

    seen = Projected([sound("AA==", "Hi"), sound("BB=="), sound("AABB", "Hi", is_partial=False), done()])
    assert seen.kinds == [
        *["audio.delta", "audio.transcript.delta", "audio.delta"],
        *["audio.done", "audio.transcript.done", "completed"],
    ]
    seen = Projected([sound("AABB", is_partial=False), MediaPart(kind="video", url="https://x.test/v"), done()])
    assert seen.kinds == ["audio.delta", "audio.done", "completed"]


# --- citations and probabilities --------------------------------------------------------------------------------------


def test_a_citation_is_counted_from_the_start_of_its_part() -> None:
    seen = Projected([text("One. "), cited(0, 4), text("Two.", part=1), cited(5, 9), done("One. Two.")])
    added = seen.of("output_text.annotation.added")
    spans = [(one["content_index"], one["annotation_index"], one["annotation"]["start_index"]) for one in added]
    assert spans == [(0, 0, 0), (1, 0, 0)]
    first, second = seen.output[0]["content"]
    assert first["annotations"] == [
        {"type": "url_citation", "start_index": 0, "end_index": 4, "url": "https://x.test", "title": "X"}
    ]
    assert second["annotations"][0]["end_index"] == 4


def test_a_citation_may_come_before_its_text_or_after_its_part() -> None:
    early, late = cited(5, 9, "https://a.test"), cited(0, 4, "https://b.test")
    seen = Projected([early, text("One. "), text("Two.", part=1), late, cited(), done("One. Two.")])
    first, second = seen.output[0]["content"]
    assert [one["url"] for one in first["annotations"]] == ["https://b.test"]
    assert [(one["url"], one["start_index"]) for one in second["annotations"]] == [
        ("https://x.test", 0),
        ("https://a.test", 0),
    ]


def test_a_citation_that_came_early_is_told_before_its_part_ends() -> None:
    seen = Projected([cited(0, 2), text("Hi"), started()])
    assert seen.kinds[3:5] == ["output_text.annotation.added", "output_text.done"]
    assert len(seen.of("content_part.done")[0]["part"]["annotations"]) == 1


def test_citations_without_any_text_are_not_lost() -> None:
    seen = Projected([cited(), done()])
    (item,) = seen.output
    assert item["content"][0]["annotations"][0]["url"] == "https://x.test"
    assert item["content"][0]["text"] == ""


@pytest.mark.parametrize(
    ("citation", "annotation"),
    [
        (
            Citation(kind="file", id="f1", title="a.pdf", location={"index": 7}),
            {"type": "file_citation", "index": 7, "file_id": "f1", "filename": "a.pdf"},
        ),
        (
            Citation(kind="file", id="f1", title="a", start=0, end=2, location={"container_id": "k"}),
            {
                "type": "container_file_citation",
                "start_index": 0,
                "end_index": 2,
                "container_id": "k",
                "file_id": "f1",
                "filename": "a",
            },
        ),
        (
            Citation(kind="document", title="a", cited_text="so", start=0, end=2, location={"document_index": 1}),
            {
                "type": "file_citation",
                "index": 1,
                "file_id": "",
                "filename": "a",
                "start_index": 0,
                "end_index": 2,
                "document_index": 1,
                "content": "so",
            },
        ),
        (
            Citation(kind="search_result", url="https://x.test", location={"index": 1}),
            {
                "type": "url_citation",
                "start_index": 0,
                "end_index": 0,
                "url": "https://x.test",
                "title": "",
                "index": 1,
            },
        ),
    ],
)
def test_every_kind_of_citation_has_a_form(citation: Citation, annotation: dict[str, Any]) -> None:
    seen = Projected([text("Hi"), citation, done("Hi")])
    assert seen.output[0]["content"][0]["annotations"] == [annotation]


def _likely(*tokens: str) -> Logprobs:
    return Logprobs(tokens=tuple(TokenLogprob(token=token, logprob=-0.5, top=(("x", -1.0),)) for token in tokens))


def test_probabilities_come_with_their_text_if_the_request_asks_for_them() -> None:
    at = opening({"include": ["message.output_text.logprobs"]})
    seen = Projected([text("a"), _likely("a"), text("b"), _likely("b"), done("ab")], at=at)
    deltas = seen.of("output_text.delta")
    assert [(one["delta"], one["logprobs"][0]["token"]) for one in deltas] == [("a", "a"), ("b", "b")]
    entry = {"token": "a", "bytes": [97], "logprob": -0.5}
    entry["top_logprobs"] = [{"token": "x", "bytes": [120], "logprob": -1.0}]
    assert seen.of("output_text.done")[0]["logprobs"][0] == entry
    assert seen.output[0]["content"][0]["logprobs"][0] == entry
    assert [frame.seq for frame in seen.frames if b"output_text.delta" in frame.data] == [1, 3]


def test_text_waits_for_no_probabilities_once_they_did_not_come() -> None:
    projection = ResponsesProjection(opening({"top_logprobs": 2}))
    first, second, third = numbered([text("a"), text("b"), text("c")])
    assert len(projection.feed(first)) == 2
    assert [frame.text for frame in projection.feed(second) if frame.key] == ["a", "b"]
    assert [frame.text for frame in projection.feed(third) if frame.key] == ["c"]


def test_probabilities_that_were_not_asked_for_follow_their_text() -> None:
    seen = Projected([text("a"), _likely("a"), done("a")])
    assert [(one["delta"], len(one["logprobs"])) for one in seen.of("output_text.delta")] == [("a", 0), ("", 1)]
    assert len(seen.output[0]["content"][0]["logprobs"]) == 1


# --- resets and snapshots ---------------------------------------------------------------------------------------------


def test_a_reset_before_any_text_is_silent() -> None:
    seen = Projected([StreamStarted(model="m2"), restarted(), text("Hi"), done("Hi")])
    assert seen.kinds[:3] == [*OPENED, "output_text.delta"]
    assert seen.output[0]["id"] == "msg_resp_1_0"


def test_a_reset_closes_what_is_open_as_incomplete_and_the_response_has_only_what_follows() -> None:
    seen = Projected([text("Hel"), started(), piece("{"), restarted(), text("Hi"), done("Hi")])
    ended = [event["item"] for event in seen.of("output_item.done")]
    assert [(item["type"], item["status"]) for item in ended] == [
        ("message", "completed"),
        ("function_call", "incomplete"),
        ("message", "completed"),
    ]
    assert [(item["id"], item["content"][0]["text"]) for item in seen.output] == [("msg_resp_1_1", "Hi")]
    assert [event["sequence_number"] for event in seen.said] == list(range(len(seen.said)))


def test_a_reset_during_text_closes_it_as_incomplete() -> None:
    seen = Projected([text("Hel"), restarted(), cited(0, 1), text("Hi"), done("Hi")])
    assert seen.of("output_item.done")[0]["item"]["status"] == "incomplete"
    assert seen.output[0]["content"][0]["annotations"][0]["start_index"] == 0


def _snapshot(said: str, **fields: Any) -> StreamSnapshot:
    return StreamSnapshot(SID, 50, (said,), said, "text", 5.0, {}, **fields)


def test_a_snapshot_before_anything_is_one_delta_for_each_part() -> None:
    parts = (
        AnswerPart(index=0, kind="reasoning", start=0, end=2),
        AnswerPart(index=0, kind="text", start=0, end=5),
        AnswerPart(index=1, kind="text", start=5, end=8),
    )
    block = ReasoningBlockClosed(index=0, kind="thinking", signature="s", seq=3)
    search = ServerToolCall(id="t1", name="web_search", input={"query": "q"}, seq=4)
    found = ServerToolResult(id="t1", name="web_search", output={"sources": []}, seq=5)
    picture = MediaPart(kind="image", data="AA==", mime="image/png", seq=6)
    result = ToolResult(call_id="c1", name="add", content="2", seq=7)
    whole = _snapshot(
        "Hello you",
        reasoning="Hm",
        parts=parts,
        tool_calls=(call_of(),),
        tool_results=(result,),
        answer_events=(block, search, found, cited(5, 8), picture),
    )
    projection = ResponsesProjection(opening())
    frames = projection.feed(whole)
    events = read(b"".join(frame.data for frame in frames))
    assert [event["delta"] for event in events if event["type"].endswith("text.delta")] == ["Hm", "Hello", " yo"]
    assert {frame.seq for frame in frames} == {50}
    items = projection.response["output"]
    assert [item["type"] for item in items] == [
        *["reasoning", "web_search_call", "message", "image_generation_call"],
        *["function_call", "function_call_output"],
    ]
    assert items[0]["encrypted_content"] == "s"
    assert items[2]["content"][1]["annotations"][0]["start_index"] == 0


def test_a_snapshot_ends_each_piece_of_reasoning_with_its_block_if_there_are_as_many() -> None:
    parts = tuple(AnswerPart(index=n, kind="reasoning", start=n, end=n + 1) for n in range(2))
    blocks = tuple(ReasoningBlockClosed(index=n, kind="thinking", signature=f"s{n}") for n in range(2))

    def items(told: tuple[ReasoningBlockClosed, ...]) -> list[tuple[str, str | None]]:
        projection = ResponsesProjection(opening())
        projection.feed(_snapshot("", reasoning="AB", parts=parts, answer_events=told))
        return [
            ("".join(part["text"] for part in item["summary"]), item.get("encrypted_content"))
            for item in projection.response["output"]
        ]

    assert items(blocks) == [("A", "s0"), ("B", "s1")]
    assert items(blocks[:1]) == [("AB", "s0")]


def test_a_later_snapshot_brings_only_what_is_new() -> None:
    first = [
        text("Hm", "reasoning"),
        ReasoningBlockClosed(index=0, kind="thinking", signature="s"),
        text("Hel"),
        cited(0, 2),
        started(),
        piece('{"x"'),
    ]
    seen = Projected(first)
    told = (seen.events[1], seen.events[3], cited(4, 6, "https://y.test"))
    later = _snapshot("Hello you", reasoning="Hm", answer_events=told, tool_calls=(call_of(),))
    events = read(b"".join(frame.data for frame in seen.projection.feed(later)))
    assert [event["delta"] for event in events if "delta" in event] == ["lo you", ":1}"]
    assert [event["annotation"]["url"] for event in events if "annotation" in event] == ["https://y.test"]
    kinds = [item["type"] for item in seen.output]
    assert kinds == ["reasoning", "message", "function_call", "message"]
    assert seen.output[2]["arguments"] == '{"x":1}'


def test_pieces_of_a_call_that_a_snapshot_left_out_are_taken_from_the_whole() -> None:
    seen = Projected([started(), piece('{"x"')])
    seen.projection.feed(_snapshot("Hi"))
    assert seen.projection.feed(msgspec.structs.replace(piece(",more"), seq=51)) == []
    frames = seen.projection.feed(msgspec.structs.replace(completed(call_of()), seq=52))
    assert [event.get("delta") for event in read(b"".join(frame.data for frame in frames))] == [":1}", None, None]


def test_a_snapshot_of_another_text_counts_as_a_reset() -> None:
    seen = Projected([text("Hello")])
    frames = seen.projection.feed(_snapshot("Howdy"))
    events = read(b"".join(frame.data for frame in frames))
    assert events[2]["item"]["status"] == "incomplete"
    assert [item["content"][0]["text"] for item in seen.output] == ["Howdy"]


# --- ends -------------------------------------------------------------------------------------------------------------


def test_other_answers_are_left_out() -> None:
    seen = Projected([text("Hi"), done("Hi", choices=(Choice(index=1, text="Hello"),))])
    assert [item["content"][0]["text"] for item in seen.output] == ["Hi"]


def test_a_custom_call_that_no_request_has_named_is_told_as_a_functions() -> None:
    made = ToolCall(id="c1", name="run", arguments="ls", arguments_raw="ls", type="custom")
    seen = Projected([started(name="run"), piece("ls"), completed(made), done()])
    assert (seen.output[0]["type"], seen.output[0]["arguments"]) == ("function_call", "ls")


@pytest.mark.parametrize(
    ("reason", "raw", "status", "why"),
    [
        ("stop", "stop", "completed", None),
        ("tool_calls", "tool_calls", "completed", None),
        ("refusal", "refusal", "completed", None),
        ("other", "pause_turn", "completed", None),
        ("other", None, "completed", None),
        ("taken", None, "completed", None),
        ("length", "length", "incomplete", "max_output_tokens"),
        ("content_filter", "SAFETY", "incomplete", "content_filter"),
        ("other", "max_messages", "incomplete", "max_messages"),
    ],
)
def test_every_finish_reason_has_its_end(reason: Any, raw: str | None, status: str, why: str | None) -> None:
    seen = Projected([text("Hi"), done("Hi", finish_reason=reason, raw_finish_reason=raw)])
    response = seen.last["response"]
    assert seen.last["type"] == f"response.{status}"
    assert response["status"] == status
    assert (response["incomplete_details"] or {}).get("reason") == why
    native = raw if reason == "other" and raw != why else None
    assert response.get("native_finish_reason") == native
    assert response["output"][0]["status"] == status
    assert response["completed_at"] == (9 if status == "completed" else None)
    assert seen.frames[-1].data == b"data: [DONE]\n\n"


def test_a_stream_that_failed_ends_as_failed_and_without_the_end_marker() -> None:
    failed = StreamFailed(stream_id=SID, seq=0, partial="Hello", error=IncompleteStream("the connection was closed"))
    seen = Projected([text("Hel"), started(), piece("{"), failed])
    response = seen.last["response"]
    assert (seen.last["type"], response["status"]) == ("response.failed", "failed")
    assert response["error"]["code"] == "stream_interrupted"
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["output"][0]["content"][0]["text"] == "Hel"  # what was not delivered is not told
    assert not any(b"[DONE]" in frame.data for frame in seen.frames)
    assert seen.projection.feed(failed) == []


def test_the_error_of_a_failed_response_has_the_code_and_the_type() -> None:
    failed = StreamFailed(stream_id=SID, seq=0, error=RateLimited(429, "slow down"))
    error = Projected([text("a"), failed]).last["response"]["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert "slow down" in error["message"]
    error = Projected([StreamFailed(stream_id=SID, seq=0, error=ApiError(500, "boom"))]).last["response"]["error"]
    assert error["type"] == "server_error"


def test_a_cancelled_stream_ends_as_incomplete_with_its_own_status() -> None:
    seen = Projected([text("Hel"), StreamCancelled(stream_id=SID, seq=0, partial="Hello", reason="user")])
    response = seen.last["response"]
    assert (seen.last["type"], response["status"]) == ("response.incomplete", "cancelled")
    assert response["incomplete_details"] is None
    assert response["output"][0]["status"] == "incomplete"
    assert not any(b"[DONE]" in frame.data for frame in seen.frames)


def test_a_stream_that_is_steered_ends_as_incomplete_for_that() -> None:
    seen = Projected([text("Hel"), StreamCancelled(stream_id=SID, seq=0, reason="steered")])
    response = seen.last["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "steered"})


def test_the_last_frame_of_a_reader_that_is_cut_off_is_an_error_of_both_forms() -> None:
    projection = ResponsesProjection(opening())
    (event,) = read(projection.cut(Problem(status=200, type="server_error", code="too_slow", message="Too slow.")))
    inner = {"message": "Too slow.", "type": "server_error", "param": None, "code": "too_slow"}
    assert event == {
        "type": "error",
        "sequence_number": 0,
        "code": "too_slow",
        "message": "Too slow.",
        "param": None,
        "error": inner,
    }


def test_the_body_of_an_error_has_openais_form() -> None:
    problem = RequestRefused.bad_request("n must be 1.", "n").problem
    assert error_body(problem) == {
        "error": {"message": "n must be 1.", "type": "invalid_request_error", "param": "n", "code": "invalid_request"}
    }


# --- the response object ----------------------------------------------------------------------------------------------


def test_the_response_repeats_what_was_asked_for() -> None:
    request = {
        "model": "gpt",
        "instructions": "Be brief.",
        "tools": [{"type": "mcp", "server_label": "s", "authorization": "sk-1", "headers": {"a": "b"}}],
        "tool_choice": "required",
        "metadata": {"a": "b"},
        "temperature": 0.2,
        "top_p": 0.9,
        "previous_response_id": "resp_0",
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "high"},
        "max_output_tokens": 9,
        "parallel_tool_calls": False,
        "store": False,
        "truncation": "auto",
        "user": "u",
        "service_tier": "flex",
        "conversation": "conv_1",
        "prompt_cache_key": "k",
        "input": "secret",
    }
    response = Projected([done("")], at=opening(request, model="")).last["response"]
    same = [
        *("instructions", "tool_choice", "metadata", "temperature", "top_p", "previous_response_id"),
        *("max_output_tokens", "parallel_tool_calls", "store", "truncation", "user", "service_tier"),
        *("prompt_cache_key", "model"),
    ]
    assert {name: response[name] for name in same} == {name: request[name] for name in same}
    assert response["tools"] == [{"type": "mcp", "server_label": "s"}]
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert response["reasoning"] == {"effort": "high", "summary": None}
    assert response["conversation"] == {"id": "conv_1"}
    assert "input" not in response
    assert list(response)[:6] == ["id", "object", "created_at", "status", "background", "completed_at"]
    assert (response["id"], response["created_at"]) == (SID, 1_700_000_000)


def test_the_model_is_the_one_that_is_asked_then_the_one_that_answered() -> None:
    seen = Projected([StreamStarted(model="asked"), done("", model="answered")], at=opening(model=""))
    assert [event["response"]["model"] for event in seen.said] == ["asked", "asked", "answered"]


def test_a_response_in_the_background_is_queued_first() -> None:
    seen = Projected([text("Hi")], at=opening({"background": True}))
    assert [event["type"] for event in seen.said[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert [event["response"]["status"] for event in seen.said[:3]] == ["queued", "queued", "in_progress"]


def test_usage_has_the_counts_that_were_reported_and_no_others() -> None:
    usage = Usage(
        input_tokens=10,
        output_tokens=5,
        cached_tokens=4,
        reasoning_tokens=3,
        cache_write_tokens=2,
        server_tool_requests={"web_search": 1},
        service_tier="priority",
        reported_cost=0.25,
    )
    response = Projected([done("", usage=usage)]).last["response"]
    assert response["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 15,
        "server_tool_use": {"web_search_requests": 1},
        "cost": 0.25,
    }
    assert response["service_tier"] == "priority"
    assert Projected([done("", usage=None)]).last["response"]["usage"] is None
    assert "output_tokens" not in Projected([done("", usage=Usage(input_tokens=1))]).last["response"]["usage"]
