"""Writes the SOC dashboard: python deploy/grafana/dashboard.py [FILE]. `make dashboard` writes flowsentry.json beside it.

Colours are names of Grafana's palette, which fit its dark and its light theme.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus
from grafana_foundation_sdk.builders.bargauge import Panel as BarGauge
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.statetimeline import Panel as StateTimeline
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FILE = Path(__file__).with_name("flowsentry.json")
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
OF = '{job=~"$job", instance=~"$instance"}'
RATE, RANGE = "[$__rate_interval]", "[$__range]"
SEVERITIES = {"critical": "dark-red", "high": "red", "medium": "orange", "low": "blue"}
FLOWS, FLOWS_S, FLOWS_BATCH = "suffix: flows", "suffix: flows/s", "suffix: flows/batch"
A_MINUTE = "cpm"
GREEN, YELLOW, RED = "green", "yellow", "red"
Steps = Sequence[tuple[float | None, str]]
"""From which value on which colour; None is the lowest."""


class _Panel(Protocol):
    """What the panels used here have in common."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: DataSourceRef) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...


P = TypeVar("P", bound=_Panel)


def _placed(panel: P, title: str, description: str, width: int, height: int) -> P:
    return panel.title(title).description(description).datasource(SOURCE).span(width).height(height)


def query(expression: str, legend: str = "", *, instant: bool = False) -> prometheus.Dataquery:
    """Of one series for each label set; `instant` asks for the value at the end of the time shown alone."""
    asked = prometheus.Dataquery().expr(expression).legend_format(legend)
    return asked.instant() if instant else asked.range()


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=colour) for value, colour in steps])
    )


def by_threshold() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)


def stat(title: str, description: str, expression: str, unit: str, steps: Steps, *, instant: bool = False) -> Stat:
    """One figure, its background coloured by its threshold; with a sparkline unless it is `instant`."""
    panel = (
        _placed(Stat(), title, description, 3, 4)
        .unit(unit)
        .color_mode(looks.BigValueColorMode.BACKGROUND)
        .graph_mode(looks.BigValueGraphMode.NONE if instant else looks.BigValueGraphMode.AREA)
        .color_scheme(by_threshold())
        .thresholds(thresholds(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("–")
    )
    return panel.with_target(query(expression, instant=instant).ref_id("A"))


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: prometheus.Dataquery,
    width: int = 8,
    stacked: bool = False,
    bars: bool = False,
    most: float | None = None,
    line_at: float | None = None,
) -> TimeSeries:
    """Lines over time, or bars; `line_at` draws a threshold, above which it is red."""
    panel = (
        _placed(TimeSeries(), title, description, width, 8)
        .unit(unit)
        .min(0)
        .draw_style(looks.GraphDrawStyle.BARS if bars else looks.GraphDrawStyle.LINE)
        .fill_opacity(80 if bars else 30 if stacked else 10)
        .line_width(0 if bars else 1)
        .show_points(looks.VisibilityMode.NEVER)
        .stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL if stacked else looks.StackingMode.NONE))
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(looks.LegendDisplayMode.LIST)
            .placement(looks.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .no_value("none")
    )
    if most is not None:
        panel.max(most)
    if line_at is not None:
        panel.thresholds(thresholds([(None, GREEN), (line_at, RED)]))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED))
    for number, each in enumerate(queries):
        panel.with_target(each.ref_id(chr(ord("A") + number)))
    return panel


def quantiles(metric: str, labels: str = OF) -> tuple[prometheus.Dataquery, ...]:
    return tuple(
        query(f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{labels}{RATE})))", name)
        for share, name in ((0.99, "p99"), (0.95, "p95"), (0.5, "p50"))
    )


def mean(metric: str, labels: str, by: str) -> str:
    """Of a histogram, for each `by`."""
    return f"sum by ({by}) (rate({metric}_sum{labels}{RATE})) / sum by ({by}) (rate({metric}_count{labels}{RATE}) > 0)"


def now() -> list[Stat]:
    """The strip at the top: is all well?"""
    flows = f"sum(rate(flowsentry_flows_total{OF}{RATE}))"
    return [
        stat("Alarms", "Rules of deploy/prometheus/rules that fire now. docs/monitoring.md says what to do about each.",
             'count(ALERTS{alertname=~"Flowsentry.*", alertstate="firing"}) or vector(0)', "none",
             [(None, GREEN), (1, RED)]),
        stat("Instances down", "Workers and APIs that do not answer Prometheus.",
             f"count(up{OF} == 0) or vector(0)", "none", [(None, GREEN), (1, RED)]),
        stat("Partitions read", "Of the input topic, by all workers. At 0 no flow is judged.",
             f"sum(flowsentry_assigned_partitions{OF})", "none", [(None, RED), (1, GREEN)]),
        stat("Flows", "Flow records consumed in a second.", flows, FLOWS_S, [(None, "blue")]),
        stat("Lag", "Flow records that wait in Kafka.", f"sum(flowsentry_lag{OF})", FLOWS,
             [(None, GREEN), (10_000, YELLOW), (100_000, RED)]),
        stat("Behind by", "How long what waits will take at the present rate (one flow a second at the least).",
             f"sum(flowsentry_lag{OF}) / clamp_min({flows}, 1)", "s", [(None, GREEN), (10, YELLOW), (60, RED)]),
        stat("Flow to alert, p99", "99 of 100 alerts are published within this time of the flow's arrival in Kafka. "
             "Anything above 10 s reads as 10 s.",
             f"histogram_quantile(0.99, sum by (le) (rate(flowsentry_alert_latency_seconds_bucket{OF}{RATE})))", "s",
             [(None, GREEN), (1, YELLOW), (5, RED)]),
        stat("Alerts", "In the time shown.", f"sum(increase(flowsentry_alerts_total{OF}{RANGE}))", "short",
             [(None, "purple")], instant=True),
    ]  # fmt: skip


def state() -> list[StateTimeline | Table]:
    works = f"on (job, instance) (flowsentry_assigned_partitions{OF} > 0 or flowsentry_api_waiting_flows{OF})"
    timeline = (
        _placed(StateTimeline(), "Readiness", "Each worker and API: whether it answers, and whether it has partitions to "
                "read. A worker beyond the number of partitions waits for one.", 14, 7)
        .with_target(query(f"up{OF} * 2 and {works} or up{OF}", "{{instance}}").ref_id("A"))
        .mappings([ValueMap(options={
            "0": ValueMappingResult(text="down", color=RED),
            "1": ValueMappingResult(text="waits for a partition", color=YELLOW),
            "2": ValueMappingResult(text="works", color=GREEN),
        })])
        .color_scheme(by_threshold())
        .thresholds(thresholds([(None, RED), (1, YELLOW), (2, GREEN)]))
        .show_value(looks.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
    )  # fmt: skip
    hidden = dict.fromkeys(("Time", "Value", "__name__", "job"), True)
    bundles = (
        _placed(Table(), "Bundle in use", "The detector that judges, by instance. Two hashes for longer than a moment: not "
                "every worker has taken the new one over.", 10, 7)
        .with_target(query(f"flowsentry_bundle_info{OF}", instant=True).format(PromQueryFormat.TABLE).ref_id("A"))
        .with_transformation(DataTransformerConfig(id_val="organize", options={
            "excludeByName": hidden,
            "indexByName": {"instance": 0, "name": 1, "version": 2, "dataset": 3, "hash": 4},
            "renameByName": {"dataset": "data set"},
        }))
    )  # fmt: skip
    return [timeline, bundles]


def traffic() -> list[TimeSeries]:
    rate = f"sum(rate(flowsentry_flows_total{OF}{RATE}))"
    return [
        graph("Throughput", "Flow records consumed, by instance.", FLOWS_S,
              query(f"sum by (instance) (rate(flowsentry_flows_total{OF}{RATE}))", "{{instance}}"), stacked=True),
        graph("Lag", "Flow records that wait in Kafka, by partition. It grows when more comes than is judged.", FLOWS,
              query(f"sum by (partition) (flowsentry_lag{OF})", "{{partition}}"), stacked=True),
        graph("Share of flows with an alert", "A jump is an attack, or a network that the bundle does not know.",
              "percentunit", query(f"sum(rate(flowsentry_alerts_total{OF}{RATE})) / ({rate} > 0)", "of flows")),
    ]  # fmt: skip


def alerts() -> list[TimeSeries | BarGauge]:
    per_minute = f"60 * sum by (%s) (rate(flowsentry_alerts_total{OF}{RATE})) > 0"
    severity = graph(
        "Alerts by severity", "How far over its threshold the score was.", A_MINUTE,
        query(per_minute % "severity", "{{severity}}"), stacked=True, bars=True,
    )  # fmt: skip
    for name, colour in SEVERITIES.items():
        fixed = DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})
        severity.override_by_name(name, [fixed])
    families = (
        _placed(BarGauge(), "Families", "Alerts in the time shown. `Unknown` is a flow unlike benign ones of which no "
                "family was told.", 8, 8)
        .unit("short")
        .decimals(0)
        .min(0)
        .orientation(looks.VizOrientation.HORIZONTAL)
        .display_mode(looks.BarGaugeDisplayMode.BASIC)
        .show_unfilled(False)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("none")
        .with_target(query(f"sort_desc(sum by (family) (increase(flowsentry_alerts_total{OF}{RANGE})) > 0)",
                           "{{family}}", instant=True).ref_id("A"))
    )  # fmt: skip
    family = graph(
        "Alerts by family", "The attack family that the detector takes the flow for.", A_MINUTE,
        query(per_minute % "family", "{{family}}"), stacked=True, bars=True,
    )  # fmt: skip
    return [severity, family, families]


def unusable() -> list[TimeSeries]:
    letters = f"rate(flowsentry_dead_letters_total{OF}{RATE})"
    flows = f"sum(rate(flowsentry_flows_total{OF}{RATE}))"
    return [
        graph("Dead letters by reason", "Records that cannot be judged, set aside on the topic of dead letters. "
              "`python -m stream dead-letters list` shows them.", A_MINUTE,
              query(f"60 * sum by (reason) ({letters}) > 0", "{{reason}}"), stacked=True, bars=True),
        graph("Share of dead letters", "Of all records. Above 1% (dashed) what a probe writes has probably changed.",
              "percentunit", query(f"sum({letters}) / ({flows} > 0)", "of records"), line_at=0.01),
        graph("Expired", "Records that Kafka deleted before they were read: never judged, and gone.", A_MINUTE,
              query(f"60 * sum(rate(flowsentry_expired_total{OF}{RATE}))", "expired"), bars=True),
    ]  # fmt: skip


def speed() -> list[heatmap.Panel | TimeSeries]:
    latency = "flowsentry_alert_latency_seconds"
    heat = (
        _placed(heatmap.Panel(), "Flow to alert", "From a flow's arrival in Kafka to its alert's commit: the darker or "
                "brighter a cell, the more alerts took that long.", 12, 9)
        .with_target(query(f"sum by (le) (increase({latency}_bucket{OF}{RATE}))", "{{le}}")
                     .format(PromQueryFormat.HEATMAP).ref_id("A"))
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .cell_values(heatmap.CellValues().unit("short"))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
               .scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
    )  # fmt: skip
    stages = "flowsentry_stage_seconds"
    workers = f"count(flowsentry_assigned_partitions{OF})"
    return [
        heat,
        graph("Flow to alert, quantiles", "From a flow's arrival in Kafka to its alert's commit.", "s",
              *quantiles(latency), width=12).height(9),
        graph("Stage times", "Mean of a batch. The stage consume waits for flows: on a quiet stream it takes longest.",
              "s", query(mean(stages, OF, "stage"), "{{stage}}")),
        graph("Where workers' time goes", "Share of each stage. As long as consume has some, there is room for more flows.",
              "percentunit", query(f"sum by (stage) (rate({stages}_sum{OF}{RATE})) / ignoring (stage) group_left () {workers}",
                                   "{{stage}}"), stacked=True),
        graph("Batch size", "Mean. At stream.batch_size the worker is behind and batches are full.", FLOWS_BATCH,
              query(mean("flowsentry_batch_size", OF, "instance"), "{{instance}}")),
    ]  # fmt: skip


def drift() -> list[StateTimeline | TimeSeries]:
    def furthest(metric: str, count: int = 10) -> str:
        return f"topk({count}, max by (feature) (flowsentry_drift_{metric}{OF}))"

    steps: Steps = [(None, GREEN), (0.1, YELLOW), (0.2, RED)]
    scores = OF.replace("}", ', feature=~"score|novelty"}')
    by_feature = (
        _placed(StateTimeline(), "Drift by feature", "Population stability index of the last minutes against the bundle's "
                "reference: stable below 0.1, shifted from 0.2 on. The furthest twenty, of all workers the one that is "
                "furthest off.", 24, 9)
        .with_target(query(furthest("psi", 20), "{{feature}}").ref_id("A"))
        .decimals(2)
        .color_scheme(by_threshold())
        .thresholds(thresholds(steps))
        .show_value(looks.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.9)
        .no_value("none")
    )  # fmt: skip
    return [
        by_feature,
        graph("Drift of the score", "Of what the bundle says of flows, against benign flows and attacks mixed as alerts are.",
              "none", query(f"max by (feature) (flowsentry_drift_psi{scores})", "{{feature}}: PSI"),
              query(f"max by (feature) (flowsentry_drift_wasserstein{scores})", "{{feature}}: Wasserstein"), line_at=0.2),
        graph("Wasserstein distance", "How far values have moved, by their ranks among those expected: at most 0.5 for a "
              "number, 1 for categories. The furthest ten.", "none", query(furthest("wasserstein"), "{{feature}}")),
        graph("Drifts begun and ended", "How often a feature or a score passed the bound, and came back.", A_MINUTE,
              query(f"60 * sum by (state) (rate(flowsentry_drift_events_total{OF}{RATE}))", "{{state}}"), bars=True),
        graph("Missing values", "Share of flows without the feature. The most ten.", "percentunit",
              query(furthest("missing_share"), "{{feature}}"), width=6, most=1),
        graph("Unknown categories", "Share of flows with a category that training did not have.", "percentunit",
              query(furthest("unknown_share"), "{{feature}}"), width=6, most=1),
        graph("Out of range", "Share of flows below or above all of training. The most ten.", "percentunit",
              query(furthest("out_of_range_share"), "{{feature}}"), width=6, most=1),
        graph("Flows in the window", "That were counted, by instance. Below drift.min_flows nothing is said; `measured` is 0 "
              "where the bundle has no reference.", "none",
              query(f"sum by (instance) (flowsentry_drift_window_flows{OF})", "{{instance}}"),
              query(f"sum by (instance) (flowsentry_drift_measured{OF})", "{{instance}} measured"), width=6),
    ]  # fmt: skip


def trouble() -> list[TimeSeries]:
    def each(metric: str) -> str:
        return f"60 * sum by (instance) (rate({metric}{OF}{RATE}))"

    return [
        graph("Worker restarts", "How often a worker's process has been started again since the service started.", "none",
              query(f"max by (instance) (flowsentry_worker_restarts{OF})", "{{instance}}"), width=6),
        graph("Retries", "Batches done again and producers made anew, as when Kafka was away. Nothing is lost or doubled.",
              A_MINUTE, query(each("flowsentry_batch_retries_total"), "{{instance}} batches"),
              query(each("flowsentry_producers_total"), "{{instance}} producers"), width=6),
        graph("Rebalances", "Partitions that came to workers or went. `lost` ones were taken while a worker was away.",
              A_MINUTE, query(f"60 * sum by (event) (rate(flowsentry_rebalances_total{OF}{RATE}))", "{{event}}"),
              width=6, bars=True),
        graph("Refused bundles", "New bundles that were not taken over; the one in use goes on. The log says why.", "none",
              query(f"sum by (instance) (flowsentry_bundle_refusals_total{OF})", "{{instance}}"), width=6),
    ]  # fmt: skip


def api() -> list[TimeSeries]:
    predict = OF.replace("}", ', path="/predict"}')
    return [
        graph("Requests by status", "429: too many flows waited. 422: a flow cannot be judged. 5xx: the API failed.",
              "reqps", query(f"sum by (status) (rate(flowsentry_api_requests_total{OF}{RATE}))", "{{status}}"),
              stacked=True),
        graph("Time to answer /predict", "From a request's head to the end of its answer.", "s",
              *quantiles("flowsentry_api_latency_seconds", predict)),
        graph("Waiting flows", "For a batch to be judged in. At api.max_waiting requests are told to come again.", FLOWS,
              query(f"sum by (instance) (flowsentry_api_waiting_flows{OF})", "{{instance}}")),
        graph("Flows judged", "By verdict.", FLOWS_S,
              query(f"sum by (prediction) (rate(flowsentry_api_flows_total{OF}{RATE}))", "{{prediction}}"), stacked=True),
        graph("Time to judge a batch", "Without the wait for it.", "s", *quantiles("flowsentry_api_batch_seconds")),
        graph("Batch size of the API", "Mean. At api.batch_size the API has as much as it can do.", FLOWS_BATCH,
              query(mean("flowsentry_api_batch_size", OF, "instance"), "{{instance}}")),
    ]  # fmt: skip


def variable(name: str, label: str, metric: str) -> QueryVariable:
    """A choice of any, or all, of a label's values."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({metric}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def build() -> Dashboard:
    """All of it."""
    board = (
        Dashboard("Flowsentry")
        .uid("flowsentry")
        .description("The detector at work: flows in, alerts out, and what gets in its way.")
        .tags(["flowsentry", "security"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(variable("job", "Job", "flowsentry_bundle_info"))
        .with_variable(variable("instance", "Instance", 'flowsentry_bundle_info{job=~"$job"}'))
    )
    rows: dict[str, Sequence[Builder[Panel]]] = {
        "Now": [*now(), *state()],
        "Traffic": traffic(),
        "Alerts": alerts(),
        "Records that could not be judged": unusable(),
        "Speed": speed(),
        "Drift": drift(),
        "Trouble": trouble(),
        "HTTP API": api(),
    }
    for title, panels in rows.items():
        board.with_row(Row(title))
        for panel in panels:
            board.with_panel(panel)
    return board


def main(file: Path = FILE) -> None:
    board = build().build()
    for number, panel in enumerate(board.panels or [], start=1):
        panel.id_val = number  # the SDK leaves them out, and Grafana would give others at every load
    file.write_text(json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
