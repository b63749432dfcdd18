"""OpenAI's chat completions, streamed: chunks, then ``[DONE]``. An answer that breaks off ends in an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from penstock.errors import StreamCancelledError
from penstock.events import (
    AnswerEvent,
    Choice,
    Citation,
    Event,
    FinishReason,
    Logprobs,
    MediaPart,
    ReasoningBlock,
    ReasoningBlockClosed,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    StreamStarted,
    TokenEvent,
    TokenKind,
    TokenLogprob,
    ToolCall,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
)
from penstock.gateway.answers.chat import client_calls
from penstock.gateway.answers.chat_parts import (
    annotation,
    call_body,
    call_extras,
    choice_reason,
    envelope_extras,
    finish_extras,
    finish_reason,
    logprob_bodies,
    media_body,
    reasoning_detail,
    usage_body,
)
from penstock.gateway.problems import Problem, problem_of
from penstock.gateway.projections.chat_chunks import Chunks
from penstock.gateway.projections.frames import DONE, Frame, Opening, Projection, encode
from penstock.gateway.projections.native import event_name
from penstock.gateway.projections.origins import Origins
from penstock.gateway.projections.sent import Sent, is_server_id
from penstock.gateway.projections.shown import brief_fields

__all__ = ["ChatProjection", "error_body"]

_KINDS: Final[tuple[TokenKind, ...]] = ("reasoning", "text", "refusal")


def error_body(problem: Problem) -> dict[str, Any]:
    """The body of an error, of a response or of a frame."""
    return {
        "error": {"message": problem.message, "type": problem.type, "param": problem.param, "code": problem.code},
    }


class _ToldCall:
    """A call that has begun: its place among the client's calls, and how much of its arguments has been sent."""

    __slots__ = ("is_custom", "is_done", "is_hidden", "is_stale", "length", "number")

    def __init__(self, number: int, *, is_hidden: bool, is_custom: bool = False) -> None:
        self.number = number
        self.is_hidden = is_hidden
        self.is_custom = is_custom
        self.length = 0
        self.is_stale = False  # pieces of it may have been missed
        self.is_done = False


class ChatProjection(Projection):
    """Chunks of one choice; the further ones (``n`` > 1) come whole before the end.

    The inputs of a stream that is made from several are not distinguished: their text is joined in the order in
    which it came. Calls that an agent's turn runs itself are invisible, and so are those of the provider's own tools:
    the client would run them.

    Variants: ``events: numbered`` gives each event the native cursor as its ``id``; ``reasoning_field`` names the field
    of reasoning; ``extras: penstock`` tells what chat completions have no word for in ``delta.penstock``, and goes on
    after a `StreamReset`, which ends the stream otherwise. After one of a single ``origin``, what the other inputs have
    said is told again.
    """

    name = "openai"

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._chunks = Chunks(opening)
        reasoning = opening.variant.get("reasoning_field", "reasoning_content")
        self._fields: dict[TokenKind, str] = {"text": "content", "reasoning": reasoning, "refusal": "refusal"}
        self._has_extras = opening.variant.get("extras") == "penstock"
        self._custom_names = _custom_names(opening.request.get("tools"))
        self._holds_text = bool(opening.request.get("logprobs"))  # until its probabilities have come
        self._held = ""
        self._held_kind: TokenKind = "text"
        self._has_begun = False
        self._has_ended = False
        self._is_agent = opening.is_turn
        self._origins = Origins()
        self._has_folded = False  # probabilities before a snapshot are not sent
        self._begin_answer()

    def _begin_answer(self) -> None:
        self._sent = Sent()
        self._calls: dict[int, _ToldCall] = {}
        self._calls_by_id: dict[str, _ToldCall] = {}
        self._numbers = 0  # of the client's calls
        self._counts: dict[str, int] = {}  # of media, by kind
        self._has_sound = False  # pieces of sound have come, and not the whole
        self._sealed_to = 0  # characters of reasoning that belong to sealed pieces
        self._sealed: list[tuple[int, int]] = []  # where the next sealed pieces are, if a snapshot says so
        self._held = ""

    # --- frames -------------------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> list[Frame]:
        if self._has_ended:
            return []
        if getattr(event, "origin", None) is not None:
            event = self._origins.note(event)
        handler = _HANDLERS.get(type(event))
        if self._held and handler not in _TAKE_HELD:
            before = self._frames(event.seq, self._release(), is_last=False)
            return [*before, *self._handle(handler, event)]
        return self._handle(handler, event)

    def _handle(self, handler: Callable[[ChatProjection, Any], list[Frame]] | None, event: Event) -> list[Frame]:
        return self._row(event) if handler is None else handler(self, event)

    def delta(self, key: Any, text: str, seq: int, number: int) -> bytes:
        if type(key) is str:
            return self._chunks.numbered(seq, self._chunks.text(key, text))
        return self._chunks.numbered(seq, self._chunks.arguments(key[0], text, is_custom=key[1]))

    def cut(self, problem: Problem) -> bytes:
        return self._chunks.event(encode(error_body(problem)))

    def _frames(self, seq: int, bodies: Iterable[bytes], *, is_last: bool = True) -> list[Frame]:
        """Frames of these chunks; the last one ends what the event makes, unless it says otherwise."""
        events = [self._chunks.event(body) for body in bodies]
        if is_last and events:
            events[-1] = self._chunks.numbered(seq, events[-1])
        return [Frame(seq, event) for event in events]

    def _role(self, seq: int) -> list[Frame]:
        """The first chunk, if it has not been sent; another one must follow."""
        if self._has_begun:
            return []
        self._has_begun = True
        return self._frames(seq, [self._chunks.choice({"role": "assistant", "content": ""})], is_last=False)

    def _one(self, seq: int, delta: dict[str, Any], **more: Any) -> list[Frame]:
        return [*self._role(seq), *self._frames(seq, [self._chunks.choice(delta, **more)])]

    def _fail(self, seq: int, problem: Problem) -> list[Frame]:
        self._has_ended = True
        return [Frame(seq, self._chunks.numbered(seq, self.cut(problem)))]

    @property
    def _has_said(self) -> bool:
        """Whether anything of the answer has been sent."""
        sent = self._sent
        others = self._numbers or self._has_sound or sent.media or sent.citations or sent.blocks
        return bool(others or any(sent.length(kind) for kind in _KINDS))

    # --- text ---------------------------------------------------------------------------------------------------------

    def _started(self, event: StreamStarted) -> list[Frame]:
        self._is_agent = True
        self._chunks.name_model(event.model)
        if self._has_begun:
            return []
        self._has_begun = True
        return self._frames(event.seq, [self._chunks.choice({"role": "assistant", "content": ""})])

    def _token(self, event: TokenEvent) -> list[Frame]:
        text, kind = event.text, event.kind
        if event.dropped:
            self.lost += event.dropped
        if not text:
            return []
        if self._holds_text:
            return self._hold(event)
        self._sent.add(kind, text)
        field = self._fields[kind]
        frame = Frame(event.seq, self.delta(field, text, event.seq, 0), field, text)
        return [frame] if self._has_begun else [*self._role(event.seq), frame]

    def _hold(self, event: TokenEvent) -> list[Frame]:
        """Keep text until the next event, which has its probabilities. If it has not, none will come: keep no more."""
        before = self._frames(event.seq, self._release(), is_last=False)
        if event.kind != "reasoning" and not before:
            self._held, self._held_kind = event.text, event.kind
            return self._role(event.seq)
        self._holds_text = not before
        self._sent.add(event.kind, event.text)
        field = self._fields[event.kind]
        frame = Frame(event.seq, self.delta(field, event.text, event.seq, 0), field, event.text)
        return [*before, *self._role(event.seq), frame]

    def _release(self, logprobs: dict[str, Any] | None = None) -> list[bytes]:
        """The chunk of the text that was kept, and of probabilities, if there is any."""
        text, self._held = self._held, ""
        if not text and logprobs is None:
            return []
        delta = {self._fields[self._held_kind]: text} if text else {}
        self._sent.add(self._held_kind, text)
        return [self._chunks.choice(delta, logprobs=logprobs)]

    def _logprobs(self, event: Logprobs) -> list[Frame]:
        """Send probabilities with their text; if that was not kept, directly after it, with an empty delta."""
        return self._probabilities(event.seq, event.tokens)

    def _probabilities(self, seq: int, tokens: tuple[TokenLogprob, ...]) -> list[Frame]:
        if not tokens:
            return self._frames(seq, self._release())
        self._sent.logprobs += len(tokens)
        is_refusal = self._held_kind == "refusal" if self._held else self._is_refusing
        found = {"refusal" if is_refusal else "content": logprob_bodies(tokens)}
        return [*self._role(seq), *self._frames(seq, self._release(found))]

    @property
    def _is_refusing(self) -> bool:
        return self._sent.length("refusal") > 0 and not self._sent.length("text")

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call_started(self, event: ToolCallStarted) -> list[Frame]:
        is_hidden = self._is_agent or is_server_id(event.id) or event.is_server
        is_custom = event.call_type == "custom" or event.name in self._custom_names
        call = _ToldCall(self._numbers, is_hidden=is_hidden, is_custom=is_custom)
        self._calls[event.index] = self._calls_by_id[event.id] = call
        if is_hidden:
            return []
        self._numbers += 1
        kind = "custom" if call.is_custom else "function"
        inner = {"name": event.name, "input" if call.is_custom else "arguments": ""}
        begun = {"index": call.number, "id": event.id, "type": kind, kind: inner}
        return self._one(event.seq, {"tool_calls": [begun]})

    def _call_delta(self, event: ToolCallDelta) -> list[Frame]:
        call = self._calls.get(event.index)
        if call is None or call.is_hidden or call.is_stale or call.is_done or not event.text:
            return []
        call.length += len(event.text)
        key = (call.number, call.is_custom)
        return [Frame(event.seq, self.delta(key, event.text, event.seq, 0), key, event.text)]

    def _call_completed(self, event: ToolCallCompleted) -> list[Frame]:
        bodies = self._complete(event.call)
        if not bodies:
            is_hidden = event.call.is_server or self._is_agent
            return self._row(event) if is_hidden else []
        return [*self._role(event.seq), *self._frames(event.seq, bodies)]

    def _complete(self, call: ToolCall) -> list[bytes]:
        """The chunks of what a complete call has besides what was sent of it."""
        known = self._calls_by_id.get(call.id)
        if known is None:
            known = _ToldCall(self._numbers, is_hidden=call.is_server or self._is_agent)
            self._calls_by_id[call.id] = known
            known.is_done = True
            if known.is_hidden:
                return []
            self._numbers += 1
            return [self._chunks.choice({"tool_calls": [call_body(call, known.number)]})]
        if known.is_hidden or known.is_done:
            return []
        known.is_done = True
        raw = call.arguments_raw or ("{}" if call.arguments == {} else "")
        rest, extras = raw[known.length :], call_extras(call)
        if not rest and not extras:
            return []
        kind, field = ("custom", "input") if known.is_custom else ("function", "arguments")
        return [self._chunks.choice({"tool_calls": [{"index": known.number, kind: {field: rest}, **extras}]})]

    def _executed(self, event: ToolExecutionStarted) -> list[Frame]:
        self._is_agent = True
        self._calls = {}
        return self._row(event)

    # --- the rest of the answer ---------------------------------------------------------------------------------------

    def _extra(self, event: Citation | MediaPart | ReasoningBlockClosed) -> list[Frame]:
        delta = self._extra_delta(event)
        return self._one(event.seq, delta) if delta else []

    def _extra_delta(self, event: AnswerEvent | ReasoningBlock) -> dict[str, Any]:
        sent = self._sent
        if isinstance(event, Citation):
            sent.citations += 1
            return {"annotations": [annotation(event, sent.citations - 1)]}
        if isinstance(event, MediaPart):
            return self._medium(event)
        if isinstance(event, (ReasoningBlockClosed, ReasoningBlock)):
            sent.blocks += 1
            span = self._span(event)
            entry = reasoning_detail(event.kind, event.signature, event.id, event.provider, sent.blocks - 1, span)
            return {"reasoning_details": [entry]}
        return {}

    def _span(self, block: ReasoningBlockClosed | ReasoningBlock) -> tuple[int, int]:
        """Where the reasoning of a sealed piece is that is complete now."""
        start, end = self._sealed_to, self._sent.length("reasoning")
        if isinstance(block, ReasoningBlock):
            end = min(end, start + len(block.text))
        elif self._sealed:
            start, end = (start, start) if block.kind == "redacted_thinking" else self._sealed.pop(0)
        self._sealed_to = end
        return start, end

    def _medium(self, part: MediaPart) -> dict[str, Any]:
        """A whole picture, or a piece of sound; whole sound only if no pieces came."""
        if part.is_partial:
            self._has_sound = self._has_sound or part.kind == "audio"
            return media_body(part, 0) if part.kind == "audio" else {}
        self._sent.media += 1
        if part.kind == "audio" and self._has_sound:
            self._has_sound = False
            return {}
        place = self._counts[part.kind] = self._counts.get(part.kind, -1) + 1
        return media_body(part, place)

    def _row(self, event: Event) -> list[Frame]:
        """What chat completions have no word for, if the reader wants it."""
        if not self._has_extras:
            return []
        return self._one(event.seq, {"penstock": {"type": event_name(event), **brief_fields(event)}})

    # --- resets and snapshots -----------------------------------------------------------------------------------------

    def _reset(self, event: StreamReset) -> list[Frame]:
        self.note_lost(event)
        if event.origin is None:
            self._origins.clear()
            return self._restart(event.seq, event.reason)
        rest = self._origins.without(event.origin, event.seq)
        if rest is None:
            return []
        frames = self._restart(event.seq, event.reason, event.origin)
        if not self._has_ended:
            for one in rest:
                frames += self._handle(_HANDLERS.get(type(one)), one)
        return frames

    def _restart(self, seq: int, reason: str, origin: str | None = None) -> list[Frame]:
        """Begin again. Text cannot be taken back: what was sent makes an error of it."""
        has_said = self._has_said
        self._begin_answer()
        if not has_said:
            return []
        if self._has_extras:
            row = {"type": "reset", "reset": True, "reason": reason} | ({} if origin is None else {"origin": origin})
            return self._one(seq, {"penstock": row})
        message = f"the answer began again after a part of it had been sent: {reason}"
        return self._fail(seq, Problem(status=502, type="server_error", code="stream_restarted", message=message))

    def _snapshot(self, event: StreamSnapshot) -> list[Frame]:
        self.note_lost(event)
        self._origins.fold(event)
        self._is_agent = self._is_agent or bool(event.tool_results)
        texts: dict[TokenKind, str] = {"text": event.text, "reasoning": event.reasoning, "refusal": event.refusal}
        before: list[Frame] = []
        if any(self._sent.rest(kind, text) is None for kind, text in texts.items()):
            before = self._restart(event.seq, "events were missed")
            if self._has_ended:
                return before
        sent = self._sent
        skipped = {Citation: sent.citations, MediaPart: sent.media, ReasoningBlockClosed: sent.blocks}
        extras = []
        for each in event.answer_events:
            if skipped.get(type(each), 0) > 0:
                skipped[type(each)] -= 1
            else:
                extras.append(each)
        spans = [(part.start, part.end) for part in event.parts if part.kind == "reasoning"]
        spans = [span for span in spans if span[1] > self._sealed_to]
        closed = [
            each for each in extras if isinstance(each, ReasoningBlockClosed) and each.kind != "redacted_thinking"
        ]
        self._sealed = spans[: len(closed)] if len(spans) >= len(closed) else []
        self._has_folded = True
        bodies = self._catch_up(texts, extras, event.tool_calls)
        for call in self._calls.values():
            call.is_stale = call.is_stale or not call.is_done
        if not bodies:
            return before
        return [*before, *self._role(event.seq), *self._frames(event.seq, bodies)]

    def _catch_up(
        self, texts: dict[TokenKind, str], extras: Iterable[AnswerEvent | ReasoningBlock], calls: Iterable[ToolCall]
    ) -> list[bytes]:
        """The chunks of what has not been sent: reasoning, text, refusal, the rest, calls."""
        bodies: list[bytes] = []
        for kind in _KINDS:
            if rest := self._sent.rest(kind, texts[kind]):
                self._sent.add(kind, rest)
                bodies.append(self._chunks.choice({self._fields[kind]: rest}))
        bodies += [self._chunks.choice(delta) for extra in extras if (delta := self._extra_delta(extra))]
        for call in calls:
            bodies += self._complete(call)
        return bodies

    # --- the end ------------------------------------------------------------------------------------------------------

    def _completed(self, event: StreamCompleted) -> list[Frame]:
        self.note_lost(event)
        sent = self._sent
        texts: dict[TokenKind, str] = {"text": event.text, "reasoning": event.reasoning, "refusal": event.refusal}
        extras: list[AnswerEvent | ReasoningBlock] = [
            *event.reasoning_blocks[sent.blocks :],
            *event.citations[sent.citations :],
            *event.media[sent.media :],
        ]
        calls = client_calls(event, is_turn=self._is_agent)
        bodies = self._catch_up(texts, extras, calls)
        if (rest := event.logprobs[sent.logprobs :]) and not self._has_folded:
            name = "refusal" if self._is_refusing else "content"
            bodies.append(self._chunks.choice({}, logprobs={name: logprob_bodies(rest)}))
        bodies += [self._choice(choice, choice_reason(choice, event)) for choice in event.choices]
        word = finish_reason(event.finish_reason, event.raw_finish_reason, has_calls=self._numbers > 0)
        told = {**envelope_extras(event), **({"penstock": {"dropped": self.lost}} if self.lost else {})}
        choice = finish_extras(event, event.raw_finish_reason, word)
        bodies.append(self._chunks.choice({}, finish_reason=word, choice=choice, chunk=told))
        if self._chunks.tells_usage and (usage := usage_body(event)) is not None:
            bodies.append(self._chunks.usage(usage, told))
        self._has_ended = True
        role = self._role(event.seq)
        done = Frame(event.seq, self._chunks.numbered(event.seq, DONE))
        return [*role, *self._frames(event.seq, bodies, is_last=False), done]

    def _choice(self, choice: Choice, reason: FinishReason) -> bytes:
        delta: dict[str, Any] = {"role": "assistant"}
        for kind, text in (("reasoning", choice.reasoning), ("text", choice.text), ("refusal", choice.refusal)):
            if text:
                delta[self._fields[kind]] = text  # type: ignore[index]
        if choice.tool_calls:
            delta["tool_calls"] = [call_body(call, place) for place, call in enumerate(choice.tool_calls)]
        word = finish_reason(reason, choice.raw_finish_reason, has_calls=bool(choice.tool_calls))
        return self._chunks.choice(delta, index=choice.index, finish_reason=word)

    def _failed(self, event: StreamFailed) -> list[Frame]:
        return self._fail(event.seq, problem_of(event.error))

    def _cancelled(self, event: StreamCancelled) -> list[Frame]:
        return self._fail(event.seq, problem_of(StreamCancelledError(event.stream_id, event.reason)))


def _custom_names(tools: object) -> frozenset[str]:
    """The names of the request's tools that take free text."""
    found = set()
    for tool in tools if isinstance(tools, (list, tuple)) else ():
        inner = tool.get("custom") if isinstance(tool, dict) else None
        if isinstance(inner, dict) and isinstance(name := inner.get("name"), str):
            found.add(name)
    return frozenset(found)


_TAKE_HELD: Final = (ChatProjection._token, ChatProjection._logprobs, ChatProjection._reset)
"""They do something else with kept text than to send it first."""
_HANDLERS: Final[dict[type, Callable[[ChatProjection, Any], list[Frame]]]] = {
    StreamStarted: ChatProjection._started,
    TokenEvent: ChatProjection._token,
    Logprobs: ChatProjection._logprobs,
    ToolCallStarted: ChatProjection._call_started,
    ToolCallDelta: ChatProjection._call_delta,
    ToolCallCompleted: ChatProjection._call_completed,
    ToolExecutionStarted: ChatProjection._executed,
    Citation: ChatProjection._extra,
    MediaPart: ChatProjection._extra,
    ReasoningBlockClosed: ChatProjection._extra,
    StreamReset: ChatProjection._reset,
    StreamSnapshot: ChatProjection._snapshot,
    StreamCompleted: ChatProjection._completed,
    StreamFailed: ChatProjection._failed,
    StreamCancelled: ChatProjection._cancelled,
}
