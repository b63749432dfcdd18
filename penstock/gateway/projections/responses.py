"""OpenAI's Responses API, streamed: items with their parts, numbered without gaps, and the whole response at the end.

``sequence_number`` counts what this projection sends, from 0, and is no number of the stream's events. It is made
before frames are merged, so ``starting_after`` means the same for readers of any speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from penstock.events import (
    Citation,
    Event,
    Logprobs,
    MediaPart,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamSnapshot,
    StreamStarted,
    TerminalEvent,
    TokenEvent,
    TokenKind,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolResult,
)
from penstock.gateway.problems import Problem
from penstock.gateway.projections.frames import DONE, Frame, Opening, Projection, encode, sse
from penstock.gateway.projections.origins import Origins
from penstock.gateway.projections.responses_audio import ResponsesAudio
from penstock.gateway.projections.responses_calls import declared_tools
from penstock.gateway.projections.responses_object import ResponseStatus, end_of, error_body, response_object
from penstock.gateway.projections.responses_output import ResponsesOutput
from penstock.gateway.projections.responses_retold import places_of, retold, snapshot_of, with_logprobs
from penstock.gateway.projections.responses_wire import ResponsesWire, Slot

__all__ = ["ResponsesProjection", "error_body"]

_KINDS: Final[tuple[TokenKind, ...]] = ("text", "reasoning", "refusal")


class ResponsesProjection(Projection):
    """Frames of one event each, with `Frame.number` as its ``sequence_number``.

    The response has the id of the stream. Answers besides the first one (``n`` > 1) are left out: the API has none. A
    call of a custom tool that no request in this protocol has named is told as a function's, with its text as the
    arguments: its type is only known at its end.

    The inputs of a stream that is made from several are not distinguished: their text is joined in the order in
    which it came. If one begins again, the items are left incomplete, and what the others have said is sent again.

    The variant ``reasoning`` is ``"summary"`` (the default: reasoning is a summary) or ``"text"`` (reasoning is the
    model's own, as open models give it).
    """

    name = "responses"

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._wire = ResponsesWire()
        self._declared = declared_tools(opening.request)
        raw = opening.variant.get("reasoning") == "text"
        self._output = ResponsesOutput(self._wire, opening.stream_id, self._declared, raw_reasoning=raw)
        self._audio = ResponsesAudio(self._wire)
        self._origins = Origins()
        self._model = opening.model or None
        self._has_begun = False
        self._end: tuple[ResponseStatus, dict[str, Any]] | None = None
        self._awaits_logprobs = _wants_logprobs(opening.request)
        self._held: TokenEvent | None = None  # waits for the probabilities of its tokens

    # --- events ------------------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> list[Frame]:
        wire = self._wire
        if self._end is not None:
            return []
        if self._held is not None and self._release(event):
            return wire.take()
        if getattr(event, "origin", None) is not None:
            event = self._origins.note(event)
        wire.seq = event.seq
        if event.__class__ is TokenEvent:
            self._say(event)
            return wire.take()
        if not self._has_begun and not isinstance(event, StreamStarted):
            self._open()
        if isinstance(event, (StreamCompleted, StreamFailed, StreamCancelled)):
            self._close(event)
        elif isinstance(event, StreamSnapshot):
            self._catch_up(event)
        else:
            self._read(event)
        return wire.take()

    def _say(self, event: TokenEvent) -> None:
        if not self._has_begun:
            self._open()
        text = event.text
        if event.dropped:
            self.lost += event.dropped
        if not text:
            return
        if self._awaits_logprobs and event.kind == "text":
            self._held = event
        else:
            self._output.say(event.kind, event.part, event.phase, text)

    def _release(self, event: Event) -> bool:
        """Send the text that is held; returns whether ``event`` was its probabilities. If not, no more text is held."""
        held, self._held = self._held, None
        assert held is not None
        self._wire.seq = held.seq
        if isinstance(event, Logprobs):
            self._output.likely(held.text, held.part, held.phase, event.tokens)
            return True
        self._awaits_logprobs = False
        self._output.say(held.kind, held.part, held.phase, held.text)
        return False

    def _read(self, event: Event) -> None:
        """Read an event that is neither text nor an end."""
        if isinstance(event, (ServerToolResult, MediaPart)):
            self._output.settle(event.id)
        read = _READERS.get(event.__class__)
        if read is not None:
            read(self, event)

    def _started(self, event: StreamStarted) -> None:
        self._model = self._model or event.model
        if not self._has_begun:
            self._open()

    def _reset(self, event: StreamReset) -> None:
        self.note_lost(event)
        rest: list[Event] = []
        if event.origin is None:
            self._origins.clear()
        elif (found := self._origins.without(event.origin, event.seq)) is None:
            return
        else:
            rest = found
        self._output.reset()
        for one in rest:
            if isinstance(one, TokenEvent):
                self._output.say(one.kind, one.part, one.phase, one.text)
            else:
                self._read(one)

    def _media(self, event: MediaPart) -> None:
        if event.kind == "image":
            self._output.show(event)
            return
        if not event.is_partial:
            self._output.told += 1
        if event.kind == "audio":
            self._audio.play(event)

    # --- the response ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._has_begun = True
        if self.opening.request.get("background") is True:
            queued = response_object(self.opening, "queued", model=self._model)
            self._wire.send("response.created", response=queued)
            self._wire.send("response.queued", response=queued)
        else:
            self._wire.send("response.created", response=self.response)
        self._wire.send("response.in_progress", response=self.response)

    def _close(self, event: TerminalEvent) -> None:
        name, status, fields = end_of(event)
        if not isinstance(event, StreamCompleted):
            self._output.lose_pieces()
        self._audio.close()
        self._output.close("completed" if status == "completed" else "incomplete")
        self._model = event.model or self._model
        self.note_lost(event)
        if self.lost:
            fields["penstock"] = {"dropped": self.lost}
        self._end = status, fields
        self._wire.send(name, response=self.response)
        if isinstance(event, StreamCompleted):
            self._wire.end(DONE)

    @property
    def response(self) -> dict[str, Any]:
        """The response as it is now; after the terminal event, the whole one."""
        status, fields = self._end or ("in_progress", {})
        return response_object(self.opening, status, model=self._model, output=self._output.whole(), **fields)

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def _catch_up(self, event: StreamSnapshot) -> None:
        """Send what of a snapshot has not been sent. If other text was sent, the answer has begun again meanwhile."""
        self._origins.fold(event)
        self.note_lost(event)
        if not self._agrees(event):
            self._output.reset()
        self._retell(event)

    def _retell(self, snapshot: StreamSnapshot, end: TerminalEvent | None = None) -> None:
        """Send what of a snapshot has not been sent. ``end``: the terminal event that the snapshot was made of."""
        output = self._output
        output.lose_pieces()
        events: Iterable[Event]
        if end is None:
            events = retold(snapshot, output.sent.lengths, output.told)
        else:
            places = places_of(end, is_turn=self.opening.is_turn)
            events = with_logprobs(retold(snapshot, output.sent.lengths, output.told, places), end.logprobs)
        for event in events:
            if isinstance(event, TokenEvent):
                output.say(event.kind, event.part, event.phase, event.text)
            else:
                self._read(event)
        for call in snapshot.tool_calls[output.calls :]:
            output.complete_known(call)
        for result in snapshot.tool_results[output.results :]:
            output.result(result)

    def _agrees(self, event: StreamSnapshot) -> bool:
        return all(self._output.sent.rest(kind, getattr(event, kind)) is not None for kind in _KINDS)

    def told_at_once(self, event: TerminalEvent) -> dict[str, Any]:
        """The whole response, of a terminal event alone.

        It has no calls of an agent's turn: their results, without which a client would run them, are not known.
        """
        snapshot = snapshot_of(event)
        if self.opening.is_turn:
            own = tuple(call for call in snapshot.tool_calls if call.is_server)
            snapshot = msgspec.structs.replace(snapshot, tool_calls=own)
        self._retell(snapshot, event)
        self._close(event)
        self._wire.take()
        return self.response

    # --- bytes -------------------------------------------------------------------------------------------------------

    def delta(self, key: Any, text: str, seq: int, number: int) -> bytes:
        slot: Slot = key
        return slot.filled(text, number)

    def cut(self, problem: Problem) -> bytes:
        """The fields stand at the top, as documented, and in ``error``, as OpenAI sends them and its clients raise.

        The frame is no event of the response: its number is 0, after which a reader that resumes misses nothing.
        """
        error = error_body(problem)["error"]
        fields = {name: error[name] for name in ("code", "message", "param")}
        return sse(encode({"type": "error", "sequence_number": 0, **fields, "error": error}), event="error")


def _wants_logprobs(request: Mapping[str, Any]) -> bool:
    include = request.get("include")
    asked = isinstance(include, list) and "message.output_text.logprobs" in include
    return asked or bool(request.get("top_logprobs"))


_READERS: Final[dict[type, Callable[[ResponsesProjection, Any], None]]] = {
    StreamStarted: ResponsesProjection._started,
    StreamReset: ResponsesProjection._reset,
    ToolCallStarted: lambda self, event: self._output.start_call(event),
    ToolCallDelta: lambda self, event: self._output.grow_call(event.index, event.text),
    ToolCallCompleted: lambda self, event: self._output.complete_call(event),
    ToolExecutionStarted: lambda self, event: self._output.close_texts(),
    ToolResult: lambda self, event: self._output.result(event),
    Citation: lambda self, event: self._output.cite(event),
    ServerToolCall: lambda self, event: self._output.call_hosted(event),
    ServerToolResult: lambda self, event: self._output.answer_hosted(event),
    MediaPart: ResponsesProjection._media,
    Logprobs: lambda self, event: self._output.likely("", 0, None, event.tokens),
    ReasoningBlockClosed: lambda self, event: self._output.seal(event),
}
"""All other events are left out: what asks for approval, progress, and the provider's own events."""
