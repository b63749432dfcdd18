"""The collector for prometheus-client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import penstock
from penstock.actors.stream.histograms import HistogramSnapshot
from penstock.config.settings import ProviderOptions, Settings
from penstock.config.telemetry import TelemetryOptions
from penstock.errors import ApiError
from penstock.events import Usage
from penstock.ports import TextDelta, UsageDelta
from penstock.telemetry.gateway import LAG_BOUNDS, OVERHEAD_BOUNDS, GatewayStatistics, ReaderInfo
from penstock.telemetry.names import METRICS
from penstock.telemetry.prometheus import PenstockCollector, expose
from penstock.testing import HANG, ScriptedProvider, SimulatedSystem, kill
from tests.conformance.common import FAST, assert_nothing_is_left
from tests.integration.promtool import check_metrics

SECRET = "sk-very-secret"
SETTINGS = Settings(
    telemetry=TelemetryOptions(models=("listed",)), providers={"other-one": ProviderOptions(model="configured")}
)


class StubGateway:
    """A gateway with readers."""

    def statistics(self) -> GatewayStatistics:
        lag = HistogramSnapshot(LAG_BOUNDS, (3, *[0] * 8, 1), 17_000_000.0)
        overhead = HistogramSnapshot(OVERHEAD_BOUNDS, (5, *[0] * 12), 0.002)
        return GatewayStatistics(
            requests=9,
            readers={"ui": 2},
            reader_outcomes={("ui", "finished"): 4, ("socket", "left"): 1},
            resumptions={"exact": 3, "gap": 1},
            reader_lag=lag,
            overhead=overhead,
            is_draining=False,
            refused={"busy": 7, "too_many_tickets": 0},
        )

    def reader_infos(self) -> tuple[ReaderInfo, ...]:
        raise NotImplementedError


@pytest.fixture
def system() -> Iterator[SimulatedSystem]:
    with SimulatedSystem(3, settings=SETTINGS) as system:
        yield system
        assert_nothing_is_left(system)


def ask(system: SimulatedSystem, *script: Any, model: str = "configured") -> penstock.Stream:
    return system.chat(
        model,
        "Hi, this is private",
        provider=ScriptedProvider([*script], name="p", base_url="http://host.example"),
        options=FAST,
        stream_id=f"id-{model}",
    )


def work(system: SimulatedSystem) -> None:
    usage = UsageDelta(Usage(input_tokens=7, output_tokens=2))
    ask(system, TextDelta("a"), 0.1, TextDelta("b"), usage)
    ask(system, ApiError(503, "busy", retryable=False), model="listed")
    ask(system, TextDelta("a"), HANG, model="a-model-of-a-client")
    ask(system, TextDelta("a"), HANG, model="another")
    system.open_stream("pushed")
    stream = system.open_stream("crashes", restart="transient")
    kill(system, stream)
    system.advance(1.0)


def values(*systems: penstock.System, **more: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, kind = expose(PenstockCollector(*systems, **more))
    assert kind.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def of(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def test_streams_are_counted_by_provider_model_and_outcome(system: SimulatedSystem) -> None:
    work(system)
    found = values(system)
    assert of(found, "penstock_streams_total", provider="p", model="configured", outcome="completed") == 1
    assert of(found, "penstock_streams_total", provider="p", model="listed", outcome="failed") == 1
    assert of(found, "penstock_streams_total", provider="p", model="other", outcome="completed") == 0
    assert of(found, "penstock_streams_active", state="idle") == 4
    assert of(found, "penstock_streams_active", state="paused") == 0
    assert of(found, "penstock_tokens_total", provider="p", model="configured", direction="output") == 2
    assert of(found, "penstock_tokens_total", provider="p", model="configured", direction="input") == 7
    assert of(found, "penstock_tokens_total", provider="p", model="other", direction="output") == 2
    assert of(found, "penstock_tokens_total", provider="none", model="none", direction="output") == 0
    assert of(found, "penstock_cost_usd_total", provider="p", model="configured") == 0
    assert of(found, "penstock_supervisor_restarts_total", supervisor="streams") == 1
    assert of(found, "penstock_mailbox_depth_max") == 0


def test_histograms_are_cumulative(system: SimulatedSystem) -> None:
    work(system)
    found = values(system)
    labels = {"provider": "p", "model": "configured"}
    name = "penstock_stream_intertoken_seconds"
    assert of(found, f"{name}_count", **labels) == 1
    assert of(found, f"{name}_sum", **labels) == pytest.approx(0.05, abs=1e-6)
    assert of(found, f"{name}_bucket", **labels, le="0.05") == 0
    assert [of(found, f"{name}_bucket", **labels, le=bound) for bound in ("0.15", "1.0", "+Inf")] == [1, 1, 1]
    assert of(found, "penstock_stream_ttft_seconds_count", provider="p", model="other") == 2


def test_the_gates_of_one_provider_are_one(system: SimulatedSystem) -> None:
    work(system)
    found = values(system)
    assert of(found, "penstock_provider_in_flight", provider="p") == 2
    assert of(found, "penstock_provider_queue", provider="p") == 0
    assert of(found, "penstock_provider_breaker_state", provider="p") == 0


@pytest.mark.parametrize(("failures", "waited", "state"), [(20, 0.0, 2), (20, 10_000.0, 1)])
def test_an_open_circuit_shows(system: SimulatedSystem, failures: int, waited: float, state: int) -> None:
    for number in range(failures):
        ask(system, ApiError(503, "busy", retryable=False), model=str(number))
        system.advance(1.0)
    system.advance(waited)
    assert of(values(system), "penstock_provider_breaker_state", provider="p") == state


def test_several_systems_are_added_up(system: SimulatedSystem) -> None:
    with SimulatedSystem(4, settings=SETTINGS) as second:
        for each in (system, second):
            work(each)
        found = values(system, second)
        one = values(system)
        assert one.keys() == found.keys()
        name = ("penstock_tokens_total", (("direction", "output"), ("model", "configured"), ("provider", "p")))
        assert found[name] == 2 * one[name] == 4
        assert of(found, "penstock_stream_ttft_seconds_count", provider="p", model="other") == 4
        assert_nothing_is_left(second)


def test_a_system_that_has_not_been_started_is_not_started() -> None:
    system = penstock.System(SETTINGS)
    found = values(system)
    assert not [name for name, _ in found if name != "penstock_build_info"]
    assert system._started is None


def test_readers_of_a_gateway_are_counted(system: SimulatedSystem) -> None:
    found = values(system, gateway=StubGateway())
    assert of(found, "penstock_readers", protocol="ui") == 2
    assert of(found, "penstock_readers", protocol="socket") == 0
    assert of(found, "penstock_reader_outcome_total", protocol="socket", outcome="left") == 1
    assert of(found, "penstock_resume_total", result="exact") == 3
    assert of(found, "penstock_resume_total", result="snapshot") == 0
    assert of(found, "penstock_gateway_refused_total", code="busy") == 7
    assert of(found, "penstock_gateway_refused_total", code="too_many_tickets") == 0
    assert of(found, "penstock_reader_lag_bytes_bucket", le="0.0") == 3
    assert of(found, "penstock_reader_lag_bytes_count") == 4
    assert of(found, "penstock_gateway_overhead_seconds_sum") == pytest.approx(0.002)


def test_every_metric_has_the_name_the_kind_and_the_labels_of_the_table(system: SimulatedSystem) -> None:
    work(system)
    body, _ = expose(PenstockCollector(system, gateway=StubGateway()))
    table = {metric.name: metric for metric in METRICS}
    seen = set()
    for family in text_string_to_metric_families(body.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        metric = table[name]
        seen.add(name)
        assert family.type == metric.kind
        assert family.documentation == metric.help
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), name
    assert seen == set(table)


def test_names_have_base_units_and_suffixes() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"penstock(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not metric.name.endswith(("_count", "_sum", "_bucket"))
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent)\b", metric.name)
        if metric.kind == "histogram":
            assert metric.name.endswith(("_seconds", "_bytes"))
        assert metric.help.endswith(".")
        assert not {"id", "key", "stream", "url", "le"} & set(metric.labels)


def test_promtool_finds_nothing(system: SimulatedSystem) -> None:
    work(system)
    body, _ = expose(PenstockCollector(system, gateway=StubGateway()))
    assert check_metrics(body) == ""


def test_promtool_would_find_a_name_without_its_suffix() -> None:
    wrong = b"# HELP penstock_tokens Tokens.\n# TYPE penstock_tokens counter\npenstock_tokens 1\n"
    assert "_total" in check_metrics(wrong)


def test_no_stream_no_key_no_text_and_no_model_of_a_client_is_in_it(system: SimulatedSystem) -> None:
    work(system)
    body, _ = expose(PenstockCollector(system, gateway=StubGateway()))
    for word in ("id-", "crashes", "private", SECRET, "a-model-of-a-client", "another", "host.example"):
        assert word not in body.decode()


def test_models_can_be_named_instead_of_the_configured_ones(system: SimulatedSystem) -> None:
    work(system)
    found = values(system, models=["another"])
    assert of(found, "penstock_tokens_total", provider="p", model="another", direction="output") == 1
    assert of(found, "penstock_tokens_total", provider="p", model="other", direction="output") == 3


def test_it_can_be_registered_where_other_metrics_are(system: SimulatedSystem) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PenstockCollector(system))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(PenstockCollector(system))
    assert b"penstock_build_info{" in generate_latest(registry)


def test_a_scraper_that_wants_openmetrics_gets_it(system: SimulatedSystem) -> None:
    body, kind = expose(PenstockCollector(system), "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_the_models_of_the_settings() -> None:
    settings = Settings.load(
        provider={"name": "openai", "model": "a"},
        providers={"anthropic": {"model": "b"}},
        request={"fallback": ["anthropic/c", "a"]},
        telemetry={"models": "d, e"},
    )
    assert settings.models() == ("a", "b", "anthropic/c", "c", "d", "e")
