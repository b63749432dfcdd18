"""What Ollama's lines have besides text and calls: probabilities, pictures, durations, thoughts that go back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from penstock.adapters.providers.ollama.decoder import OllamaDecoder
from penstock.adapters.providers.ollama.provider import OllamaChat
from penstock.events import Logprobs, MediaPart, ProviderBlock, ProviderEvent, TokenLogprob
from penstock.ports import (
    BlockDelta,
    ChatCall,
    Delta,
    EventDelta,
    FinishDelta,
    MetadataDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallFragment,
    UsageDelta,
)

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(40))).decode()
LIMIT = 1_000_000


def line(content: object = "", *, done: bool = False, message: dict[str, Any] | None = None, **more: object) -> Any:
    return {"model": "m", "message": {"role": "assistant", "content": content, **(message or {})}, "done": done, **more}


def ndjson(*lines: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def decode(*lines: object) -> list[Delta]:
    return OllamaDecoder(LIMIT).feed(ndjson(*lines))


def likely(token: object, logprob: object, *top: tuple[str, object]) -> dict[str, Any]:
    others = [{"token": other, "logprob": value, "bytes": list(other.encode())} for other, value in top]
    raw = list(token.encode("utf-8", "replace")) if isinstance(token, str) else None
    return {"token": token, "logprob": logprob, "bytes": raw, "top_logprobs": others}


def told(token: str, logprob: float, *top: tuple[str, float]) -> TokenLogprob:
    return TokenLogprob(token=token, logprob=logprob, top=top)


CALL = {"function": {"name": "f", "arguments": {"x": 1}}}
BODY = [
    line("", message={"thinking": "hm, "}, logprobs=[likely("hm, ", -0.5)]),
    line("", message={"thinking": "well."}),
    line("Hel", logprobs=[likely("Hel", -0.25, ("Hel", -0.25), ("Go", -3))]),
    line("lo \U0001f30a", logprobs=[likely("lo ", -1), likely("\U0001f30a", 0)]),
    line("plain"),
    line("", message={"images": [PNG]}),
    line("", message={"tool_calls": [CALL]}),
    line("", done=True, done_reason="stop", total_duration=9, load_duration=0, eval_count=4, eval_duration=5),
]
TOLD: list[Delta] = [
    ReasoningDelta("hm, "),
    EventDelta(Logprobs(tokens=(told("hm, ", -0.5),))),
    ReasoningDelta("well."),
    TextDelta("Hel"),
    EventDelta(Logprobs(tokens=(told("Hel", -0.25, ("Hel", -0.25), ("Go", -3.0)),))),
    TextDelta("lo \U0001f30a"),
    EventDelta(Logprobs(tokens=(told("lo ", -1.0), told("\U0001f30a", 0.0)))),
    TextDelta("plain"),
    EventDelta(MediaPart(kind="image", mime="image/png", data=PNG)),
    ToolCallFragment(0, None, "f", '{"x":1}'),
    BlockDelta({"type": "message.thinking", "thinking": "hm, well."}),
    MetadataDelta({"timings": {"total_duration": 9, "load_duration": 0, "eval_duration": 5}}),
    FinishDelta("tool_calls", "stop"),
]


def test_all_of_it_is_told_in_order_wherever_the_bytes_are_split() -> None:
    body = ndjson(*BODY)
    decoder = OllamaDecoder(LIMIT)
    whole = decoder.feed(body)
    assert whole[:-1] == TOLD
    assert isinstance(whole[-1], UsageDelta)
    assert decoder.skipped == 0
    for size in (1, 2, 7, 100):
        decoder = OllamaDecoder(LIMIT)
        assert [d for at in range(0, len(body), size) for d in decoder.feed(body[at : at + size])] == whole


def test_an_answer_cut_short_tells_a_beginning_and_no_block() -> None:
    body = ndjson(*BODY)
    for end in range(0, len(body) - 2, 3):
        decoder = OllamaDecoder(LIMIT)
        cut = decoder.feed(body[:end]) + decoder.close()
        assert cut == TOLD[: len(cut)]
        assert not any(isinstance(delta, BlockDelta) for delta in cut)
        assert not decoder.done


@pytest.mark.parametrize(
    "items",
    [
        5,
        "text",
        {},
        [5],
        [likely("a", None)],
        [likely(5, -1)],
        [likely("a", True)],
        [likely("a", float("-inf"))],
        [likely("a", -1e301)],
    ],
)
def test_what_is_no_probability_is_counted_and_the_text_stays(items: Any) -> None:
    decoder = OllamaDecoder(LIMIT, "unknown")
    text, unknown = decoder.feed(ndjson(line("a", logprobs=items)))
    assert text == TextDelta("a")
    assert isinstance(unknown, EventDelta)
    assert isinstance(unknown.event, ProviderEvent)
    assert unknown.event.type == "logprobs"
    assert decoder.skipped == 1


def test_probabilities_among_others_that_are_none_are_told() -> None:
    odd = [likely("a", -1, ("b", -2), ("c", "x")), {"token": "d"}, likely("\ud800", -3)]
    expected = Logprobs(tokens=(told("a", -1.0, ("b", -2.0)), told("\ufffd", -3.0)))
    assert decode(line("a", logprobs=odd)) == [TextDelta("a"), EventDelta(expected)]
    assert decode(line("a", logprobs=[])) == decode(line("a", logprobs=None)) == [TextDelta("a")]


@pytest.mark.parametrize(
    ("head", "mime"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"\xff\xd8\xff\xe0....", "image/jpeg"),
        (b"GIF89a....", "image/gif"),
        (b"GIF87a....", "image/gif"),
        (b"RIFF1234WEBPVP8 ", "image/webp"),
        (b"RIFF1234WAVEfmt ", None),
        (b"\x00\x00\x00\x1cftypavif", "image/avif"),
        (b"BM......", "image/bmp"),
        (b"II*\x00....", "image/tiff"),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_the_type_of_a_picture_is_read_from_its_first_bytes(head: bytes, mime: str | None) -> None:
    data = base64.b64encode(head + b"x").decode()
    assert decode(line("", message={"images": [data]})) == [EventDelta(MediaPart(kind="image", mime=mime, data=data))]


@pytest.mark.parametrize("images", [5, "AAAA", {}, [5], [""], [None], ["\u00e4"], [[]]])
def test_what_is_no_picture_is_counted(images: Any) -> None:
    decoder = OllamaDecoder(LIMIT)
    told = decoder.feed(ndjson(line("a", message={"images": images})))
    wanted = [TextDelta("a")]
    if images == "AAAA":
        assert told == [*wanted, EventDelta(MediaPart(kind="image", data="AAAA"))]
    else:
        assert (told, decoder.skipped) == (wanted, int(images != {}))
    assert decode(line("a", message={"images": ["%%"]}))[1:] == [EventDelta(MediaPart(kind="image", data="%%"))]


def test_durations_that_are_no_counts_are_left_out() -> None:
    last = line(done=True, done_reason="stop", total_duration="9", load_duration=-1, eval_duration=2.5)
    assert decode(last) == [FinishDelta("stop", "stop")]
    far = line(
        done=True, done_reason="stop", remote_host="https://ollama.com:443", remote_model="big", load_duration=3.0
    )
    assert decode(far)[0] == MetadataDelta(
        {"timings": {"load_duration": 3}, "upstream_provider": "https://ollama.com:443", "upstream_model": "big"}
    )
    assert decode(line(done=True, remote_host="h" * 5_000)) == [FinishDelta("stop", "")]


def test_thoughts_without_calls_do_not_go_back() -> None:
    deltas = decode(line("", message={"thinking": "hm"}), line("a"), line(done=True))
    assert not any(isinstance(delta, BlockDelta) for delta in deltas)


def test_everything_is_there_as_it_came_on_request() -> None:
    decoder = OllamaDecoder(LIMIT, "all")
    first, *_ = decoder.feed(ndjson(line("a", context=[1, 2])))
    assert isinstance(first, EventDelta)
    assert isinstance(first.event, ProviderEvent)
    assert first.event.payload["context"] == [1, 2]


# --- requests ------------------------------------------------------------------------------------------------------


def sent(message: dict[str, Any], provider: str = "ollama") -> Any:
    call = ChatCall(model="m", input=[{"role": "user", "content": "Hi"}, message], provider=provider)
    return json.loads(OllamaChat().request(call).body)["messages"][1]


def test_thoughts_go_back_with_the_calls_they_led_to() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    block = ProviderBlock(provider="ollama", data={"type": "message.thinking", "thinking": "hm"}, calls=1)
    foreign = ProviderBlock(provider="x", data={"type": "message.thinking", "thinking": "no"})
    odd = ProviderBlock(provider="ollama", data={"type": "thinking", "thinking": "no"})
    message = {"role": "assistant", "content": "a", "tool_calls": [call], "provider_blocks": [foreign, block, odd]}
    back = {
        "role": "assistant",
        "content": "a",
        "thinking": "hm",
        "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {}}}],
    }
    assert sent(message) == back
    assert sent({**message, "thinking": "own"}) == {**back, "thinking": "own"}
    assert "thinking" not in sent(message, "y")


def test_reasoning_under_other_names_becomes_thinking() -> None:
    for name in ("reasoning_content", "reasoning"):
        assert sent({"role": "assistant", "content": "a", name: "hm"}) == {
            "role": "assistant",
            "content": "a",
            "thinking": "hm",
        }
    assert sent({"role": "assistant", "content": "a", "reasoning": {"effort": "low"}}) == {
        "role": "assistant",
        "content": "a",
    }


def test_probabilities_are_asked_for_at_the_top_of_the_request() -> None:
    parameters = {"logprobs": True, "top_logprobs": 3}
    body = json.loads(OllamaChat().request(ChatCall(model="m", input="Hi", parameters=parameters)).body)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)
    assert "options" not in body
