"""What all command lines share: `--params`, `--set`, and how an error ends a command."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.cli import add_common, common_options, run_command
from schemas.errors import BundleError, FlowsentryError, HeaderError, LabelError, ParamsError
from schemas.settings import load_params


def arguments(*argv: str) -> argparse.Namespace:
    command = argparse.ArgumentParser()
    add_common(command)
    return command.parse_args(argv)


def failing(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


def test_set_may_be_repeated_and_takes_yaml() -> None:
    given = arguments("--set", "train.batch_size=128", "--set", "export.target_fprs=[0.1, 0.2]", "--params", "p.yaml")
    assert given.params == Path("p.yaml")
    assert common_options(given) == {"train.batch_size": 128, "export.target_fprs": [0.1, 0.2]}
    assert common_options(arguments()) == {}


def test_set_to_null_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("train: {threads: 2}")
    options = common_options(arguments("--set", "train.threads=null"))
    assert load_params(options, file=file, environment={}).train.threads is None


def test_a_commands_own_option_wins_over_set_where_it_was_given() -> None:
    given = arguments("--set", "data.seed=1", "--set", "data.test_share=0.3")
    options = common_options(given, {"data.seed": 2, "data.test_share": None, "data.dataset": None})
    assert options == {"data.seed": 2, "data.test_share": 0.3}


def test_set_keeps_a_kafka_property_and_an_equals_sign_as_text() -> None:
    options = common_options(arguments("--set", "kafka.sasl.password=01=23"))
    assert load_params(options, environment={}).kafka == {"sasl.password": "01=23"}


def test_set_without_a_value_is_an_error_that_shows_how() -> None:
    with pytest.raises(ParamsError, match=r"--set train: expected KEY=VALUE, e\.g\. train\.batch_size=128"):
        common_options(arguments("--set", "train"))


def test_set_without_a_value_shows_nothing_that_may_be_a_password() -> None:
    with pytest.raises(ParamsError, match=r"^--set kafka\.…: expected KEY=VALUE"):
        common_options(arguments("--set", "kafka.sasl.password:hunter2"))


def test_help_warns_of_secrets_among_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        arguments("--help")
    assert "No secrets: every user of the machine sees" in " ".join(capsys.readouterr().out.split())


def test_a_command_that_ends_well_gives_its_own_status() -> None:
    assert run_command(lambda: 0) == 0
    assert run_command(lambda: 7) == 7


@pytest.mark.parametrize("kind", [FlowsentryError, HeaderError, LabelError, ParamsError, BundleError])
def test_an_error_that_the_user_can_mend_is_one_line_and_status_2(
    kind: type[FlowsentryError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(failing(kind("the file is empty"))) == 2
    assert capsys.readouterr() == ("", "error: the file is empty\n")


def test_a_file_that_cannot_be_opened_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(lambda: int((tmp_path / "none").read_text())) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory\n"


@pytest.mark.parametrize(("package", "extra"), [("torch", "trainer"), ("streamlit", "dashboard")])
def test_a_missing_package_is_named_with_the_extra_that_has_it(
    package: str, extra: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(failing(ModuleNotFoundError(f"No module named '{package}'", name=package))) == 2
    assert capsys.readouterr().err == f"error: this needs the package {package}: pip install 'flowsentry[{extra}]'\n"


def test_interrupted_is_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError("bug"), OSError("no file"), ModuleNotFoundError(name="typo")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_command(failing(error))
