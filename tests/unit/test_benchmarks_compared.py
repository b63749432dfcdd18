"""What got slower than on the page of results is told, and noise is not. All figures are made up."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.compared import Page, compare, page_of, read_page, report
from benchmarks.tables import Row, Samples, Table

NAMES = [f"row {number}" for number in range(40)]


def page(
    seed: int, ours: dict[str, float], machine: float = 1.0, noise: float = 0.03, rounds: int = 3, unit: str = "µs"
) -> Page:
    """Forty figures, each with a peer that is as noisy; ``ours``: how many times the usual some of ours are."""
    chance = random.Random(seed)

    def samples(value: float) -> Samples:
        return Samples(tuple(value * machine * chance.lognormvariate(0, noise) for _ in range(rounds)))

    rows = [
        Row(name, unit, samples((3 + number) * ours.get(name, 1.0)), None, "peer", samples(9 + number))
        for number, name in enumerate(NAMES)
    ]
    return page_of([Table("Made up", "About.", rows)], rounds)


def slower(before: Page, now: Page) -> list[str]:
    return [change.what for change in compare(before, now).slower]


def test_the_same_code_measured_again_is_seldom_called_slower() -> None:
    told = sum(len(slower(page(seed, {}), page(seed + 1000, {}))) for seed in range(50))
    assert told <= 0.005 * 50 * len(NAMES)


def test_what_is_half_as_slow_again_is_told_and_nothing_else() -> None:
    now = page(2, {"row 7": 1.5, "row 9": 2.0})
    found = compare(page(1, {}), now)
    assert [change.what for change in found.slower] == ["row 9, µs", "row 7, µs"]
    assert found.slower[0].factor == pytest.approx(2.0, rel=0.1)
    assert found.faster == []
    assert [change.what for change in compare(now, page(1, {})).faster] == ["row 9, µs", "row 7, µs"]


def test_the_same_change_is_noise_if_the_repeats_differ_as_much() -> None:
    assert slower(page(1, {}, noise=0.3), page(2, {"row 7": 1.5}, noise=0.3)) == []


def test_repeats_that_agree_by_chance_do_not_make_a_figure_certain() -> None:
    def with_one(values: tuple[float, ...]) -> Page:
        chance = random.Random(1)
        noisy = [Row(name, "µs", Samples(tuple(9 * chance.lognormvariate(0, 0.2) for _ in range(3)))) for name in NAMES]
        return page_of([Table("Made up", "About.", [*noisy, Row("agreeing", "µs", Samples(values))])], 3)

    assert slower(with_one((10.0, 10.0, 10.0)), with_one((11.5, 11.5, 11.5))) == []


def test_a_slower_machine_is_not_slower_code() -> None:
    assert slower(page(1, {}), page(2, {}, machine=1.7)) == []
    assert slower(page(1, {}), page(2, {"row 7": 1.5}, machine=1.7)) == ["row 7, µs"]
    assert slower(page(1, {}), page(2, {"row 7": 1.5}, machine=0.6)) == ["row 7, µs"]
    assert compare(page(1, {}), page(2, {}, machine=1.7)).machine == pytest.approx(1.7, rel=0.05)


def test_memory_does_not_depend_on_the_machine() -> None:
    assert len(slower(page(1, {}, unit="KB"), page(2, {}, machine=1.7, unit="KB"))) == len(NAMES)


def test_of_a_rate_less_is_slower() -> None:
    before, now = page(1, {}, unit="tokens/s"), page(2, {"row 7": 0.5, "row 8": 2.0}, unit="tokens/s")
    assert slower(before, now) == ["row 7, tokens/s"]


def test_a_figure_measured_once_needs_a_larger_change() -> None:
    def once(value: float) -> Page:
        rows = [Row(name, "µs", Samples((1.0, 1.05, 1.1))) for name in NAMES]
        return page_of([Table("Made up", "About.", [*rows, Row("once", "µs", Samples((value,)))])], 3)

    assert slower(once(10.0), once(11.2)) == []
    assert slower(once(10.0), once(15.0)) == ["once, µs"]


def test_a_small_change_is_not_told_however_certain() -> None:
    def exact(value: float) -> Page:
        return page_of([Table("Made up", "About.", [Row("exact", "ns", Samples((value, value, value)))])], 3)

    assert slower(exact(100.0), exact(104.0)) == []
    assert slower(exact(100.0), exact(106.0)) == ["exact, ns"]


def test_what_is_no_longer_measured_is_named_and_what_is_new_is_left_out() -> None:
    def with_rows(*names: str) -> Page:
        return page_of([Table("Made up", "About.", [Row(name, "µs", Samples((1.0,))) for name in names])], 1)

    found = compare(with_rows("old", "kept"), with_rows("kept", "new"))
    assert (found.compared, found.gone) == (1, ["Made up: old, µs"])
    assert "Measured there and not now: Made up: old, µs" in report(found, "page")
    assert report(compare({}, with_rows("new")), "page") == ["page has none of these figures: nothing to compare with."]


def test_every_row_of_the_committed_page_is_read() -> None:
    text = (Path(__file__).parents[2] / "benchmarks" / "RESULTS.md").read_text("utf-8").partition("## Notes")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| what")]
    found = read_page(text)
    twice = sum(line.split("|")[2].strip().endswith("less") for line in rows)  # a second aim of the same figure
    assert len(rows) - twice <= len(found) <= len(rows)
    ours = found[
        "Tokens pushed one by one", "start a stream, with 10,000 of them, µs", "pykka.ThreadingActor, 1,000 of them"
    ]
    assert 0 < ours.ours.low <= ours.ours.median <= ours.ours.high
    assert ours.theirs is not None
    same = compare(found, found)
    assert (same.slower, same.faster, same.gone, same.machine) == ([], [], [], 1.0)


def test_the_command_says_what_got_slower(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("benchmarks.lifecycle.measure", lambda *_, **__: defaultdict(lambda: 90_000.0))
    assert main(["lifecycle", "--rounds", "1"]) == 0
    said = capsys.readouterr().out
    assert "Slower beyond noise: " in said
    assert "Streams opened and stopped: stop: wall, µs: " in said
