"""What is kept of the probes of ``penstock doctor``."""

from __future__ import annotations

import pytest

from penstock.gateway.probes import Probes
from penstock.gateway.problems import RequestRefused


def test_a_probe_keeps_its_first_end_and_when_it_was() -> None:
    probes = Probes()
    probe = probes.begin("key", "one", 10.0)
    assert (probe.state, probe.after) == ("running", None)
    probe.end("left", 12.5)
    probe.end("cut", 20.0)
    assert probes.find("key", "one") is probe
    assert (probe.state, probe.after) == ("left", 2.5)


def test_a_probe_is_its_keys_own() -> None:
    probes = Probes()
    probes.begin("key", "one", 0.0)
    with pytest.raises(RequestRefused) as refused:
        probes.find("other", "one")
    assert refused.value.problem.status == 404


def test_at_most_a_hundred_run_at_once() -> None:
    probes = Probes()
    running = [probes.begin("key", str(number), 0.0) for number in range(100)]
    with pytest.raises(RequestRefused) as refused:
        probes.begin("key", "more", 0.0)
    assert refused.value.problem.status == 429
    running[0].end("complete", 1.0)
    probes.begin("key", "more", 0.0)


@pytest.mark.parametrize("ids", [1, 5_000])
def test_probes_that_run_are_counted_also_if_they_are_not_kept(ids: int) -> None:
    probes = Probes()
    for number in range(100):
        probes.begin("key", str(number % ids), 0.0)
    for number in range(1_000):
        with pytest.raises(RequestRefused):
            probes.begin("key", f"more {number}", 0.0)
    last = probes.find("key", str(99 % ids))
    for number in range(1_000):
        last.end("complete", 1.0)
        last = probes.begin("key", f"more {number}", 0.0)
    with pytest.raises(RequestRefused):
        probes.begin("key", "more", 0.0)


def test_the_last_thousand_are_kept() -> None:
    probes = Probes()
    for number in range(1_001):
        probes.begin("key", str(number), 0.0).end("complete", 0.0)
    probes.find("key", "1")
    with pytest.raises(RequestRefused):
        probes.find("key", "0")
