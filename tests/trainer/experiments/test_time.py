"""Trained on the first days, tested on later ones."""

import numpy as np
import pytest
import torch

from schemas.errors import FlowsentryError
from schemas.params import DataParams, ExperimentsParams, Params
from tests.flows import flows
from tests.trainer.conftest import TINY
from trainer.experiments.time import over_time
from trainer.prepare import Prepared, load_prepared, prepare

DATASET = "cicids2017-improved"
PARAMS = Params(
    data=DataParams(dataset=DATASET, n_quantiles=16), train=TINY, experiments=ExperimentsParams(epochs=3, seeds=1)
)


@pytest.fixture(scope="module")
def of_three_days(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Flows of three days, whose files are not in the order of their days; the last day's have no time of their own."""
    folder = tmp_path_factory.mktemp("days")
    paths = []
    for name, day, seed in (("c", 5, 1), ("a", 3, 2), ("b", 4, 3)):
        table = flows("improved", rows=150, seed=seed)
        for row in range(150):
            table.set(row, "timestamp", f"2017-07-0{day} 1{row % 8}:00:00.5")
        paths.append(table.write(folder / f"{name}.csv"))
    return load_prepared(prepare(paths, PARAMS.data, folder / "out"))


def test_rows_keep_their_times(of_three_days: Prepared) -> None:
    days, counts = np.unique(np.floor(of_three_days.time / 86_400), return_counts=True)
    assert (days - days[0]).tolist() == [0, 1, 2] and counts.min() > 100
    assert np.allclose(of_three_days.time % 3600, 0.5)


def test_each_cut_trains_on_the_days_before_it(of_three_days: Prepared) -> None:
    table = over_time(of_three_days, PARAMS, torch.device("cpu"))
    assert [row[0] for row in table.rows] == ["Mon 03 Jul", "Tue 04 Jul"]
    total = len(of_three_days.x)
    for _, train, test, *figures, new in table.rows:
        assert isinstance(train, int) and isinstance(test, int) and train < total - test < total
        assert all(0 <= float(str(figure)) <= 1 for figure in figures) and len(figures) == 4
        assert isinstance(new, str) and new
    assert table.rows[0][2] > table.rows[1][2]  # type: ignore[operator]


def test_rows_without_times_cannot_be_cut(prepared: Prepared) -> None:
    assert np.isnan(prepared.time).all() and len(prepared.time) == len(prepared.x)
    with pytest.raises(FlowsentryError, match="unsw-nb15: no day has benign flows and attacks before and after it"):
        over_time(prepared, PARAMS, torch.device("cpu"))
