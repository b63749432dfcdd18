"""The messages of an AG-UI run as its client has them, for snapshots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from penstock.gateway.projections.frames import Frame, encode

__all__ = ["RunMessage", "Transcript", "Writer"]


class Writer:
    """Makes the frames of events. ``time``: of the event that they are made of, in milliseconds since the epoch."""

    __slots__ = ("time",)

    def __init__(self) -> None:
        self.time = 0

    def event(self, seq: int, type: str, **fields: Any) -> Frame:
        """An event as a frame of its own."""
        return Frame(seq, b"data: %b\n\n" % encode({"type": type, **fields, "timestamp": self.time}))

    def piece(self, seq: int, key: bytes, text: str) -> Frame:
        """A piece of text; ``key`` is the event up to it."""
        return Frame(seq, b'%b%b,"timestamp":%d}\n\n' % (key, encode(text), self.time), key, text, self.time)


class _Called:
    """A call in an assistant's message. ``answer``: the id of the message with its result."""

    __slots__ = ("answer", "id", "metadata", "name", "pieces", "signature")

    def __init__(self, id: str, name: str) -> None:
        self.id = id
        self.name = name
        self.pieces: list[str] = []
        self.metadata: dict[str, Any] = {}
        self.signature = ""
        self.answer: str | None = None

    def message(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": "".join(self.pieces)},
        }
        if self.signature:
            made["encryptedValue"] = self.signature
        return made | ({"metadata": self.metadata} if self.metadata else {})


class RunMessage:
    """One message of the run.

    Attributes:
        id: unique in the conversation.
        role: that of its author.
        key: of the frames with its text.
        pieces: its text.
        calls: the calls of an assistant's message.
        call_id: of a tool's message, the call that it answers.
        metadata: what was sent with it.
        encrypted: the signature of a reasoning message.
    """

    __slots__ = ("call_id", "calls", "encrypted", "id", "key", "metadata", "pieces", "role")

    def __init__(self, id: str, role: Literal["assistant", "reasoning", "tool"], metadata: Mapping[str, Any]) -> None:
        self.id = id
        self.role = role
        kind = b"REASONING_MESSAGE_CONTENT" if role == "reasoning" else b"TEXT_MESSAGE_CONTENT"
        self.key = b'data: {"type":"%b","messageId":"%b","delta":' % (kind, id.encode())
        self.pieces: list[str] = []
        self.calls: list[_Called] = []
        self.call_id = ""
        self.metadata = dict(metadata)
        self.encrypted = ""

    def message(self) -> dict[str, Any]:
        made: dict[str, Any] = {"id": self.id, "role": self.role}
        text = "".join(self.pieces)
        if text or self.role != "assistant":
            made["content"] = text
        if self.calls:
            made["toolCalls"] = [call.message() for call in self.calls]
        if self.role == "tool":
            made["toolCallId"] = self.call_id
        if self.encrypted:
            made["encryptedValue"] = self.encrypted
        return made | ({"metadata": self.metadata} if self.metadata else {})


class Transcript:
    """All messages: those of the request, and those of the run since its last reset.

    Args:
        stream_id: makes the ids of the run's messages unique.
        given: the request's messages.
    """

    def __init__(self, stream_id: str, given: object) -> None:
        self._prefix = re.sub(r"[^A-Za-z0-9._-]", "_", stream_id)
        self._given = [one for one in given if isinstance(one, Mapping)] if isinstance(given, (list, tuple)) else []
        self._count = 0
        self._said: list[RunMessage] = []
        self._parent: RunMessage | None = None  # takes the calls of this round
        self._calls: dict[str, _Called] = {}

    @property
    def call_ids(self) -> set[str]:
        """The ids of the calls in the request's messages."""
        calls = [call for one in self._given if isinstance(one.get("toolCalls"), list) for call in one["toolCalls"]]
        return {call["id"] for call in calls if isinstance(call, Mapping) and isinstance(call.get("id"), str)}

    def activity_of(self, call_id: str) -> str:
        """The id of the message that shows what a running tool reports."""
        return f"progress_{self._prefix}_{call_id}"

    @property
    def is_blank(self) -> bool:
        """Whether the run has no message."""
        return not self._said

    @property
    def last_text(self) -> str | None:
        """The id of the last message of the assistant."""
        return next((said.id for said in reversed(self._said) if said.role == "assistant"), None)

    def messages(self) -> list[Mapping[str, Any]]:
        """All messages, in their order."""
        return [*self._given, *(said.message() for said in self._said)]

    def clear(self) -> None:
        """Forget the messages of the run. Their ids are not used again."""
        self._said, self._parent, self._calls = [], None, {}

    def begin(self, role: Literal["assistant", "reasoning"], metadata: Mapping[str, Any]) -> RunMessage:
        """Add a message without text."""
        said = self._made(role, metadata)
        self._said.append(said)
        if role == "assistant":
            self._parent = said
        return said

    def last_or_new(self) -> RunMessage:
        """The last message of the assistant, or a new one."""
        last = next((said for said in reversed(self._said) if said.role == "assistant"), None)
        return last or self.begin("assistant", {})

    def end_round(self) -> None:
        """Later calls belong to another message."""
        self._parent = None

    def call(self, call_id: str, name: str) -> None:
        """Add a call to the assistant's message of this round."""
        parent = self._parent or self.begin("assistant", {})
        called = self._calls[call_id] = _Called(call_id, name)
        parent.calls.append(called)

    def parent_of(self, call_id: str) -> str:
        """The id of the message with that call."""
        return self._said[self._owner(call_id)].id

    def arguments(self, call_id: str) -> list[str]:
        """The pieces of a call's arguments, to be added to."""
        return self._calls[call_id].pieces

    def mark_call(self, call_id: str, metadata: Mapping[str, Any]) -> None:
        """Add metadata to a call."""
        self._calls[call_id].metadata |= metadata

    def sign(self, call_id: str, signature: str) -> None:
        """Add what the provider needs back with a call."""
        self._calls[call_id].signature = signature

    def is_answered(self, call_id: str) -> bool:
        """Whether a call has its result."""
        return self._calls[call_id].answer is not None

    def answer(self, call_id: str, content: str, metadata: Mapping[str, Any]) -> str:
        """Add the message with a call's result where the client adds it; returns its id."""
        said = self._made("tool", metadata)
        said.call_id = call_id
        said.pieces.append(content)
        at = self._owner(call_id) + 1
        while at < len(self._said) and self._said[at].role == "tool":
            at += 1
        self._said.insert(at, said)
        self._calls[call_id].answer = said.id
        return said.id

    def _owner(self, call_id: str) -> int:
        called = self._calls[call_id]
        return next(at for at, said in enumerate(self._said) if called in said.calls)

    def _made(self, role: Literal["assistant", "reasoning", "tool"], metadata: Mapping[str, Any]) -> RunMessage:
        self._count += 1
        return RunMessage(f"msg_{self._prefix}_{self._count}", role, metadata)
