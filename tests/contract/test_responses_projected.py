"""What is projected onto the Responses API, our decoder reads back: recordings of every provider, and any answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.actors.call.toolcalls import ToolCallAccumulator
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.config.options import RequestOptions
from penstock.events import (
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ReasoningBlock,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    TerminalEvent,
    TokenEvent,
    TokenLogprob,
    ToolCall,
    ToolCallCompleted,
)
from penstock.gateway.answers.responses import answer
from penstock.gateway.projections.frames import Opening, joined
from penstock.gateway.projections.responses import ResponsesProjection
from penstock.ports import Delta, ErrorDelta, FinishDelta, ToolCallFragment
from penstock.testing import Collector, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from tests.contract.extras import collect
from tests.contract.test_corpus_extras import DECODERS
from tests.corpus.derive_extras import CORPUS
from tests.unit.gateway.responses_kit import call_of, completed, done, numbered, piece, started, text

LIMIT = 8 * 1_048_576
EVERY = 5
"""One recording of this many is projected, besides those with something that few have."""
RARE = ("citations", "server_tools", "media", "logprobs", "call_types")


# --- recordings ------------------------------------------------------------------------------------------------------


def _sample() -> Iterator[Any]:
    for number, path in enumerate(sorted(CORPUS.glob("*/*.json"))):
        facts = json.loads(path.read_text(encoding="utf-8"))
        if number % EVERY == 0 or any(name in facts.get("expect_extras", {}) for name in RARE):
            yield pytest.param(facts, id=f"{facts['api']}:{path.parent.name}/{path.stem[-60:]}")


def _events(facts: dict[str, Any]) -> list[Event]:
    """The log of a stream that got the recording, and ended with what came."""
    decoder = DECODERS[facts["api"]](LIMIT)
    deltas = [*decoder.feed((CORPUS / facts["file"]).read_bytes()), *decoder.close()]
    kept = [delta for delta in deltas if not isinstance(delta, ErrorDelta)]
    errors = [delta.error for delta in deltas if isinstance(delta, ErrorDelta)]
    attempt = ScriptedAttempt((*kept, *errors[:1]), finish=None, model=decoder.model)
    with SimulatedSystem() as system:
        stream = system.chat(
            "m", "Hello", provider=ScriptedProvider(attempt), request_options=RequestOptions(max_retries=0)
        )
        collector = Collector(stream)
        collector.wait_for_terminal()
        return collector.events


@pytest.mark.parametrize("facts", list(_sample()))
def test_a_recording_is_read_back_from_its_projection(facts: dict[str, Any]) -> None:
    events = _events(facts)
    calls = [event.call for event in events if isinstance(event, ToolCallCompleted)]
    tools = [{"type": "custom", "name": call.name} for call in calls if call.type == "custom"]
    request: dict[str, Any] = {"top_logprobs": 1, "tools": tools}
    opening = Opening(stream_id="resp_1", epoch="e", created=1, model="m", request=request)
    projection = ResponsesProjection(opening)
    frames = [frame for event in events for frame in projection.feed(event)]
    assert [frame.number for frame in frames if b"[DONE]" not in frame.data] == list(
        range(len(frames) - (b"[DONE]" in frames[-1].data))
    )
    _compare(events, _decoded(b"".join(frame.data for frame in frames)))
    _compare(events, _decoded(joined(frames, projection)))
    end = events[-1]
    if isinstance(end, StreamCompleted):
        whole = answer(end, opening)
        body = b"data: " + json.dumps(whole).encode() + b"\n\n"
        _compare(events, _decoded(body), is_streamed=False)


def _decoded(body: bytes) -> list[Delta]:
    decoder = ResponsesDecoder(LIMIT)
    return [*decoder.feed(body), *decoder.close()]


# --- comparing -------------------------------------------------------------------------------------------------------


def _compare(events: list[Event], deltas: list[Delta], *, is_streamed: bool = True) -> None:
    end = events[-1]
    assert isinstance(end, (StreamCompleted, StreamFailed, StreamCancelled))
    assert not any(isinstance(event, StreamReset) for event in events)
    found = collect(deltas)
    tokens = [event for event in events if isinstance(event, TokenEvent)]
    for kind in ("text", "reasoning", "refusal"):
        assert found.texts[kind] == "".join(event.text for event in tokens if event.kind == kind)
    if isinstance(end, StreamCompleted):
        _compare_calls(events, deltas)
    _compare_citations(end, found.of("citations"))
    _compare_tools(end, found.of("server_tools"))
    _compare_media(events, end, found.of("media"), is_streamed=is_streamed)
    if not end.refusal:  # the API has no place for probabilities of a refusal
        assert tuple(found.tokens) == end.logprobs
    seals = [block.signature for block in end.reasoning_blocks if block.signature]
    blocks = [block for delta in deltas if (block := getattr(delta, "block", None)) is not None]
    assert [block.signature for block in blocks if block.signature] == seals
    _compare_end(end, deltas, found.usage)


def _compare_calls(events: list[Event], deltas: list[Delta]) -> None:
    calls = ToolCallAccumulator()
    for delta in deltas:
        if isinstance(delta, ToolCallFragment):
            calls.feed(delta)
    made = [call for call in calls.finish() if not call.is_server]
    ended = [event.call for event in events if isinstance(event, ToolCallCompleted) and not event.call.is_server]
    began = [call for call in made if call.arguments is not None]
    wanted = [call for call in ended if call.arguments is not None]
    assert sorted((_plain_id(call.id), call.name, repr(call.arguments)) for call in began) == sorted(
        (_plain_id(call.id), call.name, repr(call.arguments)) for call in wanted
    )


def _plain_id(identifier: str) -> str:
    return identifier.removesuffix("_1")


def _compare_citations(end: TerminalEvent, found: list[dict[str, Any]]) -> None:
    def told(kind: str, url: Any, identifier: Any, title: Any, span: Any, words: Any) -> tuple[Any, ...]:
        is_page = url and (kind in ("url", "search_result") or not identifier)
        return ("url" if is_page else "file", url or None, identifier, title or None, span, words or None)

    wanted = []
    for one in end.citations:
        span = None if one.start is None or one.end is None or one.end <= one.start else [one.start, one.end]
        wanted.append(told(one.kind, one.url, one.id, one.title, span, one.cited_text))
    seen = [told(one["kind"], one["url"], one["id"], one["title"], one["span"], one["cited_text"]) for one in found]
    assert sorted(seen, key=repr) == sorted(wanted, key=repr)


def _compare_tools(end: TerminalEvent, found: list[dict[str, Any]]) -> None:
    wanted = [event.id for event in end.server_tools if isinstance(event, ServerToolCall)]
    pictures = {part.id or "" for part in end.media} | {one for one in wanted if one.startswith("ig_")}
    seen = [one["id"] for one in found if one["step"] == "call"]
    assert [one for one in seen if one in wanted] == wanted
    assert all(one in wanted or one.startswith("ig_") or one in pictures for one in seen)
    results = {event.id for event in end.server_tools if isinstance(event, ServerToolResult) and event.output}
    assert {one["id"] for one in found if one["step"] == "result"} >= results - pictures


def _compare_media(events: list[Event], end: TerminalEvent, found: list[dict[str, Any]], *, is_streamed: bool) -> None:
    wanted = [len(part.data) for part in end.media if part.kind == "image" and part.data]
    assert [one["length"] for one in found if one["kind"] == "image" and not one["is_partial"]] == wanted
    if not is_streamed:
        return
    previews = [event for event in events if isinstance(event, MediaPart) and event.is_partial]
    shown = [one for one in found if one["is_partial"]]
    assert len([one for one in shown if one["kind"] == "image"]) == len([p for p in previews if p.kind == "image"])
    sound = [part for part in end.media if part.kind == "audio"]
    heard = [one for one in found if one["kind"] == "audio" and not one["is_partial"]]
    if len(sound) == 1:
        assert [(one["length"], one["transcript"]) for one in heard] == [(len(sound[0].data), sound[0].transcript)]


def _compare_end(end: TerminalEvent, deltas: list[Delta], usage: Any) -> None:
    reasons = [delta.reason for delta in deltas if isinstance(delta, FinishDelta)]
    errors = [delta for delta in deltas if isinstance(delta, ErrorDelta)]
    if isinstance(end, StreamFailed):
        assert reasons == []
        assert len(errors) == 1
        return
    assert errors == []
    assert isinstance(end, StreamCompleted)
    calls = [call for call in end.tool_calls if not call.is_server]
    same = {"length": "length", "content_filter": "content_filter"}
    wanted = same.get(end.finish_reason) or ("tool_calls" if calls else "refusal" if end.refusal else "stop")
    assert reasons in ([wanted], ["other"])
    if end.usage is not None:
        for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "server_tool_requests"):
            assert getattr(usage, name) == getattr(end.usage, name), name


# --- any answer ------------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


class _Written:
    """Builds the events of an answer that a provider could have given."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.texts = {"text": "", "reasoning": "", "refusal": ""}
        self.calls: list[ToolCall] = []
        self.citations: list[Citation] = []
        self.tools: list[Any] = []
        self.media: list[MediaPart] = []
        self.likely: list[TokenLogprob] = []
        self.blocks: list[ReasoningBlockClosed] = []
        self.part = 0

    def write(self, step: tuple[str, str]) -> None:
        kind, words = step
        count = len(self.events)
        match kind:
            case "text" | "reasoning" | "refusal":
                self.texts[kind] += words
                self.events.append(text(words, kind, self.part))
            case "likely":
                self.texts["text"] += words
                token = TokenLogprob(token=words, logprob=-0.25, top=(("x", -2.0),))
                self.likely.append(token)
                self.events += [text(words, "text", self.part), Logprobs(tokens=(token,))]
            case "part":
                self.part += 1
            case "cite" if self.texts["text"]:
                end = len(self.texts["text"])
                citation = Citation(kind="url", url=f"https://x.test/{count}", title=words, start=end - 1, end=end)
                self.citations.append(citation)
                self.events.append(citation)
            case "call":
                call = call_of('{"a":1}', f"c{count}", "add")
                self.calls.append(call)
                index = len(self.calls) - 1
                self.events += [started(index, call.id, "add"), piece('{"a"', index), piece(":1}", index)]
            case "search":
                asked = ServerToolCall(id=f"ws_{count}", name="web_search", input={"query": words})
                found = ServerToolResult(id=asked.id, name="web_search", output={"sources": [{"url": "https://y"}]})
                self.tools += [asked, found]
                self.events += [asked, found]
                self.part += 1
            case "picture":
                part = MediaPart(kind="image", mime="image/png", data="AAAA", id=f"ig_{count}")
                self.media.append(part)
                self.events.append(part)
                self.part += 1
            case "seal":
                block = ReasoningBlockClosed(index=len(self.blocks), kind="thinking", signature=words)
                self.blocks.append(block)
                self.events.append(block)
                self.part += 1

    def ended(self) -> list[Event]:
        ends = [completed(call, index) for index, call in enumerate(self.calls)]
        sealed = [ReasoningBlock(kind=block.kind, signature=block.signature) for block in self.blocks]
        end = done(
            self.texts["text"],
            reasoning=self.texts["reasoning"],
            refusal=self.texts["refusal"],
            finish_reason="tool_calls" if self.calls else "stop",
            tool_calls=tuple(self.calls),
            citations=tuple(self.citations),
            server_tools=tuple(self.tools),
            media=tuple(self.media),
            logprobs=tuple(self.likely),
            reasoning_blocks=tuple(sealed),
        )
        return numbered([*self.events, *ends, end])


STEPS = st.sampled_from(
    ["text", "text", "reasoning", "refusal", "likely", "part", "cite", "call", "search", "picture", "seal"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(STEPS, WORDS), max_size=12), st.booleans())
@example(steps=[("likely", "0"), ("text", "1"), ("likely", "2")], is_likely=True)
@example(steps=[("likely", "0"), ("text", "1"), ("likely", "2")], is_likely=False)
def test_any_answer_is_read_back_from_its_projection(steps: list[tuple[str, str]], is_likely: bool) -> None:
    written = _Written()
    for step in steps:
        written.write(step)
    events = written.ended()
    request: dict[str, Any] = {"include": ["message.output_text.logprobs"]} if is_likely else {}
    projection = ResponsesProjection(Opening(stream_id="resp_1", epoch="e", created=1, model="m", request=request))
    frames = [frame for event in events for frame in projection.feed(event)]
    _compare(events, _decoded(joined(frames, projection)))
