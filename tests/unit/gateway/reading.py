"""Reads frames as the clients do: strictly, so that what a client would refuse fails a test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from penstock.events import Event
from penstock.gateway.projections.frames import Frame, Opening, Projection
from tests.judges.cases import STREAM_ID

__all__ = ["AguiReader", "UiReader", "data_of", "fed", "opening", "shapes"]


def opening(request: Mapping[str, Any] | None = None, /, **variant: str) -> Opening:
    return Opening(stream_id=STREAM_ID, epoch="e", created=1, request=request or {}, variant=variant)


def fed(projection: Projection, events: Iterable[Event]) -> list[Frame]:
    """The frames of events that come one by one."""
    frames: list[Frame] = []
    for event in events:
        frames += projection.feed(event)
        frames += projection.caught_up()
    return frames


def data_of(data: bytes) -> list[Any]:
    """The data of each server-sent event, parsed; ``"[DONE]"`` as it is."""
    text = data.decode()
    assert "\r" not in text
    assert text == "" or text.endswith("\n\n")
    found = []
    for event in text.split("\n\n")[:-1]:
        assert event.startswith("data: ")
        assert "\n" not in event
        found.append("[DONE]" if event == "data: [DONE]" else json.loads(event[len("data: ") :]))
    return found


def shapes(frames: Iterable[Frame]) -> list[Any]:
    """The data of frames, without times."""
    found = data_of(b"".join(frame.data for frame in frames))
    return [
        data if data == "[DONE]" else {name: value for name, value in data.items() if name != "timestamp"}
        for data in found
    ]


class UiReader:
    """A UI message, put together of chunks."""

    def __init__(self, *known: str) -> None:
        self.has_started = False
        self.is_done = False
        self.is_finished = False
        self.parts: list[dict[str, Any]] = []
        self.active: dict[str, dict[str, Any]] = {}
        self.partial: set[str] = set()
        self.calls: dict[str, dict[str, Any]] = {name: {} for name in known}
        self.transient: list[Any] = []
        self.error: str | None = None

    def read(self, data: bytes) -> None:
        for chunk in data_of(data):
            assert not self.is_done, "nothing follows [DONE]"
            if chunk == "[DONE]":
                self.is_done = True
                assert not self.active, "a part is open"
                continue
            assert not self.is_finished, "nothing follows finish and abort but [DONE]"
            assert None not in chunk.values() or "data" in chunk or "input" in chunk or "output" in chunk
            self._chunk(chunk["type"], chunk)

    def _chunk(self, kind: str, chunk: dict[str, Any]) -> None:
        if kind == "start":
            assert not self.has_started
            assert chunk["messageId"]
            self.has_started = True
            return
        assert self.has_started, "start comes first"
        if kind in ("text-start", "reasoning-start"):
            part = {"type": kind.partition("-")[0], "text": ""}
            own = chunk.get("providerMetadata", {}).get("penstock", {})
            part |= {"origin": own["origin"]} if "origin" in own else {}
            assert chunk["id"] not in self.active
            self.active[chunk["id"]] = part
            self.parts.append(part)
        elif kind in ("text-delta", "reasoning-delta"):
            assert self.active[chunk["id"]]["type"] == kind.partition("-")[0]
            self.active[chunk["id"]]["text"] += chunk["delta"]
        elif kind in ("text-end", "reasoning-end"):
            self.active.pop(chunk["id"])
        elif kind.startswith("tool-"):
            self._tool(kind, chunk)
        elif kind == "start-step":
            self.parts.append({"type": "step-start"})
        elif kind == "finish-step":
            assert not self.active
        elif kind == "reset-step":
            while self.parts and self.parts[-1]["type"] != "step-start":
                self.parts.pop()
            self.active, self.partial = {}, set()
        elif kind in ("finish", "abort"):
            self.is_finished = True
        elif kind == "error":
            self.error = chunk["errorText"]
        elif chunk.get("transient"):
            self.transient.append(chunk)
        else:
            assert kind in ("source-url", "source-document", "file") or kind.startswith("data-"), kind
            self.parts.append(chunk)

    def _tool(self, kind: str, chunk: dict[str, Any]) -> None:
        name = chunk["toolCallId"]
        if kind == "tool-input-delta":
            assert name in self.partial
            self.calls[name]["written"] += chunk["inputTextDelta"]
        elif kind in ("tool-input-start", "tool-input-available", "tool-input-error"):
            if kind == "tool-input-start" or name not in self.calls:
                assert name not in self.calls, "an id is used once"
                self.calls[name] = {"type": chunk["toolName"], "id": name, "written": ""}
                self.parts.append(self.calls[name])
            if kind == "tool-input-start":
                self.partial.add(name)
            self.calls[name] |= {"state": kind, "input": chunk.get("input")}
        else:
            assert name in self.calls, "a result needs its call"
            self.calls[name] |= {"state": kind, "output": chunk.get("output", chunk.get("errorText"))}


class AguiReader:
    """The messages of an application, as the client keeps them."""

    def __init__(self, messages: Iterable[Mapping[str, Any]] = ()) -> None:
        self.messages: list[dict[str, Any]] = [dict(message) for message in messages]
        self.state = "new"
        self.open: dict[str, set[str]] = {"text": set(), "call": set(), "span": set(), "thought": set(), "step": set()}
        self.end: dict[str, Any] = {}
        self.customs: list[Any] = []
        self.started: list[str] = []
        self.answered: set[str] = set()

    def read(self, data: bytes) -> None:
        for event in data_of(data):
            assert self.state != "over", "nothing follows the end"
            if self.state == "new":
                assert event["type"] in ("RUN_STARTED", "RUN_ERROR")
                self.state = "running"
            else:
                assert event["type"] != "RUN_STARTED"
            fixed = {"RAW", "CUSTOM", "ACTIVITY_SNAPSHOT", "MESSAGES_SNAPSHOT"}
            assert event["type"] in fixed or None not in event.values(), "absent, never null"
            assert isinstance(event.get("timestamp", 0), int)
            getattr(self, f"on_{event['type']}")(event)

    def message(self, name: str) -> dict[str, Any]:
        return next(message for message in self.messages if message["id"] == name)

    def on_RUN_STARTED(self, event: dict[str, Any]) -> None:
        assert event["threadId"]
        assert event["runId"]

    def on_RUN_FINISHED(self, event: dict[str, Any]) -> None:
        assert not any(self.open.values()), self.open
        if event["outcome"]["type"] == "success" and not event["outcome"].get("pendingToolCallIds"):
            assert set(self.started) <= self.answered, "the client takes what has no result as its own to run"
        self.state, self.end = "over", event

    def on_RUN_ERROR(self, event: dict[str, Any]) -> None:
        self.state, self.end = "over", event

    def on_STEP_STARTED(self, event: dict[str, Any]) -> None:
        assert event["stepName"] not in self.open["step"]
        self.open["step"].add(event["stepName"])

    def on_STEP_FINISHED(self, event: dict[str, Any]) -> None:
        self.open["step"].remove(event["stepName"])

    def _start(self, kind: str, event: dict[str, Any], role: str) -> None:
        assert event["messageId"] not in self.open[kind]
        self.open[kind].add(event["messageId"])
        if all(message["id"] != event["messageId"] for message in self.messages):
            self.messages.append({"id": event["messageId"], "role": role, "content": ""})
        self._mark(event)

    def _mark(self, event: dict[str, Any]) -> None:
        if "metadata" in event:
            message = self.message(event["messageId"])
            message["metadata"] = {**message.get("metadata", {}), **event["metadata"]}

    def on_TEXT_MESSAGE_START(self, event: dict[str, Any]) -> None:
        self._start("text", event, event["role"])

    def on_TEXT_MESSAGE_CONTENT(self, event: dict[str, Any]) -> None:
        assert event["messageId"] in self.open["text"]
        message = self.message(event["messageId"])
        message["content"] = message.get("content", "") + event["delta"]

    def on_TEXT_MESSAGE_END(self, event: dict[str, Any]) -> None:
        self.open["text"].remove(event["messageId"])
        self._mark(event)

    def on_REASONING_START(self, event: dict[str, Any]) -> None:
        assert event["messageId"] not in self.open["span"]
        self.open["span"].add(event["messageId"])

    def on_REASONING_END(self, event: dict[str, Any]) -> None:
        self.open["span"].remove(event["messageId"])

    def on_REASONING_MESSAGE_START(self, event: dict[str, Any]) -> None:
        assert event["role"] == "reasoning"
        self._start("thought", event, "reasoning")

    def on_REASONING_MESSAGE_CONTENT(self, event: dict[str, Any]) -> None:
        assert event["messageId"] in self.open["thought"]
        self.message(event["messageId"])["content"] += event["delta"]

    def on_REASONING_MESSAGE_END(self, event: dict[str, Any]) -> None:
        self.open["thought"].remove(event["messageId"])
        self._mark(event)

    def on_REASONING_ENCRYPTED_VALUE(self, event: dict[str, Any]) -> None:
        if event["subtype"] == "message":
            self.message(event["entityId"])["encryptedValue"] = event["encryptedValue"]
        else:
            self.call(event["entityId"])["encryptedValue"] = event["encryptedValue"]

    def call(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(
            call for message in self.messages for call in message.get("toolCalls", ()) if call["id"] == name
        )
        return found

    def on_TOOL_CALL_START(self, event: dict[str, Any]) -> None:
        name, parent = event["toolCallId"], event["parentMessageId"]
        assert name not in self.open["call"]
        self.open["call"].add(name)
        self.started.append(name)
        if any(call["id"] == name for message in self.messages for call in message.get("toolCalls", ())):
            return
        owner = next((message for message in self.messages if message["id"] == parent), None)
        if owner is None:
            owner = {"id": parent, "role": "assistant"}
            self.messages.append(owner)
        assert owner["role"] == "assistant"
        function = {"name": event["toolCallName"], "arguments": ""}
        owner.setdefault("toolCalls", []).append({"id": name, "type": "function", "function": function})

    def on_TOOL_CALL_ARGS(self, event: dict[str, Any]) -> None:
        assert event["toolCallId"] in self.open["call"]
        self.call(event["toolCallId"])["function"]["arguments"] += event["delta"]

    def on_TOOL_CALL_END(self, event: dict[str, Any]) -> None:
        self.open["call"].remove(event["toolCallId"])
        if "metadata" in event:
            self.call(event["toolCallId"])["metadata"] = event["metadata"]

    def on_TOOL_CALL_RESULT(self, event: dict[str, Any]) -> None:
        made = {
            "id": event["messageId"],
            "role": "tool",
            "content": event["content"],
            "toolCallId": event["toolCallId"],
        }
        made |= {"metadata": event["metadata"]} if "metadata" in event else {}
        owners = [
            at
            for at, message in enumerate(self.messages)
            if any(call["id"] == event["toolCallId"] for call in message.get("toolCalls", ()))
        ]
        assert owners, "a result needs its call"
        at = owners[0] + 1
        while at < len(self.messages) and self.messages[at]["role"] == "tool":
            at += 1
        self.messages.insert(at, made)
        self.answered.add(event["toolCallId"])

    def on_MESSAGES_SNAPSHOT(self, event: dict[str, Any]) -> None:
        self.messages = [json.loads(json.dumps(message)) for message in event["messages"]]
        self.answered |= {message["toolCallId"] for message in self.messages if message["role"] == "tool"}

    def on_ACTIVITY_SNAPSHOT(self, event: dict[str, Any]) -> None:
        assert event["content"]["toolCallId"]

    def on_CUSTOM(self, event: dict[str, Any]) -> None:
        assert event["name"].startswith("penstock.")
        self.customs.append((event["name"], event["value"]))

    def on_RAW(self, event: dict[str, Any]) -> None:
        assert "event" in event
