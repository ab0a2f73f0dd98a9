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
from tests.bundles import make_bundle
from tests.references import made_up_columns, reference_content
from trainer.__main__ import main
from trainer.drift import Comparison, compare, drawn, read_window

UNSW = "unsw-nb15"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Whose reference is of made-up flows, with the scores that it gives them."""
    columns = made_up_columns(UNSW, 5000)
    detector = load(make_bundle(tmp_path / "first", UNSW))
    content = reference_content(UNSW, columns, score=detector.score(columns).score)
    return make_bundle(tmp_path / "bundle", UNSW, drift=content)


def window(path: Path, *, seed: int = 5, **changed: object) -> Path:
    """A file of flows like the reference's, but for what is changed."""
    columns = made_up_columns(UNSW, 2000, seed=seed)
    series = {name: pl.Series(values, nan_to_null=values.dtype != object) for name, values in columns.items()}
    frame = pl.DataFrame(series).with_columns(**{name: pl.lit(value) for name, value in changed.items()})
    if path.suffix == ".csv":
        frame.write_csv(path, null_value="NaN")
    else:
        frame.write_parquet(path)
    return path


def compared(bundle: Path, *files: Path, reference: tuple[Path, ...] = ()) -> Comparison:
    return compare(bundle, files, reference=reference, min_feature_coverage=0.5, seed=1)


@pytest.mark.parametrize("name", ["flows.csv", "flows.parquet"])
def test_flows_like_the_references_have_not_drifted(bundle: Path, tmp_path: Path, name: str) -> None:
    found = compared(bundle, window(tmp_path / name)).distances
    assert set(found) == {*SCHEMAS[UNSW].names, "score"}
    assert max(each.psi for each in found.values()) < 0.1
    assert [each.psi for each in found.values()] == sorted((each.psi for each in found.values()), reverse=True)


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


def test_rows_drawn_from_a_reference_have_its_histograms(bundle: Path) -> None:
    reference = read_bundle(bundle).manifest.drift
    assert reference is not None
    columns = drawn(reference, 20_000, np.random.default_rng(3))
    for variable in (*reference.features, *reference.scores):
        found = variable.distances(variable.count(columns[variable.name]))
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
