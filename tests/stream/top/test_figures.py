"""Rates, means and quantiles of several workers, over restarts."""

import math

import pytest

from stream.top.figures import WINDOW_S, Figures, quantile
from stream.top.scrape import Labels, Scrape

FLOWS = "flowsentry_flows_total"


def said(flows: float, **others: float) -> Scrape:
    samples: dict[tuple[str, Labels], float] = {(name, ()): value for name, value in others.items()}
    return Scrape({(FLOWS, ()): flows, **samples})


def test_a_rate_is_that_of_the_last_seconds_over_all_workers() -> None:
    figures = Figures()
    for second in range(30):
        slow_then_fast = 10 * second if second < 15 else 150 + 100 * (second - 15)
        figures.observe(second, {"a": said(slow_then_fast), "b": said(1000 + 5 * second)})
    assert WINDOW_S == 10
    assert figures.per_second(FLOWS) == 105
    assert (figures.per_second(FLOWS, "a"), figures.per_second(FLOWS, "b")) == (100, 5)
    assert figures.total(FLOWS) == 150 + 1400 + 1145


def test_of_one_moment_there_is_no_rate() -> None:
    figures = Figures()
    figures.observe(0, {"a": said(500)})
    assert (figures.per_second(FLOWS), figures.total(FLOWS)) == (0, 500)
    assert math.isnan(figures.mean("flowsentry_stage_seconds")) and figures.busy_share("flowsentry_stage_seconds") == 0


def test_a_worker_that_was_started_anew_counts_from_zero_and_its_rate_is_not_negative() -> None:
    figures = Figures()
    figures.observe(0, {"a": said(1000)})
    figures.observe(1, {"a": "does not answer"})
    assert figures.silent == {"a": "does not answer"} and figures.total(FLOWS) == 0
    figures.observe(2, {"a": said(30)})
    assert figures.per_second(FLOWS) == 15


def test_a_worker_that_joins_brings_no_jump() -> None:
    figures = Figures()
    figures.observe(0, {"a": said(0), "b": "does not answer"})
    figures.observe(1, {"a": said(10), "b": said(1_000_000)})
    figures.observe(2, {"a": said(20), "b": said(1_000_010)})
    assert figures.per_second(FLOWS) == 15


def test_counts_are_summed_by_label_the_largest_first_without_zeros() -> None:
    def alerts(**families: float) -> Scrape:
        return Scrape({("alerts", (("family", name), ("severity", "high"))): value for name, value in families.items()})

    figures = Figures()
    figures.observe(0, {"a": alerts(DoS=1, Bot=0, Worm=5), "b": alerts(DoS=6)})
    assert list(figures.by("alerts", "family").items()) == [(("DoS",), 7), (("Worm",), 5)]
    assert figures.by("alerts", "family", "severity") == {("DoS", "high"): 7, ("Worm", "high"): 5}


def test_means_and_shares_of_time_are_of_the_window() -> None:
    figures = Figures()
    figures.observe(0, {"a": said(0, s_sum=100, s_count=1), "b": said(0, s_sum=0, s_count=0)})
    figures.observe(4, {"a": said(0, s_sum=102, s_count=5), "b": said(0, s_sum=2, s_count=4)})
    assert figures.mean("s") == 0.5
    assert figures.busy_share("s") == 0.5, "4 s of two workers' 8"


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 0.75), (0.25, 0.5), (0.1, 0.2), (0.75, 1.0), (0.8, math.inf), (0.99, math.inf)]
)
def test_quantiles_are_spread_evenly_between_bounds(share: float, expected: float) -> None:
    assert quantile(share, {math.inf: 100, 0.5: 25, 1.0: 75}) == pytest.approx(expected)


def test_there_is_no_quantile_of_nothing() -> None:
    assert math.isnan(quantile(0.5, {})) and math.isnan(quantile(0.5, {1.0: 0, math.inf: 0}))


def test_quantiles_are_of_what_came_in_the_window() -> None:
    def buckets(fast: float, slow: float) -> Scrape:
        counts = {"0.1": fast, "1.0": fast + slow, "+Inf": fast + slow}
        return Scrape({("t_bucket", (("le", bound),)): value for bound, value in counts.items()})

    figures = Figures()
    figures.observe(0, {"a": buckets(0, 10_000)})
    figures.observe(1, {"a": buckets(10, 10_000)})
    assert figures.quantile(0.99, "t") == pytest.approx(0.099)
