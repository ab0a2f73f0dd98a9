"""The benchmark of `prepare`: it writes as many flows as it is told, and fails where they take too much memory."""

from pathlib import Path

import pytest

from bench import prepare
from schemas.datasets import SCHEMAS
from trainer.reading import read_all


@pytest.mark.parametrize("dataset", SCHEMAS)
def test_all_flows_that_are_written_can_be_read(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_CHUNK", 40)
    size = prepare.write_flows(tmp_path / "flows", SCHEMAS[dataset], 100)
    files = sorted((tmp_path / "flows").iterdir())
    assert len(files) == 3 and size == sum(path.stat().st_size for path in files)
    assert read_all(files, SCHEMAS[dataset], benign_only=False).x.shape == (100, len(SCHEMAS[dataset].features))


def test_more_memory_than_is_allowed_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "unsw-nb15", "--rows", "400"]
    assert prepare.main(words) == 0
    assert "unsw-nb15: 400 rows of 42 features" in capsys.readouterr().out
    assert prepare.main([*words, "--most-gb", "0.01"]) == 1
