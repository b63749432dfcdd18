"""Finish reasons by which a server reports that it did not finish the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.adapters.loopback.replay import Replay
from penstock.adapters.loopback.script import Script
from penstock.adapters.loopback.server import LoopbackProvider
from penstock.adapters.providers.anthropic.decoder import MessagesDecoder
from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.openai.chat_decoder import ChatDecoder
from penstock.adapters.providers.openai.responses_decoder import ResponsesDecoder
from penstock.adapters.providers.shared.aborts import ABORTS, abort_error
from penstock.errors import ApiError
from penstock.ports import Delta, ErrorDelta, FinishDelta

DOCS = Path(__file__).parents[4] / "docs" / "providers.md"


def sse(*payloads: Any, names: bool = False) -> bytes:
    lines = [(f"event: {one['type']}\n" if names else "") + f"data: {json.dumps(one)}\n\n" for one in payloads]
    return "".join(lines).encode()


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def ends(deltas: list[Delta]) -> list[str]:
    """The ends among the deltas: a finish reason, or the code of an error."""
    found = []
    for delta in deltas:
        if isinstance(delta, FinishDelta):
            found.append(f"finish {delta.reason}")
        elif isinstance(delta, ErrorDelta):
            assert isinstance(delta.error, ApiError)
            found.append(f"error {delta.error.code}")
    return found


@pytest.mark.parametrize("word", sorted(ABORTS))
@pytest.mark.parametrize("spell", [str, str.upper])
def test_each_word_is_an_error_in_chat_completions(word: str, spell: Any) -> None:
    decoder = ChatDecoder(10_000)
    usage = {"choices": [], "usage": {"total_tokens": 1}}
    deltas = decoder.feed(sse(chunk({"content": "You owe us 1"}), chunk({}, spell(word)), usage) + b"data: [DONE]\n\n")
    assert ends([*deltas, *decoder.close()]) == [f"error {spell(word)}"]
    assert decoder.finished


def test_the_error_frame_says_more_than_the_word_in_the_same_chunk() -> None:
    decoder = ChatDecoder(10_000)
    deltas = decoder.feed(sse(chunk({}, "error", error={"code": 502, "message": "upstream is gone"})))
    (error,) = [delta.error for delta in deltas if isinstance(delta, ErrorDelta)]
    assert "upstream is gone" in str(error)


@pytest.mark.parametrize("word", ["stop", "length", "repetition", "some_new_word"])
def test_other_words_end_an_answer(word: str) -> None:
    decoder = ChatDecoder(10_000)
    assert all(end.startswith("finish") for end in ends(decoder.feed(sse(chunk({"content": "x"}, word)))))
    assert abort_error(word) is None


def test_a_word_after_the_answer_was_finished_changes_nothing() -> None:
    decoder = ChatDecoder(10_000)
    deltas = decoder.feed(sse(chunk({"content": "x"}, "stop"), chunk({}, "abort")))
    assert not [end for end in ends(deltas) if end.startswith("error")]


@pytest.mark.parametrize(("word", "reason"), [("ERROR_LIMIT", "length"), ("ERROR_TOXIC", "content_filter")])
def test_words_that_only_look_like_errors(word: str, reason: str) -> None:
    assert ends(ChatDecoder(10_000).feed(sse(chunk({"content": "x"}, word)))) == [f"finish {reason}"]


def test_the_other_dialects_know_the_words_too() -> None:
    message = {"type": "message_delta", "delta": {"stop_reason": "abort"}}
    assert ends(MessagesDecoder(10_000).feed(sse(message, names=True))) == ["error abort"]
    line = json.dumps({"message": {"content": ""}, "done": True, "done_reason": "timeout"}).encode() + b"\n"
    assert ends(OllamaDecoder(10_000).feed(line)) == ["error timeout"]
    incomplete = {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "cancelled"}}}
    assert ends(ResponsesDecoder(10_000).feed(sse(incomplete, names=True))) == ["error cancelled"]
    cancelled = {"type": "response.cancelled", "response": {"id": "r"}}
    assert ends(ResponsesDecoder(10_000).feed(sse(cancelled, names=True))) == ["error cancelled"]


def test_the_stream_fails_with_the_partial_text() -> None:
    body = sse(chunk({"content": "You owe us 1"}), chunk({}, "abort")) + b"data: [DONE]\n\n"
    with (
        LoopbackProvider(Script([Replay(body)])) as provider,
        penstock.System(penstock.Settings()) as system,
        pytest.raises(ApiError) as caught,
    ):
        system.chat("m", "hi", base_url=provider.base_url, api_key="k").result(timeout=10)
    assert (caught.value.code, caught.value.partial, caught.value.retryable) == ("abort", "You owe us 1", True)


def test_an_abort_before_the_first_delta_is_retried() -> None:
    bad = sse(chunk({}, "insufficient_system_resource")) + b"data: [DONE]\n\n"
    good = sse(chunk({"content": "fine"}, "stop")) + b"data: [DONE]\n\n"
    script = Script([Replay(bad), Replay(good)])
    options = penstock.RequestOptions(retry_base_delay=0.01)
    with LoopbackProvider(script) as provider, penstock.System(penstock.Settings()) as system:
        stream = system.chat("m", "hi", base_url=provider.base_url, api_key="k", request_options=options)
        assert stream.result(timeout=10).text == "fine"


def test_the_documents_list_the_words_that_the_code_knows() -> None:
    section = DOCS.read_text("utf-8").split("### Answers that a server did not finish")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    expected = [
        f"| `{word}` | {abort.meaning} | {'yes' if abort.retryable else 'no'} | {abort.origin} |"
        for word, abort in ABORTS.items()
    ]
    assert rows == expected
