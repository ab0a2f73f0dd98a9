"""A bundle is run by numpy and onnxruntime alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCORE_WITH_LITTLE = """
import sys

ALLOWED = {"numpy", "onnxruntime", "export", "schemas", *sys.stdlib_module_names}


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"{name} is not to be imported", name=name)


sys.meta_path.insert(0, Blocked())

import numpy as np
import export

scores = export.load(sys.argv[1]).score({"sttl": np.array([254.0, 31.0]), "proto": np.array(["tcp", None], dtype=object)})
print(*scores.score.tolist())
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"polars", "pydantic", "yaml", "rich", "torch", "onnx"}))
"""


def test_loading_and_scoring_import_nothing_but_numpy_and_onnxruntime(tiny_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCORE_WITH_LITTLE, tiny_bundle],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scores, others = done.stdout.split("\n")[:2]
    first, second = map(float, scores.split())
    assert first > second
    assert others == ""


_IMPORT_WATCHED = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("told" if os.environ.get("ORT_DISABLE_TELEMETRY") == "1" else "not told")

sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize(
    ("loading", "said"), [("import onnxruntime", "not told"), ("import export; export.load(sys.argv[1])", "told")]
)
def test_onnx_runtime_is_told_before_its_import_to_report_to_nobody(
    tiny_bundle: Path, tmp_path: Path, loading: str, said: str
) -> None:
    """From 1.29 on its wheels report, from the moment of import, and may leave an identity in the home directory."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_WATCHED + loading, tiny_bundle],
        env=environment | {"HOME": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[0] == said
    if said == "told":
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
