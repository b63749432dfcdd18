"""Answers with parts over real sockets: what Penstock's own client makes of them, in every API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
import requests

import penstock
from penstock.adapters.loopback.faults import ResetAfter, StallAfter, TruncateAfter
from penstock.adapters.loopback.script import (
    Answer,
    Block,
    Found,
    Picture,
    Ran,
    RawEvent,
    Replies,
    Said,
    ScriptedCall,
    Search,
    ServerTool,
    Silence,
    Sound,
    Source,
    Thought,
)
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.adapters.providers.ollama.provider import OllamaChat
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.events import (
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCompleted,
    TokenEvent,
    TokenLogprob,
    ToolCallCompleted,
)
from penstock.ports import ChatCall, CitationDelta, EventDelta, ReasoningDelta, Secret, TextDelta
from penstock.testing import Collector, eventually
from tests.contract.providers import (
    ANTHROPIC,
    EVERY,
    GEMINI,
    HELLO,
    KEY,
    OLLAMA,
    OPENAI,
    PATIENCE,
    RESPONSES,
    House,
    Wire,
    completed,
    failed,
    house,
    serving,
)

PNG = b"\x89PNG\r\n\x1a\n----"
PAGE = "https://a.example/"
PARTS = (
    Thought("Hm, well.", signature="c2ln"),
    Said("Looking up. "),
    Search("penstock", [Found(PAGE, "A", "text of A")]),
    Silence(0.01),
    Said("Fünd "),
    Said("two words", citations=[Source(PAGE, "A", cited_text="w w")]),
    Said(". "),
    Ran("print(42)", "42\n"),
    ServerTool("ask", {"q": 1}, "yes", server="wiki"),
    Picture(PNG),
    Sound(b"RIFF", transcript="Spoken"),
    RawEvent({"type": "response.new_thing", "x": 1}),
    Said(logprobs=[TokenLogprob(token="Do", logprob=-0.5, top=(("Do", -0.5),)), TokenLogprob(token="ne", logprob=0.0)]),
    ScriptedCall("f", '{"x":1}', id="call_1", signature="c2ln"),
    ScriptedCall("sql", "SELECT 1", id="call_2", type="custom"),
    ScriptedCall("local_shell", '{"command":["ls"]}', id="call_3", type="local_shell"),
)
TEXT = "Looking up. Fünd two words. Done"
METADATA = {
    "system_fingerprint": "fp_1",
    "service_tier": "flex",
    "container": {"id": "c_1", "expires_at": "2026-01-01T00:00:00Z"},
    "timings": {"total_duration": 5},
}
CLOSED = {"openai": "reasoning.text", "openai-responses": "reasoning", "anthropic": "thinking"}
CITED = "two words"

WIKI = {"openai": "ask", "openai-responses": "mcp", "anthropic": "ask", "gemini": "ASK"}
NAMES = {
    "openai": ("search", "python"),
    "openai-responses": ("web_search", "code_interpreter"),
    "anthropic": ("web_search", "code_execution"),
    "gemini": ("GOOGLE_SEARCH_WEB", "code_execution"),
}


def expected(wire: Wire) -> list[Any]:
    """What the client tells of `PARTS`, in order; consecutive tokens are one text, with the number of its part."""
    name = wire.name
    is_chat, is_responses = wire is OPENAI, wire is RESPONSES
    has_parts = wire in (RESPONSES, ANTHROPIC, GEMINI)
    told: list[Any] = [("reasoning", 0, "Hm, well.")]
    if name in CLOSED:
        told.append(("closed", CLOSED[name]))
    told.append(("text", 0, "Looking up. "))
    if wire is OLLAMA:
        return [
            *told[:-1],
            ("text", 0, TEXT[:28]),
            ("media", "image", "image/png", False),
            ("raw", ""),
            *[("text", 0, "Do"), ("likely", ["Do"]), ("text", 0, "ne"), ("likely", ["ne"])],
            ("call", "f", "function"),
        ]
    search, code = NAMES[name]
    told += [("tool", search), ("result", search)]
    part = int(has_parts)
    if is_chat:
        told += [("text", 0, "Fünd two words"), ("cites", CITED), ("text", 0, ". ")]
    elif is_responses or wire is ANTHROPIC:
        told += [("text", part, "Fünd two words"), ("cites", CITED), ("text", part, ". ")]
    else:
        told.append(("text", part, "Fünd two words. "))
    for each in (code, WIKI[name]):
        told += [("tool", each), ("result", each)]
    if is_responses:
        told.append(("tool", "image_generation"))
    if wire is not ANTHROPIC:
        told.append(("media", "image", "image/png", False))
        sound = [("media", "audio", None, True)] * 2 if wire is not GEMINI else [("media", "audio", "audio/wav", False)]
        told += sound
    told.append(("raw", "" if wire is GEMINI else "response.new_thing"))
    part = 2 if has_parts else 0
    if wire is ANTHROPIC:
        told.append(("text", part, "Done"))
    else:
        told += [("text", part, "Do"), ("likely", ["Do"]), ("text", part, "ne"), ("likely", ["ne"])]
    if wire is GEMINI:
        told.append(("cites", CITED))
    told += [("media", "audio", None, False)] * (wire in (OPENAI, RESPONSES))
    told.append(("call", "f", "function"))
    told += [("call", "sql", "custom")] * (wire in (OPENAI, RESPONSES))
    told += [("call", "local_shell", "local_shell")] * is_responses
    return told


def told(events: list[Event], text: str) -> list[Any]:
    """The events in short, in order; consecutive tokens of a kind and part are one."""
    found: list[Any] = []
    for event in events:
        match event:
            case TokenEvent(kind=kind, part=part, text=piece):
                if found and found[-1][:2] == (kind, part):
                    found[-1] = (kind, part, found[-1][2] + piece)
                else:
                    found.append((kind, part, piece))
            case ReasoningBlockClosed(kind=name):
                found.append(("closed", name))
            case Citation(start=int(start), end=int(end), url=url):
                assert url == PAGE
                found.append(("cites", text[start:end]))
            case ServerToolCall(name=name):
                found.append(("tool", name))
            case ServerToolResult(name=name):
                found.append(("result", name))
            case MediaPart(kind=medium, mime=mime, is_partial=is_partial):
                found.append(("media", medium, mime, is_partial))
            case Logprobs(tokens=tokens):
                found.append(("likely", [one.token for one in tokens]))
            case ProviderEvent(type=name):
                found.append(("raw", name))
            case ToolCallCompleted(call=call) if not call.is_server:
                found.append(("call", call.name, call.type))
    return found


ALL = Answer(parts=PARTS, metadata=METADATA)
MODELS: Mapping[str, Replies] = {
    "all": ALL,
    "split": ALL.replace(split="bytes"),
    "gzip": ALL.replace(framing="gzip", pace=0.001),
    "crlf": ALL.replace(line_ending="\r\n", comments=2, bom=True),
    "paused": Answer(parts=[Said("a"), Silence(3600), Said("b")]),
    "plain": Answer("a b c"),
    "picture": Answer(parts=[Picture(PNG)]),
}


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackProvider]:
    with serving(MODELS) as made:
        yield made


@pytest.fixture
def home(server: LoopbackProvider) -> Iterator[House]:
    with house(server) as made:
        yield made


RAW = {"request_options": penstock.RequestOptions(max_retries=0, raw="unknown")}


@EVERY
@pytest.mark.parametrize("model", ["all", "split", "gzip", "crlf"])
def test_every_part_is_told_in_order_with_the_text_it_stands_in(home: House, wire: Wire, model: str) -> None:
    collector = home.watch(wire, model, **RAW)
    end = completed(collector)
    assert end.text == TEXT
    assert told(collector.events, end.text) == expected(wire)


def bare(*events: Any) -> list[Any]:
    """Events without what the stream has put on them, as the terminal event repeats them."""
    return [msgspec.structs.replace(event, stream_id="", seq=0, timestamp=0.0, metadata={}) for event in events]


@EVERY
def test_the_end_repeats_what_was_told(home: House, wire: Wire) -> None:
    collector = home.watch(wire, "all")
    end = completed(collector)
    events = collector.events
    tools = [event for event in events if isinstance(event, (ServerToolCall, ServerToolResult))]
    assert bare(*end.server_tools) == bare(*tools)
    assert bare(*end.citations) == bare(*[event for event in events if isinstance(event, Citation)])
    whole = [event for event in events if isinstance(event, MediaPart) and not event.is_partial]
    assert bare(*end.media) == bare(*whole)
    likely = [token for event in events if isinstance(event, Logprobs) for token in event.tokens]
    assert list(end.logprobs) == likely
    assert end.finish_reason == "tool_calls"
    assert (end.reasoning, end.text) == ("Hm, well.", TEXT)
    parts = [end.text[part.start : part.end] for part in end.parts if part.kind == "text"]
    cut = ["Looking up. ", "Fünd two words. ", "Done"] if wire in (RESPONSES, ANTHROPIC, GEMINI) else [TEXT]
    assert parts == cut
    if wire is not ANTHROPIC:
        assert [base64.b64decode(one.data) for one in whole if one.kind == "image"] == [PNG]


@pytest.mark.parametrize(
    ("wire", "names"),
    [
        (OPENAI, {"system_fingerprint", "service_tier", "timings"}),
        (RESPONSES, {"system_fingerprint", "service_tier", "timings"}),
        (ANTHROPIC, {"service_tier", "container"}),
        (OLLAMA, {"timings"}),
    ],
    ids=["openai", "openai-responses", "anthropic", "ollama"],
)
def test_metadata_reach_the_end(home: House, wire: Wire, names: set[str]) -> None:
    metadata = completed(home.watch(wire, "all")).provider_metadata
    for name in names - {"timings"}:
        assert metadata[name] == METADATA[name]
    if "timings" in names:
        assert metadata["timings"]["total_duration"] == 5
    assert "container" not in metadata or wire is ANTHROPIC


def test_geminis_tier_is_told_with_the_usage(home: House) -> None:
    usage = completed(home.watch(GEMINI, "all")).usage
    assert usage is not None
    assert usage.service_tier == "flex"


@EVERY
def test_an_answer_of_only_a_picture_is_an_answer_where_there_are_pictures(home: House, wire: Wire) -> None:
    if wire is ANTHROPIC:  # it has no pictures, so nothing is left
        return
    end = completed(home.watch(wire, "picture"))
    assert (end.text, [one.kind for one in end.media]) == ("", ["image"])


@EVERY
def test_what_precedes_a_pause_arrives_before_it_ends(home: House, wire: Wire) -> None:
    stream = home.ask(wire, "paused")
    collector = Collector(stream)
    eventually(lambda: collector.text == "a", PATIENCE)
    stream.cancel()
    assert collector.wait_for_terminal(PATIENCE).text == "a"


PROVIDERS: Mapping[str, Any] = {
    "openai": OpenAiChat,
    "openai-responses": OpenAiResponses,
    "anthropic": AnthropicMessages,
    "gemini": Gemini,
    "ollama": OllamaChat,
}


@EVERY
def test_the_whole_answer_says_the_same_as_the_stream(server: LoopbackProvider, home: House, wire: Wire) -> None:
    streamed = completed(home.watch(wire, "all"))
    provider = PROVIDERS[wire.name](Secret(KEY), wire.url(server))
    request = provider.request(ChatCall(model="all", input=HELLO))
    url = request.url.replace(":streamGenerateContent", ":generateContent").partition("?")[0]
    headers = {**request.headers, **{name: secret.reveal() for name, secret in request.secret_headers.items()}}
    body = json.loads(request.body) | ({} if wire is GEMINI else {"stream": False})
    whole = requests.post(url, json=body, headers=headers, timeout=PATIENCE)
    assert whole.status_code == 200, whole.text
    decoder = provider.decoder(penstock.RequestOptions())
    framed = whole.content + b"\n" if wire is OLLAMA else b"data: " + whole.content + b"\n\n"
    deltas = decoder.feed(framed) + decoder.close()
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == streamed.text
    assert "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta)) == streamed.reasoning
    told = [delta.event for delta in deltas if isinstance(delta, EventDelta)]
    tools = [event for event in told if isinstance(event, (ServerToolCall, ServerToolResult))]
    assert [(type(one), one.name) for one in tools] == [(type(one), one.name) for one in streamed.server_tools]
    likely = [token for event in told if isinstance(event, Logprobs) for token in event.tokens]
    assert likely == list(streamed.logprobs)
    cited = [delta.citation.url for delta in deltas if isinstance(delta, CitationDelta)]
    assert cited == [one.url for one in streamed.citations]
    pictures = [event.data for event in told if isinstance(event, MediaPart) and event.kind == "image"]
    assert pictures == [one.data for one in streamed.media if one.kind == "image"]


# --- what goes wrong -------------------------------------------------------------------------------------------------


BROKEN = Answer(parts=[Said("Looking. "), Search("penstock", [Found(PAGE)]), Said("Found.")])


@pytest.mark.parametrize("wire", [OPENAI, RESPONSES, ANTHROPIC, GEMINI], ids=lambda wire: wire.name)
@pytest.mark.parametrize("fault", [TruncateAfter(2), TruncateAfter(2, clean=True), ResetAfter(2)])
def test_an_answer_that_breaks_off_in_a_tool_fails_with_what_came(wire: Wire, fault: Any) -> None:
    with serving({"broken": BROKEN.replace(faults=(fault,))}) as server, house(server) as home:
        end = failed(home.watch(wire, "broken"))
    assert end.partial == "Looking. "
    assert [type(one) for one in end.server_tools] in ([], [ServerToolCall])


@EVERY
def test_a_tool_after_a_stall_is_told_as_without_it(wire: Wire) -> None:
    models = {"stalled": ALL.replace(faults=(StallAfter(4, 0.01), StallAfter(9, 0.01)))}
    with serving(models) as server, house(server) as home:
        collector = home.watch(wire, "stalled", **RAW)
        end = completed(collector)
    assert told(collector.events, end.text) == expected(wire)


def test_a_finish_that_gemini_sends_before_the_result_of_code_ends_nothing() -> None:
    answer = Answer(parts=[Ran("6*7", "42", takes=0.1, early_finish=True), Said("It is 42.")])
    options = penstock.RequestOptions(max_retries=0, finish_grace=0.001)
    with serving({"code": answer}) as server, house(server) as home:
        end = completed(home.watch(GEMINI, "code", request_options=options))
    assert (end.text, [type(one) for one in end.server_tools]) == ("It is 42.", [ServerToolCall, ServerToolResult])


@EVERY
def test_an_attempt_that_broke_off_leaves_nothing_of_its_tools(wire: Wire) -> None:
    models = {"once": [ALL.replace(faults=(TruncateAfter(12),)), ALL]}
    with serving(models) as server, house(server) as home:
        options = penstock.RequestOptions(max_retries=1, retry_base_delay=0.001, on_interrupt="restart")
        end = completed(home.watch(wire, "once", request_options=options))
    assert end.text == TEXT
    calls = [one for one in end.server_tools if isinstance(one, ServerToolCall)]
    assert len(calls) == len({one.id for one in calls})
    assert len(end.media) == sum(each[0] == "media" and not each[3] for each in expected(wire))


# --- probabilities by request ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "parameters"),
    [
        (OPENAI, {"logprobs": True, "top_logprobs": 2}),
        (RESPONSES, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
        (OLLAMA, {"logprobs": True, "top_logprobs": 2}),
        (GEMINI, {"generationConfig": {"responseLogprobs": True, "logprobs": 2}}),
    ],
    ids=["openai", "openai-responses", "ollama", "gemini"],
)
def test_a_plain_answer_has_probabilities_if_they_are_asked_for(
    home: House, wire: Wire, parameters: dict[str, Any]
) -> None:
    end = completed(home.watch(wire, "plain", **parameters))
    assert [(one.token, len(one.top)) for one in end.logprobs] == [("a", 2), (" b", 2), (" c", 2)]
    assert completed(home.watch(wire, "plain")).logprobs == ()


# --- what goes back --------------------------------------------------------------------------------------------------


@penstock.tool
def look(x: int) -> str:
    """Look it up."""
    return f"seen {x}"


ASKED = Answer(
    parts=[
        Thought("I should look.", signature="c2ln"),
        Said("Looking. "),
        ScriptedCall("look", '{"x":1}', id="call_1", signature="Y2FsbA=="),
    ]
)
SEARCHED = Answer(parts=[Thought("Hm.", signature="c2ln"), Search("q", [Found(PAGE)]), *ASKED.parts[1:]])
GIVEN_BACK: Mapping[str, list[tuple[str | None, str]]] = {
    "openai": [("reasoning.text", "c2ln"), ("function", "Y2FsbA==")],
    "openai-responses": [("reasoning", "c2ln")],
    "anthropic": [("thinking", "c2ln")],
    "gemini": [(None, "Y2FsbA==")],
    "ollama": [(None, "I should look.")],
}


@EVERY
def test_an_agents_second_round_gives_back_what_was_signed(wire: Wire) -> None:
    with serving({"asked": [ASKED, Answer("Done.")]}) as server, house(server) as home:
        agent = home.system.agent(model="asked", provider=wire.name, tools=[look])
        answer = agent.chat("Look it up", timeout=PATIENCE)
        first, second = home.requests("asked")
    assert isinstance(answer, StreamCompleted)
    assert answer.text == "Looking. Done."
    assert first.returned == []
    kinds = GIVEN_BACK[wire.name]
    assert [block.get("type") for block in second.returned][-len(kinds) :] == [kind for kind, _ in kinds]
    for _, seal in kinds:
        assert seal in json.dumps(second.returned)
    assert (second.tool_result, second.last_user_text) == ("seen 1", "Look it up")


@pytest.mark.parametrize(
    ("wire", "kinds"),
    [
        (RESPONSES, ["reasoning", "web_search_call"]),
        (ANTHROPIC, ["thinking", "server_tool_use", "web_search_tool_result"]),
        (GEMINI, ["toolCall", "toolResponse", "functionCall"]),
    ],
    ids=["openai-responses", "anthropic", "gemini"],
)
def test_an_agents_second_round_gives_back_the_providers_own_tools(wire: Wire, kinds: list[str]) -> None:
    with serving({"searched": [SEARCHED, Answer("Done.")]}) as server, house(server) as home:
        home.system.agent(model="searched", provider=wire.name, tools=[look]).chat("Look", timeout=PATIENCE)
        _, second = home.requests("searched")
    assert [block.get("type") or next(iter(block)) for block in second.returned] == kinds
    assert "c2ln" in json.dumps(second.returned[0])


def test_a_turn_that_pauses_goes_on_with_what_is_given_back() -> None:
    paused = Answer(parts=[Said("Looking. "), Search("q", None)], finish_reason="pause_turn")
    with serving({"paused": [paused, Answer("Done.")]}) as server, house(server) as home:
        answer = home.system.agent(model="paused", provider="anthropic").chat("Hi", timeout=PATIENCE)
        first, second = home.requests("paused")
    assert isinstance(answer, StreamCompleted)
    assert answer.text == "Looking. Done."
    assert (first.returned, [block["type"] for block in second.returned]) == ([], ["server_tool_use"])


def test_compacted_history_and_results_of_custom_tools_are_accepted() -> None:
    compacted = Block({"type": "compaction", "id": "cmp_1", "encrypted_content": "sealed"}, dialect="responses")
    asked = Answer(parts=[compacted, ScriptedCall("sql", "SELECT 1", id="call_1", type="custom")])
    with serving({"sql": [asked, Answer("Done.")]}) as server, house(server) as home:
        answer = home.system.agent(model="sql", provider="openai-responses").chat("Query", timeout=PATIENCE)
        _, second = home.requests("sql")
    assert isinstance(answer, StreamCompleted)
    assert answer.text == "Done."
    assert [block["type"] for block in second.returned] == ["compaction"]
    assert second.messages[-1]["type"] == "custom_tool_call_output"
    assert "sql" in (second.tool_result or "")
