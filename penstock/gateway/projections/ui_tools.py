"""The chunks of Vercel's UI message stream that are about tools."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from penstock.actors.agent.results import describe_parse_error
from penstock.events import (
    ServerToolCall,
    ServerToolResult,
    ToolApprovalRequested,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    ToolExecutionStarted,
    ToolProgress,
    ToolResult,
)
from penstock.gateway.projections.calls import CallTeller, SentCall
from penstock.gateway.projections.frames import Frame, encode

__all__ = ["ToolChunks", "chunk"]

_CUT_OFF: Final = "The answer ended, or began again, before the arguments were complete."


def chunk(seq: int, type: str, **fields: Any) -> Frame:
    """A chunk as a frame of its own."""
    return Frame(seq, b"data: %b\n\n" % encode({"type": type, **fields}))


class ToolChunks(CallTeller):
    """Makes the chunks, and knows which calls the client has.

    Args:
        flags: fields of every chunk that describes a call or its result: ``dynamic``.
        has_approvals: whether the client knows approvals and denied calls.
        used: the ids of the calls that the client has already.
        decided: see `Decided`.
    """

    def __init__(
        self, flags: dict[str, Any], *, has_approvals: bool, used: Iterable[str] = (), decided: str | None = None
    ) -> None:
        super().__init__(used, decided)
        self._flags = flags
        self._has_approvals = has_approvals

    # --- calls of the model --------------------------------------------------------------------------------------

    def started(self, event: ToolCallStarted) -> list[Frame]:
        call = self.calls.begin(event.id, event.name, event.index)
        call.key = b'data: {"type":"tool-input-delta","toolCallId":%b,"inputTextDelta":' % encode(call.id)
        flags = self._flags | ({"providerExecuted": True} if event.is_server else {})
        return [chunk(event.seq, "tool-input-start", toolCallId=call.id, toolName=event.name, **flags)]

    def delta(self, event: ToolCallDelta) -> list[Frame]:
        call = self.calls.at(event.index)
        if call is None or call.key is None:
            return []  # its start is folded; the whole call is in `ToolCallCompleted`
        return [Frame(event.seq, b"%b%b}\n\n" % (call.key, encode(event.text)), call.key, event.text)]

    def completed(self, event: ToolCallCompleted) -> list[Frame]:
        call, raw = event.call, event.call.arguments_raw
        if call.is_server and call.id in self._server:
            return []
        sent = self.calls.complete(event.index, call)
        has_arguments = call.arguments is not None or raw.strip() in ("", "null")
        value = raw if not has_arguments else {} if call.arguments is None else call.arguments
        fields: dict[str, Any] = {"toolCallId": sent.id, "toolName": call.name, "input": value}
        if call.is_server:
            self._server[call.id] = sent
            fields["providerExecuted"] = True
        kind = "" if call.type == "function" else call.type
        own = {"signature": call.signature, "provider": call.signed_by, "type": kind}
        if metadata := {name: text for name, text in own.items() if text}:
            fields["providerMetadata"] = {"penstock": metadata}
        fields |= self._flags
        if has_arguments:
            return [chunk(event.seq, "tool-input-available", **fields)]
        return [chunk(event.seq, "tool-input-error", **fields, errorText=describe_parse_error(raw))]

    def give_up(self, seq: int) -> list[Frame]:
        """End the calls with arguments that will not become complete."""
        frames = []
        for call in self.calls.incomplete():
            call.is_complete = call.is_answered = True
            fields = {"toolCallId": call.id, "toolName": call.name, "input": "", **self._flags}
            frames.append(chunk(seq, "tool-input-error", **fields, errorText=_CUT_OFF))
        return frames

    # --- what comes of them --------------------------------------------------------------------------------------

    def execution(self, event: ToolExecutionStarted) -> list[Frame]:
        self.calls.begin_round(event.calls)
        return []

    def approval(self, event: ToolApprovalRequested) -> list[Frame]:
        frames, sent = self._known(event.seq, event.call.id, event.call.name, event.call.arguments)
        ids = {"approvalId": event.call.id, "toolCallId": sent.id}
        if self._has_approvals:
            self._ask(sent)
            return [*frames, chunk(event.seq, "tool-approval-request", **ids)]
        data = {**ids, "toolName": event.call.name, "input": event.call.arguments}
        return [*frames, chunk(event.seq, "data-penstock-approval", id=sent.id, data=data)]

    def progress(self, event: ToolProgress) -> list[Frame]:
        frames, sent = self._known(event.seq, event.call_id, event.name)
        fields = {"toolCallId": sent.id, "output": event.progress, **self._flags, "preliminary": True}
        return [*frames, chunk(event.seq, "tool-output-available", **fields)]

    def result(self, event: ToolResult) -> tuple[list[Frame], bool]:
        """The chunks of a result, and whether it is the last one of its round."""
        seq = event.seq
        frames, sent = self._known(seq, event.call_id, event.name)
        self._settle(sent)
        if event.status == "ok":
            fields = {"toolCallId": sent.id, "output": _output(event.content), **self._flags}
            frames.append(chunk(seq, "tool-output-available", **fields))
        elif event.status == "denied" and self._has_approvals:
            frames.append(chunk(seq, "tool-output-denied", toolCallId=sent.id))
        else:
            fields = {"toolCallId": sent.id, "errorText": event.content, **self._flags}
            frames.append(chunk(seq, "tool-output-error", **fields))
        return frames, self.calls.answer(sent)

    def _known(self, seq: int, given: str, name: str, arguments: Any = None) -> tuple[list[Frame], SentCall]:
        """The call with that id, and the chunks to send before, if the client does not know it yet."""
        call = self.calls.find(given)
        if call is not None:
            return [], call
        call = self.calls.begin(given, name)
        call.is_complete = True
        fields = {"toolCallId": call.id, "toolName": name, "input": {} if arguments is None else arguments}
        return [chunk(seq, "tool-input-available", **fields, **self._flags)], call

    # --- the provider's own tools --------------------------------------------------------------------------------

    def server_call(self, event: ServerToolCall) -> list[Frame]:
        if event.id in self._server:
            return []
        sent = self.calls.begin(event.id, event.name)
        sent.is_complete = sent.is_server = True
        self._server[event.id] = sent
        fields = {"toolCallId": sent.id, "toolName": event.name, "input": {} if event.input is None else event.input}
        return [chunk(event.seq, "tool-input-available", **fields, providerExecuted=True, **self._flags)]

    def server_result(self, event: ServerToolResult) -> list[Frame]:
        frames = self.server_call(ServerToolCall(seq=event.seq, id=event.id, name=event.name))
        fields: dict[str, Any] = {"toolCallId": self._server[event.id].id}
        flags = {"providerExecuted": True, **self._flags}
        if not event.is_error:
            return [*frames, chunk(event.seq, "tool-output-available", **fields, output=event.output, **flags)]
        text = event.output if isinstance(event.output, str) else encode(event.output).decode()
        return [*frames, chunk(event.seq, "tool-output-error", **fields, errorText=text, **flags)]


def _output(content: str) -> Any:
    """A result as the page's component reads it: JSON objects and lists parsed, all else as text."""
    if content[:1] not in ("{", "["):
        return content
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return content
