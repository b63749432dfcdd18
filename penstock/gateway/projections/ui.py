"""Vercel's UI message stream, version 1, as `ai` of versions 5, 6 and 7 reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import msgspec

from penstock.events import (
    Citation,
    Event,
    LoopDetected,
    MediaPart,
    OriginEnded,
    Progress,
    ProviderEvent,
    ReasoningBlockClosed,
    ServerToolCall,
    ServerToolResult,
    StallDetected,
    StreamCancelled,
    StreamCompleted,
    StreamFailed,
    StreamReset,
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
from penstock.gateway.problems import Problem, RequestRefused, problem_of
from penstock.gateway.projections.counts import token_counts
from penstock.gateway.projections.feeding import FedProjection
from penstock.gateway.projections.frames import DONE, Frame, Opening, Rejoin, encode
from penstock.gateway.projections.native import event_name
from penstock.gateway.projections.shown import brief_fields
from penstock.gateway.projections.ui_tools import ToolChunks, chunk

__all__ = ["BLOCKS", "DROPPED", "RESET", "UiProjection", "error_text", "read_variant"]

BLOCKS: Final = "data-penstock-blocks"
"""The part of a message with what the provider needs back, `ProviderBlock` as dicts; it is for the next request."""
RESET: Final = "data-penstock-reset"
"""The part of a message after which its step begins again."""
DROPPED: Final = "data-penstock-dropped"
"""The part of a message that says how many tokens of the answer have been dropped."""

_VERSIONS: Final = ("5.0", "5", "6", "7")
_REASONS: Final = {
    "stop": "stop",
    "taken": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
    "refusal": "content-filter",
}


def error_text(problem: Problem) -> str:
    """What the client shows: the body of a response that is no stream, and of an ``error`` chunk."""
    return problem.message


def read_variant(header: str, query: Mapping[str, str]) -> dict[str, str]:
    """The variant that a request asks for in its header ``x-penstock-ui`` or its query, which counts first.

    The client cuts a query off where it appends ``/<id>/stream``.

    Raises:
        RequestRefused: there is no such version.

    >>> read_variant("7; dynamic=1", {"raw": "1", "after": "0"})
    {'v': '7', 'dynamic': '1', 'raw': '1'}
    """
    found = {}
    for piece in header.split(";"):
        name, equals, value = piece.strip().partition("=")
        found.update({name: value} if equals else {"v": name} if name else {})
    found.update(query)
    if found.get("v", "6") not in _VERSIONS:
        raise RequestRefused.bad_request(f"v: there are {', '.join(_VERSIONS)}.", "v")
    return {name: value for name, value in found.items() if name in ("v", "dynamic", "raw", "reset", "approval")}


class UiProjection(FedProjection):
    """Chunks ``data: {"type": …}`` that end with ``data: [DONE]``.

    In a stream that is made from several, each input has parts of its own, several of which may be open. The start of
    a part has its ``origin`` in ``providerMetadata.penstock``. If an input begins again, that is a reset of the step,
    after which what the others have said is told again.

    Variants:
        v: the version of `ai` that reads them: ``5.0`` (which refuses unknown fields), ``5``, ``6`` (default), ``7``.
        dynamic: ``1``: all tools are "dynamic": the page has no component for them.
        raw: ``1``: what the provider has sent, as transient parts ``data-penstock-raw``.
        reset: ``error``: an answer that begins again ends with an error, for versions before 7, which cannot take
            text back. Default: a part ``data-penstock-reset`` stands between the void text and the new one.
        approval: ``wait``: the stream stays open while a call waits for approval. Default: it ends (versions 6 and 7),
            since only then `ai` sends the user's decision; the rest follows on the request with the decision.
        from: the number of the last event of the response that ended so; this one has the events after it.
        decided: the calls that the user has decided about by then, see `Decided`; it ends again if another one waits.
    """

    name = "ui"
    rejoin: ClassVar[Rejoin] = "start"
    _tools: ToolChunks

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        variant = opening.variant
        version = variant.get("v", "6")
        if version not in _VERSIONS:
            raise RequestRefused.bad_request(f"v: there are {', '.join(_VERSIONS)}.", "v")
        self._is_strict = version == "5.0"
        self._has_approvals = version in ("6", "7")
        self._can_reset = version == "7"
        self._ends_at_approval = self._has_approvals and variant.get("approval") != "wait"
        self._ends_at_reset = variant.get("reset") == "error" and not self._can_reset
        flags: dict[str, Any] = {"dynamic": True} if variant.get("dynamic") == "1" else {}
        self._tools = ToolChunks(
            flags, has_approvals=self._has_approvals, used=_call_ids(opening), decided=variant.get("decided")
        )
        self._has_raw = variant.get("raw") == "1"
        self._message_id, self._count = _continued(opening)
        self._steps = 0
        self._open: dict[str | None, _Part] = {}  # by origin
        self._is_blank = True  # since the start or the last reset

    # --- feeding -------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> list[Frame]:
        frames = super()._handle(event)
        if frames and type(event) not in _TRANSIENT:
            self._is_blank = False
        return frames

    def _was_earlier(self) -> None:
        super()._was_earlier()
        self._is_blank = False

    def caught_up(self) -> list[Frame]:
        if self.is_over or not self._ends_at_approval or not self._tools.waits_for_user():
            return []
        seq = self._emitted.seq
        first = [] if self._has_begun else [chunk(seq, "start", messageId=self._message_id), self._start_step(seq)]
        self._has_begun = self.is_over = True
        return [*first, *self._close_all(seq), *self._finish(seq, "tool-calls", {})]

    def delta(self, key: Any, text: str, seq: int, number: int) -> bytes:
        return b"%b%b}\n\n" % (key, encode(text))

    def cut(self, problem: Problem) -> bytes:
        return b"data: %b\n\n" % encode({"type": "error", "errorText": error_text(problem)})

    def _begin(self, event: Event) -> list[Frame]:
        self._has_begun = True
        start = chunk(event.seq, "start", messageId=self._message_id)
        return [start] if isinstance(event, (StreamFailed, StreamCancelled)) else [start, self._start_step(event.seq)]

    def _start_step(self, seq: int) -> Frame:
        self._steps += 1
        return chunk(seq, "start-step")

    # --- text ----------------------------------------------------------------------------------------------------

    def _token(self, event: TokenEvent) -> list[Frame]:
        text = event.text
        if not text:
            return []
        part, frames = self._open.get(event.origin), []
        if part is None or part.kind != event.kind or part.index != event.part or part.phase != event.phase:
            frames = self._close(event.seq, event.origin)
            self._count += 1
            part = self._open[event.origin] = _Part(event, self._count)
            about = {"phase": event.phase, "origin": event.origin}
            own = {name: value for name, value in about.items() if value is not None}
            metadata = {"providerMetadata": {"penstock": own}} if own else {}
            frames.append(chunk(event.seq, f"{part.type}-start", id=part.id, **metadata))
        self._is_blank = False
        self._emitted.add(event.kind, text)
        frames.append(Frame(event.seq, b"%b%b}\n\n" % (part.key, encode(text)), part.key, text))
        return frames

    def _close(self, seq: int, origin: str | None, metadata: Mapping[str, Any] | None = None) -> list[Frame]:
        """End the open part of an origin, if there is one."""
        part = self._open.pop(origin, None)
        if part is None:
            return []
        if part.kind == "refusal":
            metadata = {"kind": "refusal"}
        given = {"providerMetadata": {"penstock": metadata}} if metadata else {}
        return [chunk(seq, f"{part.type}-end", id=part.id, **given)]

    def _reasoning_block(self, event: ReasoningBlockClosed) -> list[Frame]:
        block = {"kind": event.kind, "signature": event.signature, "id": event.id, "provider": event.provider}
        metadata = {name: value for name, value in block.items() if value}
        part = self._open.get(event.origin)
        if part is not None and part.kind == "reasoning":
            return self._close(event.seq, event.origin, metadata)
        self._count += 1
        name = f"reasoning-{self._count}"
        given = {"penstock": metadata}
        return [
            chunk(event.seq, "reasoning-start", id=name),
            chunk(event.seq, "reasoning-end", id=name, providerMetadata=given),
        ]

    def _void(self, event: StreamReset) -> list[Frame]:
        seq = event.seq
        if self._is_blank:
            return []
        self._is_blank = True
        frames: list[Frame] = []
        if self._can_reset:
            self._open = {}
            frames.append(chunk(seq, "reset-step"))
        else:
            frames += [*self._close_all(seq), *self._tools.give_up(seq)]
        self._forget_all()
        if self._ends_at_reset:
            problem = Problem(
                status=502, type="server_error", code="stream_restarted", message="The answer has begun again."
            )
            self.is_over = True
            return [*frames, *self._failure(seq, problem, {})]
        if not self._can_reset or self._steps > 1:
            origin = {} if event.origin is None else {"origin": event.origin}
            frames.append(chunk(seq, RESET, data={"reason": event.reason, **origin}))
        return frames

    # --- calls ---------------------------------------------------------------------------------------------------

    def _call_started(self, event: ToolCallStarted) -> list[Frame]:
        return [*self._close(event.seq, event.origin), *self._tools.started(event)]

    def _call_delta(self, event: ToolCallDelta) -> list[Frame]:
        return self._tools.delta(event)

    def _call_completed(self, event: ToolCallCompleted) -> list[Frame]:
        frames = [*self._close(event.seq, event.origin), *self._tools.completed(event)]
        self._emitted.calls = self._tools.calls.completed
        return frames

    def _approval(self, event: ToolApprovalRequested) -> list[Frame]:
        return self._tools.approval(event)

    def _execution(self, event: ToolExecutionStarted) -> list[Frame]:
        return self._tools.execution(event)

    def _progress(self, event: ToolProgress) -> list[Frame]:
        return self._tools.progress(event)

    def _result(self, event: ToolResult) -> list[Frame]:
        frames, is_last = self._tools.result(event)
        if not is_last:
            return frames
        return [*frames, *self._close_all(event.seq), chunk(event.seq, "finish-step"), self._start_step(event.seq)]

    def _server_call(self, event: ServerToolCall) -> list[Frame]:
        return [*self._close(event.seq, event.origin), *self._tools.server_call(event)]

    def _server_result(self, event: ServerToolResult) -> list[Frame]:
        return [*self._close(event.seq, event.origin), *self._tools.server_result(event)]

    # --- other events --------------------------------------------------------------------------------------------

    def _citation(self, event: Citation) -> list[Frame]:
        self._count += 1
        place = {
            "id": event.id,
            "citedText": event.cited_text,
            "start": event.start,
            "end": event.end,
            "location": dict(event.location) or None,
            "origin": event.origin,
        }
        details = {name: value for name, value in place.items() if value is not None}
        fields: dict[str, Any] = {"sourceId": f"source-{self._count}"}
        kind = "source-url" if event.url else "source-document"
        if event.url:
            fields |= {"url": event.url} | ({"title": event.title} if event.title else {})
        else:
            fields |= {"mediaType": "text/plain", "title": event.title or event.id or event.kind}
            fields |= {"filename": event.title} if event.kind == "file" and event.title else {}
        if details:
            fields["providerMetadata"] = {"penstock": details}
        return [chunk(event.seq, kind, **fields)]

    def _media_part(self, event: MediaPart) -> list[Frame]:
        if event.is_partial or self._is_told(event):
            return []
        mime = event.mime or _MIMES[event.kind]
        url = f"data:{mime};base64,{event.data}" if event.data else event.url or ""
        return [chunk(event.seq, "file", url=url, mediaType=mime)]

    def _raw(self, event: ProviderEvent) -> list[Frame]:
        if not self._has_raw:
            return []
        data = {"type": event.type, "payload": event.payload}
        return [chunk(event.seq, "data-penstock-raw", data=data, transient=True)]

    def _other(self, event: Event) -> list[Frame]:
        kind = event_name(event).replace("_", "-")
        return [chunk(event.seq, f"data-penstock-{kind}", data=brief_fields(event), transient=True)]

    # --- ends ----------------------------------------------------------------------------------------------------

    def _completed(self, event: StreamCompleted) -> list[Frame]:
        seq = event.seq
        frames = self._ended(event)
        for part in event.media:
            frames += self._media_part(msgspec.structs.replace(part, seq=seq))
        if event.refusal:
            frames.append(chunk(seq, "data-refusal", data={"text": event.refusal}))
        if event.provider_blocks:
            frames.append(chunk(seq, BLOCKS, data=msgspec.to_builtins(event.provider_blocks, enc_hook=repr)))
        reason, metadata = _REASONS.get(event.finish_reason, "other"), _metadata(event)
        if self._is_strict and reason not in ("stop", "tool-calls"):  # its ``finish`` cannot say it
            metadata["finishReason"] = reason
        if reason == "other" and event.raw_finish_reason:
            metadata["nativeFinishReason"] = event.raw_finish_reason
        return [*frames, *self._finish(seq, reason, metadata)]

    def _failed(self, event: StreamFailed) -> list[Frame]:
        return [*self._ended(event), *self._failure(event.seq, problem_of(event.error), _metadata(event))]

    def _cancelled(self, event: StreamCancelled) -> list[Frame]:
        given = {} if self._is_strict or event.reason is None else {"reason": event.reason}
        return [*self._ended(event), chunk(event.seq, "abort", **given), Frame(event.seq, DONE)]

    def _ended(self, event: TerminalEvent) -> list[Frame]:
        self.is_over = True
        frames = [*self._close_all(event.seq), *self._tools.give_up(event.seq)]
        return [*frames, chunk(event.seq, DROPPED, data={"tokens": self.lost})] if self.lost else frames

    def _finish(self, seq: int, reason: str, metadata: Mapping[str, Any]) -> list[Frame]:
        given: dict[str, Any] = {} if self._is_strict else {"finishReason": reason}
        if metadata:
            given["messageMetadata"] = metadata
        return [chunk(seq, "finish-step"), chunk(seq, "finish", **given), Frame(seq, DONE)]

    def _failure(self, seq: int, problem: Problem, metadata: Mapping[str, Any]) -> list[Frame]:
        frames = [chunk(seq, "error", errorText=error_text(problem))]
        if not self._is_strict:  # which has no other reason than a good one
            given = {"messageMetadata": metadata} if metadata else {}
            frames.append(chunk(seq, "finish", finishReason="error", **given))
        return [*frames, Frame(seq, DONE)]


_MIMES: Final = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4", "file": "application/octet-stream"}
_TRANSIENT: Final = (ProviderEvent, Progress, StallDetected, LoopDetected, OriginEnded)


class _Part:
    """A text or reasoning part that is open."""

    __slots__ = ("id", "index", "key", "kind", "phase", "type")

    def __init__(self, event: TokenEvent, number: int) -> None:
        self.kind = event.kind
        self.index = event.part
        self.phase = event.phase
        self.type = "reasoning" if event.kind == "reasoning" else "text"
        self.id = f"{self.type}-{number}"
        self.key = b'data: {"type":"%b-delta","id":"%b","delta":' % (self.type.encode(), self.id.encode())


def _continued(opening: Opening) -> tuple[str, int]:
    """The id of the message that the answer belongs to, and how many parts it has already.

    A request with the assistant's message as the last one brings a result or a decision;
    the client goes on with the message.
    """
    messages = opening.request.get("messages")
    last = messages[-1] if isinstance(messages, (list, tuple)) and messages else None
    if isinstance(last, Mapping) and last.get("role") == "assistant" and isinstance(last.get("id"), str):
        parts = last.get("parts")
        return last["id"], len(parts) if isinstance(parts, (list, tuple)) else 0
    return f"msg_{opening.stream_id}", 0


def _call_ids(opening: Opening) -> Iterator[str]:
    """The ids of the calls in the request's messages."""
    messages = opening.request.get("messages")
    for message in messages if isinstance(messages, (list, tuple)) else ():
        parts = message.get("parts") if isinstance(message, Mapping) else None
        for part in parts if isinstance(parts, (list, tuple)) else ():
            if isinstance(part, Mapping) and isinstance(part.get("toolCallId"), str):
                yield part["toolCallId"]


def _metadata(event: TerminalEvent) -> dict[str, Any]:
    given = {"model": event.model, "provider": event.provider, "usage": token_counts(event)}
    return {name: value for name, value in given.items() if value}
