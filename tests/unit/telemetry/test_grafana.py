"""The dashboard for Grafana shows metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from penstock.telemetry.names import METRICS, Metric
from tests.integration.promtool import check_rules

DASHBOARD: dict[str, Any] = json.loads((files("penstock.telemetry") / "grafana.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TABLE = {metric.name: metric for metric in METRICS}
SERIES = re.compile(r"\b(penstock_\w+)(?:{([^}]*)})?")
ALWAYS = {"le", "instance", "job"}
"""Labels that Prometheus adds, and that of a histogram's buckets."""


def expressions() -> Iterator[str]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def metric_of(series: str) -> Metric:
    """The metric that a series belongs to; fails if there is none."""
    base = re.sub(r"_(bucket|sum|count)$", "", series)
    metric = TABLE.get(series) or TABLE.get(base)
    assert metric is not None, f"there is no metric {series}"
    assert (metric.kind == "histogram") == (series != metric.name), f"{series} is no series of a {metric.kind}"
    return metric


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_every_metric_and_label_of_an_expression_exists(expression: str) -> None:
    found = SERIES.findall(expression)
    assert found
    labels: set[str] = set()
    for series, matchers in found:
        metric = metric_of(series)
        labels |= set(metric.labels)
        for name in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers):
            assert name in metric.labels, f"{series} has no label {name}"
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        for name in group.split(","):
            assert name.strip() in labels | ALWAYS, f"{expression}: no label {name}"
    for name in re.findall(r"label_values\(\w+, (\w+)\)", expression):
        assert name in labels


def test_counters_are_read_as_rates_and_gauges_are_not() -> None:
    for expression in (target["expr"] for panel in PANELS for target in panel["targets"]):
        for series, _ in SERIES.findall(expression):
            is_rated = re.search(rf"\b(rate|increase)\({series}", expression) is not None
            assert is_rated == (metric_of(series).kind != "gauge"), expression


def test_every_metric_is_shown() -> None:
    shown = {metric_of(series).name for expression in expressions() for series, _ in SERIES.findall(expression)}
    assert shown == set(TABLE)


def test_legends_name_labels_of_their_expressions() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            for name in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
                assert re.search(rf"by \([^)]*\b{name}\b", target["expr"]), target


def test_promtool_can_read_every_expression(tmp_path: Path) -> None:
    rules = []
    for number, expression in enumerate(target["expr"] for panel in PANELS for target in panel["targets"]):
        plain = re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "5m"))
        rules.append({"record": f"rule:{number}", "expr": plain})
    file = tmp_path / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in check_rules(file)


def test_panels_lie_side_by_side_and_have_their_own_numbers() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        columns, rows = (range(place[start], place[start] + place[size]) for start, size in (("x", "w"), ("y", "h")))
        cells = {(x, y) for x in columns for y in rows}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_it_belongs_to_no_one_grafana() -> None:
    assert DASHBOARD["uid"] == "penstock"
    assert "id" not in DASHBOARD
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["title"]
