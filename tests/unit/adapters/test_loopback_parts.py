"""Answers of the loopback provider that have parts: the values, their wire forms, pauses and faults. No sockets."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from penstock.adapters.loopback import dialects
from penstock.adapters.loopback.dialects import Dialect
from penstock.adapters.loopback.encoder import AnswerContext, needs_parts
from penstock.adapters.loopback.script import (
    Answer,
    Block,
    Declined,
    Found,
    Part,
    Picture,
    Ran,
    RawEvent,
    Said,
    ScriptedCall,
    Search,
    ServerTool,
    Silence,
    Sound,
    Source,
    Thought,
)
from penstock.adapters.loopback.timeline import (
    stream_timeline,
    whole_timeline,
)
from penstock.errors import OptionError
from penstock.events import TokenLogprob, Usage

PNG = b"\x89PNG\r\n\x1a\n----"
PNG_TEXT = base64.b64encode(PNG).decode()
EVENTS = dialects.generation_target("/v1beta/models/m:streamGenerateContent", {"alt": "sse"})
assert EVENTS is not None
DIALECTS: dict[str, Dialect] = {
    "chat": dialects.CHAT,
    "responses": dialects.RESPONSES,
    "anthropic": dialects.ANTHROPIC,
    "gemini": EVENTS.dialect,
    "gemini-array": dialects.GEMINI,
    "ollama": dialects.OLLAMA,
}
EVERY = pytest.mark.parametrize("name", DIALECTS)
CONTEXT = AnswerContext(number=7, model="m", created=1_700_000_000, input_tokens=3, include_usage=True)

PARTS: tuple[Part, ...] = (
    Thought("Hm, well.", signature="c2ln"),
    Thought(redacted="c2VhbGVk"),
    Said("Looking."),
    Search("penstock", [Found("https://a.example/", "A", "text of A")]),
    Silence(0.5),
    Said("Found "),
    Said("two words", citations=[Source("https://a.example/", "A", cited_text="w w")]),
    Ran("print(42)", "42\n"),
    ServerTool("ask", {"q": 1}, "yes", server="wiki"),
    Picture(PNG, previews=[PNG[:8]]),
    Sound(b"RIFF", transcript="Two words"),
    Said(logprobs=[TokenLogprob(token="Do", logprob=-0.5, top=(("Do", -0.5),)), TokenLogprob(token="ne", logprob=0.0)]),
    ScriptedCall("f", '{"x":1}', id="c1", signature="c2ln"),
    ScriptedCall("sql", "SELECT 1", id="c2", type="custom"),
)
ALL = Answer(parts=PARTS)
CUSTOM = ScriptedCall("sql", "SELECT 1", id="c2", type="custom")


def encode(answer: Answer, name: str, **more: Any) -> list[Any]:
    """The steps of a streamed answer."""
    context = AnswerContext(**{**{each: getattr(CONTEXT, each) for each in CONTEXT.__struct_fields__}, **more})
    return list(stream_timeline(answer, lambda: DIALECTS[name].make_encoder(answer, context)))


def documents(steps: list[Any], name: str) -> list[Any]:
    """The JSON documents of a streamed body, parsed without our parsers."""
    body = b"".join(step for step in steps if isinstance(step, bytes)).decode()
    if name == "gemini-array":
        return list(json.loads(body))
    lines = body.replace("\r\n", "\n").split("\n")
    if name != "ollama":
        lines = [line[5:] for line in lines if line.startswith("data:") and line != "data: [DONE]"]
    return [json.loads(line) for line in lines if line.strip()]


def streamed(answer: Answer, name: str, **more: Any) -> list[Any]:
    return documents(encode(answer, name, **more), name)


def whole(answer: Answer, name: str) -> Any:
    dialect = DIALECTS[name]
    steps = whole_timeline(answer, dialect.make_encoder(answer, CONTEXT), dialect.encode_error)
    return json.loads(b"".join(step for step in steps if isinstance(step, bytes)))


def of(*parts: Part, **more: Any) -> Answer:
    return Answer(parts=parts, **more)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "field", "allowed"),
    [
        (lambda: Said(""), "text", "at least one character"),
        (lambda: Said("\ud800"), "text", "UTF-8"),
        (lambda: Said("a", citations=["x"]), "citations", "a list of Source"),  # type: ignore[list-item]
        (lambda: Said("abc", citations=[Source("u", start=1, end=4)]), "citations", "3 characters"),
        (lambda: Said("ab", tokens=["a"]), "tokens", "joined"),
        (lambda: Said("ab", logprobs=[TokenLogprob(token="a", logprob=0.0)]), "logprobs", "joined"),
        (lambda: Said("a", logprobs=[0.5]), "logprobs", "a list of TokenLogprob"),  # type: ignore[list-item]
        (lambda: Said("a", phase="thinking"), "phase", "commentary"),  # type: ignore[arg-type]
        (lambda: Source("u", kind="book"), "kind", "'document'"),  # type: ignore[arg-type]
        (lambda: Source("u", start=1), "end", "a number if there is a start"),
        (lambda: Source("u", start=3, end=3), "end", "more than start (3)"),
        (lambda: Source("u", start=-1, end=3), "start", "0"),
        (lambda: Source("u", id=""), "id", "1 to 256"),
        (lambda: Declined(5), "text", "a string"),  # type: ignore[arg-type]
        (lambda: Thought("a", redacted="b"), "redacted", "in place of text"),
        (lambda: Thought(redacted=""), "redacted", "in place of text"),
        (lambda: Thought("a", signature=5), "signature", "a string"),  # type: ignore[arg-type]
        (lambda: Search("q", ["x"]), "results", "a list of Found"),  # type: ignore[list-item]
        (lambda: Search(5), "query", "a string"),  # type: ignore[arg-type]
        (lambda: Search("q", id=""), "id", "1 to 256"),
        (lambda: Found(5), "url", "a string"),  # type: ignore[arg-type]
        (lambda: Ran("x", failed=1), "failed", "True"),  # type: ignore[arg-type]
        (lambda: Ran("x", early_finish=1), "early_finish", "True"),  # type: ignore[arg-type]
        (lambda: Ran("x", takes=-1), "takes", "0"),
        (lambda: Search("x", takes="1"), "takes", "0"),  # type: ignore[arg-type]
        (lambda: ServerTool("x", takes=90_000), "takes", "86400"),
        (lambda: ServerTool(""), "name", "at least one character"),
        (lambda: ServerTool("f", [1]), "input", "a dict"),
        (lambda: ServerTool("f", {"x": object()}), "input", "a dict"),
        (lambda: ServerTool("f", {}, object()), "output", "a JSON value"),
        (lambda: Picture(), "url", "an address if there is no data"),
        (lambda: Picture(PNG, url="https://x"), "url", "otherwise None"),
        (lambda: Picture("no base64!"), "data", "base64"),
        (lambda: Picture(5), "data", "base64"),  # type: ignore[arg-type]
        (lambda: Picture(PNG, "text/plain"), "mime", "image/"),
        (lambda: Picture(PNG, previews=[5]), "previews", "a list of bytes"),  # type: ignore[list-item]
        (lambda: Sound(b"x", "image/png"), "mime", "audio/"),
        (lambda: Sound(b"x", transcript=5), "transcript", "a string"),  # type: ignore[arg-type]
        (lambda: Silence(-1), "seconds", "0"),
        (lambda: Silence(float("nan")), "seconds", "0"),
        (lambda: RawEvent(5), "payload", "a dict"),
        (lambda: RawEvent("a\nb"), "payload", "one line"),
        (lambda: RawEvent({}, event="a\nb"), "event", "printable"),
        (lambda: Block([], dialect="chat"), "data", "a dict"),
        (lambda: Block({}, dialect="openai"), "dialect", "'responses'"),  # type: ignore[arg-type]
        (lambda: ScriptedCall("f", type="tool"), "type", "'custom'"),
        (lambda: Answer(parts=["a"]), "parts", "Said, Thought, Search"),  # type: ignore[list-item]
        (lambda: Answer("Hello", parts=[Said("a")]), "text", "nothing if there are parts"),
        (lambda: Answer(parts=[Said("a")], reasoning="r"), "reasoning", "nothing if there are parts"),
        (lambda: Answer(parts=[Said("a")], tokens=("a",)), "tokens", "nothing if there are parts"),
        (lambda: Answer(parts=[Said("a")], repeat=3), "repeat", "nothing if there are parts"),
        (lambda: Answer(parts=[Said("a")], tool_calls=(ScriptedCall("f"),)), "tool_calls", "if there are parts"),
        (lambda: Answer(parts=[Said("a")], choices=(Answer("b"),)), "choices", "nothing if there are parts"),
        (lambda: Answer(metadata={"fingerprint": "f"}), "metadata", "'system_fingerprint'"),
        (lambda: Answer(metadata=5), "metadata", "a dict"),  # type: ignore[arg-type]
        (lambda: Answer(metadata={"cost": object()}), "metadata['cost']", "a JSON value"),
        (lambda: Answer(metadata={"timings": {"a": "x" * 20_000}}), "metadata['timings']", "16384 bytes"),
        (lambda: Answer(metadata={"cost": 1}, repeat=5), "repeat", "nothing if there is metadata"),
        (lambda: Answer(metadata={"cost": 1}, choices=(Answer(),)), "choices", "nothing if there is metadata"),
        (lambda: Answer(logprobs=True), "logprobs", "'asked'"),  # type: ignore[arg-type]
        (lambda: Answer(choices=(Answer(parts=[Said("a")]),)), "choices", "nor parts"),
        (lambda: Answer(choices=(Answer(tool_calls=(CUSTOM,)),)), "tool_calls", "functions, if there are choices"),
        (lambda: Answer(repeat=9, tool_calls=(CUSTOM,)), "tool_calls", "functions, if there are choices"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(make: Callable[[], object], field: str, allowed: str) -> None:
    with pytest.raises(OptionError) as refusal:
        make()
    assert refusal.value.field == field
    assert allowed in str(refusal.value)


def test_what_is_given_is_copied_so_that_an_answer_cannot_change() -> None:
    given = {"q": [1]}
    results = [Found("u")]
    tool, search = ServerTool("f", given, given), Search("q", results)
    given["q"].append(2)
    results.append(Found("v"))
    assert (tool.input, tool.output, search.results) == ({"q": [1]}, {"q": [1]}, (Found("u"),))
    metadata = {"cost": 1}
    answer = Answer(metadata=metadata)
    metadata["cost"] = 2
    assert answer.metadata == {"cost": 1}
    with pytest.raises(TypeError):
        answer.metadata["cost"] = 3  # type: ignore[index]


def test_an_answer_with_parts_counts_and_joins_what_they_say() -> None:
    assert ALL.full_text == "Looking.Found two wordsDone"
    assert ALL.pieces == ("Looking.", "Found", " ", "two", " words", "Do", "ne")
    assert ALL.reasoning_pieces == ["Hm,", " well."]
    assert of(Declined("No, no.")).refusal_pieces == ["No,", " no."]
    assert ALL.paused_s == 0.5
    assert ALL.paced_count == sum(part.token_count for part in PARTS)
    assert Said(tokens=["", "ab cd"]).pieces == ["", "ab cd"]


def test_only_an_answer_that_has_more_than_text_and_functions_needs_parts() -> None:
    asked = AnswerContext(number=1, model="m", created=0, input_tokens=0, top_logprobs=0)
    assert needs_parts(ALL, CONTEXT)
    assert needs_parts(Answer(metadata={"cost": 1}), CONTEXT)
    assert needs_parts(Answer(tool_calls=(ScriptedCall("f", type="custom"),)), CONTEXT)
    assert needs_parts(Answer(logprobs="always"), CONTEXT)
    assert not needs_parts(Answer(reasoning="r", tool_calls=(ScriptedCall("f"),)), CONTEXT)
    assert needs_parts(Answer(), asked)
    for answer in (Answer(logprobs="never"), Answer(repeat=9), Answer(choices=(Answer(),))):
        assert not needs_parts(answer, asked)


# --- wire forms ------------------------------------------------------------------------------------------------------


def test_chat_completions_send_openais_own_forms_and_those_of_other_servers() -> None:
    deltas = [chunk["choices"][0]["delta"] for chunk in streamed(ALL, "chat") if chunk["choices"]]
    entries = [entry for delta in deltas for entry in delta.get("reasoning_details", ())]
    form = {"format": "anthropic-claude-v1", "index": 0}
    assert entries == [
        {"type": "reasoning.text", **form, "text": "Hm,"},
        {"type": "reasoning.text", **form, "text": " well."},
        {"type": "reasoning.text", **form, "signature": "c2ln"},
        {"type": "reasoning.encrypted", "data": "c2VhbGVk", "format": "anthropic-claude-v1", "index": 1},
    ]
    tools = [tool for delta in deltas for tool in delta.get("executed_tools", ())]
    assert [(tool["index"], tool["type"], bool(tool["output"])) for tool in tools] == [
        (0, "search", False),
        (0, "search", True),
        (1, "python", False),
        (1, "python", True),
        (2, "ask", False),
        (2, "ask", True),
    ]
    [annotation] = [one for delta in deltas for one in delta.get("annotations", ())]
    place = {"start_index": 14, "end_index": 23, "title": "A"}
    assert annotation == {
        "type": "url_citation",
        "url_citation": {"url": "https://a.example/", **place, "content": "w w"},
    }
    [image] = [one for delta in deltas for one in delta.get("images", ())]
    assert image["image_url"]["url"] == f"data:image/png;base64,{PNG_TEXT}"
    assert [delta["audio"].get("transcript") for delta in deltas if "audio" in delta] == ["Two", " words", None, None]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert calls[0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert calls[2] == {"index": 1, "id": "c2", "type": "custom", "custom": {"name": "sql", "input": ""}}
    assert "".join(call.get("custom", {}).get("input", "") for call in calls) == "SELECT 1"


def test_a_responses_answer_is_made_of_items_each_begun_and_done() -> None:
    events = streamed(ALL, "responses")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    output = events[-1]["response"]["output"]
    kinds = [item["type"] for item in output]
    assert kinds == [
        *("reasoning", "reasoning", "message", "web_search_call", "message", "code_interpreter_call", "mcp_call"),
        *("image_generation_call", "message", "function_call", "custom_tool_call"),
    ]
    for name in ("added", "done"):
        found = [event for event in events if event["type"] == f"response.output_item.{name}"]
        assert [(event["output_index"], event["item"]["type"]) for event in found] == list(enumerate(kinds))
        assert [event["item"]["id"] for event in found] == [item["id"] for item in output]
    assert len({item["id"] for item in output}) == len(output)
    assert [item.get("encrypted_content") for item in output[:2]] == ["c2ln", "c2VhbGVk"]
    assert output[3]["action"]["sources"] == [{"type": "url", "url": "https://a.example/"}]
    [annotation] = output[4]["content"][0]["annotations"]
    assert (annotation["start_index"], annotation["end_index"]) == (6, 15)
    types = [event["type"] for event in events]
    assert "response.image_generation_call.partial_image" in types
    assert "response.audio.transcript.delta" in types
    assert whole(ALL, "responses")["output"] == output


def test_an_anthropic_text_is_cut_into_blocks_where_its_sources_begin_and_end() -> None:
    cited = [Source("https://a", start=2, end=4), Source("https://b", start=2, end=6)]
    message = whole(of(Said("abcdefgh", citations=cited), Said("!")), "anthropic")
    assert [(block["text"], len(block.get("citations", ()))) for block in message["content"]] == [
        ("ab", 0),
        ("cd", 2),
        ("ef", 1),
        ("gh!", 0),
    ]
    events = streamed(of(Said("abcdefgh", citations=cited), Said("!")), "anthropic")
    deltas = [(event["index"], event["delta"]["type"]) for event in events if event["type"] == "content_block_delta"]
    assert deltas == [
        (0, "text_delta"),
        (1, "citations_delta"),
        (1, "citations_delta"),
        (1, "text_delta"),
        (2, "citations_delta"),
        (2, "text_delta"),
        (3, "text_delta"),
        (3, "text_delta"),
    ]


def test_anthropic_blocks_of_tools_are_calls_in_fragments_and_whole_results() -> None:
    content = whole(ALL, "anthropic")["content"]
    assert [block["type"] for block in content] == [
        *("thinking", "redacted_thinking", "text", "server_tool_use", "web_search_tool_result", "text", "text"),
        *("server_tool_use", "code_execution_tool_result", "mcp_tool_use", "mcp_tool_result", "text", "tool_use"),
    ]
    assert content[3]["id"] == content[4]["tool_use_id"] == "srvtoolu_loopback_7_0"
    assert content[8]["content"] == {
        "type": "code_execution_result",
        "stdout": "42\n",
        "stderr": "",
        "return_code": 0,
        "content": [],
    }
    assert content[9] == {
        "type": "mcp_tool_use",
        "id": "mcptoolu_loopback_7_2",
        "name": "ask",
        "server_name": "wiki",
        "input": {"q": 1},
    }
    events = streamed(ALL, "anthropic")
    starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert starts == [block["type"] for block in content]
    typed = [
        event["delta"]["partial_json"]
        for event in events
        if event["type"] == "content_block_delta" and event["index"] == 3
    ]
    assert "".join(typed) == '{"query":"penstock"}'
    assert len(typed) > 2
    assert events[-2]["usage"]["server_tool_use"] == {"web_search_requests": 1, "web_fetch_requests": 0}


def test_failed_tools_say_so_in_each_apis_way() -> None:
    failed = of(
        Search("q", error="max_uses_exceeded"),
        Ran("x", "NameError", failed=True),
        ServerTool("web_fetch", {"url": "u"}, "url_not_allowed", failed=True),
        ServerTool("ask", {}, "gone", server="wiki", failed=True),
    )
    results = [block for block in whole(failed, "anthropic")["content"] if block["type"].endswith("_tool_result")]
    assert results[0]["content"] == {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    assert (results[1]["content"]["stderr"], results[1]["content"]["return_code"]) == ("NameError", 1)
    assert results[2]["content"] == {"type": "web_fetch_tool_result_error", "error_code": "url_not_allowed"}
    assert results[3]["is_error"] is True
    items = whole(failed, "responses")["output"]
    assert [item["status"] for item in items] == ["failed"] * 4
    assert (items[2]["error"], items[3]["output"]) == ("url_not_allowed", None)
    assert items[3]["error"] == {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "gone"}]}
    parts = whole(failed, "gemini")["candidates"][0]["content"]["parts"]
    assert parts[1]["toolResponse"]["response"] == {"error": "max_uses_exceeded"}
    assert parts[3]["codeExecutionResult"]["outcome"] == "OUTCOME_FAILED"
    assert parts[7]["toolResponse"]["response"] == {"error": "gone"}
    tools = whole(failed, "chat")["choices"][0]["message"]["executed_tools"]
    assert [tool["output"] for tool in tools] == [
        "Error: max_uses_exceeded",
        "NameError",
        "url_not_allowed",
        "gone",
    ]


def test_a_tool_whose_result_does_not_come_is_only_a_call() -> None:
    open_calls = of(
        Search("q", None), Ran("x", None), ServerTool("web_fetch"), ServerTool("shell", {"commands": ["ls"]})
    )
    content = whole(open_calls, "anthropic")["content"]
    assert [block["type"] for block in content] == ["server_tool_use"] * 4
    parts = whole(open_calls, "gemini")["candidates"][0]["content"]["parts"]
    assert [next(iter(part)) for part in parts] == ["toolCall", "executableCode", "toolCall", "toolCall"]
    items = whole(open_calls, "responses")["output"]
    assert [item["type"] for item in items] == [
        *("web_search_call", "code_interpreter_call", "web_fetch_call", "shell_call")
    ]


def test_the_responses_api_has_tools_of_its_own_with_results_in_items() -> None:
    answer = of(
        ServerTool("shell", {"commands": ["ls"]}, "a.txt\n", id="call_1"),
        ServerTool("shell", {}, [{"stdout": "b", "stderr": "", "outcome": {"type": "timeout"}}]),
        ServerTool("tool_search", {"goal": "g"}, [{"type": "function", "name": "f"}]),
        ServerTool("file_search", {"query": "q"}, [{"file_id": "file-1", "text": "t"}]),
        ServerTool("mystery", {}, 1),
    )
    items = whole(answer, "responses")["output"]
    assert [item["type"] for item in items] == [
        *("shell_call", "shell_call_output", "shell_call", "shell_call_output"),
        *("tool_search_call", "tool_search_output", "file_search_call"),
    ]
    assert items[0]["call_id"] == items[1]["call_id"] == "call_1"
    assert items[1]["output"] == [{"stdout": "a.txt\n", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
    assert items[3]["output"][0]["outcome"] == {"type": "timeout"}
    assert items[5]["tools"] == [{"type": "function", "name": "f"}]
    assert (items[6]["queries"], items[6]["results"]) == (["q"], [{"file_id": "file-1", "text": "t"}])
    assert streamed(answer, "responses")[-1]["response"]["output"] == items


@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        ("local_shell", '{"command":["ls"]}', {"action": {"type": "exec", "command": ["ls"], "env": {}}}),
        ("shell", '{"commands":["ls"]}', {"environment": {"type": "local"}}),
        ("apply_patch", '{"type":"delete_file","path":"a"}', {"operation": {"type": "delete_file", "path": "a"}}),
        ("computer", '{"type":"wait"}', {"action": {"type": "wait"}, "pending_safety_checks": []}),
        ("computer", '{"actions":[{"type":"wait"}]}', {"actions": [{"type": "wait"}]}),
        ("mcp_approval", '{"server_label":"w","arguments":{"a":1}}', {"server_label": "w", "arguments": '{"a":1}'}),
        ("tool_search", '{"goal":"g"}', {"execution": "client", "arguments": {"goal": "g"}}),
        ("local_shell", "{broken", {"action": "{broken"}),
    ],
)
def test_calls_of_other_types_are_items_of_the_responses_api_only(
    kind: str, arguments: str, expected: dict[str, Any]
) -> None:
    answer = of(Said("a"), ScriptedCall("f", arguments, id="c1", type=kind))
    _, item = whole(answer, "responses")["output"]
    assert {name: item[name] for name in expected} == expected
    assert item["type"] == ("mcp_approval_request" if kind == "mcp_approval" else f"{kind}_call")
    assert "c1" in (item.get("call_id"), item["id"])
    assert streamed(answer, "responses")[-1]["response"]["output"][1] == item
    for name in ("chat", "anthropic", "gemini", "ollama"):
        assert "broken" not in json.dumps(whole(answer, name))
        assert "c1" not in json.dumps(whole(answer, name))
    assert whole(answer, "chat")["choices"][0]["finish_reason"] == "stop"


def test_gemini_signs_the_next_part_that_can_be_signed_or_an_empty_text_at_the_end() -> None:
    signed = of(Thought("a", signature="s1"), Said("b"), Ran("c"), Thought("d", signature="s2"), Said("e"))
    parts = [document["candidates"][0]["content"]["parts"][0] for document in streamed(signed, "gemini")]
    assert [(next(iter(part)), part.get("thoughtSignature")) for part in parts] == [
        ("text", None),
        ("text", None),
        ("executableCode", "s1"),
        ("codeExecutionResult", None),
        ("text", None),
        ("text", None),
        ("text", "s2"),
    ]
    twice = of(Thought("a", signature="s1"), Thought("b", signature="s2"), ScriptedCall("f"))
    parts = whole(twice, "gemini")["candidates"][0]["content"]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, "s1", None, "s2"]


def test_geminis_sources_have_places_in_bytes_of_the_text() -> None:
    sources = [Source("https://a", "A", start=1, end=3), Source(kind="file", id="stores/1", cited_text="q")]
    answer = of(Said("é"), Said("xüyz", citations=sources), Search("q"), Said("."))
    for document in (streamed(answer, "gemini")[-1], streamed(answer, "gemini-array")[-1], whole(answer, "gemini")):
        found = document["candidates"][0]["groundingMetadata"]
        assert found["webSearchQueries"] == ["q"]
        assert found["groundingChunks"] == [
            {"web": {"uri": "https://a", "title": "A"}},
            {"retrievedContext": {"text": "q", "fileSearchStore": "stores/1"}},
        ]
        text = "éxüyz.".encode()
        segments = [one["segment"] for one in found["groundingSupports"]]
        assert [text[one.get("startIndex", 0) : one["endIndex"]].decode() for one in segments] == ["üy", "xüyz"]
        assert [one["text"] for one in segments] == ["üy", "xüyz"]
        assert [one["groundingChunkIndices"] for one in found["groundingSupports"]] == [[0], [1]]


def test_ollama_sends_what_it_has_and_leaves_out_the_rest() -> None:
    message = whole(ALL, "ollama")["message"]
    assert message == {
        "role": "assistant",
        "content": "Looking.Found two wordsDone",
        "thinking": "Hm, well.",
        "images": [PNG_TEXT],
        "tool_calls": [{"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}}],
    }
    lines = streamed(ALL, "ollama")
    assert "".join(line["message"]["content"] for line in lines) == message["content"]
    assert [line["logprobs"][0]["token"] for line in lines if "logprobs" in line] == ["Do", "ne"]


def test_sources_of_other_kinds_are_sent_where_there_is_a_form() -> None:
    sources = [
        Source("https://r", "R", kind="search_result", cited_text="r"),
        Source(kind="document", title="D", cited_text="dd"),
        Source(kind="file", id="file-1", title="f.txt", start=0, end=1),
    ]
    answer = of(Said("ab", citations=sources))
    chat = whole(answer, "chat")
    assert chat["search_results"] == [{"title": "R", "url": "https://r", "snippet": "r", "source": "web"}]
    assert chat["citations"] == ["https://r"]
    assert [one["type"] for one in chat["choices"][0]["message"]["annotations"]] == ["file_citation"]
    [annotation] = whole(answer, "responses")["output"][0]["content"][0]["annotations"]
    assert (annotation["type"], annotation["start_index"], annotation["end_index"]) == ("container_file_citation", 0, 1)
    cited = [one for block in whole(answer, "anthropic")["content"] for one in block["citations"]]
    assert [one["type"] for one in cited] == [
        *("search_result_location", "char_location", "char_location"),
        *("search_result_location", "char_location"),
    ]
    chunks = whole(answer, "gemini")["candidates"][0]["groundingMetadata"]["groundingChunks"]
    assert [next(iter(chunk)) for chunk in chunks] == ["web", "retrievedContext"]


def test_the_phase_of_a_text_makes_messages_of_the_responses_api() -> None:
    answer = of(Said("a", phase="commentary"), Said("b", phase="commentary"), Said("c", phase="final_answer"))
    items = whole(answer, "responses")["output"]
    assert [(item["phase"], item["content"][0]["text"]) for item in items] == [
        ("commentary", "ab"),
        ("final_answer", "c"),
    ]
    assert whole(answer, "chat")["choices"][0]["message"]["content"] == "abc"


def test_refusals_are_told_or_text() -> None:
    answer = of(Said("Well. "), Declined("I can’t."))
    assert whole(answer, "chat")["choices"][0]["message"]["refusal"] == "I can’t."
    assert whole(answer, "responses")["output"][1]["content"] == [{"type": "refusal", "refusal": "I can’t."}]
    message = whole(answer, "anthropic")
    assert ([block["text"] for block in message["content"]], message["stop_reason"]) == (["Well. I can’t."], "refusal")
    assert whole(answer, "gemini")["candidates"][0]["content"]["parts"] == [{"text": "Well. I can’t."}]
    assert whole(answer, "ollama")["message"]["content"] == "Well. I can’t."


@EVERY
def test_a_raw_event_comes_as_it_is_where_it_stands(name: str) -> None:
    answer = of(Said("ab"), RawEvent({"type": "response.new_thing", "x": [1]}, event=None), Said("cd"))
    found = [document for document in streamed(answer, name) if document.get("type") == "response.new_thing"]
    assert [document["x"] for document in found] == [[1]]
    steps = [step for step in encode(answer, name) if isinstance(step, bytes)]
    [place] = [number for number, step in enumerate(steps) if b"new_thing" in step]
    assert any(b'"ab"' in step for step in steps[:place])
    assert any(b'"cd"' in step for step in steps[place:])
    assert (b"event: response.new_thing" in steps[place]) == (name in ("responses", "anthropic"))
    assert "new_thing" not in json.dumps(whole(answer, name))


def test_raw_text_may_be_anything_of_one_line() -> None:
    steps = encode(of(RawEvent("{broken", event="odd")), "anthropic")
    assert b"event: odd\ndata: {broken\n\n" in steps


@EVERY
def test_a_block_in_an_apis_own_form_is_sent_by_that_api_only(name: str) -> None:
    blocks = [
        Block({"type": "reasoning.summary", "summary": "only chat"}, dialect="chat"),
        Block({"type": "compaction", "id": "cmp_1", "encrypted_content": "only responses"}, dialect="responses"),
        Block({"type": "compaction", "content": "only anthropic"}, dialect="anthropic"),
        Block({"text": "", "thoughtSignature": "only gemini"}, dialect="gemini"),
        Block({"thinking": "only ollama"}, dialect="ollama"),
    ]
    answer = of(*blocks)
    for told in (json.dumps(streamed(answer, name)), json.dumps(whole(answer, name))):
        said = [
            dialect for dialect in ("chat", "responses", "anthropic", "gemini", "ollama") if f"only {dialect}" in told
        ]
        assert said == [name.partition("-")[0]]


@EVERY
def test_what_is_left_out_does_not_divide_a_text(name: str) -> None:
    others = {
        "chat": [ScriptedCall("", "{}", type="shell"), Block({}, dialect="ollama")],
        "responses": [ServerTool("mystery", {}, 1), Picture(url="https://p"), Block({}, dialect="ollama")],
        "anthropic": [Picture(PNG), Sound(b"x"), CUSTOM, Block({}, dialect="ollama")],
        "gemini": [Thought(redacted="x"), CUSTOM, Block({}, dialect="ollama")],
        "ollama": [Search("q"), Sound(b"x"), Picture(url="https://p"), CUSTOM, Block({}, dialect="chat")],
    }
    left_out: list[Part] = others[name.partition("-")[0]]  # type: ignore[assignment]
    plain, divided = of(Said("a"), Said("b")), of(Said("a"), *left_out, Said("b"))
    unpaid = Usage(input_tokens=1, output_tokens=1)
    assert streamed(divided.replace(usage=unpaid), name) == streamed(plain.replace(usage=unpaid), name)
    assert whole(divided.replace(usage=unpaid), name) == whole(plain.replace(usage=unpaid), name)


# --- the answer as a whole -------------------------------------------------------------------------------------------


METADATA = {
    "response_id": "id-1",
    "system_fingerprint": "fp_1",
    "service_tier": "flex",
    "container": {"id": "c_1", "expires_at": "2026-01-01T00:00:00Z"},
    "stop_sequence": "END",
    "refusal_details": {"type": "refusal", "category": "cyber"},
    "finish_message": "why",
    "prompt_feedback": {"safetyRatings": []},
    "moderation": {"prompt_filter_results": [1]},
    "timings": {"total_duration": 5},
    "cost": 0.25,
    "usage_details": {"inference_geo": "eu"},
    "upstream_provider": "up",
    "upstream_model": "big",
    "native_finish_reason": "END_TURN",
}


def test_metadata_stand_where_each_api_has_them() -> None:
    answer = Answer("Hi", metadata=METADATA)
    chat = streamed(answer, "chat")
    assert {(chunk["id"], chunk["system_fingerprint"], chunk["service_tier"], chunk["provider"]) for chunk in chat} == {
        ("id-1", "fp_1", "flex", "up")
    }
    assert chat[0]["prompt_filter_results"] == [1]
    assert (chat[-1]["usage"]["cost"], chat[-2]["timings"]) == (0.25, {"total_duration": 5})
    [finished] = chat[-2]["choices"]
    assert (finished["stop_reason"], finished["native_finish_reason"]) == ("END", "END_TURN")
    assert whole(answer, "chat")["timings"] == {"total_duration": 5}

    response = whole(answer, "responses")
    names = ("id", "service_tier", "system_fingerprint", "provider", "moderation", "timings")
    expected = ("response_id", "service_tier", "system_fingerprint", "upstream_provider", "moderation", "timings")
    assert [response[name] for name in names] == [METADATA[name] for name in expected]
    assert response["usage"]["cost"] == 0.25

    first, *_, delta, _ = streamed(answer, "anthropic")
    assert (first["message"]["id"], first["message"]["container"]) == ("id-1", METADATA["container"])
    assert delta["delta"] == {
        "stop_reason": "stop_sequence",
        "stop_sequence": "END",
        "stop_details": METADATA["refusal_details"],
        "container": METADATA["container"],
    }
    assert (delta["usage"]["service_tier"], delta["usage"]["inference_geo"]) == ("flex", "eu")
    assert whole(answer, "anthropic")["stop_sequence"] == "END"

    documents = streamed(answer, "gemini")
    assert documents[0]["promptFeedback"] == METADATA["prompt_feedback"]
    assert "promptFeedback" not in documents[-1]
    assert documents[-1]["candidates"][0]["finishMessage"] == "why"
    assert (documents[-1]["responseId"], documents[-1]["usageMetadata"]["serviceTier"]) == ("id-1", "flex")

    last = streamed(answer, "ollama")[-1]
    assert (last["total_duration"], last["remote_host"], last["remote_model"]) == (5, "up", "big")
    assert last["done"] is True


@pytest.mark.parametrize(
    ("name", "reason"), [("chat", "stop"), ("anthropic", "pause_turn"), ("gemini", "STOP"), ("ollama", "stop")]
)
def test_a_paused_turn_is_told_where_the_api_knows_it(name: str, reason: str) -> None:
    for answer in (of(Search("q", None), finish_reason="pause_turn"), Answer("a", finish_reason="pause_turn")):
        told = json.dumps(streamed(answer, name)) + json.dumps(whole(answer, name))
        assert told.count(f'"{reason}"') == 2
    assert whole(of(Said("a"), finish_reason="pause_turn"), "responses")["status"] == "completed"


@EVERY
def test_what_parts_make_is_counted_as_usage(name: str) -> None:
    told = Usage(input_tokens=11, output_tokens=7)
    assert "11" in json.dumps(streamed(of(Said("a"), usage=told), name)[-2:])
    answer = of(Thought("a b"), Said("c d e"), ScriptedCall("f", '{"x": 12}'))
    assert answer.paced_count == 2 + 3 + 2
