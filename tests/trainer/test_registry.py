"""Challenger and champion, in a real MLflow server on loopback."""

import random
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from export.__main__ import main as export_main
from export.bundle import read_bundle
from export.detector import load
from schemas.errors import FlowsentryError
from tests.bundles import make_bundle
from tests.export.registry import Registry, running_registry
from tests.flows import flows
from trainer.__main__ import main
from trainer.evaluation.scored import score_files
from trainer.registry import decide

NAME = "flowsentry-unsw-nb15"


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    before = mlflow.get_tracking_uri()
    with running_registry() as registry:
        yield registry
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flows of which the tiny bundle's levers tell what they are, nine times out of ten."""
    table = flows("unsw-partition", rows=400, seed=5)
    chance = random.Random(0)
    for row, family in enumerate(table.families):
        as_attack = (family != "Benign") is (chance.random() < 0.9)
        table.set(row, "sttl", str(chance.randint(50, 400) if as_attack else chance.randint(0, 60)))
        table.set(row, "dpkts", str(chance.randint(0, 20) if as_attack else chance.randint(10, 200)))
    return table.write(tmp_path_factory.mktemp("data") / "test.csv")


@pytest.fixture(scope="module")
def ranked(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles, the worse one first."""
    folder = tmp_path_factory.mktemp("bundles")
    made = [make_bundle(folder / f"gain {gain:g}", "unsw-nb15", gain=gain) for gain in (1.0, -1.0)]
    for path in made:
        (path / "report.html").write_text("a report beside the bundle")
    worse, better = sorted(made, key=lambda path: _auc(path, data))
    assert _auc(better, data) > _auc(worse, data) + 0.1
    return worse, better


def _auc(bundle: Path, data: Path) -> float:
    rows = score_files([data], load(bundle), 0.5)
    attacks, benign = rows.score[rows.y == 1], rows.score[rows.y == 0]
    return float((attacks[:, None] > benign).mean() + (attacks[:, None] == benign).mean() / 2)


def command(registry: Registry, *words: str) -> int:
    return main([*words, "--set", f"tracking.mlflow_uri={registry.uri}"])


def served(registry: Registry, place: Path) -> str:
    """The hash of the bundle that `export pull` brings."""
    words = ["pull", f"models:/{NAME}@champion", "--to", str(place), "--set", f"tracking.mlflow_uri={registry.uri}"]
    assert export_main(words) == 0
    return read_bundle(place).manifest.hash


def test_a_worse_challenger_is_refused_a_better_one_promoted_and_the_champion_is_what_is_pulled(
    registry: Registry,
    ranked: tuple[Path, Path],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worse, better = ranked
    promote = ["promote", "--dataset", "unsw-nb15", "--data", str(data), "--target-fpr", "0.05"]

    assert command(registry, *promote) == 2
    assert f"{NAME} has no challenger: `python -m trainer register" in capsys.readouterr().err

    assert command(registry, "register", "--bundle", str(worse)) == 0
    assert f"{NAME}: version 1 is the challenger" in capsys.readouterr().out
    assert command(registry, *promote) == 0
    assert "is promoted: there was no champion" in capsys.readouterr().out
    assert served(registry, tmp_path / "live") == read_bundle(worse).manifest.hash

    assert command(registry, *promote) == 1, "itself"
    assert "version 1 is the champion already" in capsys.readouterr().out

    assert command(registry, "register", "--bundle", str(better)) == 0
    assert command(registry, *promote) == 0
    assert "is promoted: its recall is higher: recall at 5% false positives" in capsys.readouterr().out
    assert served(registry, tmp_path / "live") == read_bundle(better).manifest.hash

    assert command(registry, "register", "--bundle", str(worse)) == 0
    assert "version 1 is the challenger" in capsys.readouterr().out, "a bundle that is there is not put twice"
    assert command(registry, *promote) == 1
    told = capsys.readouterr().out
    assert "is not promoted: it does not beat the champion" in told and "rule: " in told
    assert served(registry, tmp_path / "live") == read_bundle(better).manifest.hash

    client = mlflow.MlflowClient(registry.uri, registry.uri)
    version = client.get_model_version(NAME, "1")
    assert version.tags["decision"].startswith("it does not beat the champion")
    assert version.run_id is not None
    artefacts = {item.path for item in client.list_artifacts(version.run_id, "model")}
    assert artefacts == {"model/bundle", "model/report.html"}


def test_a_registry_that_is_not_there_is_named(
    ranked: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://127.0.0.1:9"
    assert main(["register", "--bundle", str(ranked[0]), "--set", f"tracking.mlflow_uri={uri}"]) == 2
    assert f"error: {uri}: " in capsys.readouterr().err


# The rule.


def test_the_same_detector_again_is_no_better(ranked: tuple[Path, Path], data: Path) -> None:
    same = load(ranked[1])
    decision = decide(same, load(ranked[1]), [data], rate=0.05, min_feature_coverage=0.5)
    assert not decision.promoted
    assert [(it.gain, it.low, it.high, it.better_share) for it in decision.differences] == [(0.0, 0.0, 0.0, 0.0)] * 2


def test_rows_of_one_class_decide_nothing(ranked: tuple[Path, Path], tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=40, seed=3)
    for row in range(40):
        table.set(row, "attack_cat", "Normal")
        table.set(row, "label", "0")
    path = table.write(tmp_path / "benign.csv")
    with pytest.raises(FlowsentryError, match=r"benign\.csv: attacks and benign rows are both needed"):
        decide(load(ranked[1]), load(ranked[0]), [path], rate=0.05, min_feature_coverage=0.5)
