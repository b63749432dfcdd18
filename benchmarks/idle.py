"""What streams cost that have nothing to do: CPU time a second of the process, without a collection of garbage."""

from __future__ import annotations

import time
from typing import Final

from benchmarks.many import Control
from benchmarks.probe import Countdown, Meter, Result, measure
from benchmarks.provider import serving
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import RuntimeOptions, Settings, StreamOptions, System
from penstock.events import Event

__all__ = ["calls", "run", "streams"]

_SETTLED_S: Final = 3.0
_AT_ONCE: Final = 100  # requests that may be on their way to the provider, whose listener has a bounded queue
_OPTIONS: Final = StreamOptions(rate_limit=None, batch_size=1)


def streams(count: int, seconds: float) -> Result:
    """Measure ``count`` streams, each with a token, a subscribed function and nothing more to come."""
    arrived = Countdown(count)
    with System(Settings()) as system:
        opened = [system.open_stream(options=_OPTIONS) for _ in range(count)]
        for stream in opened:
            stream.subscribe(_Subscriber(arrived))
            stream.process_token("token")
        if count:
            arrived.wait()
        return _at_rest(seconds)


def calls(count: int, seconds: float) -> Result:
    """Measure ``count`` calls read by the loop, each after its first token."""
    arrived = Countdown(count)
    runtime = RuntimeOptions(reader="loop", call_timeout=60, reader_queue=count)
    with serving({}, "benchmarks.many_provider") as url, System(Settings(runtime=runtime)) as system:
        control = Control(url)
        try:
            for number in range(1, count + 1):
                system.chat(
                    "many", "Hello", provider="openai", base_url=url, api_key="benchmark", options=_OPTIONS
                ).subscribe(_Subscriber(arrived))
                if number % _AT_ONCE == 0:
                    control.wait_for(number - _AT_ONCE)
            control.wait_for(count)
            control.say(f"STEP {count}")
            arrived.wait()
            return _at_rest(seconds)
        finally:
            control.close()


class _Subscriber:
    """A function of its own for each stream: one would be one subscriber of all."""

    __slots__ = ("_arrived",)

    def __init__(self, arrived: Countdown) -> None:
        self._arrived: Countdown | None = arrived

    def __call__(self, event: Event) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived.report()


def _at_rest(seconds: float) -> Result:
    time.sleep(min(_SETTLED_S, seconds))
    with Meter() as meter:
        time.sleep(seconds)
    return {"cpu_ms": meter.cpu / meter.wall * 1e3}


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    many, some, seconds = (1000, 100, 1.0) if quick else (10_000, 3000, 10.0)
    table = Table(
        "Streams that rest",
        f"CPU time of the process in a second, over {seconds:g} s in which nothing happens. Each second the system"
        " looks whether a subscriber has been lost; of more than 1,000 streams it looks at a part each time.",
    )
    for what, load, count in (
        ("a system without streams", streams, 0),
        (f"{many:,} streams with a subscribed function", streams, many),
        (f"{some:,} calls over HTTP that wait for tokens", calls, some),
    ):
        results = [measure(load, timeout=300.0, count=count, seconds=seconds) for _ in range(rounds)]
        table.rows.append(Row(what, "ms", Samples.of(results, "cpu_ms"), Aim("at most", 5)))
    return [table]
