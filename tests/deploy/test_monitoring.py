"""The dashboard and the rules: made as they should be, of metrics that there are, and every alert tried both ways."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from export.bundle import read_bundle
from stream.api.metrics import ApiMetrics
from stream.metrics import Metrics
from tests.deploy.dockerfile import ROOT
from tests.deploy.tools import linted, tool

DASHBOARD = ROOT / "deploy/grafana/flowsentry.json"
RULES = ROOT / "deploy/prometheus/rules/flowsentry.yml"
RULE_TESTS = sorted((ROOT / "deploy/prometheus/rules/tests").glob("*.yml"))
INSTALL = "apt-get install prometheus"
ALERTS = re.compile(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}')


@pytest.fixture(scope="module")
def panels() -> list[dict[str, Any]]:
    found = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [panel for panel in found if panel["type"] != "row"]


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def alerts(rules: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """Of every sample that the service or the API can show."""
    manifest = read_bundle(ROOT / "bundles/cicids2017-improved").manifest
    registries = (Metrics().registry, ApiMetrics(manifest).registry)
    names = set()
    for family in (family for registry in registries for family in registry.collect()):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def test_the_dashboard_is_what_its_script_writes(tmp_path: Path) -> None:
    written = tmp_path / "dashboard.json"
    subprocess.run([sys.executable, ROOT / "deploy/grafana/dashboard.py", written], check=True, timeout=60)
    assert written.read_text(encoding="utf-8") == DASHBOARD.read_text(encoding="utf-8"), "make dashboard"


def test_panels_have_what_a_reader_needs(panels: list[dict[str, Any]]) -> None:
    assert len(panels) > 30
    for panel in panels:
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["type"] in ("heatmap", "state-timeline", "table") or panel["fieldConfig"]["defaults"]["unit"]
    titles = [panel["title"] for panel in panels]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert sorted(title for title in set(titles) if titles.count(title) > 1) == ["Lag"], "as a figure and over time"


def test_panels_fill_the_width_and_lie_on_none_other(panels: list[dict[str, Any]]) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        cells |= own
    assert {sum(y == row for _, y in cells) for row in {y for _, y in cells}} == {24}


def test_panels_can_be_narrowed_to_a_job_and_an_instance(panels: list[dict[str, Any]]) -> None:
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            for labels in re.findall(r"\b(?:flowsentry_\w+|up)(\{[^}]*\}|)", target["expr"]):
                assert labels.startswith('{job=~"$job", instance=~"$instance"'), target["expr"]


def test_every_metric_asked_for_is_one_that_is_shown(
    panels: list[dict[str, Any]], rules: list[dict[str, Any]], metrics: set[str]
) -> None:
    expressions = [target["expr"] for panel in panels for target in panel["targets"]] + [rule["expr"] for rule in rules]
    asked = {name for each in expressions for name in re.findall(r"(?<![\w:])flowsentry_\w+", each)}
    assert asked <= metrics


def test_the_dashboard_shows_every_metric(panels: list[dict[str, Any]], metrics: set[str]) -> None:
    text = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in metrics}
    assert {family for family in families if not re.search(rf"\b{family}(_total|_bucket|_sum)?\b", text)} == {
        "flowsentry_batches"  # the count of any stage
    }


def test_promtool_takes_the_rules() -> None:
    assert "rules found" in linted(tool("promtool", INSTALL), "check", "rules", RULES)


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_promtool_runs_the_rules_tests(file: Path) -> None:
    linted(tool("promtool", INSTALL), "test", "rules", file)


def test_every_alert_is_seen_to_fire_and_to_stay_quiet(alerts: dict[str, dict[str, Any]]) -> None:
    fires: set[str] = set()
    quiet: set[str] = set()
    for each in (each for file in RULE_TESTS for each in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]):
        [asked] = each["promql_expr_test"]
        found = ALERTS.fullmatch(asked["expr"])
        assert found and each["name"].startswith(f"{found[1]}: "), each["name"]
        (fires if asked["exp_samples"] else quiet).add(found[1])
    assert len(alerts) > 10 and fires == quiet == set(alerts)


def test_every_alert_says_what_it_means_and_what_to_do(alerts: dict[str, dict[str, Any]]) -> None:
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, name
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor == name.lower() and f'<a id="{anchor}"></a>`{name}`' in (ROOT / page).read_text(encoding="utf-8")


def test_prometheus_finds_the_rules_where_its_configuration_looks() -> None:
    configuration = ROOT / "deploy/prometheus/prometheus.yml"
    [pattern] = yaml.safe_load(configuration.read_text(encoding="utf-8"))["rule_files"]
    assert list(configuration.parent.glob(pattern)) == [RULES]
