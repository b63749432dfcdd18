"""Every benchmark runs, with tiny numbers. Nothing is timed here."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    agents,
    decoders,
    derived,
    hedging,
    lifecycle,
    merging,
    paced,
    probe,
    pushed,
    saturated,
    supervised,
)
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.machine import measured_tree, tree_hash
from benchmarks.provider import serving
from benchmarks.tables import Aim, Row, Samples, Table, to_markdown


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not _is_installed(module), reason=f"only `make bench` installs {module}")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package it is in
        return False


MODULES = {
    "openai": "openai",
    "openai-responses": "openai",
    "anthropic": "anthropic",
    "gemini": "google.genai",
    "ollama": "ollama",
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    slow = {"tokens": [" token"], "repeat": 2000, "tokens_per_second": 100, "timestamps": True}
    with serving(saturated.models(20) | agents.MODELS | {"paced": slow}) as base_url:
        yield base_url


def test_tokens_pushed_into_streams_all_arrive() -> None:
    assert set(pushed.penstock_load(3, 20)) >= {"wall_us", "cpu_us", "start_us", "stream_kb", "used_pair_kb"}


def test_tokens_pushed_into_thread_actors_all_arrive() -> None:
    assert set(pushed.pykka_load(3, 20)) >= {"wall_us", "cpu_us", "start_us", "stream_kb"}


@pytest.mark.parametrize(
    ("client", "model"),
    [
        *[("iterator", model) for model in ("chunked", "chunked_by_8", "close", "gzip")],
        ("actor", "chunked"),
        ("bare", "gzip"),
        *[(f"actor, {name}", "chunked") for name in MODULES],
    ],
)
def test_every_client_reads_a_whole_answer(url: str, client: str, model: str) -> None:
    assert saturated.load(client, url, model, 20)["cpu_us"] > 0


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(module)) for name, module in MODULES.items()])
def test_every_peer_reads_a_whole_answer(url: str, name: str) -> None:
    result = probe.measure(saturated.load, client=f"peer, {name}", url=url, model="chunked", tokens=20)
    assert result["cpu_us"] > 0


def test_a_client_that_gets_less_than_all_is_no_figure(url: str) -> None:
    with pytest.raises(probe.ProbeError, match="got 120 characters instead of 126"):
        saturated.load("bare", url, "chunked", 21)


@pytest.mark.parametrize("batch_size", [1, None])
def test_lateness_is_measured_of_paced_streams(url: str, batch_size: int | None) -> None:
    result = paced.penstock_load(url, 3, 0.3, batch_size)
    assert result["rate"] > 0
    assert result["p99_ms"] >= result["p50_ms"] > 0


def _measure_peer(load: Callable[..., dict[str, float]], **arguments: Any) -> dict[str, float]:
    """Measure in a process of its own if the peer is imported, which takes a while and leaves a lot."""
    return load(**arguments) if arguments["client"] == "bare" else probe.measure(load, **arguments)


@pytest.mark.parametrize("client", ["bare", pytest.param("openai", marks=needs("openai"))])
def test_lateness_is_measured_of_the_peers(url: str, client: str) -> None:
    result = _measure_peer(paced.peer_load, url=url, streams=3, seconds=0.3, client=client)
    assert result["p99_ms"] >= result["p50_ms"] > 0


@pytest.mark.parametrize("name", decoders.RECORDINGS)
def test_every_decoder_reads_its_recording(name: str) -> None:
    result = decoders.load(name, 1)
    assert min(result["single_us"], result["whole_us"], result["bare_us"]) >= 0


def test_an_agent_answers_after_a_round_of_tools(url: str) -> None:
    assert agents.load(url, 2)["turn_ms"] > 0


@pytest.mark.parametrize("client", ["bare", pytest.param("openai", marks=needs("openai"))])
def test_the_peers_answer_after_a_round_of_tools(url: str, client: str) -> None:
    assert _measure_peer(agents.peer_load, client=client, url=url, turns=2)["turn_ms"] > 0


def test_ten_times_as_much_is_made_and_measured() -> None:
    assert set(agents.scaling(20)) == {"fragments", "read", "asked"}


def test_streams_are_opened_and_stopped() -> None:
    assert lifecycle.load(5)["stop_us"] > 0


@pytest.mark.parametrize("row", derived.ROWS)
def test_tokens_pass_through_every_combinator(row: str) -> None:
    assert derived.load(row, 20)["cpu_us"] > 0


def test_children_are_started_ended_and_brought_back() -> None:
    assert supervised.load(20)["stop_us"] > 0
    assert supervised.crash(20)["restart_us"] > 0


def test_merged_streams_are_read_to_their_ends_in_turns() -> None:
    assert merging.load(5, 10, True)["lead"] <= 1
    assert merging.load(5, 10, False)["wall_us"] > 0


def test_a_second_call_shortens_the_late_answers_within_its_budget() -> None:
    alone, hedged = (hedging.load(seed=1, calls=3000, budget=budget) for budget in (0.0, 0.1))
    assert alone["further"] == 0
    assert hedged["p99_s"] < alone["p99_s"] / 3
    assert hedged["further"] <= 10.1
    slow = hedging.load(seed=1, calls=3000, budget=0.1, slow_from=0.5)
    assert slow["further"] <= 10.1
    known, unknown = (hedging.load(seed=1, calls=3000, budget=1.0, notes_lost=lost) for lost in (True, False))
    assert known["over"] < unknown["over"]


def test_a_load_that_fails_in_its_process_says_why() -> None:
    with pytest.raises(probe.ProbeError, match="TypeError"):
        probe.measure(lifecycle.load, no_such=1)


def test_a_load_that_takes_too_long_is_ended() -> None:
    with pytest.raises(probe.ProbeError, match="did not finish within"):
        probe.measure(lifecycle.load, timeout=0.05, streams=5)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_makes_pages_of_what_it_measures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"benchmarks.{name}.measure", lambda *_, **__: defaultdict(lambda: 1.0))
    tables = BENCHMARKS[name](2, True)
    assert tables
    assert all(" | 1 " in to_markdown(table) for table in tables)


def test_a_name_that_is_no_benchmarks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no_such"])
    assert f"there are {', '.join(BENCHMARKS)}" in capsys.readouterr().err


def test_a_page_says_which_aims_are_met_and_by_how_much_others_are_missed() -> None:
    ours, theirs = Samples((4.0, 5.0, 9.0)), Samples((20.0,))
    rows = [
        Row("a", "µs", ours, Aim("at most", 5), "peer", theirs),
        Row("b", "µs", ours, Aim("times less", 8), "peer", theirs),
        Row("c", "tokens/s", ours, Aim("at least", 10)),
    ]
    page = to_markdown(Table("Title", "About.", rows, ["a remark"]))
    assert "| a, µs | ≤ 5 | 5 (4 – 9) | peer | 20 | 4 | met |" in page
    assert "| b, µs | ≥ 8 × less | 5 (4 – 9) | peer | 20 | 4 | **missed**: 0.500 × the aim |" in page
    assert "| c, tokens/s | ≥ 10 | 5 (4 – 9) |  |  |  | **missed**: 0.500 × the aim |" in page
    assert page.endswith("- a remark\n")


def test_a_ratio_that_differs_between_rounds_is_marked() -> None:
    def row(*theirs: float) -> Row:
        return Row("push", "µs", Samples((1.0, 1.0, 1.0)), None, "peer", Samples(theirs))

    assert row(3.0, 3.1, 3.2).shown_ratio == "3.10 (3 – 3.20)"
    assert row(2.0, 2.5, 3.0).shown_ratio == "2.50 (2 – 3), unstable"
    assert Row("push", "µs", Samples((1.0,)), None, "peer", Samples((3.0,))).shown_ratio == "3"
    assert Row("push", "µs", Samples((1.0,))).shown_ratio == ""


def test_the_page_of_results_names_the_code_that_it_measured() -> None:
    page = Path(__file__).parents[2] / "benchmarks" / "RESULTS.md"
    assert measured_tree(page) is not None, "write it with `make bench`"


def test_the_name_of_the_code_changes_with_any_file_of_it(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text("x = 1\n")
    names = {tree_hash(tmp_path)}
    (tmp_path / "room" / "a.py").write_text("x = 2\n")
    names.add(tree_hash(tmp_path))
    (tmp_path / "room" / "a.py").rename(tmp_path / "room" / "b.py")
    names.add(tree_hash(tmp_path))
    (tmp_path / "b.py").write_text("")
    names.add(tree_hash(tmp_path))
    assert len(names) == 4
    (tmp_path / "room" / "b.pyc").write_text("not counted")
    assert tree_hash(tmp_path) in names


def test_it_is_said_when_the_results_are_of_other_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--is-current"]) == 0
    said = capsys.readouterr().out
    assert tree_hash() in said
