"""Decoders alone: the cost of an event from the bytes of the body to deltas, without sockets, streams and threads."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import sseclient

from benchmarks.probe import Meter, ProbeError, Result, measure
from benchmarks.tables import Row, Samples, Table
from penstock.adapters.providers.anthropic.provider import AnthropicMessages
from penstock.adapters.providers.gemini.provider import Gemini
from penstock.adapters.providers.ollama.provider import OllamaChat
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.adapters.providers.openai.responses_provider import OpenAiResponses
from penstock.config.options import RequestOptions
from penstock.ports import Decoder, Provider

__all__ = ["RECORDINGS", "load", "run"]

_CORPUS = Path(__file__).parents[1] / "tests" / "corpus"
_URL = "http://127.0.0.1"


class Recording(NamedTuple):
    """A recorded stream that is mostly text or reasoning, as most are, and the provider that reads it."""

    words: str
    provider: Callable[[], Provider]
    path: str


RECORDINGS = {
    "chat": Recording(
        "chat completions",
        lambda: OpenAiChat(None, _URL),
        "openai/openai-openai-python__test_non_pydantic_response_format.sse",
    ),
    "responses": Recording(
        "Responses",
        lambda: OpenAiResponses(None, _URL),
        "openai/maruel-genai__openairesponses-gpt-5.6-sol_thinking-GenStream-MaxTokens.sse",
    ),
    "messages": Recording(
        "Messages",
        lambda: AnthropicMessages(None, _URL),
        "azure-anthropic/vkryukov-req_llm__claude_opus_4_1-reasoning_streaming.sse",
    ),
    "messages, calls": Recording(
        "Messages, a call’s arguments",
        lambda: AnthropicMessages(None, _URL),
        "anthropic/vercel-ai__anthropic-programmatic-tool-calling.1-part0.sse",
    ),
    "gemini": Recording(
        "Gemini",
        lambda: Gemini(None, _URL),
        "vertex-gemini/crmne-ruby_llm__chat_with_extended_thinking_vertexai_gemini-3-flash-preview_streams_thinking_"
        "content_when_.sse",
    ),
    "gemini, grounded": Recording(
        "Gemini, usage in every event",
        lambda: Gemini(None, _URL),
        "gemini/vkryukov-req_llm__gemini_3_flash_preview-grounding_streaming.sse",
    ),
    "ollama": Recording(
        "Ollama",
        lambda: OllamaChat(None, _URL),
        "ollama/maruel-genai__ollama-gemma4-e2b_thinking-GenStream-Tools-ToolBias-Canada.ndjson",
    ),
}


def load(name: str, events: int) -> Result:
    """Decode a recording repeatedly until it makes ``events``; see `run` for the ways."""
    provider, pieces, plain = RECORDINGS[name].provider(), _events_of(name), RequestOptions()

    def ours(chunks: Sequence[bytes], options: RequestOptions = plain) -> int:
        decoder = provider.decoder(options)
        return sum(len(decoder.feed(chunk)) for chunk in chunks) + len(decoder.close())

    def bare() -> int:
        if RECORDINGS[name].path.endswith(".ndjson"):
            return sum(len(json.loads(piece)) > 0 for piece in pieces)
        texts = [event.data for event in sseclient.SSEClient(iter(pieces)).events()]
        return sum(len(json.loads(text)) > 0 for text in texts if text != "[DONE]")

    whole = [b"".join(pieces)]
    times = max(1, events // len(pieces))
    typical, extra = _typical(lambda: provider.decoder(plain), pieces, times)
    return {
        "typical_us": typical,
        "extra_us": extra,
        "events": len(pieces),
        "single_us": _each(lambda: ours(pieces), len(pieces), times),
        "whole_us": _each(lambda: ours(whole), len(pieces), times),
        "raw_us": _each(lambda: ours(pieces, RequestOptions(raw="all")), len(pieces), times),
        "bare_us": _each(bare, len(pieces), times),
        "bytes": len(whole[0]) / len(pieces),
    }


def _each(decode: Callable[[], int], events: int, times: int) -> float:
    """Return the CPU time of an event in µs."""
    if decode() < events / 2:  # this call also warms up
        raise ProbeError("most of the recording was not understood")
    with Meter() as decoding:
        for _ in range(times):
            decode()
    return decoding.cpu / (times * events) * 1e6


def _typical(make: Callable[[], Decoder], pieces: Sequence[bytes], times: int) -> tuple[float, float]:
    """Return the time of the median event, and what an answer takes beyond as many of them as it has events, in µs.

    The least time of each event counts, so that only the work is left.
    """
    least = [math.inf] * len(pieces)
    ends = math.inf
    for _ in range(times):
        before = time.perf_counter()
        decoder = make()
        made = time.perf_counter() - before
        for place, piece in enumerate(pieces):
            before = time.perf_counter()
            decoder.feed(piece)
            least[place] = min(least[place], time.perf_counter() - before)
        before = time.perf_counter()
        decoder.close()
        ends = min(ends, made + time.perf_counter() - before)
    typical = statistics.median(least)
    return typical * 1e6, (sum(least) - typical * len(pieces) + ends) * 1e6


def _events_of(name: str) -> list[bytes]:
    path = _CORPUS / RECORDINGS[name].path
    body = path.read_bytes()
    blank = b"\n" if path.suffix == ".ndjson" else b"\r\n\r\n" if b"\r\n\r\n" in body else b"\n\n"
    return [event + blank for event in body.split(blank) if event.strip()]


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    events = 2000 if quick else 50_000
    results: dict[str, list[Result]] = {name: [] for name in RECORDINGS}
    for _ in range(rounds):
        for name in RECORDINGS:
            results[name].append(measure(load, name=name, events=events))
    table = Table(
        "Decoders alone",
        f"One recording of `tests/corpus` for each, decoded until it makes {events:,} events, each time by a new"
        " decoder; CPU time from bytes to deltas. A paced answer comes event by event, a fast one in larger pieces."
        " The peer parses the fields (`sseclient-py`; of Ollama, nothing but lines) and the JSON, event by event, and"
        " understands nothing of it. Most events are pieces of text; the first and the last ones tell more, such as"
        " metadata, usage and sources, so the median event and what an answer takes beyond are told apart. With"
        ' `raw="all"`, each event also comes as it is, its JSON parsed. All ways in one process.',
    )
    for name, recording in RECORDINGS.items():
        found = results[name]
        fields = ("single_us", "whole_us", "raw_us", "bare_us", "typical_us", "extra_us")
        single, whole, raw, bare, typical, extra = (Samples.of(found, field) for field in fields)
        about = f"{recording.words}, {found[0]['bytes']:.0f} bytes an event"
        peer = "lines, json" if recording.path.endswith(".ndjson") else "sseclient-py, json"
        table.rows.append(Row(f"{about}: one by one", "µs", single, None, peer, bare))
        table.rows.append(Row("the same: the median event", "µs", typical))
        beyond = f"the same: what the answer’s {found[0]['events']:.0f} events take beyond as many median ones"
        table.rows.append(Row(beyond, "µs an answer", extra))
        table.rows.append(Row("the same: all of it in one piece", "µs", whole))
        table.rows.append(Row('the same: one by one, `raw="all"`', "µs", raw))
    return [table]
