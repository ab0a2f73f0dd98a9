"""With and without what a detector may know the test bed by, be it a feature or, for the experiment, made one."""

from pathlib import Path

import pytest
import torch

from schemas.datasets import SCHEMAS
from schemas.flow import Feature
from schemas.params import DataParams, ExperimentsParams, Params
from tests.flows import flows
from tests.trainer.conftest import TINY
from trainer.experiments.shortcuts import SHORTCUTS, shortcuts, with_columns
from trainer.prepare import load_prepared, prepare

CPU = torch.device("cpu")


@pytest.mark.parametrize("dialect", ["cicids2017", "improved"])
def test_a_port_that_gives_attacks_away_is_seen_where_it_is_a_feature(dialect: str, tmp_path: Path) -> None:
    table = flows(dialect, rows=400, seed=4, separation=0.0)
    for row, family in enumerate(table.families):
        table.set(row, "dst_port", "443" if family == "Benign" else "8080")
    path = table.write(tmp_path / "flows.csv")
    data = DataParams(dataset=table.schema.name, n_quantiles=24)
    params = Params(data=data, train=TINY, experiments=ExperimentsParams(epochs=30, seeds=1))
    prepared = load_prepared(prepare([path], data, tmp_path / "prepared"))
    found = shortcuts(prepared, params, lambda: [path], CPU)
    (with_it, auc, *_), (without, blind, *_) = found.rows
    assert (with_it, without) == ("with the destination port", "without the destination port")
    assert float(str(auc)) > 0.95 > 0.8 > float(str(blind))


def test_every_data_set_has_shortcuts_that_it_knows() -> None:
    assert SHORTCUTS.keys() == SCHEMAS.keys()
    for name, (_, columns) in SHORTCUTS.items():
        schema = with_columns(SCHEMAS[name], columns)
        assert set(columns) <= set(schema.names)
        assert not {column.name for column in schema.metadata} & set(columns)


def test_a_column_that_becomes_a_feature_keeps_its_spellings() -> None:
    schema = with_columns(SCHEMAS["cicids2017"], ["dst_port"])
    assert isinstance(schema.roles["destination_port"], Feature)
    assert schema.names[:-1] == SCHEMAS["cicids2017"].names and schema.names[-1] == "dst_port"
    assert schema.fingerprint() != SCHEMAS["cicids2017"].fingerprint()
