"""The benchmark of malformed records measures what it says."""

import json
import random

import pytest

from bench.malformed import KINDS, half_malformed, main
from schemas.datasets import SCHEMAS
from stream.decode import Decoder
from tests.stream.records import encode, flow

SCHEMA = SCHEMAS["cicids2017-improved"]


@pytest.mark.parametrize("kind", [*KINDS, "mixed"])
def test_every_other_record_is_set_aside_and_no_other(kind: str) -> None:
    def title(name: str) -> str:
        return name.replace("_", " ").title()

    values = [encode(flow(SCHEMA, lambda feature: title(feature.name), start)) for start in range(40)]
    half = half_malformed(values, kind, random.Random(1))
    decoded = Decoder(SCHEMA, min_feature_coverage=0.5).decode(half)
    assert decoded.rows.tolist() == list(range(0, 40, 2))


def test_it_prints_its_figures_and_fails_below_the_ratio_that_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--kind", "NaN", "--batch-size", "32", "--rounds", "1"]
    assert main([*arguments, "--least", "0"]) == 0
    report = json.loads(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("{")))
    assert [result["timed"] for result in report["results"]] == ["decode", "decode, set aside", "all"]
    assert all(result["ratio"] > 0 for result in report["results"])
    assert main([*arguments, "--least", "1000"]) == 1
    assert main([*arguments, "--no-score", "--least", "1000"]) == 0
