"""params.yaml, the environment and options: which one wins, and what a mistake in each is told."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.datasets import SCHEMAS
from schemas.errors import ParamsError
from schemas.params import Params
from schemas.settings import NULL, load_params, parse_value

COMMITTED = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(autouse=True, scope="module")
def _away_from_the_committed_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        yield


def written(folder: Path, text: str) -> Path:
    path = folder / "given.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(options: dict[str, object] | None = None, **sources: Any) -> str:
    with pytest.raises(ParamsError) as caught:
        load_params(options, **{"environment": {}, **sources})
    return str(caught.value)


def test_without_any_source_the_defaults_hold() -> None:
    assert load_params(environment={}) == Params()


def test_option_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = written(tmp_path, "train: {batch_size: 2, n_layers: 2, n_heads: 2}")
    environment = {"FLOWSENTRY_TRAIN__BATCH_SIZE": "3", "FLOWSENTRY_TRAIN__N_LAYERS": "3"}
    train = load_params({"train.batch_size": 4}, file=file, environment=environment).train
    assert (train.batch_size, train.n_layers, train.n_heads, train.d_model) == (4, 3, 2, 128)


OWN = "train: {epochs_finetune: 2, n_layers: 2}\nper_dataset: {unsw-nb15: {train: {epochs_finetune: 5, n_layers: 3}}}"


def test_what_a_file_holds_for_a_data_set_is_laid_over_the_rest_of_the_file_alone(tmp_path: Path) -> None:
    file = written(tmp_path, OWN)
    environment = {"FLOWSENTRY_TRAIN__N_LAYERS": "4"}
    train = load_params({"data.dataset": "unsw-nb15"}, file=file, environment=environment).train
    assert (train.epochs_finetune, train.n_layers) == (5, 4)
    train = load_params(file=file, environment={"FLOWSENTRY_DATA__DATASET": "unsw-nb15"}).train
    assert (train.epochs_finetune, train.n_layers) == (5, 3)
    assert load_params({"data.dataset": "cicids2017"}, file=file, environment={}).train.epochs_finetune == 2
    file = written(tmp_path, OWN + "\ndata: {dataset: unsw-nb15}")
    assert load_params(file=file, environment={}).train.epochs_finetune == 5


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("{unsw: {}}", ["per_dataset.unsw", "'unsw-nb15'"]),
        ("{unsw-nb15: {stream: {}}}", ["per_dataset.unsw-nb15.stream", "no such setting"]),
        (
            "{cicids2017: {train: {epochs: 2}}}",
            ["per_dataset.cicids2017", "train.epochs: no such setting", "batch_size"],
        ),
        ("{unsw-nb15: {data: {dataset: cicids2017}}}", ["data.dataset: no such setting"]),
        ("{unsw-nb15: {train: {n_layers: 0}}}", ["given.yaml per_dataset.unsw-nb15: train.n_layers = 0"]),
        ("{unsw-nb15: 3}", ["per_dataset.unsw-nb15"]),
        ("[1]", ["per_dataset"]),
    ],
)
def test_a_mistake_in_what_a_file_holds_for_a_data_set_is_named(own: str, words: list[str], tmp_path: Path) -> None:
    told = message({"data.dataset": "unsw-nb15"}, file=written(tmp_path, f"per_dataset: {own}"))
    assert "given.yaml" in told
    for word in words:
        assert word in told


def test_an_option_that_was_not_given_changes_nothing_and_a_null_one_does(tmp_path: Path) -> None:
    file = written(tmp_path, "train: {threads: 2}\nstream: {threshold: 0.5}")
    params = load_params({"train.threads": None, "stream.threshold": NULL}, file=file, environment={})
    assert (params.train.threads, params.stream.threshold) == (2, None)


def test_the_file_in_the_working_directory_is_read_and_a_named_one_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("data: {seed: 1}")
    assert load_params(environment={}).data.seed == 1
    assert load_params(file=written(tmp_path, "data: {seed: 2}"), environment={}).data.seed == 2


def test_the_process_environment_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSENTRY_DATA__SEED", "11")
    assert load_params().data.seed == 11


@pytest.mark.parametrize("text", ["", "# nothing\n", "train:\n", "kafka:\n", "{}"])
def test_an_empty_file_or_section_leaves_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_params(file=written(tmp_path, text), environment={}) == Params()


def test_a_section_in_the_environment_is_laid_over_the_files_and_its_settings_over_it(tmp_path: Path) -> None:
    file = written(tmp_path, "train: {batch_size: 2, n_layers: 2}")
    environment = {"FLOWSENTRY_TRAIN__N_LAYERS": "5", "FLOWSENTRY_TRAIN": '{"n_layers": 4, "n_heads": 4}'}
    train = load_params(file=file, environment=environment).train
    assert (train.batch_size, train.n_layers, train.n_heads) == (2, 5, 4)


def test_kafka_takes_any_property_from_every_source(tmp_path: Path) -> None:
    file = written(tmp_path, "kafka: {security.protocol: SSL, linger.ms: 5, client.id: file}")
    environment = {
        "FLOWSENTRY_KAFKA": '{"client.id": "environment", "socket.keepalive.enable": true}',
        "FLOWSENTRY_KAFKA__SASL__PASSWORD": "0123",
    }
    kafka = load_params({"kafka.check.crcs": "true"}, file=file, environment=environment).kafka
    assert kafka == {
        "security.protocol": "SSL",
        "linger.ms": 5,
        "client.id": "environment",
        "socket.keepalive.enable": True,
        "sasl.password": "0123",
        "check.crcs": "true",
    }


def test_a_secret_may_stand_in_a_file_that_any_source_names(tmp_path: Path) -> None:
    password, key = tmp_path / "password", tmp_path / "key.pem"
    password.write_text(" s3cret: #1 \r\n", encoding="utf-8")
    key.write_text("-----BEGIN\nKEY-----\n", encoding="utf-8")
    file = written(tmp_path, f"kafka: {{ssl.key.pem_file: {key}, security.protocol: SASL_SSL}}")
    environment = {"FLOWSENTRY_KAFKA__SASL__PASSWORD_FILE": str(password)}
    options: dict[str, object] = {"kafka.ssl.key.password_file": str(password)}
    assert load_params(options, file=file, environment=environment).kafka == {
        "security.protocol": "SASL_SSL",
        "ssl.key.pem": "-----BEGIN\nKEY-----",
        "sasl.password": " s3cret: #1 ",
        "ssl.key.password": " s3cret: #1 ",
    }


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"\n", "the file is empty"),
        (b"hunter2\xff", "not a path of a UTF-8 text"),
    ],
)
def test_the_file_of_a_secret_that_cannot_be_used_is_named_but_not_shown(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    told = message(environment={"FLOWSENTRY_KAFKA__SASL__PASSWORD_FILE": str(file)})
    assert told == f"environment: kafka.sasl.password_file = {file}: {why}"


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "kafka: {sasl.password: hunter2}")
    told = message(file=file, environment={"FLOWSENTRY_KAFKA__SASL__PASSWORD_FILE": "/run/secrets/kafka"})
    assert told == "environment: kafka.sasl.password_file: kafka.sasl.password is given too; leave one of them out"


def test_params_shown_show_nothing_of_kafka() -> None:
    assert "hunter2" not in repr(load_params({"kafka.sasl.password": "hunter2"}, environment={}))


def test_variables_of_others_and_of_the_tests_are_passed_over() -> None:
    assert load_params(environment={"FLOWSENTRY_TEST_BROKER": "docker", "PATH": "/bin", "FLOWSENTRYX": "1"}) == Params()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.batch_size", "64", 64),
        ("train.threads", "null", None),
        ("stream.create_topics", "true", True),
        ("export.target_fprs", "[0.1, 0.2]", [0.1, 0.2]),
        ("stream.input", "{", "{"),
        ("stream.input", "2001-02-31", "2001-02-31"),
        ("kafka.sasl.password", "0123", "0123"),
        ("kafka.sasl.password", "null", "null"),
        ("kafka", '{"a": 1}', {"a": 1}),
    ],
)
def test_a_text_is_read_as_yaml_but_a_kafka_property_stays_text(key: str, text: str, value: object) -> None:
    assert parse_value(key, text) == value


def test_a_wrong_key_is_named_with_its_source_and_what_is_allowed(tmp_path: Path) -> None:
    wanted = r"train\.d_modle: no such setting; did you mean 'd_model'\? allowed: d_model, n_heads, .*, device"
    file = written(tmp_path, "train: {d_modle: 64}")
    assert re.fullmatch(f"{file}: {wanted}", message(file=file))
    assert re.fullmatch(f"environment: {wanted}", message(environment={"FLOWSENTRY_TRAIN__D_MODLE": "64"}))
    assert re.fullmatch(f"option: {wanted}", message({"train.d_modle": 64}))


def test_a_wrong_section_is_named_with_its_source_and_what_is_allowed(tmp_path: Path) -> None:
    wanted = (
        "no such setting; did you mean 'train'? "
        "allowed: data, train, experiments, export, stream, drift, api, tracking, per_dataset, kafka"
    )
    file = written(tmp_path, "trian: {d_model: 64}")
    assert message(file=file) == f"{file}: trian: {wanted}"
    environment = {"FLOWSENTRY_TRIAN__D_MODEL": "64"}
    assert message(environment=environment) == f"environment FLOWSENTRY_TRIAN__D_MODEL: {wanted}"
    assert message({"trian.d_model": 64}) == f"option: trian: {wanted}"


def test_a_wrong_value_is_named_with_its_source_and_what_is_allowed(tmp_path: Path) -> None:
    wanted = "train.device = 'tpu': Input should be 'auto', 'cpu' or 'cuda'"
    file = written(tmp_path, "train: {device: tpu}")
    assert message(file=file) == f"{file}: {wanted}"
    assert message(environment={"FLOWSENTRY_TRAIN__DEVICE": "tpu"}) == f"environment: {wanted}"
    assert message({"train.device": "tpu"}) == f"option: {wanted}"


def test_the_source_that_won_is_the_one_blamed(tmp_path: Path) -> None:
    file = written(tmp_path, "train: {device: cpu}")
    assert message({"train.device": "tpu"}, file=file).startswith("option: ")
    assert message({"train.d_model": 100}, file=file).startswith("option: ")
    assert message(file=file, environment={"FLOWSENTRY_TRAIN": "{device: tpu}"}).startswith("environment: ")


def test_every_mistake_is_told_at_once() -> None:
    lines = message({"train.batch_size": 0, "stream.workers": 65, "data.x": 1}).splitlines()
    assert len(lines) == 3
    assert "option: train.batch_size = 0: Input should be greater than or equal to 1" in lines
    assert "option: stream.workers = 65: Input should be less than or equal to 64" in lines


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train.d_model": 100}, "option: train: d_model (100) must be a multiple of n_heads (8)"),
        ({"export.target_fprs": [0.1, 1.5]}, "option: export: target_fprs: 1.5 is not between 0 and 1"),
        ({"export.target_fprs": []}, "at least 1 item"),
        ({"data.validation_share": 0.4, "data.test_share": 0.7}, "must be less than 1 together"),
        ({"train.weight_decay": float("inf")}, "train.weight_decay = inf: Input should be a finite number"),
        ({"train.learning_rate": float("nan")}, "train.learning_rate = nan"),
        ({"train": 5}, "option: train = 5: Input should be a valid dictionary"),
        ({"data.dataset": "unsw"}, "Input should be 'cicids2017', 'cicids2017-improved' or 'unsw-nb15'"),
        ({"stream.input": ""}, "stream.input = ''"),
        (
            {"stream.dead_letters": "flows"},
            "stream: input, alerts, dead_letters and events must be topics of their own, and 'flows' is",
        ),
        ({"stream.alerts": "flows.dead"}, "and 'flows.dead' is named twice"),
        ({"kafka.enable.auto.commit": True}, "option: kafka.enable.auto.commit: what is promised of alerts hangs on"),
        ({"kafka.group.id": "x"}, "option: kafka.group.id: set stream.group instead"),
        ({"kafka.isolation.level_file": "x"}, "option: kafka.isolation.level_file: what is promised"),
        ({"": 1}, "no such setting; allowed: data, train"),
    ],
)
def test_values_that_make_no_sense_are_refused(options: dict[str, object], words: str) -> None:
    assert words in message(options)


def test_a_section_that_is_none_is_refused_when_a_setting_is_laid_over_it(tmp_path: Path) -> None:
    file = written(tmp_path, "train: 5")
    assert message({"train.d_model": 64}, file=file) == "option train.d_model: train is 5, expected a section"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kafka.sasl.password": ["hunter2"]}, "option: kafka.sasl.password: expected a text, a number or a boolean"),
        ({"kafka": "hunter2"}, "option: kafka: expected a section"),
    ],
)
def test_a_mistake_in_kafka_is_told_once_and_without_its_value(options: dict[str, object], told: str) -> None:
    assert message(options) == told


def test_a_password_for_a_section_is_not_shown_when_a_setting_is_laid_over_it() -> None:
    told = message({"kafka.sasl.mechanism": "PLAIN"}, environment={"FLOWSENTRY_KAFKA": "hunter2"})
    assert told == "option kafka.sasl.mechanism: kafka is no section"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kafka:\n  sasl.password: %hunter2", "not YAML, line 2, column 18"),
        ("kafka:\n  sasl.password: *hunter2", "not YAML, line 2, column 18"),
        ("kafka:\n  sasl.password: !hunter2", "not YAML, line 2, column 18"),
        ("kafka: [hunter2", "not YAML, line 1, column 16"),
        (
            "sasl.password=hunter2",
            "expected sections (data, train, experiments, export, stream, drift, api, tracking, per_dataset, kafka), got a str",
        ),
    ],
)
def test_a_file_that_is_no_yaml_is_told_by_place_and_not_by_its_content(tmp_path: Path, text: str, told: str) -> None:
    file = written(tmp_path, text)
    assert message(file=file) == f"{file}: {told}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"train: [", "not YAML"),
        (b"when: 2001-02-31", "not YAML"),
        (b"\xff\xfe", "not YAML"),
        (
            b"- train",
            "expected sections (data, train, experiments, export, stream, drift, api, tracking, per_dataset, kafka)",
        ),
        (b"5", "expected sections"),
    ],
)
def test_a_file_that_is_no_params_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "given.yaml"
    file.write_bytes(content)
    assert message(file=file).startswith(f"{file}: ")
    assert words in message(file=file)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    assert message(file=tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: No such file or directory"
    assert message(file=tmp_path) == f"{tmp_path}: Is a directory"


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = [f"{section}.{key}" for section, values in Params().model_dump().items() for key in values] + [
    "kafka.x",
    "train",
]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), YAML_VALUES, max_size=3))
def test_whatever_is_given_is_either_a_setting_or_a_params_error(options: dict[str, object]) -> None:
    try:
        params = load_params(options, environment={})
    except ParamsError as error:
        assert str(error)  # noqa: PT017  (either outcome is right)
    else:
        assert Params.model_validate(params.model_dump()) == params


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["FLOWSENTRY_TRAIN__THREADS", "FLOWSENTRY_KAFKA", "FLOWSENTRY_STREAM__INPUT"]), st.text())
def test_no_text_in_the_environment_is_more_than_a_params_error(name: str, text: str) -> None:
    try:
        load_params(environment={name: text})
    except ParamsError as error:
        assert str(error)  # noqa: PT017


def sections() -> list[tuple[str, type[BaseModel]]]:
    found = []
    for name, field in Params.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found.append((name, field.annotation))
    return found


def test_every_setting_has_a_description() -> None:
    assert [name for name, _ in sections()] == [
        "data",
        "train",
        "experiments",
        "export",
        "stream",
        "drift",
        "api",
        "tracking",
    ]
    assert Params.model_fields["kafka"].description and Params.model_fields["per_dataset"].description
    for section, model in sections():
        assert model.__doc__, section
        assert [key for key, field in model.model_fields.items() if not field.description] == []
        assert model.model_config["extra"] == "forbid"


def test_the_committed_params_file_holds_every_setting_and_its_default(tmp_path: Path) -> None:
    content = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
    assert list(content) == list(Params.model_fields)
    for section, model in sections():
        assert list(content[section]) == list(model.model_fields), section
    of_all = {section: settings for section, settings in content.items() if section != "per_dataset"}
    assert load_params(file=written(tmp_path, yaml.safe_dump(of_all)), environment={}) == Params()


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_committed_file_says_where_each_data_set_lies(name: str) -> None:
    assert load_params({"data.dataset": name}, file=COMMITTED, environment={}).data.source is not None


def test_every_line_of_the_committed_params_file_says_what_it_is() -> None:
    lines = COMMITTED.read_text(encoding="utf-8").splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        assert not line.endswith(":") or above.startswith("# "), line  # a section
        assert not line.startswith("  ") or "# " in line + above, line  # a setting
