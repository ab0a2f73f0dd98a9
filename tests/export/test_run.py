"""A training run on disk, as a bundle is built from it."""

from pathlib import Path

import numpy as np
import pytest

from export.run import read_run
from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError
from tests.export.runs import make_run


def test_a_run_is_read_with_its_splits_and_inputs(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", "unsw-nb15", ("test", "train", "validation", "test")))
    assert run.schema is SCHEMAS["unsw-nb15"]
    assert [run.rows(name).tolist() for name in ("train", "validation", "test")] == [[1], [2], [0, 3]]
    numeric, codes = run.inputs(np.array([3, 0]))
    assert (numeric.shape, codes.shape) == ((2, 39), (2, 3))
    assert (numeric.dtype.name, codes.dtype.name) == ("float32", "int64")
    assert numeric[0].tolist() == [run.x[3, i] for i, it in enumerate(run.schema.features) if it in run.schema.numeric]
    assert codes.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert run.training == {"epochs": 1}
    assert run.model is not None and run.model.read_bytes() == b"no model"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("prepared/metadata.json", "prepare"),
        ("prepared/preprocessor.joblib", "prepare"),
        ("model.pt2", "finetune"),
        ("training.json", "finetune"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path: Path, name: str, command: str) -> None:
    directory = make_run(tmp_path / "run", "cicids2017")
    (directory / name).unlink()
    with pytest.raises(FlowsentryError) as caught:
        read_run(directory)
    assert str(caught.value) == f"{directory / name}: missing. Run `python -m trainer {command}` first"


def test_a_run_of_another_schema_must_be_prepared_again(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", "cicids2017", schema={"version": "0", "hash": "0"})
    with pytest.raises(
        FlowsentryError, match="was prepared with another cicids2017 schema: run `trainer prepare` again"
    ):
        read_run(directory)
