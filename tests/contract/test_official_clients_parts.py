"""What answers with parts send is what the types of the providers' own clients describe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import anthropic
import pytest
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from google.genai import types as genai_types
from ollama import ChatResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from penstock.adapters.loopback.dialects import generation_target
from penstock.adapters.loopback.encoder import AnswerContext
from penstock.adapters.loopback.script import (
    Answer,
    Block,
    Declined,
    Found,
    Picture,
    Ran,
    Said,
    Script,
    ScriptedCall,
    Search,
    ServerTool,
    Sound,
    Source,
    Thought,
)
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.loopback.timeline import stream_timeline, whole_timeline
from penstock.events import TokenLogprob
from tests.contract.official_clients import KEY, USER

PNG = b"\x89PNG\r\n\x1a\n----"
CONTEXT = AnswerContext(number=1, model="m", created=1_700_000_000, input_tokens=3, include_usage=True)
LIKELY = [TokenLogprob(token="Do", logprob=-0.5, top=(("Do", -0.5),)), TokenLogprob(token="ne", logprob=0.0)]
COMMON = (
    Thought("Hm, well.", signature="c2ln"),
    Said("Looking. "),
    Search("penstock", [Found("https://a.example/", "A", "text of A")]),
    Said("Found "),
    Said("two words", citations=[Source("https://a.example/", "A", cited_text="w w")]),
    Ran("print(42)", "42\n"),
    Said(logprobs=LIKELY),
    ScriptedCall("f", '{"x":1}', id="call_1", signature="c2ln"),
)
PAGE = {"type": "web_fetch_result", "url": "u", "retrieved_at": None}
SHOWN = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "t"}, "title": "T"}
COMPACTION = {"type": "compaction", "id": "cmp_1", "encrypted_content": "sealed"}
OF_RESPONSES = (
    Thought(redacted="sealed"),
    Said("b", phase="commentary", citations=[Source(kind="file", id="file-1", title="f.txt")]),
    Said("c", citations=[Source(kind="file", id="file-1", title="f.txt", start=0, end=1)]),
    ServerTool("ask", {"q": 1}, "yes", server="wiki"),
    ServerTool("ask", {"q": 1}, "no", server="wiki", failed=True),
    ServerTool("shell", {"commands": ["ls"], "timeout_ms": None, "max_output_length": None}, "a.txt"),
    ServerTool("tool_search", {"goal": "g"}, []),
    ServerTool("file_search", {"query": "q"}, [{"file_id": "file-1", "text": "t"}]),
    Picture(PNG, previews=[PNG[:8]]),
    Sound(b"RIFF", transcript="Two words"),
    Declined("No."),
    Block(COMPACTION, dialect="responses"),
    ScriptedCall("sql", "SELECT 1", type="custom"),
    ScriptedCall("", '{"command":["ls"]}', type="local_shell"),
    ScriptedCall("", '{"commands":["ls"]}', type="shell"),
    ScriptedCall("", '{"type":"delete_file","path":"a"}', type="apply_patch"),
    ScriptedCall("", '{"type":"wait"}', type="computer"),
    ScriptedCall("f", '{"server_label":"wiki","arguments":{}}', type="mcp_approval"),
    ScriptedCall("", '{"goal":"g"}', type="tool_search"),
)
OF_ANTHROPIC = (
    Thought(redacted="sealed"),
    Said("b", citations=[Source(kind="document", title="D", cited_text="d")]),
    Said("c", citations=[Source("https://r", "R", kind="search_result", cited_text="r")]),
    Search("q", error="max_uses_exceeded"),
    ServerTool("web_fetch", {"url": "u"}, PAGE | {"content": SHOWN | {"citations": None}}),
    ServerTool("web_fetch", {"url": "u"}, "url_not_allowed", failed=True),
    ServerTool("ask", {"q": 1}, "yes", server="wiki"),
    Block({"type": "compaction", "content": "summary"}, dialect="anthropic"),
)
OF_GEMINI = (
    Picture(PNG),
    Picture(url="https://p.example/p.png"),
    Sound(b"RIFF"),
    Ran("x", "NameError", failed=True),
    ServerTool("file_search", {"q": 1}, [1]),
    Said("d", citations=[Source(kind="file", title="f.txt", cited_text="q")]),
)
ANSWERS: dict[str, tuple[str, Answer, Any, Any]] = {
    "chat": (
        "/v1/chat/completions",
        Answer(parts=[*COMMON, Sound(b"RIFF", transcript="Two words"), Picture(PNG), Declined("No.")]),
        ChatCompletionChunk,
        ChatCompletion,
    ),
    "responses": ("/v1/responses", Answer(parts=[*COMMON, *OF_RESPONSES]), ResponseStreamEvent, Response),
    "messages": (
        "/v1/messages",
        Answer(
            parts=[*COMMON, *OF_ANTHROPIC],
            metadata={"container": {"id": "c", "expires_at": "2026-01-01T00:00:00Z"}, "service_tier": "standard"},
        ),
        BetaRawMessageStreamEvent,
        BetaMessage,
    ),
    "paused": (
        "/v1/messages",
        Answer(parts=[Search("q", None)], finish_reason="pause_turn"),
        BetaRawMessageStreamEvent,
        BetaMessage,
    ),
    "gemini": (
        "/v1beta/models/m:streamGenerateContent",
        Answer(parts=[*COMMON, *OF_GEMINI]),
        genai_types.GenerateContentResponse,
        genai_types.GenerateContentResponse,
    ),
    "ollama": ("/api/chat", Answer(parts=COMMON), ChatResponse, ChatResponse),
}


def streamed(body: bytes) -> Iterator[Any]:
    """The documents of a body of events or lines, parsed without our parsers."""
    for line in body.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith((b"data: {", b"{")):
            yield json.loads(line.removeprefix(b"data: "))


def is_described(document: Mapping[str, Any]) -> bool:
    """Whether the client has a type for it: not for pings, nor for a search that begins without its query."""
    item: Any = document.get("item")
    begun = isinstance(item, dict) and document["type"] == "response.output_item.added"
    return document.get("type") != "ping" and not (begun and item["type"] == "web_search_call")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ANSWERS)
def test_every_event_has_the_form_that_the_providers_client_describes(name: str) -> None:
    path, answer, event, whole = ANSWERS[name]
    target = generation_target(path, {"alt": "sse"})
    assert target is not None
    dialect = target.dialect
    steps = stream_timeline(answer, lambda: dialect.make_encoder(answer, CONTEXT))
    documents = list(streamed(b"".join(step for step in steps if isinstance(step, bytes))))
    assert len(documents) > 3
    described = TypeAdapter(event)
    for document in documents:
        if is_described(document):
            described.validate_python(document)
    steps = whole_timeline(answer, dialect.make_encoder(answer, CONTEXT), dialect.encode_error)
    TypeAdapter(whole).validate_json(b"".join(step for step in steps if isinstance(step, bytes)))


def test_anthropics_client_puts_the_blocks_together() -> None:
    answer = ANSWERS["messages"][1]
    with LoopbackProvider(Script(answer), api_key=KEY) as server:
        client = anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0)
        with client, client.beta.messages.stream(model="m", max_tokens=99, messages=USER) as stream:
            message = stream.get_final_message()
    kinds = [block.type for block in message.content]
    assert kinds[:6] == ["thinking", "text", "server_tool_use", "web_search_tool_result", "text", "text"]
    assert message.stop_reason == "tool_use"
    blocks = [block.model_dump() for block in message.content]
    assert blocks[0]["signature"] == "c2ln"
    assert blocks[2]["input"] == {"query": "penstock"}
    assert [one["url"] for one in blocks[5]["citations"]] == ["https://a.example/"]
