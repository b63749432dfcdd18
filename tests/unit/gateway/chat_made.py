"""Events for the tests of projections: made by hand, by chance, or from recorded answers as the core makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from penstock.actors.call.answer import OutcomeBuilder
from penstock.actors.stream.folded import Told
from penstock.actors.stream.parts import PartSpans
from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.errors import IncompleteStream
from penstock.events import (
    Choice,
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ProviderEvent,
    ReasoningBlock,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    StreamStarted,
    TokenEvent,
    TokenKind,
    TokenLogprob,
    ToolApprovalRequested,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
    Usage,
)
from penstock.gateway.projections.frames import Frame, Opening, Projection
from penstock.ports import BlockStart, Decoder, Delta, ErrorDelta, ReasoningDelta, RefusalDelta, TextDelta

CORPUS = Path(__file__).parent.parent.parent / "corpus"


def opened(request: dict[str, Any] | None = None, model: str = "m", **variant: Any) -> Opening:
    """What a projection is told."""
    is_turn = variant.pop("is_turn", False)
    return Opening(
        stream_id="s1",
        epoch="e1",
        created=1_700_000_000,
        model=model,
        request=request or {},
        variant=variant,
        is_turn=is_turn,
    )


def token(text: str, kind: TokenKind = "text", part: int = 0) -> TokenEvent:
    return TokenEvent("s1", 0, (text,), text, kind, 0.0, {}, 0, part)


def snapshot(text: str = "", **more: Any) -> StreamSnapshot:
    return StreamSnapshot("s1", 0, (text,), text, "text", 0.0, {}, **more)


def reset(reason: str = "the connection broke") -> StreamReset:
    return StreamReset("s1", 0, reason, 0.0, {})


def completed(text: str = "", **more: Any) -> StreamCompleted:
    return StreamCompleted(stream_id="s1", seq=0, text=text, **more)


def failed(partial: str = "", **more: Any) -> StreamFailed:
    return StreamFailed(stream_id="s1", seq=0, partial=partial, error=IncompleteStream("no end"), **more)


def cancelled(partial: str = "", **more: Any) -> StreamCancelled:
    return StreamCancelled(stream_id="s1", seq=0, partial=partial, **more)


def call(name: str = "f", arguments: str = '{"x":1}', id: str = "call_1", **more: Any) -> ToolCall:
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError:
        parsed = None
    return ToolCall(id=id, name=name, arguments=parsed, arguments_raw=arguments, **more)


def calling(one: ToolCall, index: int = 0, pieces: int = 2) -> list[Event]:
    """The start of a call and its arguments in pieces."""
    raw = one.arguments_raw
    cut = max(1, -(-len(raw) // pieces))
    return [
        ToolCallStarted(id=one.id, name=one.name, index=index),
        *(ToolCallDelta(index=index, text=raw[at : at + cut]) for at in range(0, len(raw), cut)),
    ]


def numbered(events: Iterable[Event]) -> list[Event]:
    """The events with the numbers of a log."""
    return [msgspec.structs.replace(event, seq=seq) for seq, event in enumerate(events, 1)]


def fed(projection: Projection, *events: Event) -> list[Frame]:
    """The frames that these events make, in order; numbered on from 1."""
    return [frame for event in numbered(events) for frame in projection.feed(event)]


def sent(frames: Iterable[Frame]) -> bytes:
    return b"".join(frame.data for frame in frames)


def datas(body: bytes) -> list[Any]:
    """The data of each server-sent event, parsed; ``"[DONE]"`` as it is."""
    found: list[Any] = []
    for event in body.decode().split("\n\n"):
        lines = [line for line in event.split("\n") if line.startswith("data: ")]
        assert len(lines) <= 1, event
        if lines:
            data = lines[0].removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


# --- from recorded answers ----------------------------------------------------------------------------------------


def events_of(deltas: Iterable[Delta], decoder: Decoder, provider: str) -> list[Event]:
    """The events that the core makes of an answer, as the attempt does it."""
    builder = OutcomeBuilder()
    builder.provider = provider
    texts: dict[TokenKind, str] = {"text": "", "reasoning": "", "refusal": ""}
    events: list[Event] = []
    spans, part, phase, has_said = PartSpans(), 0, None, False
    error = None
    for delta in deltas:
        if isinstance(delta, (TextDelta, ReasoningDelta, RefusalDelta)):
            kind = _KINDS[type(delta)]
            texts[kind] += delta.text
            spans.add(kind, len(delta.text), part, phase)
            has_said = True
            events.append(TokenEvent("s1", 0, (delta.text,), delta.text, kind, 0.0, {}, 0, part, phase))
        elif isinstance(delta, BlockStart):
            if builder.extras.start_block(delta, len(texts["text"]), has_said=has_said):
                part, phase, has_said = builder.extras.part, builder.extras.phase, False
        elif isinstance(delta, ErrorDelta):
            error = error or delta.error
        else:
            events += builder.note(delta, len(texts["text"])) or ()
    is_whole = builder.is_finished or decoder.done
    if is_whole and error is None:
        events += builder.complete()
    builder.model = decoder.model
    outcome = builder.outcome()
    known = set(StreamCompleted.__struct_fields__) - {"text", "reasoning"}
    fields = {name: getattr(outcome, name) for name in outcome.__struct_fields__ if name in known}
    told = Told([])
    for event in events:
        told.add(event)
    fields |= told.fields()
    fields |= {"stream_id": "s1", "seq": 0, "provider": provider, "parts": spans.read()}
    fields |= {"reasoning": texts["reasoning"], "refusal": texts["refusal"]}
    if is_whole and error is None:
        return numbered([*events, StreamCompleted(text=texts["text"], **fields)])
    del fields["finish_reason"], fields["raw_finish_reason"]
    return numbered([*events, StreamFailed(partial=texts["text"], error=error or IncompleteStream("no end"), **fields)])


def source_of(facts: dict[str, Any]) -> list[Event]:
    """The events of a recording; ``facts``: its side file."""
    name, make = _PROVIDERS[facts["api"]]
    decoder = make(4 * 1_048_576)
    body = (CORPUS / facts["file"]).read_bytes()
    return events_of(decoder.feed(body) + decoder.close(), decoder, name)


_PROVIDERS: dict[str, tuple[str, Callable[[int], Decoder]]] = {
    "chat": ("openai", ChatDecoder),
    "responses": ("openai-responses", ResponsesDecoder),
    "messages": ("anthropic", MessagesDecoder),
    "gemini": ("gemini", GeminiDecoder),
    "gemini-json": ("gemini", GeminiDecoder),
    "ollama": ("ollama", OllamaDecoder),
}
_KINDS: dict[type, TokenKind] = {TextDelta: "text", ReasoningDelta: "reasoning", RefusalDelta: "refusal"}


# --- by chance ----------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=6)
CUTS = st.lists(st.integers(0, 60), max_size=4)
_WORDS = st.text(alphabet='abc \n"\\é\u2028\U0001f600', min_size=1, max_size=5)
_TOKENS = st.builds(
    token, _WORDS, st.sampled_from(["text", "reasoning", "refusal"]), st.integers(min_value=0, max_value=2)
)
_CITATIONS = st.builds(
    Citation,
    kind=st.sampled_from(["url", "file", "document", "search_result"]),
    url=st.none() | st.just("https://a.example/"),
    title=st.none() | TEXTS,
    start=st.none() | st.just(0),
    end=st.none() | st.just(3),
    location=st.sampled_from([{}, {"index": 4}, {"document_index": 0, "start_char_index": 1, "end_char_index": 2}]),
)
_MEDIA = st.builds(
    MediaPart,
    kind=st.sampled_from(["image", "audio", "video", "file"]),
    data=st.sampled_from(["", "aGk="]),
    is_partial=st.booleans(),
)
_BLOCKS = st.builds(
    ReasoningBlockClosed,
    index=st.just(0),
    kind=st.sampled_from(["thinking", "redacted_thinking", "reasoning", "reasoning.text", "reasoning.encrypted"]),
    signature=st.sampled_from(["", "c2ln"]),
    id=st.none() | st.just("rs_1"),
    provider=st.sampled_from([None, "anthropic", "openai-responses"]),
)
_LOGPROBS = st.builds(
    Logprobs, tokens=st.just((TokenLogprob(token="a", logprob=-0.5, top=(("a", -0.5), ("b", -1.0))),))
)
_IDS = st.sampled_from(["call_1", "call_2", "srvtoolu_1", "mcptoolu_2", "xs_call_3", ""])
_RAW = st.sampled_from(["", "{", "}", '{"x":1}', "{}", '"', "not json", "\\"])
_CALLS = st.builds(call, name=st.just("f"), arguments=_RAW, id=_IDS, is_server=st.booleans())
_INDICES = st.integers(min_value=0, max_value=2)
_TOOL_EVENTS = st.one_of(
    st.builds(ToolCallStarted, id=_IDS, name=st.just("f"), index=_INDICES),
    st.builds(ToolCallDelta, index=_INDICES, text=_RAW),
    st.builds(ToolCallCompleted, index=_INDICES, call=_CALLS),
    st.builds(ToolApprovalRequested, call=_CALLS),
    st.builds(ToolExecutionStarted, round=st.just(1), calls=st.tuples(_CALLS)),
    st.builds(ToolProgress, call_id=_IDS, name=st.just("f"), progress=TEXTS),
    st.builds(ToolResult, call_id=_IDS, name=st.just("f"), content=TEXTS),
    st.builds(ServerToolCall, id=_IDS, name=st.just("web_search"), input=st.sampled_from([None, {}, {"q": 1}, "text"])),
    st.builds(ServerToolResult, id=_IDS, name=st.just("web_search"), output=st.sampled_from([None, [], {"type": "x"}])),
)
_ODD = st.one_of(
    st.builds(StreamStarted, model=st.none() | st.just("m2")),
    st.builds(ProviderEvent, type=st.just("t"), payload=TEXTS),
    st.just(reset()),
    st.builds(snapshot, TEXTS, reasoning=TEXTS, refusal=TEXTS, tool_calls=st.tuples(_CALLS)),
)
_USAGES = st.none() | st.builds(
    Usage,
    input_tokens=st.none() | st.integers(0, 99),
    output_tokens=st.none() | st.integers(0, 99),
    cached_tokens=st.none() | st.integers(0, 9),
    server_tool_requests=st.none() | st.just({"web_search": 2, "sources": 1}),
)
_TERMINALS = st.one_of(
    st.builds(
        completed,
        TEXTS,
        reasoning=TEXTS,
        refusal=TEXTS,
        usage=_USAGES,
        provider=st.sampled_from([None, "anthropic", "gemini", "openai", "mine"]),
        finish_reason=st.sampled_from(["stop", "length", "tool_calls", "content_filter", "refusal", "other"]),
        tool_calls=st.tuples(_CALLS),
        citations=st.tuples(_CITATIONS),
        reasoning_blocks=st.just((ReasoningBlock(kind="reasoning", text="hm", signature="c2ln"),)),
        choices=st.just((Choice(index=1, text="b", finish_reason="stop"),)),
    ),
    st.builds(failed, TEXTS),
    st.builds(cancelled, TEXTS, reason=st.none() | TEXTS),
)
ANY_EVENTS = st.builds(
    lambda events, terminal: numbered([*events, *terminal]),
    st.lists(st.one_of(_TOKENS, _TOKENS, _CITATIONS, _MEDIA, _BLOCKS, _LOGPROBS, _TOOL_EVENTS, _ODD), max_size=14),
    st.lists(_TERMINALS, max_size=2),
)
"""Any events in any order, also such as no stream has."""


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """The events of an answer as streams have them: text of three kinds, calls at the end, sources, the end."""
    texts: dict[TokenKind, str] = {"text": "", "reasoning": "", "refusal": ""}
    events: list[Event] = []
    for one in draw(st.lists(_TOKENS, max_size=8)):
        events.append(token(one.text, one.kind))
        texts[one.kind] += one.text
    raws = draw(st.lists(st.sampled_from(['{"x":1}', "{}", '{"a":[{"b":"}"}]}', ""]), max_size=3))
    calls = tuple(call(arguments=raw, id=f"call_{place}") for place, raw in enumerate(raws))
    pieces = [calling(one, place, draw(st.integers(1, 4))) for place, one in enumerate(calls)]
    if draw(st.booleans()):
        events += (event for found in pieces for event in found)
    else:  # mixed
        events += (found[0] for found in pieces)
        events += (event for found in reversed(pieces) for event in found[1:])
    events += (ToolCallCompleted(index=place, call=one) for place, one in enumerate(calls))
    usage = draw(_USAGES)
    end = completed(
        texts["text"],
        reasoning=texts["reasoning"],
        refusal=texts["refusal"],
        tool_calls=calls,
        usage=usage,
        finish_reason="tool_calls" if calls else draw(st.sampled_from(["stop", "length", "content_filter"])),
    )
    return numbered([*events, end])


def is_valid_stream(body: bytes) -> bool:
    """Whether this is a body of server-sent events with JSON data: no line break inside, each event ended."""
    datas(body)
    allowed = ("data: ", "event: ", "id: ", ": ")
    lines = body.decode().split("\n")
    return b"\r" not in body and all(not line or line.startswith(allowed) for line in lines)


def pieces_of(frames: Sequence[Frame], cuts: Sequence[int]) -> list[Sequence[Frame]]:
    """The frames, cut at these places."""
    places = [0, *sorted(min(cut, len(frames)) for cut in cuts), len(frames)]
    return [frames[start:end] for start, end in pairwise(places)]
