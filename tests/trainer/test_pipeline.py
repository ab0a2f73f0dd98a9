"""dvc.yaml: the whole pipeline from scratch on invented flows, in a repository of its own."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.datasets import SCHEMAS
from tests.flows import flows
from tests.trainer.conftest import TINY

ROOT = Path(__file__).parents[2]
NEEDED = (
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
    "export",
    "schemas",
    "trainer",
)
DIALECTS = {"cicids2017": "cicids2017", "cicids2017-improved": "improved", "unsw-nb15": "unsw-partition"}
pytestmark = pytest.mark.timeout(1800)  # 48 commands one after the other
STAGES = ("prepare", "pretrain", "novelty", "finetune", "export", "experiments", "evaluate", "ship")


class Repository:
    """A clone of what the pipeline needs, with flows to learn from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in NEEDED:
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, target)
        for number, (dataset, dialect) in enumerate(DIALECTS.items()):
            flows(dialect, rows=260, seed=number).write(root / "flows" / f"{dataset}.csv.gz")
        flows(DIALECTS["cicids2017-improved"], rows=20, seed=9).write(root / "stream/sample/sample.csv.gz")
        self.run("git", "init", "--quiet")
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "as it is")

    def run(self, *words: str) -> str:
        who = {f"GIT_{role}_{what}": "x@x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            words, cwd=self.root, env={**os.environ, **who, "PATH": path}, capture_output=True, text=True, timeout=1500
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def hashes(self) -> dict[str, str]:
        """Of all that the stages leave in DVC's care, but for the bundles that git has."""
        kept = [path for folder in ("runs", "reports") for path in (self.root / folder).rglob("*") if path.is_file()]
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in kept
            if "all" not in path.relative_to(self.root).parts and path.name != ".gitignore"
        }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """One in which the pipeline has run with tiny settings."""
    made = Repository(tmp_path_factory.mktemp("repository"))
    tiny = {f"train.{name}": value for name, value in TINY.model_dump(mode="json").items()} | {"data.n_quantiles": 24}
    for dataset in DIALECTS:
        tiny[f"per_dataset.{dataset}"] = f"{{data: {{source: flows/{dataset}.csv.gz}}}}"
    tiny |= {"experiments.rows": 100, "experiments.epochs": 1, "experiments.seeds": 1}
    tiny["per_dataset.cicids2017-improved.data.held_out"] = "stream/sample/sample.csv.gz"
    made.run("dvc", "exp", "run", *(word for key, value in tiny.items() for word in ("--set-param", f"{key}={value}")))
    return made


def test_every_stage_of_every_data_set_is_done(repository: Repository) -> None:
    assert set(DIALECTS) == set(SCHEMAS)
    listed = repository.run("dvc", "stage", "list", "--name-only").split()
    assert sorted(listed) == sorted(f"{stage}@{dataset}" for stage in STAGES for dataset in SCHEMAS)
    for dataset in DIALECTS:
        assert (repository.root / "reports" / dataset / "report.html").exists()
        assert {path.name for path in (repository.root / "bundles" / dataset).iterdir()} == {
            "bundle.json", "bundle.json.sha256", "model.onnx", "reference.npz", "MODEL_CARD.md", "report.html",
        }  # fmt: skip
        assert "Of a twin" in (repository.root / "bundles" / dataset / "MODEL_CARD.md").read_text()


def test_what_is_done_is_not_done_again(repository: Repository) -> None:
    told = repository.run("dvc", "repro")
    assert "Data and pipelines are up to date" in told and "Running stage" not in told


def test_metrics_params_and_plots_are_declared(repository: Repository) -> None:
    shown = repository.run("dvc", "metrics", "show")
    assert "reports/unsw-nb15/metrics.json" in shown and "recall_at_1%_fpr" in shown
    assert "train.d_model" in repository.run("dvc", "params", "diff")
    repository.run("dvc", "plots", "show", "--out", "plots")
    page = (repository.root / "plots" / "index.html").read_text()
    assert "validation_auc" in page and "roc.svg" in page


def test_a_changed_setting_runs_what_hangs_on_it_alone(repository: Repository) -> None:
    waiting = repository.run("dvc", "status")
    assert "up to date" in waiting
    params = repository.root / "params.yaml"
    before = params.read_text()
    try:
        assert before.count("novelty_share: 0.4") == 1
        params.write_text(before.replace("novelty_share: 0.4", "novelty_share: 0.3"))
        changed = {line.rstrip(":") for line in repository.run("dvc", "status").splitlines() if line.endswith(":")}
    finally:
        params.write_text(before)
    stages = {line.partition("@")[0] for line in changed if "@" in line}
    assert stages == {"export", "ship"}


def test_a_remote_gives_back_the_same_bytes(repository: Repository, tmp_path: Path) -> None:
    before = repository.hashes()
    repository.run("dvc", "remote", "add", "--default", "--local", "storage", str(tmp_path))
    repository.run("dvc", "push")
    for lost in (".dvc/cache", "runs", "reports"):
        shutil.rmtree(repository.root / lost)
    repository.run("dvc", "pull")
    after = repository.hashes()
    assert {"runs/unsw-nb15/bundle/model.onnx", "reports/unsw-nb15/metrics.json"} <= after.keys()
    assert after == before
