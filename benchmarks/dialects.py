"""One stream at full speed in each of the five wire formats, compared with the provider's official client."""

from __future__ import annotations

from benchmarks.peers import NAMES
from benchmarks.probe import Result, measure
from benchmarks.provider import serving
from benchmarks.saturated import load, models
from benchmarks.tables import Aim, Row, Samples, Table

__all__ = ["run"]

_FORMATS = {
    "openai": "chat completions",
    "openai-responses": "Responses",
    "anthropic": "Messages",
    "gemini": "Gemini",
    "ollama": "Ollama",
}


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    tokens = 2000 if quick else 10_000
    ours: dict[str, list[Result]] = {name: [] for name in _FORMATS}
    theirs: dict[str, list[Result]] = {name: [] for name in _FORMATS}
    with serving(models(tokens)) as url:
        for _ in range(rounds):
            for name in _FORMATS:
                for side, client in ((ours, f"actor, {name}"), (theirs, f"peer, {name}")):
                    side[name].append(measure(load, client=client, url=url, model="chunked", tokens=tokens))
    table = Table(
        "Every wire format to a subscriber, one saturated stream",
        f"One answer of {tokens:,} tokens over loopback HTTP, one event a token, in the words of each provider; a"
        " subscribed actor with default settings. The peer is the provider’s own Python client, which gives its"
        " events as they come. CPU time (user and system, all threads) of the client’s process.",
    )
    for what, field, aim in (("CPU", "cpu_us", Aim("at most", 25)), ("wall", "wall_us", None)):
        for name, words in _FORMATS.items():
            table.rows.append(
                Row(
                    f"{words}: {what} a token",
                    "µs",
                    Samples.of(ours[name], field),
                    aim,
                    NAMES[name],
                    Samples.of(theirs[name], field),
                )
            )
    return [table]
