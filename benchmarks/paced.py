"""Many streams at the pace of a model: how much is delivered, how late, and at what cost.

The provider writes the time of sending into every event. For Penstock, a decoder around the ordinary one collects these
time stamps; a subscribed actor compares them with the time at which it receives the token.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import psutil
import requests

from benchmarks.clients import MESSAGES, bare_chunks
from benchmarks.peers import open_ai_chunks
from benchmarks.probe import Meter, ProbeError, Result, measure, memory_kb
from benchmarks.provider import serving
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import StreamOptions, System
from penstock.actors.runtime.process import Process
from penstock.adapters.providers.openai.chat_provider import OpenAiChat
from penstock.config.options import RequestOptions
from penstock.config.settings import RuntimeOptions, Settings
from penstock.errors import ProviderError
from penstock.events import TokenEvent
from penstock.ports import ChatCall, Decoder, Delta, ProviderRequest, Secret

__all__ = ["peer_load", "penstock_load", "run"]

_MODEL = "paced"
_STARTING_S = 25.0
_FIRST_S = 10.0  # for a first token, if none comes in the time of the measurement
_GAP_S = 0.004  # between the starts of two streams: users do not all come at the same moment
_STAMP = re.compile(rb'"penstock_sent":([0-9.]+)[^\n]*"content":"[^"]')


class StampedDecoder:
    """A decoder that also keeps the bytes, so that the times of sending can be read after the measurement."""

    def __init__(self, inner: Decoder, body: list[bytes]) -> None:
        self._inner = inner
        self._keep = body.append

    def feed(self, chunk: bytes) -> list[Delta]:
        self._keep(chunk)
        return self._inner.feed(chunk)

    def close(self) -> list[Delta]:
        return self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class StampedProvider:
    """A provider of OpenAI chat completions for one stream, with a `StampedDecoder`."""

    name = OpenAiChat.name

    def __init__(self, url: str) -> None:
        self.body: list[bytes] = []
        self._inner = OpenAiChat(Secret("benchmark"), url)

    def request(self, call: ChatCall) -> ProviderRequest:
        return self._inner.request(call)

    def stamps(self) -> list[float]:
        """When the tokens so far were sent."""
        return [float(stamp) for stamp in _STAMP.findall(b"".join(tuple(self.body)))]

    def decoder(self, options: RequestOptions) -> Decoder:
        return StampedDecoder(self._inner.decoder(options), self.body)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return self._inner.error(status, headers, body)


class Tally:
    """The tokens that one subscriber has received. Written by one thread, read by another.

    Args:
        read_stamps: returns the times at which the tokens so far were sent; called after the measurement.
    """

    __slots__ = ("came", "first", "read_stamps", "tokens")

    def __init__(self, read_stamps: Callable[[], list[float]]) -> None:
        self.read_stamps = read_stamps
        self.tokens = 0
        self.first = 0
        """The number of tokens before the measurement."""
        self.came: list[float] | None = None
        """When each token came; a list during the measurement."""

    def add(self) -> None:
        """Count a token."""
        before = self.tokens
        self.tokens += 1  # first: a token that has come is counted
        if self.came is not None:
            if not self.came:
                self.first = before
            self.came.append(time.time())

    def late(self) -> list[float]:
        """How late each token of the measurement came, in seconds."""
        came = tuple(self.came or ())
        sent = self.read_stamps()[self.first : self.first + len(came)]
        return [at - stamp for at, stamp in zip(came, sent, strict=True)]


class Sink(Process):
    """Records how late each token is."""

    in_pykka_registry = False

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def on_receive(self, message: Any) -> None:
        if message.__class__ is TokenEvent:
            for _ in message.tokens:
                self._tally.add()


def _watch(tallies: list[Tally], seconds: float) -> Result:
    """Wait until all streams are running, then measure for ``seconds``."""
    deadline = time.monotonic() + _STARTING_S
    while not all(tally.tokens for tally in tallies):
        if time.monotonic() > deadline:
            running = sum(1 for tally in tallies if tally.tokens)
            raise ProbeError(f"{running} of {len(tallies)} streams had begun after {_STARTING_S} s")
        time.sleep(0.05)
    time.sleep(min(1.0, seconds / 4))
    before = sum(tally.tokens for tally in tallies)
    for tally in tallies:
        tally.came = []
    with Meter() as meter:
        time.sleep(seconds)
        deadline = time.monotonic() + _FIRST_S
        while not any(tally.came for tally in tallies) and time.monotonic() < deadline:
            time.sleep(0.005)
    tokens = sum(tally.tokens for tally in tallies) - before
    late = sorted(value for tally in tallies for value in tally.late())
    if not late:
        raise ProbeError("no token came")
    return {
        "rate": tokens / meter.wall,
        "p50_ms": late[len(late) // 2] * 1e3,
        "p99_ms": late[int(len(late) * 0.99)] * 1e3,
        "max_ms": late[-1] * 1e3,
        "cpu_share": meter.cpu / meter.wall * 100,
        "cpu_us": meter.cpu / max(tokens, 1) * 1e6,
        "threads": threading.active_count(),
    }


def penstock_load(url: str, streams: int, seconds: float, batch_size: int | None) -> Result:
    """Measure ``system.chat`` with a ``batch_size`` (None: the default), and a subscribed actor for each stream."""
    settings = Settings(runtime=RuntimeOptions(reader_threads=max(600, streams + streams // 8)))
    options = None if batch_size is None else StreamOptions(rate_limit=None, batch_size=batch_size)
    with System(settings) as system:
        before = memory_kb()
        tallies = []
        for _ in range(streams):
            provider = StampedProvider(url)
            tally = Tally(provider.stamps)
            sink = system.runtime.spawn(Sink, tally)
            system.chat(_MODEL, MESSAGES, provider=provider, options=options).subscribe(sink)
            tallies.append(tally)
            time.sleep(_GAP_S)
        result = _watch(tallies, seconds)
        result["stream_kb"] = (psutil.Process().memory_info().rss / 1024 - before) / streams
    return result


def _bare_stamps(url: str) -> Iterator[float]:
    with requests.Session() as session:
        for chunk in bare_chunks(session, url, _MODEL):
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                yield chunk["penstock_sent"]


def peer_load(url: str, streams: int, seconds: float, client: str) -> Result:
    """Measure a thread for each stream: the bare loop, or openai-python with one client for all."""
    before = memory_kb()
    sent: list[list[float]] = [[] for _ in range(streams)]
    tallies = [Tally(partial(list, stamps)) for stamps in sent]
    ending = threading.Event()
    chunks = open_ai_chunks(url) if client == "openai" else None

    def stamps() -> Iterator[float]:
        if chunks is None:
            yield from _bare_stamps(url)
            return
        with chunks(_MODEL) as response:
            for chunk in response:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.penstock_sent

    def read(tally: Tally, keep: Callable[[float], None]) -> None:
        with suppress(requests.RequestException):
            for stamp in stamps():
                keep(stamp)
                tally.add()
                if ending.is_set():
                    return

    threads = [
        threading.Thread(target=read, args=(tally, stamps.append), daemon=True)
        for tally, stamps in zip(tallies, sent, strict=True)
    ]
    for thread in threads:
        thread.start()
        time.sleep(_GAP_S)
    try:
        result = _watch(tallies, seconds)
        result["stream_kb"] = (psutil.Process().memory_info().rss / 1024 - before) / streams
    finally:
        ending.set()
        for thread in threads:
            thread.join(5)
    return result


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark. Each load runs once: it is long, and its figures cover tens of thousands of tokens."""
    del rounds
    rate, seconds, sizes = 20, 2.0 if quick else 8.0, (20, 50) if quick else (100, 500, 1000)
    said = {"tokens": [" token"], "repeat": int(rate * (seconds + _STARTING_S + 10)), "tokens_per_second": rate}
    table = Table(
        f"Many streams at {rate} tokens/s",
        "Chat completions over loopback HTTP, the provider in a process of its own on the same machine; a subscribed"
        " actor for each stream of ours, a thread for each of the peers’. Lateness is from the provider’s stamp in the"
        f" event to the subscriber, over {seconds:.0f} s in which all streams run.",
    )

    def measured(what: str, load: Callable[..., Result], **arguments: Any) -> list[Result]:
        try:
            return [measure(load, url=url, seconds=seconds, **arguments)]
        except ProbeError as error:  # too slow: that is a result too, and the other results must not be lost
            table.remarks.append(f"**{what} failed**: {str(error).splitlines()[-1]}")
            return []

    with serving({_MODEL: said | {"timestamps": True}}) as url:
        for streams in sizes:
            one = measured(f"{streams:,} streams", penstock_load, streams=streams, batch_size=1)
            bare = measured(f"{streams:,} bare loops", peer_load, streams=streams, client="bare")
            chat = measured(
                f"{streams:,} streams with chat’s batching", penstock_load, streams=streams, batch_size=None
            )
            _add_rows(table, f"{streams:,} streams", streams * rate, one, bare)
            _add_chat_rows(table, f"{streams:,} streams", chat)
            if streams == sizes[0]:
                other = measured("openai-python", peer_load, streams=streams, client="openai")
                for what, unit, field in (("CPU a token", "µs", "cpu_us"), ("lateness p99", "ms", "p99_ms")):
                    _add_row(table, f"{streams} streams: {what}", unit, field, one, None, "openai-python", other)
    return [table]


def _add_rows(table: Table, streams: str, offered: int, one: list[Result], bare: list[Result]) -> None:
    for what, unit, field, aim in (
        ("delivered", f"tokens/s of {offered:,}", "rate", Aim("at least", offered * 0.99)),
        ("lateness p50, no batching", "ms", "p50_ms", None),
        ("lateness p99, no batching", "ms", "p99_ms", Aim("at most", 50)),
        ("CPU share of one core", "%", "cpu_share", None),
        ("CPU a token", "µs", "cpu_us", None),
        ("threads", "count", "threads", None),
        ("memory a stream", "KB", "stream_kb", None),
    ):
        _add_row(table, f"{streams}: {what}", unit, field, one, aim, "bare loop, a thread each", bare)


def _add_chat_rows(table: Table, streams: str, chat: list[Result]) -> None:
    for what, unit, field in (
        ("lateness p50 with chat’s batching (5 tokens or 50 ms)", "ms", "p50_ms"),
        ("lateness p99 with chat’s batching", "ms", "p99_ms"),
        ("CPU a token with chat’s batching", "µs", "cpu_us"),
    ):
        _add_row(table, f"{streams}: {what}", unit, field, chat, None, "", [])


def _add_row(
    table: Table,
    what: str,
    unit: str,
    field: str,
    ours: list[Result],
    aim: Aim | None,
    peer: str,
    theirs: list[Result],
) -> None:
    if ours:
        samples = Samples.of(theirs, field) if theirs else None
        table.rows.append(Row(what, unit, Samples.of(ours, field), aim, peer if theirs else "", samples))
