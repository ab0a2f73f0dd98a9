"""`python -m export`: what the commands print, write and return."""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from export.__main__ import main, parser
from tests.bundles import make_bundle
from tests.flows import DIALECTS, flows


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def verdicts(path: Path) -> list[int]:
    with path.open(newline="") as file:
        return [int(row["verdict"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_score_a_csv_of_every_dialect(
    tiny_bundles: dict[str, Path], dialect: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = flows(dialect, rows=50)
    table.rows[1].append("surplus")
    table.write(tmp_path / "flows.csv")
    bundle = str(tiny_bundles[table.schema.name])
    argv = ["score", bundle, "--input", "flows.csv", "--output", "scores.csv"]
    assert main([*argv, "--rejects", "rejects.csv"]) == 0
    found = verdicts(tmp_path / "scores.csv")
    assert len(found) == 49
    told = f"49 rows scored, {sum(found)} attacks → scores.csv\n"
    if missing := table.schema.bind(table.header).missing:
        told += f"no column for {', '.join(missing)}: scored as missing\n"
    assert capsys.readouterr() == ("", f"{told}1 rows refused (malformed_row: 1) → rejects.csv\n")
    assert len((tmp_path / "rejects.csv").read_text().splitlines()) == 2

    assert main(argv) == 0
    assert capsys.readouterr().err.endswith("1 rows refused (malformed_row: 1) (--rejects FILE lists them)\n")


def test_score_takes_the_threshold_from_the_options_then_the_file(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flows("unsw-partition", rows=200).write(tmp_path / "flows.csv")

    def attacks(*options: str) -> int:
        argv = ["score", str(tiny_bundle), "--input", "flows.csv", "--output", "scores.csv"]
        assert main([*argv, *options]) == 0
        return sum(verdicts(tmp_path / "scores.csv"))

    by_default, everything = attacks(), attacks("--threshold", "0")
    loose = attacks("--target-fpr", "0.05")
    assert by_default < loose < everything == 200
    assert attacks("--target-fpr", "0.01") == by_default
    (tmp_path / "params.yaml").write_text("stream: {threshold: 0}")
    assert attacks() == everything
    assert attacks("--target-fpr", "0.05") == loose
    assert attacks("--set", "stream.threshold=null") == by_default
    assert attacks("--set", "stream.threshold=null", "--set", "stream.target_fpr=0.05") == loose
    assert capsys.readouterr().err.count("rows scored") == 8


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--target-fpr", "0.3"],
            "no threshold for a false-positive rate of 0.3: it has 0.0001, 0.001, 0.005, 0.01, 0.05",
        ),
        (["--target-fpr", "2"], "option: stream.target_fpr = 2.0: Input should be less than 1"),
        (["--threshold", "1.5"], "option: stream.threshold = 1.5: Input should be less than or equal to 1"),
        (["--set", "stream.min_feature_coverage=2"], "option: stream.min_feature_coverage = 2"),
        (["--params", "none.yaml"], "none.yaml: No such file or directory"),
        (["--output", "no/such/directory/scores.csv"], "no/such/directory/scores.csv: No such file or directory"),
        (["--output", "flows.csv"], "flows.csv: is the input, which would be overwritten"),
        (["--input", "none.csv"], "none.csv: No such file or directory"),
        (["--input", "."], ".: Is a directory"),
        (["--input", "wrong.csv"], "wrong.csv: none of the 3 columns is a feature of unsw-nb15: the first is 'a'"),
        (["--input", "few.csv"], "few.csv: has 5% of the features of unsw-nb15, at least 50% are needed"),
    ],
)
def test_a_mistake_is_one_clear_line_and_status_2(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    flows("unsw-partition", rows=3).write(tmp_path / "flows.csv")
    (tmp_path / "wrong.csv").write_text("a,b,c\n1,2,3\n")
    (tmp_path / "few.csv").write_text("dur,proto\n1,tcp\n")
    assert main(["score", str(tiny_bundle), "--input", "flows.csv", "--output", "scores.csv", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "scores.csv").exists()


def test_score_of_a_damaged_bundle_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_bundle(tmp_path / "bundle", "unsw-nb15")
    (bundle / "model.onnx").write_bytes(b"")
    assert main(["score", "bundle", "--input", "flows.csv", "--output", "scores.csv"]) == 2
    assert capsys.readouterr().err.startswith("error: bundle/model.onnx: sha256 is ")


def test_verify_prints_a_line_per_check_and_a_failure_is_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle", "cicids2017")
    assert main(["verify", "bundle"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 11
    assert out.startswith("hashes     3 files as recorded; bundle ")
    assert err == ""
    (bundle / "reference.npz").unlink()
    assert main(["verify", "bundle"]) == 2
    assert capsys.readouterr().err.startswith("error: bundle/reference.npz: missing")


def test_the_examples_of_signing_and_pulling_work_when_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bundle(tmp_path / "bundles" / "unsw-nb15", "unsw-nb15")
    lines = [line.strip() for line in (parser().epilog or "").splitlines() if line.startswith("  python -m export ")]
    wanted = ("keygen ", "sign ", "verify ", "pull   bundles")
    commands = [line.removeprefix("python -m export ") for line in lines]
    for line in (line for line in commands if line.startswith(wanted)):
        assert main(shlex.split(line)) == 0, line
    out, err = capsys.readouterr()
    [key] = re.findall("^key ([0-9a-f]{16}): ", out, re.MULTILINE)
    assert f"key {key}: keys/signing.key signs, keep it to yourself; keys/signing.pub checks\n" in out
    assert "wrote bundles/unsw-nb15/bundle.json.sig\n" in out
    assert f"signature  by trusted key {key}\n" in out
    assert "bundles/live: switched to tiny-unsw-nb15 0.0.1 " in out
    assert err == ""
    assert main(["score", "bundles/live", "--input", "none.csv", "--output", "scores.csv"]) == 2  # but it was loaded
    assert capsys.readouterr().err == "error: none.csv: No such file or directory\n"


def test_a_key_with_a_password_reads_it_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bundle(tmp_path / "bundle", "unsw-nb15")
    (tmp_path / "password").write_text("correct horse\n")
    (tmp_path / "empty").write_text("\nsecond line")
    assert main(["keygen", "--out", ".", "--password-file", "password"]) == 0
    assert main(["sign", "bundle", "--key", "signing.key", "--password-file", "password"]) == 0
    assert main(["verify", "bundle", "--trusted-keys", "signing.pub", "--require-signature"]) == 0
    capsys.readouterr()
    assert main(["sign", "bundle", "--key", "signing.key"]) == 2
    assert capsys.readouterr().err == "error: signing.key: has a password: give it with --password-file\n"
    assert main(["sign", "bundle", "--key", "signing.key", "--password-file", "empty"]) == 2
    assert capsys.readouterr().err == "error: --password-file empty: its first line is empty\n"
    assert main(["keygen", "--out", "."]) == 2
    assert capsys.readouterr().err == "error: signing.key: File exists\n"


@pytest.mark.parametrize("command", ["verify", "score", "pull"])
def test_a_signature_that_the_settings_require_is_required_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    make_bundle(tmp_path / "bundle", "unsw-nb15")
    assert main(["keygen", "--out", "."]) == 0
    (tmp_path / "params.yaml").write_text("stream: {require_signature: true, trusted_keys: signing.pub}\n")
    capsys.readouterr()
    more = {"verify": [], "score": ["--input", "i", "--output", "o"], "pull": ["--to", "live"]}[command]
    assert main([command, "bundle", *more]) == 2
    assert "bundle.json.sig: missing, and a signature is required" in capsys.readouterr().err


def test_pull_refuses_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "bundle", "--to", "live", "--every", "0"]) == 2
    assert capsys.readouterr().err == "error: --every 0.0: expected a number of seconds above 0\n"
    assert main(["pull", "s3://bucket", "--to", "live"]) == 2
    assert capsys.readouterr().err.startswith("error: s3://bucket: expected models:/NAME@ALIAS, ")
    assert main(["pull", "none", "--to", "live"]) == 2
    assert capsys.readouterr().err == "error: none: none: no such bundle directory\n"


def test_verify_without_the_trainers_packages_says_what_to_install(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["verify", str(tiny_bundle)]) == 2
    assert capsys.readouterr().err == "error: this needs the package onnx: pip install 'flowsentry[trainer]'\n"


def test_build_without_the_trainers_packages_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    monkeypatch.delitem(sys.modules, "export.build", raising=False)
    assert main(["build", "--dataset", "unsw-nb15"]) == 2
    assert capsys.readouterr().err == "error: this needs the package joblib: pip install 'flowsentry[trainer]'\n"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["score", "bundle"], "the following arguments are required: --input, --output"),
        (["verify"], "the following arguments are required: DIR"),
        (["keygen"], "the following arguments are required: --out"),
        (["sign", "bundle"], "the following arguments are required: --key"),
        (["pull", "bundle"], "the following arguments are required: --to"),
        (["sign", "bundle", "--key", "k", "--password", "p"], "unrecognized arguments: --password p"),
        (["train"], "invalid choice: 'train'"),
        (["build", "--dataset", "kdd99"], "invalid choice: 'kdd99'"),
        (
            ["score", "b", "--input", "i", "--output", "o", "--threshold", ".5", "--target-fpr", ".1"],
            "not allowed with",
        ),
    ],
)
def test_a_wrong_command_line_is_status_2(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("command", ["build", "verify", "score", "keygen", "sign", "pull"])
def test_help_explains_every_option_and_gives_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m export {command}" in text.partition("examples:")[2]
    assert "--params" in text


def test_the_command_line_itself(tiny_bundle: Path, tmp_path: Path) -> None:
    flows("unsw-raw-headerless", rows=9).write(tmp_path / "flows.csv.gz")
    command = [
        sys.executable,
        "-m",
        "export",
        "score",
        str(tiny_bundle),
        "--input",
        "flows.csv.gz",
        "--output",
        "scores.csv",
    ]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("9 rows scored, ")
    assert len(verdicts(tmp_path / "scores.csv")) == 9
    done = subprocess.run([*command, "--input", "none"], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (2, "error: none: No such file or directory\n")
