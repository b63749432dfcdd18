"""Anthropic's Messages API, streamed: named events, content blocks one after the other; errors as ``event: error``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from penstock.errors import StreamCancelledError
from penstock.events import (
    AnswerEvent,
    AnswerPart,
    Citation,
    Event,
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
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
)
from penstock.gateway.answers.anthropic_parts import (
    citation_body,
    message_body,
    message_metadata,
    result_block,
    seal,
    sealed_block,
    stop_reason,
    usage_body,
)
from penstock.gateway.answers.chat import client_calls
from penstock.gateway.problems import Problem, problem_of
from penstock.gateway.projections.anthropic_calls import CallBlocks, OpenCall
from penstock.gateway.projections.frames import Frame, Opening, Projection, Rejoin, encode, sse
from penstock.gateway.projections.origins import Origins
from penstock.gateway.projections.sent import ANTHROPIC_SERVER_IDS, Sent, is_server_id

__all__ = ["AnthropicProjection", "anthropic_status", "error_body"]

_PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'
_KINDS: Final[tuple[TokenKind, ...]] = ("reasoning", "text", "refusal")
_STATUS: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "overloaded_error": 529,
}
_CLIENTS: Final = (405, 408, 410, 414, 421)
"""Statuses that no type has, and that are the client's: they stay, with the type of a wrong request."""
_DELTAS: Final = {"text": b'"text_delta","text"', "thinking": b'"thinking_delta","thinking"'}
_ARGUMENTS: Final = b'"input_json_delta","partial_json"'


def _error_type(problem: Problem) -> str:
    if problem.status == 413:
        return "request_too_large"
    if problem.status in (503, 529):
        return "overloaded_error"
    if problem.status in _CLIENTS:
        return "invalid_request_error"
    return problem.type if problem.type in _STATUS else "api_error"


def anthropic_status(problem: Problem) -> int:
    """The HTTP status of an error: the one that Anthropic has for its type, or one of the client's that has none.

    >>> anthropic_status(Problem(status=502, type="server_error", code="provider_error", message=""))
    500
    """
    return problem.status if problem.status in _CLIENTS else _STATUS[_error_type(problem)]


def error_body(problem: Problem, request_id: str | None = None) -> dict[str, Any]:
    """The body of an error, of a response or of an event ``error``."""
    body: dict[str, Any] = {
        "type": "error",
        "error": {"type": _error_type(problem), "message": problem.message, "code": problem.code},
    }
    return body if request_id is None else body | {"request_id": request_id}


class _Prose(NamedTuple):
    """A block of text or thinking that is open."""

    kind: str
    block: int
    part: int
    has_sources: bool = False


class AnthropicProjection(Projection):
    """Blocks of text, thinking and calls. A refusal is text.

    A block ends when something else begins. Two are open at the same time only if text comes amid a call's arguments.
    Text that follows citations is a block of its own, since they are of their whole block. Server tools and their
    results appear if they are Anthropic's. The inputs of a stream that is made from several are not told apart: their
    text is joined in the order in which it came. Calls that an agent's turn runs itself are invisible.
    """

    name = "anthropic"
    heartbeat = _PING
    rejoin: ClassVar[Rejoin] = "start"  # clients accept nothing before ``message_start``

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._model = opening.model
        self._has_begun = False
        self._has_ended = False
        self._is_agent = opening.is_turn
        self._origins = Origins()
        self._begin_answer()

    def _begin_answer(self) -> None:
        self._sent = Sent()
        self._blocks = 0
        self._prose: _Prose | None = None
        self._open = CallBlocks()
        self._calls: dict[int, OpenCall | None] = {}  # None: the client does not see it
        self._calls_by_id: dict[str, OpenCall | None] = {}
        self._has_client_calls = False

    # --- frames -------------------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> list[Frame]:
        if self._has_ended:
            return []
        if getattr(event, "origin", None) is not None:
            event = self._origins.note(event)
        handler = _HANDLERS.get(type(event))
        return [] if handler is None else handler(self, event)

    def delta(self, key: Any, text: str, seq: int, number: int) -> bytes:
        kind = _DELTAS.get(key[0], _ARGUMENTS)
        return (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%b:%b}}\n\n'
            % (key[1], kind, encode(text))
        )

    def cut(self, problem: Problem) -> bytes:
        return sse(encode(error_body(problem)), event="error")

    def _piece(self, kind: str, index: int, text: str, seq: int) -> Frame:
        key = (kind, index)
        return Frame(seq, self.delta(key, text, seq, 0), key, text)

    def _event(self, seq: int, name: str, **fields: Any) -> Frame:
        return Frame(seq, sse(encode({"type": name, **fields}), event=name))

    def _begin(self, seq: int) -> list[Frame]:
        """``message_start``, if it has not been sent."""
        if self._has_begun:
            return []
        self._has_begun = True
        return [self._event(seq, "message_start", message=message_body(self.opening.stream_id, self._model))]

    def _fail(self, seq: int, problem: Problem) -> list[Frame]:
        self._has_ended = True
        return [Frame(seq, self.cut(problem))]

    # --- blocks -------------------------------------------------------------------------------------------------------

    def _start(self, seq: int, block: dict[str, Any]) -> Frame:
        index = self._blocks
        self._blocks += 1
        return self._event(seq, "content_block_start", index=index, content_block=block)

    def _stop(self, seq: int, index: int) -> Frame:
        return self._event(seq, "content_block_stop", index=index)

    def _make_room(self, seq: int) -> list[Frame]:
        """End what is open, as far as it can end now, since another block begins."""
        return [*self._begin(seq), *self._advance(seq, is_other_waiting=True), *self._end_prose(seq)]

    def _end_prose(self, seq: int) -> list[Frame]:
        prose, self._prose = self._prose, None
        return [] if prose is None else [self._stop(seq, prose.block)]

    def _whole(self, seq: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[Frame]:
        """A block that comes at once."""
        frames = self._make_room(seq)
        index = self._blocks
        frames.append(self._start(seq, block))
        frames += [self._event(seq, "content_block_delta", index=index, delta=delta) for delta in deltas]
        return [*frames, self._stop(seq, index)]

    # --- text ---------------------------------------------------------------------------------------------------------

    def _started(self, event: StreamStarted) -> list[Frame]:
        self._is_agent = True
        self._model = self._model or event.model or ""
        return self._begin(event.seq)

    def _token(self, event: TokenEvent) -> list[Frame]:
        if event.dropped:
            self.lost += event.dropped
        if not event.text:
            return []
        self._sent.add(event.kind, event.text)
        return self._say(event.seq, event.kind, event.text, event.part)

    def _say(self, seq: int, kind: TokenKind, text: str, part: int) -> list[Frame]:
        block = "thinking" if kind == "reasoning" else "text"
        prose = self._prose
        if prose is not None and prose.kind == block and prose.part == part and not prose.has_sources:
            return [self._piece(block, prose.block, text, seq)]
        frames = self._make_room(seq)
        self._prose = _Prose(block, self._blocks, part)
        empty = {"thinking": "", "signature": ""} if block == "thinking" else {"text": ""}
        frames.append(self._start(seq, {"type": block, **empty}))
        return [*frames, self._piece(block, self._prose.block, text, seq)]

    def _closed(self, event: ReasoningBlockClosed) -> list[Frame]:
        self._sent.blocks += 1
        block = ReasoningBlock(kind=event.kind, signature=event.signature, id=event.id, provider=event.provider)
        return self._sealed(event.seq, block)

    def _sealed(self, seq: int, block: ReasoningBlock) -> list[Frame]:
        """Sign the open block of thinking, or send one of its own."""
        if block.kind == "redacted_thinking":
            return self._whole(seq, sealed_block(block))
        if not block.signature and block.id is None:
            return []
        signature = {"type": "signature_delta", "signature": seal(block)}
        prose = self._prose
        if prose is not None and prose.kind == "thinking":
            signed = self._event(seq, "content_block_delta", index=prose.block, delta=signature)
            return [signed, *self._end_prose(seq)]
        return self._whole(seq, {"type": "thinking", "thinking": "", "signature": ""}, signature)

    def _cite(self, event: Citation) -> list[Frame]:
        self._sent.citations += 1
        frames: list[Frame] = []
        if self._prose is None or self._prose.kind != "text":
            frames = self._make_room(event.seq)
            self._prose = _Prose("text", self._blocks, event.part)
            frames.append(self._start(event.seq, {"type": "text", "text": ""}))
        self._prose = self._prose._replace(has_sources=True)
        delta = {"type": "citations_delta", "citation": citation_body(event)}
        return [*frames, self._event(event.seq, "content_block_delta", index=self._prose.block, delta=delta)]

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call_started(self, event: ToolCallStarted) -> list[Frame]:
        is_theirs = event.id.startswith(ANTHROPIC_SERVER_IDS)
        is_server = is_theirs or is_server_id(event.id) or event.is_server
        if not is_theirs and (self._is_agent or is_server):
            self._calls[event.index] = self._calls_by_id[event.id] = None
            return []
        self._calls[event.index] = self._new_call(event.id, event.name)
        return [*self._begin(event.seq), *self._advance(event.seq)]

    def _new_call(self, call_id: str, name: str) -> OpenCall:
        is_server = call_id.startswith(ANTHROPIC_SERVER_IDS)
        call = self._calls_by_id[call_id] = OpenCall(call_id, name, is_server=is_server)
        self._has_client_calls = self._has_client_calls or not is_server
        self._open.add(call)
        return call

    def _call_delta(self, event: ToolCallDelta) -> list[Frame]:
        call = self._calls.get(event.index)
        if call is None or call.is_stale or call.is_complete or not event.text:
            return []
        return self._argue(event.seq, call, event.text)

    def _argue(self, seq: int, call: OpenCall, text: str) -> list[Frame]:
        call.add(text)
        frames = [] if call.block is None else [self._piece("call", call.block, text, seq)]
        return [*frames, *self._advance(seq)]

    def _call_completed(self, event: ToolCallCompleted) -> list[Frame]:
        return self._complete(event.seq, event.call)

    def _complete(self, seq: int, call: ToolCall) -> list[Frame]:
        """Send what a complete call has besides what was sent of it."""
        is_theirs = call.id.startswith(ANTHROPIC_SERVER_IDS)
        if call.id not in self._calls_by_id:
            if not is_theirs and (call.is_server or self._is_agent):
                self._calls_by_id[call.id] = None
                return []
            self._new_call(call.id, call.name)
        known = self._calls_by_id[call.id]
        if known is None or known.is_complete:
            return []
        return self._end_call(seq, known, call.arguments_raw[known.length :])

    def _end_call(self, seq: int, call: OpenCall, rest: str) -> list[Frame]:
        frames = [*self._begin(seq), *self._advance(seq)]
        if rest:
            frames += self._argue(seq, call, rest)
        call.is_complete = True
        return [*frames, *self._advance(seq)]

    def _advance(self, seq: int, *, is_other_waiting: bool = False, is_end: bool = False) -> list[Frame]:
        """Begin and end the blocks of the calls that are next."""
        frames: list[Frame] = []
        while True:
            if (call := self._open.next_to_begin()) is not None:
                frames += self._end_prose(seq)
                call.block = self._blocks
                kind = "tool_use"
                if call.is_server:
                    kind = "mcp_tool_use" if call.id.startswith("mcp") else "server_tool_use"
                frames.append(self._start(seq, {"type": kind, "id": call.id, "name": call.name, "input": {}}))
                if call.pieces:
                    frames.append(self._piece("call", call.block, "".join(call.pieces), seq))
                    call.pieces = []
            ended = self._open.take_ended(is_other_waiting=is_other_waiting, is_end=is_end)
            if ended is None or ended.block is None:
                return frames
            frames.append(self._stop(seq, ended.block))

    def _executed(self, event: ToolExecutionStarted) -> list[Frame]:
        self._is_agent = True
        self._calls = {}
        return []

    def _progressed(self, event: ToolProgress) -> list[Frame]:
        return [Frame(event.seq, _PING)] if self._has_begun else []

    # --- Anthropic's own tools ----------------------------------------------------------------------------------------

    def _server_called(self, event: ServerToolCall) -> list[Frame]:
        self._sent.server_tools += 1
        if not event.id.startswith(ANTHROPIC_SERVER_IDS):
            return []
        call = self._calls_by_id.get(event.id) or self._new_call(event.id, event.name)
        if call.is_complete:
            return []
        is_missing = not call.length and event.input not in (None, {})
        return self._end_call(event.seq, call, encode(event.input).decode() if is_missing else "")

    def _server_answered(self, event: ServerToolResult) -> list[Frame]:
        self._sent.server_tools += 1
        if not event.id.startswith(ANTHROPIC_SERVER_IDS):
            return []
        return self._whole(event.seq, result_block(event))

    # --- resets and snapshots -----------------------------------------------------------------------------------------

    def _reset(self, event: StreamReset) -> list[Frame]:
        self.note_lost(event)
        if event.origin is not None and self._origins.without(event.origin, event.seq) is None:
            return []  # nothing of it has come
        return self._restart(event.seq, event.reason)

    def _restart(self, seq: int, reason: str) -> list[Frame]:
        """Begin again. Blocks cannot be taken back: those that were sent make an error of it."""
        has_said = self._blocks > 0
        self._begin_answer()
        if not has_said:
            return []
        message = f"the answer began again after a part of it had been sent: {reason}"
        return self._fail(seq, Problem(status=502, type="server_error", code="stream_restarted", message=message))

    def _snapshot(self, event: StreamSnapshot) -> list[Frame]:
        self.note_lost(event)
        self._origins.fold(event)
        self._is_agent = self._is_agent or bool(event.tool_results)
        texts: dict[TokenKind, str] = {"text": event.text, "reasoning": event.reasoning, "refusal": event.refusal}
        if any(self._sent.rest(kind, text) is None for kind, text in texts.items()):
            failed = self._restart(event.seq, "events were missed")
            if failed:
                return failed
        news = self._news(event.answer_events)
        frames = self._catch_up(event.seq, self._pieces(texts, event.parts), news, event.tool_calls)
        for call in self._open.unfinished():
            call.is_stale = True
        return frames

    def _news(self, events: Iterable[AnswerEvent]) -> list[AnswerEvent]:
        """Those that have not been sent; the snapshot has them in the same order."""
        sent = self._sent
        skipped = {"citations": sent.citations, "blocks": sent.blocks, "server_tools": sent.server_tools}
        news: list[AnswerEvent] = []
        for event in events:
            name = _COUNTED.get(type(event), "")
            if skipped.get(name, 0) > 0:
                skipped[name] -= 1
            elif name:
                news.append(event)
        return news

    def _pieces(self, texts: dict[TokenKind, str], parts: Sequence[AnswerPart]) -> list[tuple[int, TokenKind, str]]:
        """The text that has not been sent, in the order of its parts: the part, the kind, the text."""
        pieces: list[tuple[int, TokenKind, str]] = []
        for kind in _KINDS:
            begin, text = self._sent.length(kind), texts[kind]
            rest = self._sent.rest(kind, text)
            if not rest:
                continue
            spans = [part for part in parts if part.kind == kind and part.end > begin]
            found = [(part.index, kind, text[max(part.start, begin) : part.end]) for part in spans]
            pieces += found if "".join(piece for _, _, piece in found) == rest else [(0, kind, rest)]
        return sorted(pieces, key=lambda piece: piece[0])

    def _catch_up(
        self,
        seq: int,
        pieces: list[tuple[int, TokenKind, str]],
        events: Iterable[AnswerEvent],
        calls: Iterable[ToolCall],
    ) -> list[Frame]:
        """Send what has not been sent: reasoning with its signatures, tools, text with its sources, calls."""
        closed, tools, cited = _sorted(events)
        thoughts = [place for place, (_, kind, _) in enumerate(pieces) if kind == "reasoning"]
        is_paired = len(thoughts) == sum(event.kind != "redacted_thinking" for event in closed)
        last_text = max((place for place, (_, kind, _) in enumerate(pieces) if kind != "reasoning"), default=-1)
        frames: list[Frame] = []
        for place, (part, kind, text) in enumerate(pieces):
            if place == last_text:  # where between the texts they were is not known
                frames += self._feed_all([*(() if is_paired else closed), *tools])
                closed, tools = (closed if is_paired else []), []
            is_signed = is_paired and kind == "reasoning"
            while is_signed and closed[0].kind == "redacted_thinking":
                frames += self.feed(closed.pop(0))
            self._sent.add(kind, text)
            frames += [*self._begin(seq), *self._say(seq, kind, text, part)]
            if is_signed:
                frames += self.feed(closed.pop(0))
        frames += self._feed_all([*closed, *tools, *cited])
        for call in calls:
            frames += self._complete(seq, call)
        return [Frame(seq, frame.data, frame.key, frame.text, frame.number) for frame in frames]

    def _feed_all(self, events: Iterable[AnswerEvent]) -> list[Frame]:
        return [frame for event in events for frame in self.feed(event)]

    # --- the end ------------------------------------------------------------------------------------------------------

    def _completed(self, event: StreamCompleted) -> list[Frame]:
        seq, sent = event.seq, self._sent
        texts: dict[TokenKind, str] = {"text": event.text, "reasoning": event.reasoning, "refusal": event.refusal}
        calls = client_calls(event, is_turn=self._is_agent)
        blocks = event.reasoning_blocks[sent.blocks :]
        closed = [
            ReasoningBlockClosed(index=place, kind=one.kind, signature=one.signature, id=one.id, provider=one.provider)
            for place, one in enumerate(blocks, sent.blocks)
        ]
        events = [*closed, *event.server_tools[sent.server_tools :], *event.citations[sent.citations :]]
        frames = [*self._begin(seq), *self._catch_up(seq, self._pieces(texts, event.parts), events, calls)]
        frames += [*self._advance(seq, is_end=True), *self._end_prose(seq)]
        word = stop_reason(event, event.finish_reason, event.raw_finish_reason, has_calls=self._has_client_calls)
        delta = {"stop_reason": word, **message_metadata(event)}
        managed = event.provider_metadata.get("context_management")
        more: dict[str, Any] = {} if managed is None else {"context_management": managed}
        self.note_lost(event)
        if self.lost:
            more["penstock"] = {"dropped": self.lost}
        frames.append(self._event(seq, "message_delta", delta=delta, usage=usage_body(event), **more))
        self._has_ended = True
        return [*frames, self._event(seq, "message_stop")]

    def _failed(self, event: StreamFailed) -> list[Frame]:
        return self._fail(event.seq, problem_of(event.error))

    def _cancelled(self, event: StreamCancelled) -> list[Frame]:
        return self._fail(event.seq, problem_of(StreamCancelledError(event.stream_id, event.reason)))


def _sorted(
    events: Iterable[AnswerEvent],
) -> tuple[list[ReasoningBlockClosed], list[AnswerEvent], list[AnswerEvent]]:
    """Ends of reasoning, tools and their results, citations."""
    events = list(events)
    closed = [event for event in events if isinstance(event, ReasoningBlockClosed)]
    tools: list[AnswerEvent] = [event for event in events if isinstance(event, (ServerToolCall, ServerToolResult))]
    return closed, tools, [event for event in events if isinstance(event, Citation)]


_COUNTED: Final[dict[type, str]] = {
    Citation: "citations",
    ReasoningBlockClosed: "blocks",
    ServerToolCall: "server_tools",
    ServerToolResult: "server_tools",
}
_HANDLERS: Final[dict[type, Callable[[AnthropicProjection, Any], list[Frame]]]] = {
    StreamStarted: AnthropicProjection._started,
    TokenEvent: AnthropicProjection._token,
    ReasoningBlockClosed: AnthropicProjection._closed,
    Citation: AnthropicProjection._cite,
    ToolCallStarted: AnthropicProjection._call_started,
    ToolCallDelta: AnthropicProjection._call_delta,
    ToolCallCompleted: AnthropicProjection._call_completed,
    ToolExecutionStarted: AnthropicProjection._executed,
    ToolProgress: AnthropicProjection._progressed,
    ServerToolCall: AnthropicProjection._server_called,
    ServerToolResult: AnthropicProjection._server_answered,
    StreamReset: AnthropicProjection._reset,
    StreamSnapshot: AnthropicProjection._snapshot,
    StreamCompleted: AnthropicProjection._completed,
    StreamFailed: AnthropicProjection._failed,
    StreamCancelled: AnthropicProjection._cancelled,
}
