"""AG-UI 1.0: the Agent User Interaction Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from penstock.events import (
    Citation,
    Event,
    MediaPart,
    ProviderEvent,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
    StreamStarted,
    TerminalEvent,
    TokenEvent,
    ToolApprovalRequested,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
)
from penstock.gateway.problems import Problem, problem_of
from penstock.gateway.projections.agui_messages import RunMessage, Transcript, Writer
from penstock.gateway.projections.agui_tools import ToolEvents
from penstock.gateway.projections.counts import token_counts
from penstock.gateway.projections.feeding import FedProjection
from penstock.gateway.projections.frames import Frame, Opening, Rejoin, encode
from penstock.gateway.projections.native import event_name
from penstock.gateway.projections.shown import brief_fields

__all__ = ["PROTOCOL_VERSION", "AguiProjection", "error_body"]

PROTOCOL_VERSION: Final = "1.0"

_Part: TypeAlias = tuple[str, int, str | None]
"""The kind, the number and the phase of the part of the answer that a message is."""
_SEALED: Final[_Part] = ("", 0, None)
"""Of a message that takes no text."""


def error_body(problem: Problem) -> dict[str, Any]:
    """The body of a response that is no stream; `HttpAgent` shows it with the status."""
    fields = {"message": problem.message, "code": problem.code, "type": problem.type, "param": problem.param}
    return {name: value for name, value in fields.items() if value is not None}


class AguiProjection(FedProjection):
    """Events ``data: {"type": …}`` from ``RUN_STARTED`` to ``RUN_FINISHED`` or ``RUN_ERROR``.

    In a stream that is made from several, each input has messages of its own, several of which may be open; the start
    of one has its ``origin`` in ``metadata.penstock``. If an input begins again, a snapshot of the messages removes the
    text of all, and what the others have said is told again.

    A call that waits for approval ends the run with an interrupt; the request with the answer begins the next run.

    Variants:
        from: the number of the last event of the run that ended so; this one has the events after it.
        decided: the calls that the user has decided about by then, see `Decided`; it ends again if another one waits.
        run: the id of this run, if it is not the request's that opened the stream.
    """

    name = "agui"
    rejoin: ClassVar[Rejoin] = "prelude"
    _tools: ToolEvents

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        request, variant = opening.request, opening.variant
        thread, run = request.get("threadId"), variant.get("run") or request.get("runId")
        self._ids = {"threadId": thread if isinstance(thread, str) else opening.stream_id}
        self._ids["runId"] = run if isinstance(run, str) else opening.stream_id
        parent = request.get("parentRunId")
        self._parent = {"parentRunId": parent} if isinstance(parent, str) else {}
        self._has_steps = False  # an agent's answer has rounds
        self._is_in_step = False
        self._step = 1
        self._open: dict[str | None, tuple[_Part, RunMessage]] = {}  # by origin
        self._said = Transcript(opening.stream_id, request.get("messages"))
        self._writer = Writer()
        self._event = self._writer.event
        self._tools = ToolEvents(self._writer, self._said, variant.get("decided"))
        self._end: list[Frame] = []

    # --- feeding -------------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> list[Frame]:
        self._writer.time = int(event.timestamp * 1000)
        self._has_steps = self._has_steps or type(event) is StreamStarted
        return super().feed(event)

    def caught_up(self) -> list[Frame]:
        if self.is_over or not self._tools.waits_for_user():
            return []
        seq, first = self._emitted.seq, []
        if not self._has_begun:
            self._has_begun, self._is_in_step = True, self._has_steps
            first = self._run_started(seq)
        asked = {"type": "interrupt", "interrupts": self._tools.asked()}
        return [*first, *self._finish(seq, {"outcome": asked})]

    def prelude(self) -> list[Frame]:
        seq = self._emitted.seq
        if not self._has_begun:
            return []
        frames = [*self._run_started(seq), self._event(seq, "MESSAGES_SNAPSHOT", messages=self._said.messages())]
        if self.is_over:
            return [*frames, *self._end]
        for _, said in self._open.values():
            frames += self._reopened(seq, said, {})
        return [*frames, *self._tools.reopened(seq)]

    def delta(self, key: Any, text: str, seq: int, number: int) -> bytes:
        return b'%b%b,"timestamp":%d}\n\n' % (key, encode(text), number)

    def cut(self, problem: Problem) -> bytes:
        return b"data: %b\n\n" % encode({"type": "RUN_ERROR", "message": problem.message, "code": problem.code})

    def _begin(self, event: Event) -> list[Frame]:
        self._has_begun = True
        self._is_in_step = self._has_steps and not isinstance(event, StreamFailed)
        return self._run_started(event.seq)

    def _run_started(self, seq: int) -> list[Frame]:
        fields = {**self._ids, "protocolVersion": PROTOCOL_VERSION, **self._parent}
        started = [self._event(seq, "RUN_STARTED", **fields)]
        if self._is_in_step:
            started.append(self._event(seq, "STEP_STARTED", stepName=f"round-{self._step}"))
        return started

    # --- text ----------------------------------------------------------------------------------------------------

    def _token(self, event: TokenEvent) -> list[Frame]:
        text, part = event.text, (event.kind, event.part, event.phase)
        if not text:
            return []
        found = self._open.get(event.origin)
        frames: list[Frame] = []
        if found is not None and part == found[0]:
            said = found[1]
        else:
            frames = self._close(event.seq, event.origin)
            metadata: dict[str, Any] = {"kind": "refusal"} if event.kind == "refusal" else {}
            if own := _present({"phase": event.phase, "origin": event.origin}):
                metadata["penstock"] = own
            said = self._said.begin("reasoning" if event.kind == "reasoning" else "assistant", metadata)
            self._open[event.origin] = part, said
            frames += self._reopened(event.seq, said, metadata)
        said.pieces.append(text)
        self._emitted.add(event.kind, text)
        frames.append(self._writer.piece(event.seq, said.key, text))
        return frames

    def _reopened(self, seq: int, said: RunMessage, metadata: Mapping[str, Any]) -> list[Frame]:
        given = {"metadata": metadata} if metadata else {}
        if said.role != "reasoning":
            return [self._event(seq, "TEXT_MESSAGE_START", messageId=said.id, role="assistant", **given)]
        return [
            self._event(seq, "REASONING_START", messageId=said.id),
            self._event(seq, "REASONING_MESSAGE_START", messageId=said.id, role="reasoning", **given),
        ]

    def _close(self, seq: int, origin: str | None, metadata: Mapping[str, Any] | None = None) -> list[Frame]:
        """End the open message of an origin, if there is one."""
        found = self._open.pop(origin, None)
        if found is None:
            return []
        said = found[1]
        if metadata:
            said.metadata |= metadata
        given = {"metadata": metadata} if metadata else {}
        if said.role != "reasoning":
            return [self._event(seq, "TEXT_MESSAGE_END", messageId=said.id, **given)]
        return [
            self._event(seq, "REASONING_MESSAGE_END", messageId=said.id, **given),
            self._event(seq, "REASONING_END", messageId=said.id),
        ]

    def _reasoning_block(self, event: ReasoningBlockClosed) -> list[Frame]:
        seq = event.seq
        block = {"kind": event.kind, "id": event.id, "provider": event.provider}
        metadata = {"penstock": {name: value for name, value in block.items() if value}}
        found = self._open.get(event.origin)
        frames: list[Frame] = []
        if found is not None and found[1].role == "reasoning":
            said = found[1]
        else:
            frames = self._close(seq, event.origin)
            said = self._said.begin("reasoning", {})
            self._open[event.origin] = _SEALED, said
            frames += self._reopened(seq, said, {})
        frames += self._close(seq, event.origin, metadata)
        said.encrypted = event.signature
        if event.signature:
            fields = {"subtype": "message", "entityId": said.id, "encryptedValue": event.signature}
            frames.append(self._event(seq, "REASONING_ENCRYPTED_VALUE", **fields))
        return frames

    def _void(self, event: StreamReset) -> list[Frame]:
        seq = event.seq
        if self._said.is_blank:
            return []
        frames = [*self._close_all(seq), *self._tools.make_void(seq)]
        self._said.clear()
        self._forget_all()
        frames.append(self._event(seq, "MESSAGES_SNAPSHOT", messages=self._said.messages()))
        return [*frames, self._custom(seq, "reset", _present({"reason": event.reason, "origin": event.origin}))]

    # --- calls ---------------------------------------------------------------------------------------------------

    def _call_started(self, event: ToolCallStarted) -> list[Frame]:
        return [*self._close_all(event.seq), *self._tools.started(event)]

    def _call_delta(self, event: ToolCallDelta) -> list[Frame]:
        return self._tools.delta(event)

    def _call_completed(self, event: ToolCallCompleted) -> list[Frame]:
        frames = [*self._close_all(event.seq), *self._tools.completed(event)]
        self._emitted.calls = self._tools.calls.completed
        return frames

    def _approval(self, event: ToolApprovalRequested) -> list[Frame]:
        return [*self._close_all(event.seq), *self._tools.approval(event)]

    def _execution(self, event: ToolExecutionStarted) -> list[Frame]:
        self._tools.calls.begin_round(event.calls)
        return []

    def _progress(self, event: ToolProgress) -> list[Frame]:
        return [*self._close_all(event.seq), *self._tools.progress(event)]

    def _result(self, event: ToolResult) -> list[Frame]:
        seq = event.seq
        frames, is_last = self._tools.result(event)
        frames = [*self._close_all(seq), *frames]
        if not is_last:
            return frames
        self._said.end_round()
        frames += self._end_step(seq)
        self._step += 1
        if self._has_steps:
            self._is_in_step = True
            frames.append(self._event(seq, "STEP_STARTED", stepName=f"round-{self._step}"))
        return frames

    def _server_call(self, event: ServerToolCall) -> list[Frame]:
        return [*self._close_all(event.seq), *self._tools.server_call(event)]

    def _server_result(self, event: ServerToolResult) -> list[Frame]:
        return [*self._close_all(event.seq), *self._tools.server_result(event)]

    # --- other events --------------------------------------------------------------------------------------------

    def _custom(self, seq: int, name: str, value: Mapping[str, Any]) -> Frame:
        return self._event(seq, "CUSTOM", name=f"penstock.{name}", value=value)

    def _other(self, event: Event) -> list[Frame]:
        return [self._custom(event.seq, event_name(event), _present(brief_fields(event)))]

    def _media_part(self, event: MediaPart) -> list[Frame]:
        if self._is_told(event):
            return []
        value = {
            "kind": event.kind,
            "mimeType": event.mime,
            "url": event.url,
            "data": event.data or None,
            "id": event.id,
            "isPartial": event.is_partial or None,
            "transcript": event.transcript or None,
            "origin": event.origin,
        }
        return [self._custom(event.seq, "media", _present(value))]

    def _citation(self, event: Citation) -> list[Frame]:
        value = {
            "kind": event.kind,
            "url": event.url,
            "id": event.id,
            "title": event.title,
            "citedText": event.cited_text,
            "start": event.start,
            "end": event.end,
            "location": dict(event.location) or None,
            "messageId": self._said.last_text if event.origin is None else self._text_of(event.origin),
            "origin": event.origin,
        }
        return [self._custom(event.seq, "citation", _present(value))]

    def _text_of(self, origin: str) -> str | None:
        """The id of the open message with the text of an origin."""
        found = self._open.get(origin)
        return None if found is None or found[1].role != "assistant" else found[1].id

    def _raw(self, event: ProviderEvent) -> list[Frame]:
        return [self._event(event.seq, "RAW", event=event.payload, source="provider")]

    # --- ends ----------------------------------------------------------------------------------------------------

    def _completed(self, event: StreamCompleted) -> list[Frame]:
        seq = event.seq
        frames: list[Frame] = []
        for part in event.media:
            frames += self._media_part(msgspec.structs.replace(part, seq=seq))
        if event.provider_blocks:
            blocks = msgspec.to_builtins(event.provider_blocks, enc_hook=repr)
            frames += self._sealed(seq, {"penstock": {"providerBlocks": blocks}})
        frames += [*self._close_all(seq), *self._tools.without_result(seq)]
        pending = [call.id for call in self._tools.calls.unanswered()]
        outcome: dict[str, Any] = {"type": "success"} | ({"pendingToolCallIds": pending} if pending else {})
        given: dict[str, Any] = {}
        if (reason := event.finish_reason) != "stop":
            raw = event.raw_finish_reason if reason == "other" else None
            given["metadata"] = _present({"finishReason": reason, "nativeFinishReason": raw or None})
        return [*frames, *self._finish(seq, {"outcome": outcome, **_usage(event), **given})]

    def _sealed(self, seq: int, metadata: Mapping[str, Any]) -> list[Frame]:
        """Put what the provider needs back onto the last message of the answer."""
        found = self._open.get(None)
        if found is not None and found[1].role == "assistant":
            return self._close(seq, None, metadata)
        frames = self._close_all(seq)
        said = self._said.last_or_new()
        self._open[None] = _SEALED, said
        frames += self._reopened(seq, said, {})
        return [*frames, *self._close(seq, None, metadata)]

    def _failed(self, event: StreamFailed) -> list[Frame]:
        problem = problem_of(event.error)
        frames = self._closed(event.seq)
        fields = {"message": problem.message, "code": problem.code, **_usage(event)}
        return self._over([*frames, self._event(event.seq, "RUN_ERROR", **fields)])

    def _cancelled(self, event: StreamCancelled) -> list[Frame]:
        given = {} if event.reason is None else {"metadata": {"reason": event.reason}}
        return self._finish(event.seq, {"outcome": {"type": "cancelled"}, **_usage(event), **given})

    def _finish(self, seq: int, fields: Mapping[str, Any]) -> list[Frame]:
        return self._over([*self._closed(seq), self._event(seq, "RUN_FINISHED", **self._ids, **fields)])

    def _closed(self, seq: int) -> list[Frame]:
        """End all that is open, which the end of a run requires."""
        frames = [*self._close_all(seq), *self._tools.give_up(seq), *self._end_step(seq)]
        return [*frames, self._custom(seq, "dropped", {"tokens": self.lost})] if self.lost else frames

    def _end_step(self, seq: int) -> list[Frame]:
        if not self._is_in_step:
            return []
        self._is_in_step = False
        return [self._event(seq, "STEP_FINISHED", stepName=f"round-{self._step}")]

    def _over(self, frames: list[Frame]) -> list[Frame]:
        self.is_over = True
        self._end = [frames[-1]]
        return frames


def _usage(event: TerminalEvent) -> dict[str, Any]:
    counts = token_counts(event)
    if not counts:
        return {}
    return {"usage": [{**_present({"provider": event.provider, "model": event.model}), **counts}]}


def _present(value: Any) -> Any:
    """The value without the fields that are None: the protocol leaves out what is absent."""
    if isinstance(value, dict):
        return {name: _present(item) for name, item in value.items() if item is not None}
    return [_present(item) for item in value] if isinstance(value, list) else value
