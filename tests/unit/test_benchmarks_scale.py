"""The page about scale says what its script calculates, and the formulas give what a simulation of the load gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scale

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text("utf-8")


@pytest.mark.parametrize("number", range(4))
def test_the_page_has_the_tables_of_the_script(number: int) -> None:
    made = scale.tables()
    assert len(made) == 4
    assert f"\n\n{made[number]}\n\n" in PAGE


def test_what_the_page_says_besides_follows_from_the_constants() -> None:
    one, five = scale.LOADS
    half = scale.CONSTANTS["engine_appends"].value * scale.CONSTANTS["engine_use"].value
    for load, said in ((one, 2_000), (five, 11_000)):
        assert f"{said:,}" in PAGE
        assert half / (scale.needs(1_000, load).appends / 1_000) == pytest.approx(said, rel=0.15)
    logs = scale.needs(1_000, one).answers * 86_400
    assert logs == pytest.approx(3_500_000, rel=0.02)
    assert logs * scale.CONSTANTS["log_kb"].value / 1e6 == pytest.approx(62, rel=0.02)
    times = scale.needs(100_000, one).cores / scale.needs(100_000, five).cores
    assert times == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("load", scale.LOADS)
def test_a_simulated_load_needs_what_is_calculated(load: scale.Load) -> None:
    streams, kept = 60, 30.0
    found = scale.simulate(streams, 60.0, kept, load)
    planned = scale.needs(streams, load)
    assert found["live"] == pytest.approx(streams, rel=0.15)
    assert found["tokens"] == pytest.approx(streams * scale.CONSTANTS["rate"].value, rel=0.15)
    assert found["logs"] == pytest.approx(planned.answers * kept, rel=0.25)
    # Per token, so that the chance of how many there are is not in it.
    share = found["appends"] / found["tokens"] / (planned.appends / (streams * scale.CONSTANTS["rate"].value))
    assert share == pytest.approx(0.8 if load.batch == 1 else 1.0, abs=0.05)


def test_more_streams_need_more_of_everything() -> None:
    for load in scale.LOADS:
        found = [scale.needs(streams, load) for streams in scale.SIZES]
        for name in ("cores", "nodes", "node_gb", "shards", "engine_gb", "to_clients", "dollars"):
            values = [getattr(each, name) for each in found]
            assert values == sorted(values)
            assert values[-1] > values[0]
