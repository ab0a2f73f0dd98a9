"""Categories get their codes as they come, and their lasting ones when it is known which rows are learnt from."""

from pathlib import Path

import numpy as np
import pytest

from schemas.datasets import SCHEMAS
from tests.flows import flows
from trainer.reading import Categories, read_all

SCHEMA = SCHEMAS["unsw-nb15"]


def objects(*values: str | None) -> np.ndarray:
    return np.array(values, dtype=object)


def test_codes_are_given_in_the_order_of_appearance_and_stay() -> None:
    categories = Categories(SCHEMA)
    assert categories.encode("proto", objects("udp", None, "arp", "udp")).tolist() == [1, 0, 2, 1]
    assert categories.encode("proto", objects("tcp", "arp")).tolist() == [3, 2]
    assert categories.encode("service", objects("tcp")).tolist() == [1], "each feature has its own"


def test_lasting_codes_are_of_the_sorted_categories_that_are_present_and_the_rest_is_unknown() -> None:
    categories = Categories(SCHEMA)
    codes = categories.encode("proto", objects("udp", None, "arp", "tcp"))
    vocabulary, recoded = categories.of_codes("proto", codes[:3])
    assert vocabulary == ("arp", "udp")
    assert recoded[codes.astype(int)].tolist() == [2, 0, 1, 3]
    assert categories.of_codes("proto", codes[1:2])[0] == ()


def test_a_file_of_many_batches_is_read_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.reading._BATCH_ROWS", 7)
    tables = [flows("unsw-partition", rows=50, seed=seed) for seed in (1, 2)]
    paths = [table.write(tmp_path / f"{number}.csv") for number, table in enumerate(tables)]
    whole = read_all(paths, SCHEMA, benign_only=False)
    durations = [float(table.get(row, "dur")) for table in tables for row in range(50)]
    np.testing.assert_allclose(whole.x[:, 0], np.array(durations, dtype=np.float32))
    assert len(whole.x) == len(whole.family) == len(whole.time) == 100
