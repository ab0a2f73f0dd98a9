"""`trainer drift`: a window that is like the reference, one that is not, and the report that says so."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from export.bundle import read_bundle
from export.detector import load
from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError
from schemas.params import StreamParams
from tests.bundles import make_bundle
from tests.references import made_up_columns, reference_content
from trainer.__main__ import main
from trainer.drift import Comparison, compare, drawn, read_window

UNSW = "unsw-nb15"


def made_up_flows(rows: int, attacks: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Flows of which the first are attacks, and which the tiny bundle tells apart."""
    columns = made_up_columns(UNSW, rows, seed=seed, attacks=attacks)
    columns["sttl"][:attacks], columns["dpkts"][:attacks] = 1000.0, 1.0
    columns["sttl"][attacks:], columns["dpkts"][attacks:] = 1.0, 1000.0
    return columns


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Whose reference is of made-up flows, a fifth of them attacks, with the scores that it gives them."""
    columns = made_up_flows(5000, 1000)
    detector = load(make_bundle(tmp_path / "first", UNSW))
    content = reference_content(UNSW, columns, attacks=1000, score=detector.score(columns).score)
    return make_bundle(tmp_path / "bundle", UNSW, drift=content)


def window(path: Path, *, seed: int = 5, attacks: int = 0, **changed: object) -> Path:
    """A file of flows like the reference's, but for what is changed."""
    columns = made_up_flows(2000, attacks, seed=seed)
    series = {name: pl.Series(values, nan_to_null=values.dtype != object) for name, values in columns.items()}
    frame = pl.DataFrame(series).with_columns(**{name: pl.lit(value) for name, value in changed.items()})
    if path.suffix == ".csv":
        frame.write_csv(path, null_value="NaN")
    else:
        frame.write_parquet(path)
    return path


def compared(bundle: Path, *files: Path, reference: tuple[Path, ...] = ()) -> Comparison:
    return compare(bundle, files, reference=reference, stream=StreamParams(), seed=1)


@pytest.mark.parametrize(
    ("name", "attacks"), [("flows.csv", 400), ("flows.parquet", 0), ("flows.parquet", 1000), ("flows.parquet", 2000)]
)
def test_flows_like_the_references_have_not_drifted_however_many_are_attacks(
    bundle: Path, tmp_path: Path, name: str, attacks: int
) -> None:
    comparison = compared(bundle, window(tmp_path / name, attacks=attacks))
    found = comparison.distances
    assert set(found) == {*SCHEMAS[UNSW].names, "score"}
    assert max(each.psi for each in found.values()) < 0.1
    assert [each.psi for each in found.values()] == sorted((each.psi for each in found.values()), reverse=True)
    assert (comparison.reference["sttl"] > 100).mean() == pytest.approx(attacks / 2000, abs=0.02)


def test_a_feature_that_moves_drifts_though_all_its_flows_are_alerts(bundle: Path, tmp_path: Path) -> None:
    found = compared(bundle, window(tmp_path / "flows.parquet", attacks=2000, dur=1e6)).distances
    assert [name for name, each in found.items() if each.psi > 0.2] == ["dur"]


def test_flows_that_are_the_reference_are_taken_as_they_are(bundle: Path, tmp_path: Path) -> None:
    few, many = (window(tmp_path / f"{attacks}.parquet", attacks=attacks) for attacks in (0, 1000))
    assert compared(bundle, many, reference=(few,)).distances["sttl"].psi > 1


@pytest.mark.timeout(900)  # Evidently takes seconds to be imported
def test_the_command_names_what_has_drifted_in_the_terminal_and_in_a_page_that_loads_nothing(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = window(tmp_path / "flows.parquet", dur=1e6, proto="quic"), tmp_path / "report.html"
    assert main(["drift", "--bundle", str(bundle), "--data", str(file), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "2 of 43 have drifted" in shown and f"wrote {out}" in shown
    assert re.search(r"dur .* 100\.0%", shown) and re.search(r"proto .* 100\.0%", shown)
    page = out.read_text(encoding="utf-8")
    assert "psi_of_ranks" in page or "PSI" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", page)
    assert "quic" in page


def test_other_flows_can_be_the_reference(bundle: Path, tmp_path: Path) -> None:
    moved = window(tmp_path / "moved.parquet", dur=1e6)
    again = window(tmp_path / "again.parquet", seed=6, dur=1e6)
    old = make_bundle(tmp_path / "old", UNSW)
    with pytest.raises(FlowsentryError, match="built before bundles had a reference"):
        compared(old, moved)
    for each in (bundle, old):
        found = compared(each, again, reference=(moved,))
        assert max(it.psi for it in found.distances.values()) < 0.1
        assert (found.reference["dur"] == 1e6).all() and found.categorical == ("proto", "service", "state")


@pytest.mark.parametrize("attack_share", [0.0, 0.3, 1.0])
def test_rows_drawn_from_a_reference_have_its_histograms(bundle: Path, attack_share: float) -> None:
    reference = read_bundle(bundle).manifest.drift
    assert reference is not None
    columns = drawn(reference, attack_share, 20_000, np.random.default_rng(3))
    for variable in (*reference.features, *reference.scores):
        found = variable.distances(variable.count(columns[variable.name]), attack_share)
        assert found.psi < 0.01 and found.wasserstein < 0.02, variable.name
        assert not found.unknown and not found.out_of_range
    dur = columns["dur"]
    assert np.isnan(dur).mean() == pytest.approx(0.1, abs=0.02) and dur.dtype == np.float64


def test_a_window_without_a_usable_row_is_refused(bundle: Path, tmp_path: Path) -> None:
    pl.DataFrame({"dur": [1.0], "proto": ["tcp"], "sttl": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(FlowsentryError, match="at least 50% are needed"):
        read_window([tmp_path / "x.parquet"], load(bundle), 0.5)
    window(tmp_path / "empty.csv")
    (tmp_path / "empty.csv").write_text((tmp_path / "empty.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(FlowsentryError, match=r"no row of .*empty\.csv can be used"):
        read_window([tmp_path / "empty.csv"], load(bundle), 0.5)
