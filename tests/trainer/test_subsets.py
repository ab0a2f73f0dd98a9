"""The same rows under another split."""

from dataclasses import replace

import numpy as np

from schemas.flow import Kind
from schemas.params import DataParams
from trainer.prepare import Prepared
from trainer.splitting import SPLITS
from trainer.subsets import LEFT_OUT, leave_out, resplit, thin

PARAMS = DataParams(dataset="unsw-nb15", n_quantiles=24)


def without(prepared: Prepared, family: str) -> np.ndarray:
    split = prepared.split.copy()
    number = [item.name for item in prepared.schema.families].index(family)
    split[(prepared.family == number) & (split != SPLITS.index("test"))] = LEFT_OUT
    return split


def test_rows_left_out_are_on_no_side_and_teach_nothing(prepared: Prepared) -> None:
    split = without(prepared, "Fuzzers")
    got = resplit(prepared, split, PARAMS)
    assert len(got.x) == len(prepared.x)
    assert np.array_equal(got.split, split)
    taught = got.preprocessor.knots[:, [0, -1]]
    numeric = [feature.kind is Kind.NUMERIC for feature in prepared.schema.features]
    train = prepared.x[split == 0][:, numeric]
    np.testing.assert_allclose(taught[:, 0], np.nanmin(train, axis=0), rtol=1e-6)
    np.testing.assert_allclose(taught[:, 1], np.nanmax(train, axis=0), rtol=1e-6)
    assert np.array_equal(got.x[:, numeric], prepared.x[:, numeric], equal_nan=True), "raw values are as they were"


def test_a_category_that_no_training_row_has_is_unknown_and_the_others_keep_their_names(prepared: Prepared) -> None:
    column = prepared.schema.names.index("proto")
    before = prepared.preprocessor.vocabularies["proto"]
    split = prepared.split.copy()
    gone = before[1]
    split[(prepared.x[:, column] == 2) & (split == 0)] = LEFT_OUT
    got = resplit(prepared, split, PARAMS)
    assert got.preprocessor.vocabularies["proto"] == tuple(name for name in before if name != gone)
    names_before = np.array([None, *before, "?"], dtype=object)[prepared.x[:, column].astype(int)]
    after = got.preprocessor.vocabularies["proto"]
    names_after = np.array([None, *after, "?"], dtype=object)[got.x[:, column].astype(int)]
    assert (names_before == gone).any()
    assert np.array_equal(names_after, np.where(names_before == gone, "?", names_before))
    assert got.preprocessor.benign_categories["proto"].keys() == set(got.preprocessor.vocabularies["proto"])


def test_the_split_of_before_teaches_what_it_taught(prepared: Prepared) -> None:
    got = resplit(prepared, prepared.split, PARAMS)
    assert np.array_equal(got.preprocessor.knots, prepared.preprocessor.knots)
    assert np.array_equal(got.x, prepared.x, equal_nan=True)
    assert got.preprocessor.benign == prepared.preprocessor.benign


def test_thinned_rows_keep_the_share_of_each_family_and_the_other_sides(prepared: Prepared) -> None:
    thinned = thin(prepared.split, prepared.family, 60, seed=1)
    for name in ("validation", "test"):
        assert np.array_equal(thinned == SPLITS.index(name), prepared.split == SPLITS.index(name))
    kept, all_of_them = prepared.family[thinned == 0], prepared.family[prepared.split == 0]
    assert 55 <= len(kept) <= 65
    for number in np.unique(all_of_them):
        expected = (all_of_them == number).sum() * 60 / len(all_of_them)
        assert abs((kept == number).sum() - expected) <= 1 and (kept == number).any()
    assert np.array_equal(thinned, thin(prepared.split, prepared.family, 60, seed=1))
    assert not np.array_equal(thinned, thin(prepared.split, prepared.family, 60, seed=2))


def test_more_rows_than_there_are_are_all_of_them(prepared: Prepared) -> None:
    assert np.array_equal(thin(prepared.split, prepared.family, 10**6, seed=1), prepared.split)


def test_rows_are_left_out_with_all_that_look_like_them(prepared: Prepared) -> None:
    x = prepared.x.copy()
    x[7], x[9] = x[3], x[4]
    rows = np.array([3, 5])
    split = leave_out(replace(prepared, x=x), rows)
    assert np.flatnonzero(split == LEFT_OUT).tolist() == [3, 5, 7]
    others = np.setdiff1d(np.arange(len(x)), [3, 5, 7])
    assert np.array_equal(split[others], prepared.split[others])
