"""A bundle is run by numpy and onnxruntime alone."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_onnx_runtime_reports_to_nobody(tiny_bundle: Path, tmp_path: Path) -> None:
    """From 1.29 on its wheels do, and leave an identity in the home directory."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for code in ("import onnxruntime", "import sys, export; export.load(sys.argv[1])"):
        home = tmp_path / str(len(code))
        home.mkdir()
        command = [sys.executable, "-c", code, tiny_bundle]
        subprocess.run(command, env=environment | {"HOME": str(home)}, cwd=Path(__file__).parents[2], check=True)
        left = [path for path in home.rglob("*") if path.is_file()]
        assert bool(left) == ("export" not in code), left
