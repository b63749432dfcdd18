"""Gemini's own tools, pictures and what it says of the whole answer; a finish reason while code runs is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

import penstock
from penstock.adapters.providers.gemini.decoder import GeminiDecoder
from penstock.errors import IncompleteStream
from penstock.events import MediaPart, ServerToolCall, ServerToolResult
from penstock.ports import (
    BlockDelta,
    BlockStart,
    Delta,
    EventDelta,
    FinishDelta,
    FinishHeld,
    MetadataDelta,
    ReasoningDelta,
    TextDelta,
)
from penstock.testing import HANG, ScriptedAttempt, ScriptedProvider, SimulatedSystem
from penstock.testing.scripted import Step
from tests.integration.raw_server import HEAD, Peer, RawServer

CODE = {"executableCode": {"language": "PYTHON", "code": "print(6*7)"}}
RESULT = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "42"}}


def chunk(*parts: Any, finish: str | None = None, **others: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts)}} | others
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})]}


# As in a recorded answer: the first STOP comes with the code, three seconds before its result.
RECORDED = [chunk(CODE, finish="STOP"), chunk(RESULT), chunk({"text": "It is 42."}, finish="STOP")]


def body(*chunks: Any) -> bytes:
    return b"".join(b"data: %s\r\n\r\n" % json.dumps(one).encode() for one in chunks)


def decode(data: bytes, size: int = 1_000_000) -> tuple[GeminiDecoder, list[Delta]]:
    decoder, deltas = GeminiDecoder(1_000_000), []
    for start in range(0, len(data), size):
        deltas += decoder.feed(data[start : start + size])
    return decoder, deltas + decoder.close()


CALL = EventDelta(
    ServerToolCall(id="server_0", name="code_execution", input={"language": "PYTHON", "code": "print(6*7)"})
)
DONE = EventDelta(ServerToolResult(id="server_0", name="code_execution", output="42", status="OUTCOME_OK"))


@pytest.mark.parametrize("size", [1_000_000, 1, 7])
def test_the_stop_that_comes_with_code_is_not_the_end(size: int) -> None:
    decoder, deltas = decode(body(*RECORDED), size)
    assert deltas == [
        CALL,
        BlockDelta(CODE),
        FinishHeld(),
        DONE,
        BlockDelta(RESULT),
        BlockStart("text"),
        TextDelta("It is 42."),
        FinishDelta("stop", "STOP"),
    ]
    assert (decoder.finished, decoder.skipped) == (True, 0)


def test_an_answer_that_is_cut_short_while_code_runs_is_not_finished() -> None:
    data = body(*RECORDED)
    whole = decode(data)[1]
    for end in range(len(data)):
        decoder, deltas = decode(data[:end])
        assert deltas == whole[: len(deltas)]
        assert not decoder.finished or deltas == whole


def test_a_finish_reason_other_than_stop_ends_the_answer_though_code_is_open() -> None:
    decoder, deltas = decode(body(chunk(CODE, finish="MAX_TOKENS")))
    assert deltas[-1] == FinishDelta("length", "MAX_TOKENS")
    assert decoder.finished


def test_calls_and_results_belong_together_and_errors_are_marked() -> None:
    failed = {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "boom"}}
    _, deltas = decode(body(chunk(CODE, CODE), chunk(RESULT, failed), chunk({"text": "x"}, finish="STOP")))
    events = [delta.event for delta in deltas if isinstance(delta, EventDelta)]
    assert [(event.id, getattr(event, "is_error", None)) for event in events] == [  # type: ignore[union-attr]
        ("server_0", None),
        ("server_1", None),
        ("server_0", False),
        ("server_1", True),
    ]


def test_tools_with_ids_are_matched_by_them() -> None:
    calls = [{"toolCall": {"id": one, "toolType": "GOOGLE_SEARCH", "args": {"q": one}}} for one in "ab"]
    results = [{"toolResponse": {"id": one, "toolType": "GOOGLE_SEARCH", "response": {"r": one}}} for one in "ba"]
    decoder, deltas = decode(body(chunk(*calls, finish="STOP"), chunk(*results), chunk({"text": "x"}, finish="STOP")))
    events = [delta.event for delta in deltas if isinstance(delta, EventDelta)]
    assert [event.id for event in events] == ["a", "b", "b", "a"]  # type: ignore[union-attr]
    assert isinstance(events[2], ServerToolResult)
    assert (events[2].name, events[2].output) == ("GOOGLE_SEARCH", {"r": "b"})
    assert decoder.finished


def test_text_and_thoughts_after_a_tool_begin_a_part() -> None:
    thought = {"text": "hm", "thought": True}
    _, deltas = decode(body(chunk({"text": "a"}), chunk(CODE), chunk(RESULT), chunk(thought), chunk({"text": "b"})))
    assert [delta for delta in deltas if not isinstance(delta, (EventDelta, BlockDelta))] == [
        TextDelta("a"),
        BlockStart("reasoning"),
        ReasoningDelta("hm"),
        TextDelta("b"),
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
            MediaPart(kind="image", mime="image/png", data="aGk="),
        ),
        (
            {"inlineData": {"mimeType": "audio/wav", "data": "aA=="}},
            MediaPart(kind="audio", mime="audio/wav", data="aA=="),
        ),
        ({"fileData": {"fileUri": "gs://x"}}, MediaPart(kind="file", url="gs://x")),
    ],
)
def test_pictures_sound_and_files_are_media(part: dict[str, Any], expected: MediaPart) -> None:
    decoder, deltas = decode(body(chunk(part)), 3)
    assert (deltas, decoder.skipped) == ([EventDelta(expected)], 0)


def test_what_is_said_of_the_whole_answer_is_told_once() -> None:
    last = chunk({"text": "a"}, finish="SAFETY", finishMessage="Blocked.") | {"responseId": "r1"}
    _, deltas = decode(
        body(chunk({"text": "x"}) | {"responseId": "r1"}, last, {"responseId": "r1", "usageMetadata": {}})
    )
    told = [delta.values for delta in deltas if isinstance(delta, MetadataDelta)]
    assert told == [{"response_id": "r1"}, {"finish_message": "Blocked."}]


def paced(chunks: list[Any], *pauses: float) -> ScriptedAttempt:
    """What the decoder makes of each chunk, with pauses in between."""
    decoder = GeminiDecoder(1_000_000)
    steps: list[Step] = []
    for one, pause in zip(chunks, pauses, strict=True):
        steps += [pause, decoder.feed(body(one))]
    return ScriptedAttempt(tuple(steps), finish=None, done=False)


def test_the_stream_waits_for_the_rest_although_the_grace_is_over() -> None:
    options = penstock.RequestOptions(finish_grace=2.0, idle_timeout=30.0)
    with SimulatedSystem(1) as system:
        provider = ScriptedProvider(paced(RECORDED, 0.0, 3.0, 0.1))
        end = system.chat("m", "x", provider=provider, request_options=options).result(60)
        assert (end.text, end.finish_reason) == ("It is 42.", "stop")


def test_code_without_a_result_is_an_incomplete_answer_when_the_idle_clock_ends() -> None:
    options = penstock.RequestOptions(finish_grace=2.0, idle_timeout=30.0, max_retries=0)
    with SimulatedSystem(1) as system:
        attempt = paced(RECORDED[:1], 0.0)
        provider = ScriptedProvider(ScriptedAttempt((*attempt.steps, HANG), finish=None))
        stream = system.chat("m", "x", provider=provider, request_options=options)
        with pytest.raises(IncompleteStream, match="for 30 s no result"):
            stream.result(60)
        end = stream._record.log.terminal
        assert end is not None
        assert end.metrics is not None
        assert 30 <= end.metrics.total_time_s < 31


def test_code_without_a_result_is_an_incomplete_answer_when_the_body_ends() -> None:
    def serve(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"Connection: close\r\n\r\n" + body(RECORDED[0]))

    options = penstock.RequestOptions(max_retries=0)
    with RawServer(serve) as server, penstock.System() as system:
        url = f"http://localhost:{server.port}/v1beta"
        stream = system.chat("m", "x", provider="gemini", base_url=url, api_key="k", request_options=options)
        with pytest.raises(IncompleteStream):
            stream.result(10)
