"""The events of AG-UI that are about tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.actors.agent.results import describe_parse_error
from penstock.events import (
    ServerToolCall,
    ServerToolResult,
    ToolApprovalRequested,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolProgress,
    ToolResult,
)
from penstock.gateway.projections.agui_messages import Transcript, Writer
from penstock.gateway.projections.calls import CallTeller, SentCall
from penstock.gateway.projections.frames import Frame, encode

__all__ = ["ToolEvents"]

_DECISION: Final = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}
"""The JSON Schema of the answer to an interrupt."""


_CUT_OFF: Final = "The answer ended, or began again, before this call."


class ToolEvents(CallTeller):
    """Makes the events, and knows which calls the client has. No message may be open when one of its methods is called.

    Args:
        writer: makes the frames.
        said: the messages, which it adds calls and results to.
        decided: see `Decided`.
    """

    def __init__(self, writer: Writer, said: Transcript, decided: str | None = None) -> None:
        super().__init__(said.call_ids, decided)
        self._writer = writer
        self._event = writer.event
        self._said = said

    def asked(self) -> list[dict[str, Any]]:
        """The interrupts: what the user has to decide."""
        return [
            {
                "id": call.given,
                "reason": "tool_call",
                "message": f"Run {call.name}?",
                "toolCallId": call.id,
                "responseSchema": _DECISION,
            }
            for call in self.pending
        ]

    # --- calls of the model --------------------------------------------------------------------------------------

    def _call_start(self, seq: int, call: SentCall) -> Frame:
        fields = {"toolCallId": call.id, "toolCallName": call.name, "parentMessageId": self._said.parent_of(call.id)}
        return self._event(seq, "TOOL_CALL_START", **fields)

    def started(self, event: ToolCallStarted) -> list[Frame]:
        return self._called(event.seq, self.calls.begin(event.id, event.name, event.index))

    def _called(self, seq: int, call: SentCall) -> list[Frame]:
        """Begin a call."""
        call.key = b'data: {"type":"TOOL_CALL_ARGS","toolCallId":%b,"delta":' % encode(call.id)
        self._said.call(call.id, call.name)
        return [self._call_start(seq, call)]

    def delta(self, event: ToolCallDelta) -> list[Frame]:
        call = self.calls.at(event.index)
        if call is None or call.key is None:
            return []  # its start is folded; the whole call is in `ToolCallCompleted`
        self._said.arguments(call.id).append(event.text)
        return [self._writer.piece(event.seq, call.key, event.text)]

    def completed(self, event: ToolCallCompleted) -> list[Frame]:
        call, seq = event.call, event.seq
        if call.is_server and call.id in self._server:
            return []
        sent = self.calls.complete(event.index, call)
        frames: list[Frame] = []
        metadata: dict[str, Any] = {}
        if call.is_server:
            metadata["server"] = True
            self._server[call.id] = sent
        kind = "" if call.type == "function" else call.type
        if own := {name: text for name, text in (("type", kind), ("provider", call.signed_by)) if text}:
            metadata["penstock"] = own
        if sent.key is None:
            frames += self._called(seq, sent)
        written = "".join(self._said.arguments(sent.id))
        if call.arguments_raw.startswith(written):  # pieces may be folded
            frames += self._arguments(seq, sent, call.arguments_raw[len(written) :])
        frames += self._call_end(seq, sent, metadata)
        if call.signature:
            self._said.sign(sent.id, call.signature)
            fields = {"subtype": "tool-call", "entityId": sent.id, "encryptedValue": call.signature}
            frames.append(self._event(seq, "REASONING_ENCRYPTED_VALUE", **fields))
        if call.arguments is None and call.arguments_raw.strip() not in ("", "null"):
            sent.is_answered = True
            frames += self._answer(seq, sent, describe_parse_error(call.arguments_raw), {"status": "invalid_arguments"})
        return frames

    def _arguments(self, seq: int, call: SentCall, text: str) -> list[Frame]:
        assert call.key is not None
        self._said.arguments(call.id).append(text)
        return [self._writer.piece(seq, call.key, text)] if text else []

    def _call_end(self, seq: int, call: SentCall, metadata: Mapping[str, Any]) -> list[Frame]:
        self._said.mark_call(call.id, metadata)
        given = {"metadata": metadata} if metadata else {}
        return [self._event(seq, "TOOL_CALL_END", toolCallId=call.id, **given)]

    def _answer(self, seq: int, call: SentCall, content: str, metadata: Mapping[str, Any]) -> list[Frame]:
        """A call's result; a later one for the same call is not sent again."""
        if self._said.is_answered(call.id):
            return []
        name = self._said.answer(call.id, content, metadata)
        given = {"metadata": metadata} if metadata else {}
        fields = {"messageId": name, "toolCallId": call.id, "content": content, "role": "tool"}
        return [self._event(seq, "TOOL_CALL_RESULT", **fields, **given)]

    def approval(self, event: ToolApprovalRequested) -> list[Frame]:
        frames, call = self._known(event.seq, event.call.id, event.call.name, event.call.arguments_raw)
        self._ask(call)
        return frames

    def progress(self, event: ToolProgress) -> list[Frame]:
        frames, call = self._known(event.seq, event.call_id, event.name)
        content = {"toolCallId": call.id, "toolName": call.name, "progress": event.progress}
        fields = {
            "messageId": self._said.activity_of(call.id),
            "activityType": "tool",
            "content": content,
            "replace": True,
        }
        return [*frames, self._event(event.seq, "ACTIVITY_SNAPSHOT", **fields)]

    def result(self, event: ToolResult) -> tuple[list[Frame], bool]:
        """The events of a result, and whether it is the last one of its round."""
        seq = event.seq
        frames, call = self._known(seq, event.call_id, event.name)
        self._settle(call)
        metadata = {} if event.status == "ok" else {"status": event.status}
        frames += self._answer(seq, call, event.content, metadata)
        return frames, self.calls.answer(call)

    def _known(self, seq: int, given: str, name: str, arguments: str = "{}") -> tuple[list[Frame], SentCall]:
        """The call with that id, and the frames to send before, if the reader does not know it yet."""
        call = self.calls.find(given)
        if call is not None:
            return [], call
        call = self.calls.begin(given, name)
        call.is_complete = True
        frames = [*self._called(seq, call), *self._arguments(seq, call, arguments)]
        return [*frames, *self._call_end(seq, call, {})], call

    def server_call(self, event: ServerToolCall) -> list[Frame]:
        if event.id in self._server:
            return []
        seq, metadata = event.seq, {"server": True}
        call = self._server[event.id] = self.calls.begin(event.id, event.name)
        call.is_complete = call.is_server = True
        text = event.input if isinstance(event.input, str) else encode({} if event.input is None else event.input)
        frames = [*self._called(seq, call)]
        frames += self._arguments(seq, call, text if isinstance(text, str) else text.decode())
        return [*frames, *self._call_end(seq, call, metadata)]

    def server_result(self, event: ServerToolResult) -> list[Frame]:
        call = ServerToolCall(seq=event.seq, id=event.id, name=event.name)
        frames = [*self.server_call(call)]
        content = event.output if isinstance(event.output, str) else encode(event.output).decode()
        metadata: dict[str, Any] = {"server": True} | ({"status": "error"} if event.is_error else {})
        frames += self._answer(event.seq, self._server[event.id], content, metadata)
        self._said.end_round()  # text after it is another message
        return frames

    def give_up(self, seq: int) -> list[Frame]:
        """End the calls with arguments that will not become complete, with a result: else the client would run them."""
        frames = []
        for call in self.calls.incomplete():
            call.is_complete = call.is_answered = True
            frames.append(self._event(seq, "TOOL_CALL_END", toolCallId=call.id))
            frames += self._answer(seq, call, _CUT_OFF, {"status": "invalid_arguments"})
        return frames

    def without_result(self, seq: int) -> list[Frame]:
        """Results for calls of the provider's own tools that have brought none, for the same reason."""
        calls = [call for call in self.calls if call.is_server]
        return [frame for call in calls for frame in self._answer(seq, call, "", {"server": True})]

    def make_void(self, seq: int) -> list[Frame]:
        """Results for all calls without one, for the same reason; the client then removes them."""
        frames = self.give_up(seq)
        for call in self.calls:
            frames += self._answer(seq, call, _CUT_OFF, {"status": "cancelled"})
        return frames

    def reopened(self, seq: int) -> list[Frame]:
        """The starts of the calls with arguments that are still being written, for a reader that has the messages."""
        return [self._call_start(seq, call) for call in self.calls.incomplete()]
