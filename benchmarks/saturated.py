"""One stream at full speed: the cost of a token in the client's process, from the socket to the subscriber."""

from __future__ import annotations

from benchmarks.clients import open_client
from benchmarks.probe import Meter, ProbeError, Result, measure
from benchmarks.provider import serving
from benchmarks.tables import Aim, Row, Samples, Table
from penstock import System
from penstock.config.settings import Settings

__all__ = ["load", "models", "run"]

_TOKEN = " token"
_FRAMINGS = {
    "chunked": "one event per HTTP chunk",
    "chunked_by_8": "8 events per HTTP chunk",
    "close": "delimited by the connection's end",
    "gzip": "gzip",
}


def load(client: str, url: str, model: str, tokens: int) -> Result:
    """Let ``client`` read the answer of ``model``, after a short answer to warm up."""
    with System(Settings()) as system:
        read = open_client(client, system, url)
        read("warm_up")
        with Meter() as reading:
            length = read(model)
    if length != tokens * len(_TOKEN):
        raise ProbeError(f"{client} got {length} characters instead of {tokens * len(_TOKEN)}")
    return {"cpu_us": reading.cpu / tokens * 1e6, "wall_us": reading.wall / tokens * 1e6}


def models(tokens: int) -> dict[str, dict[str, object]]:
    """Return what the provider serves: an answer for each framing, and one to warm up."""
    said = {"tokens": [_TOKEN], "repeat": tokens}
    return {
        "warm_up": said | {"repeat": 500},
        "chunked": said,
        "chunked_by_8": said | {"events_per_chunk": 8},
        "close": said | {"framing": "close"},
        "gzip": said | {"framing": "gzip"},
    }


def run(rounds: int, quick: bool) -> list[Table]:
    """Run the benchmark."""
    tokens = 2000 if quick else 20_000
    plan = [(client, "chunked") for client in ("iterator", "actor", "bare", "peer, openai")]
    plan += [(client, model) for model in list(_FRAMINGS)[1:] for client in ("iterator", "bare")]
    results: dict[tuple[str, str], list[Result]] = {}
    with serving(models(tokens)) as url:
        for _ in range(rounds):
            for client, model in plan:
                result = measure(load, client=client, url=url, model=model, tokens=tokens)
                results.setdefault((client, model), []).append(result)

    def samples(client: str, model: str = "chunked", field: str = "cpu_us") -> Samples:
        return Samples.of(results[client, model], field)

    table = Table(
        "Server-sent events to a subscriber, one saturated stream",
        f"One answer of {tokens:,} tokens by chat completions over loopback HTTP, the provider in a process of its own;"
        " CPU time (user and system, all threads) of the client's process. Ours is `system.chat` as it comes:"
        " supervised, logged, batched, with its statistics. The bare loop is `requests`, `sseclient-py` and `json`,"
        " with `iter_content(8192)`, which is its fastest way.",
    )
    bare, other = "bare loop", "openai-python"
    for name, client in (("for loop", "iterator"), ("subscribed actor", "actor")):
        ours = samples(client)
        table.rows.append(Row(f"{name}: CPU a token", "µs", ours, Aim("at most", 25), bare, samples("bare")))
        table.rows.append(Row(f"{name}: CPU a token", "µs", ours, Aim("times less", 8), other, samples("peer, openai")))
    table.rows.append(
        Row(
            "for loop: wall a token",
            "µs",
            samples("iterator", field="wall_us"),
            None,
            bare,
            samples("bare", field="wall_us"),
        )
    )
    for model, words in list(_FRAMINGS.items())[1:]:
        table.rows.append(
            Row(f"for loop, {words}: CPU a token", "µs", samples("iterator", model), None, bare, samples("bare", model))
        )
    return [table]
