"""Drift of a stream, without Kafka: what is counted, when it is measured, what is told, and how much memory that takes."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from export.detector import Scores
from export.drift_reference import DriftReference, reference_of
from export.histograms import Categories
from schemas.alert import BundleRef
from schemas.datasets import SCHEMAS
from schemas.event import DriftEvent, DriftState
from schemas.params import DriftParams
from stream import drift as module
from stream.drift import DriftPicture, DriftWatch
from stream.metrics import Metrics
from tests.bundles import VOCABULARIES
from tests.references import columns_of, made_up_columns

UNSW = "unsw-nb15"
BUNDLE = BundleRef(name="tiny", version="1", hash="abc")
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
PANE_S = 60.0
THRESHOLD = 0.75


def scores_of(rows: int, seed: int = 0, shift: float = 0.0, attacks: int = 0) -> Scores:
    """Probabilities, high ones of the first flows, and nothing else that drift looks at."""
    logits = np.random.default_rng(seed).normal(-4 + shift, 1.5, rows)
    logits[:attacks] += 9
    nothing = np.zeros((rows, 0), dtype=np.float32)
    return Scores((1 / (1 + np.exp(-logits))).astype(np.float32), np.zeros(rows, np.int64), nothing, nothing)


def reference(attacks: int) -> DriftReference:
    """Of 20,000 rows, of which so many are attacks."""
    rows, y = columns_of(UNSW, made_up_columns(UNSW, 20_000, attacks=attacks)), np.arange(20_000) < attacks
    score = scores_of(20_000, attacks=attacks).score
    return reference_of(SCHEMAS[UNSW], VOCABULARIES, rows, y, score=score, novelty=None, score_y=y)


REFERENCE, BENIGN_ONLY = reference(3000), reference(0)


class Stream:
    """A watch whose time is the test's."""

    def __init__(self, against: DriftReference = REFERENCE, **params: Any) -> None:
        self.at_s = 1000.0
        settings = {"window_s": 5 * PANE_S, "panes": 5, "flows_per_s": 100_000, "min_flows": 500} | params
        self.watch = DriftWatch(
            against, DriftParams(**settings), bundle=BUNDLE, worker="group-host-0", clock=lambda: self.at_s,
            now=NOON.timestamp,
        )  # fmt: skip
        self.seed = 100

    def give(
        self,
        rows: int = 1000,
        *,
        attacks: int = 0,
        shift: float = 0.0,
        changed: Mapping[str, Any] | None = None,
    ) -> None:
        """A batch of flows of the reference's kind, but for what is changed; `shift` is the score's, in log-odds."""
        self.seed += 1
        columns = made_up_columns(UNSW, rows, seed=self.seed, attacks=attacks)
        for name, value in (changed or {}).items():
            columns[name] = value(columns[name]) if callable(value) else np.full(rows, value, columns[name].dtype)
        scores = scores_of(rows, self.seed, shift, attacks)
        self.watch.observe(columns, scores, scores.score >= THRESHOLD)

    def pane(self, **batch: Any) -> DriftPicture:
        """The window after another pane with one batch in it."""
        self.at_s += PANE_S / 2
        if batch.get("rows", 1):
            self.give(**batch)
        assert self.watch.look() is None
        self.at_s += PANE_S / 2
        found = self.watch.look()
        assert found is not None and self.watch.look() is None
        return found


def drifted(picture: DriftPicture) -> list[tuple[str, str]]:
    return [(event.feature, event.state.value) for event in picture.events]


def test_flows_like_the_references_do_not_drift() -> None:
    stream = Stream()
    for _ in range(8):
        picture = stream.pane()
        assert set(picture.distances) == {*SCHEMAS[UNSW].names, "score"}
        assert max(found.psi for found in picture.distances.values()) < 0.1
        assert max(found.wasserstein for found in picture.distances.values()) < 0.06
        assert picture.events == ()
    assert picture.flows == 5000


@pytest.mark.parametrize("attacks", [0, 500, 1000])
def test_more_attacks_or_fewer_are_no_drift(attacks: int) -> None:
    stream = Stream()
    for _ in range(3):
        picture = stream.pane(attacks=attacks)
        assert max(found.psi for found in picture.distances.values()) < 0.1
        assert picture.events == ()
    columns = made_up_columns(UNSW, 1000, seed=1, attacks=attacks)
    for feature in REFERENCE.features:
        all_rows = feature.distances(feature.count(columns[feature.name]), 3000 / 20_000)
        assert all_rows.psi > 0.2 or isinstance(feature, Categories), "with the attacks that training had it would be"


@pytest.mark.parametrize("attacks", [0, 500, 1000])
def test_a_feature_that_moves_drifts_however_many_attacks_there_are(attacks: int) -> None:
    moved = Stream().pane(attacks=attacks, changed={"dur": lambda values: values * 10})
    assert drifted(moved) == [("dur", "drifted")]
    [event] = moved.events
    assert event.attack_share == pytest.approx(attacks / 1000, abs=0.01)


def test_what_makes_benign_flows_alert_is_held_against_the_attacks_that_are_known() -> None:
    picture = Stream().pane(shift=9.0, changed={"dur": lambda values: values * 10})
    assert {"dur", "sbytes", "proto"} <= {name for name, _ in drifted(picture)}
    assert all(event.attack_share > 0.99 for event in picture.events)
    assert picture.distances["score"].psi < 0.1


def test_of_a_bundle_that_knows_no_attacks_benign_flows_are_expected_whatever_alerts() -> None:
    assert drifted(Stream(BENIGN_ONLY).pane()) == []
    alerting = Stream(BENIGN_ONLY).pane(shift=9.0)
    assert drifted(alerting) == [("score", "drifted")] and alerting.events[0].attack_share == 0
    of_attacks = drifted(Stream(BENIGN_ONLY).pane(attacks=1000))
    assert {name for name, _ in of_attacks} == {*SCHEMAS[UNSW].names, "score"}


def test_alerts_are_counted_among_the_flows_that_are() -> None:
    stream = Stream(flows_per_s=100, window_s=PANE_S, panes=1, min_flows=1)
    for _ in range(30):
        stream.give(10_000, attacks=3000, changed={"dur": 1e9})
        stream.at_s += PANE_S / 30
    picture = stream.watch.look()
    assert picture is not None and picture.flows == 3000
    assert picture.events[0].attack_share == pytest.approx(0.3, abs=0.01)


def test_a_feature_that_moves_is_told_once_and_again_when_it_is_back() -> None:
    stream = Stream(panes=1, window_s=PANE_S)
    told = [
        drifted(stream.pane(changed={"dur": lambda values, by=by: values * by}))
        for by in (1.0, 10.0, 10.0, 1.6, 10.0, 1.0, 1.0, 10.0)
    ]
    assert told == [
        [], [("dur", "drifted")], [], [], [], [("dur", "returned")], [], [("dur", "drifted")]
    ]  # fmt: skip


def test_the_more_it_moves_the_further_it_is() -> None:
    found = [
        Stream(BENIGN_ONLY, panes=1, window_s=PANE_S).pane(
            rows=2000, changed={"dur": lambda values, by=by: values * by}
        )
        for by in (1.0, 1.5, 2.0, 4.0, 8.0, 16.0)
    ]
    for measure in ("psi", "wasserstein", "out_of_range"):
        values = [getattr(each.distances["dur"], measure) for each in found]
        assert values == sorted(values) and values[-1] > 0.1, measure
    assert max(each.distances["sbytes"].psi for each in found) < 0.1


def test_the_score_can_drift_alone() -> None:
    picture = Stream().pane(shift=-3.0)
    assert drifted(picture) == [("score", "drifted")]
    assert 0.3 < picture.distances["score"].wasserstein < 0.5


def test_an_event_says_all_of_it() -> None:
    stream = Stream()
    stream.pane()
    [event] = stream.pane(changed={"proto": "quic"}).events
    assert event.unknown_share == pytest.approx(0.5)
    assert event.psi > event.psi_bound == 0.2 and 0.4 < event.wasserstein < 0.6
    assert event == DriftEvent(
        state=DriftState.DRIFTED, feature="proto", psi=event.psi, psi_bound=0.2, wasserstein=event.wasserstein,
        missing_share=0.0, unknown_share=0.5, out_of_range_share=None, window_begin=NOON,
        window_end=NOON + timedelta(seconds=2 * PANE_S), flows=2000, attack_share=event.attack_share,
        bundle=BUNDLE, worker="group-host-0",
    )  # fmt: skip
    assert DriftEvent.model_validate_json(event.model_dump_json()) == event


def test_missing_and_unknown_and_out_of_range_shares() -> None:
    picture = Stream().pane(changed={"dur": np.nan, "sttl": -1.0, "service": None, "state": "new"})
    found = picture.distances
    assert [found[name].missing for name in ("dur", "sttl", "service", "state")] == [1, 0, 1, 0]
    assert (found["sttl"].out_of_range, found["dur"].out_of_range) == (1, 0)
    assert (found["state"].unknown, found["service"].unknown, found["sttl"].unknown) == (1, 0, None)
    assert {name for name, _ in drifted(picture)} == {"dur", "sttl", "service", "state"}


def test_a_pane_leaves_the_window_when_its_time_is_over() -> None:
    stream = Stream()
    first = stream.pane(changed={"dur": 1e9})
    assert first.distances["dur"].out_of_range == 1
    shares = [stream.pane().distances["dur"].out_of_range for _ in range(5)]
    assert shares == pytest.approx([1 / 2, 1 / 3, 1 / 4, 1 / 5, 0], abs=0.01)


def test_of_too_few_flows_nothing_is_said() -> None:
    stream = Stream(min_flows=1500)
    alarming: dict[str, Any] = {"rows": 1000, "changed": {"dur": 1e9}}
    few = stream.pane(**alarming)
    assert (few.flows, few.distances, few.events) == (1000, {}, ())
    assert drifted(stream.pane(**alarming)) == [("dur", "drifted")]
    quiet = [stream.pane(rows=0) for _ in range(5)]
    assert [each.flows for each in quiet] == [2000, 2000, 2000, 1000, 0]
    assert quiet[-1].distances == {} and [each.events for each in quiet] == [()] * 5


def test_a_long_silence_empties_the_window() -> None:
    stream = Stream()
    assert stream.pane().flows == 1000
    stream.at_s += 3600
    after = stream.watch.look()
    assert after is not None and after.flows == 0


def test_of_many_flows_some_are_counted_spread_over_all_of_them() -> None:
    stream = Stream(flows_per_s=100, window_s=PANE_S, panes=1, min_flows=1)
    numbers = np.full(10_000, 7.0)
    numbers[5_000:] = 1e9
    for _ in range(30):
        stream.give(10_000, changed={"dur": lambda _: numbers})
        stream.at_s += PANE_S / 30
    picture = stream.watch.look()
    assert picture is not None and picture.flows == 100 + 29 * 100
    assert picture.distances["dur"].out_of_range == pytest.approx(0.5, abs=0.01)


def test_a_quiet_stream_is_counted_whole() -> None:
    stream = Stream(flows_per_s=100, window_s=PANE_S, panes=1, min_flows=1)
    for _ in range(600):
        stream.give(7)
        stream.at_s += 0.125
    picture = stream.watch.look()
    assert picture is not None and picture.flows == 4200


def test_memory_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 256)
    stream = Stream()
    for number in range(500):
        stream.give(100, changed={"proto": f"category {number}"})
        assert stream.watch._rows_waiting < 256
        stream.at_s += PANE_S / 4
        stream.watch.look()
        assert len(stream.watch._panes) <= 5 and len(stream.watch._counts) == stream.watch._cells


def test_prometheus_is_shown_the_window_and_nothing_of_one_with_too_few_flows() -> None:
    stream, metrics = Stream(panes=1, window_s=PANE_S), Metrics()
    value = metrics.registry.get_sample_value
    metrics.begin_drift(measured=False)
    assert value("flowsentry_drift_measured") == value("flowsentry_drift_window_flows") == 0
    metrics.begin_drift(measured=True)
    assert value("flowsentry_drift_measured") == 1
    picture = stream.pane(changed={"proto": "quic", "dur": 1e9})
    metrics.set_drift(picture)
    assert value("flowsentry_drift_window_flows") == 1000
    for name, found in picture.distances.items():
        of_it = {"feature": name}
        assert value("flowsentry_drift_psi", of_it) == found.psi
        assert value("flowsentry_drift_wasserstein", of_it) == found.wasserstein
        assert value("flowsentry_drift_missing_share", of_it) == found.missing
    assert value("flowsentry_drift_unknown_share", {"feature": "proto"}) == 1
    assert value("flowsentry_drift_unknown_share", {"feature": "dur"}) is None
    assert value("flowsentry_drift_out_of_range_share", {"feature": "dur"}) == 1
    assert value("flowsentry_drift_out_of_range_share", {"feature": "proto"}) is None
    assert value("flowsentry_drift_events_total", {"state": "drifted"}) == 2
    metrics.set_drift(stream.pane(rows=10))
    assert value("flowsentry_drift_psi", {"feature": "dur"}) is None
    assert value("flowsentry_drift_window_flows") == 10
    assert value("flowsentry_drift_events_total", {"state": "returned"}) == 0
