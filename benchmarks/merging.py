"""One hundred streams in one: what `merge` costs a token, and how evenly it reads."""

from __future__ import annotations

from benchmarks.probe import Meter, Result, measure
from benchmarks.tables import Row, Samples, Table
from penstock import SAFE, Stream, System, TokenEvent
from penstock.config.settings import Settings

__all__ = ["load", "run"]


def load(streams: int, tokens: int, merged: bool) -> Result:
    """Push ``tokens`` tokens into each of ``streams`` streams, and read all of them: merged, or one after the other.

    ``lead`` is by how many events the origin that was read most was ahead of the one that was read least, while all
    had events.
    """
    options = SAFE.replace(max_buffer_size=tokens, batch_size=1, keep_finished=0.0, retain_bytes=1 << 30)
    words = [f"{number} " for number in range(tokens)]
    with System(Settings()) as system:
        opened = [system.open_stream(options=options) for _ in range(streams)]
        for stream in opened:
            stream.process_tokens(words)
        for stream in opened:
            stream.stop()
        counts = dict.fromkeys((stream.stream_id for stream in opened), 0)
        lead = 0
        with Meter() as reading:
            if merged:
                for event in system.merge(*opened, options=SAFE.replace(retain_bytes=1 << 30)).events(slow="block"):
                    if isinstance(event, TokenEvent) and event.origin is not None:
                        counts[event.origin] += len(event.tokens)
                        if counts[event.origin] == tokens // 2:
                            lead = max(lead, tokens // 2 - min(counts.values()))
            else:
                for stream in opened:
                    counts[stream.stream_id] = _count(stream)
    assert set(counts.values()) == {tokens}, "tokens were lost"
    total = streams * tokens
    return {"wall_us": reading.wall / total * 1e6, "cpu_us": reading.cpu / total * 1e6, "lead": float(lead)}


def _count(stream: Stream) -> int:
    return sum(len(event.tokens) for event in stream.events(slow="block") if isinstance(event, TokenEvent))


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    tokens = 50 if quick else 500
    ours = [measure(load, streams=100, tokens=tokens, merged=True) for _ in range(rounds)]
    apart = [measure(load, streams=100, tokens=tokens, merged=False) for _ in range(rounds)]
    one = [measure(load, streams=1, tokens=100 * tokens, merged=True) for _ in range(rounds)]
    table = Table(
        "Merging",
        f"100 streams of {tokens} events of one token, which are there already, are merged and read by one iterator."
        " The peer is the same iterator over one stream after the other, without a merge.",
    )
    for key, what in (("wall_us", "wall"), ("cpu_us", "CPU")):
        table.rows.append(
            Row(
                f"100 streams: {what} an event", "µs", Samples.of(ours, key), None, "not merged", Samples.of(apart, key)
            )
        )
    table.rows.append(Row("1 stream: CPU an event", "µs", Samples.of(one, "cpu_us")))
    table.rows.append(Row("100 streams: lead of the first over the last", "events", Samples.of(ours, "lead")))
    return [table]
