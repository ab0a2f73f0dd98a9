"""The command lines: help with examples, mistakes answered in one line, and nothing heavy before it is needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows import flows
from trainer.__main__ import main

ROOT = Path(__file__).parents[2]
OF_RUNS = ("prepare", "pretrain", "novelty", "finetune", "tune", "compare", "ablate", "unseen", "transfer", "sample")
OF_BUNDLES = ("evaluate", "drift", "card", "register", "promote", "dashboard")


def test_help_lists_every_command_and_all_are_tested_here(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    listed = re.findall(r"^    (\w+)(?: +\w|$)", capsys.readouterr().out, re.MULTILINE)
    assert set(listed) == {*OF_RUNS, *OF_BUNDLES}


@pytest.mark.parametrize("command", [*OF_RUNS, *OF_BUNDLES])
def test_help_shows_what_a_command_takes_and_an_example_of_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert "--set KEY=VALUE" in shown
    assert re.search(rf"^  python -m trainer {command} +--(dataset|bundle)", shown, re.MULTILINE)
    if command in OF_RUNS:
        assert "--dataset {cicids2017,cicids2017-improved,unsw-nb15}" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "train.d_modle=64"], "error: option: train.d_modle: no such setting; did you mean 'd_model'?"),
        (["--set", "trian.d_model=64"], "error: option: trian: no such setting; did you mean 'train'?"),
        (["--set", "train.d_model"], "error: --set train.d_model: expected KEY=VALUE, e.g. train.batch_size=128"),
        (["--set", "train.d_model=wide"], "error: option: train.d_model = 'wide': "),
        (["--set", "train.d_model=10"], "d_model (10) must be a multiple of n_heads (8)"),
        (["--set", "data.test_share=0.95"], "error: option: data.test_share = 0.95: "),
        (["--params", "nowhere.yaml"], "error: nowhere.yaml: No such file or directory"),
    ],
)
@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_wrong_setting_is_named_with_where_it_came_from(
    command: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trane"], "invalid choice: 'trane'"),
        (["prepare", "--dataset", "unsw"], "invalid choice: 'unsw'"),
        (["promote"], "the following arguments are required: --data"),
        (["sample", "--data", "x.csv"], "the following arguments are required: --out"),
        (["sample", "--data", "x.csv", "--out", "y", "--rows", "many"], "invalid int value: 'many'"),
    ],
)
def test_a_wrong_word_ends_with_status_2_and_says_which(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_as_a_program_a_mistake_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "trainer", "prepare", "--data", str(tmp_path), "--set", "train.epochs_finetun=1"],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: option: train.epochs_finetun: no such setting; did you mean 'epochs_finetune'?")


_WHAT_PREPARE_LOADS = """
import sys
from trainer.__main__ import main
status = main(sys.argv[1:])
print(status, *sorted({"torch", "mlflow", "onnx"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("words", [["prepare"], ["sample", "--out", "x"]])
def test_data_come_from_the_settings_where_none_are_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flows("unsw-partition", rows=90).write(tmp_path / "flows" / "some.csv")
    settings = ["--dataset", "unsw-nb15", "--set", "data.source=flows", "--set", "data.n_quantiles=8"]
    assert main(["prepare", *settings]) == 0
    assert main([*words, *settings]) == 0
    assert main([*words, "--dataset", "unsw-nb15"]) == 2
    assert "no data: give --data PATH, or set data.source in params.yaml" in capsys.readouterr().err


def test_preparing_does_without_torch_and_mlflow(tmp_path: Path) -> None:
    data = flows("unsw-partition", rows=60).write(tmp_path / "flows.csv")
    ended = subprocess.run(
        [sys.executable, "-c", _WHAT_PREPARE_LOADS, "prepare", "--dataset", "unsw-nb15", "--data", str(data),
         "--runs", str(tmp_path), "--set", "data.n_quantiles=16"],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1:] == ["0"], ended.stdout + ended.stderr


@pytest.mark.parametrize("option", ["trials", "rows", "epochs"])
def test_a_search_of_nothing_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "--trials", "3", f"--{option}", "0"]
    assert main(words) == 2
    assert f"--{option} 0: expected a number of 1 or more" in capsys.readouterr().err
