"""The Helm chart: by helm and kubeconform, with each of its example values, and what it makes of them."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.params import Params
from stream.__main__ import parser
from tests.deploy.dockerfile import ROOT
from tests.deploy.tools import BIN, absent, linted, package_directory, tool

CHART = ROOT / "deploy/helm/flowsentry"
EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))
KUBERNETES = "1.33.0"
NAMES = [path.name.removesuffix("-values.yaml") for path in EXAMPLES]


def rendered(example: str, *options: str) -> str:
    """What `helm template` makes of an example's values."""
    values = CHART / f"ci/{example}-values.yaml"
    return linted(tool("helm"), "template", "soc", CHART, "--kube-version", KUBERNETES, "--values", values, *options)


def objects(example: str, *options: str) -> dict[str, Any]:
    """By kind, of which there is one each."""
    found = [each for each in yaml.safe_load_all(rendered(example, *options)) if each]
    assert len({each["kind"] for each in found}) == len(found)
    return {each["kind"]: each for each in found}


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kubernetes' schemas and those of the custom resources, as kubeconform reads them, without the network."""
    target = tmp_path_factory.mktemp("schemas")
    source = package_directory("kubernetes_validate") / f"kubernetes-json-schema/v{KUBERNETES}-local-strict"
    for path in source.glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8").replace("/api/_definitions.json", "_definitions.json"))
        schema.pop("$id", None)  # which would send kubeconform to a server
        (target / path.name).write_text(json.dumps(schema), encoding="utf-8")
    if not (BIN / "crds").is_dir():
        absent("the schema of a ScaledObject")
    for path in (BIN / "crds").glob("*.yaml"):
        resource = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        group = resource["group"].partition(".")[0]
        for version in resource["versions"]:
            name = f"{resource['names']['singular']}-{group}-{version['name']}.json"
            schema = _closed(version["schema"]["openAPIV3Schema"])
            (target / name).write_text(json.dumps(schema), encoding="utf-8")
    yield target
    shutil.rmtree(target)


def _closed(schema: Any) -> Any:
    """The schema, which now refuses fields that it does not name, as the server prunes them."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if "properties" in closed and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


def conforms(text: str, schemas: Path) -> "subprocess.CompletedProcess[str]":
    location = f"{schemas}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    command = [tool("kubeconform"), "-strict", "-kubernetes-version", KUBERNETES, "-schema-location", location]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("example", NAMES)
def test_helm_lint_finds_nothing(example: str) -> None:
    linted(tool("helm"), "lint", "--strict", CHART, "--values", CHART / f"ci/{example}-values.yaml")


@pytest.mark.parametrize("example", NAMES)
def test_kubernetes_knows_every_field(example: str, schemas: Path) -> None:
    done = conforms(rendered(example), schemas)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("example", "right", "wrong"),
    [
        ("default", "readOnlyRootFilesystem", "readonlyRootFilesystem"),
        ("keda", "scaleTargetRef:", "scaleTarget:"),
        ("keda", "endpoints:", "endPoints:"),
    ],
)
def test_a_field_that_is_misspelt_is_noticed(example: str, right: str, wrong: str, schemas: Path) -> None:
    text = rendered(example)
    assert right in text and conforms(text.replace(right, wrong), schemas).returncode != 0


@pytest.mark.parametrize("example", NAMES)
def test_params_and_arguments_are_those_of_the_service(example: str) -> None:
    made = objects(example)
    params = Params.model_validate(yaml.safe_load(made["ConfigMap"]["data"]["params.yaml"]))
    pod = made["StatefulSet"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    arguments = parser().parse_args(container["args"])
    assert str(arguments.params) == f"{container['volumeMounts'][0]['mountPath']}/params.yaml"
    assert container["ports"] == [{"name": "metrics", "containerPort": params.stream.metrics_port}]
    assert pod["terminationGracePeriodSeconds"] > params.stream.stop_timeout_s
    assert pod["enableServiceLinks"] is False  # FLOWSENTRY_SERVICE_HOST would be taken for a setting


@pytest.mark.parametrize("example", NAMES)
def test_a_pod_is_hardened(example: str) -> None:
    pod = objects(example)["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_who_scales_sets_the_replicas_alone() -> None:
    fixed, lag, load = (objects(example) for example in ("default", "keda", "hpa"))
    assert fixed["StatefulSet"]["spec"]["replicas"] == 2
    assert not {"ScaledObject", "HorizontalPodAutoscaler"} & set(fixed)
    for made, scaler in ((lag, "ScaledObject"), (load, "HorizontalPodAutoscaler")):
        assert "replicas" not in made["StatefulSet"]["spec"]
        target = made[scaler]["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("StatefulSet", made["StatefulSet"]["metadata"]["name"])
    assert "HorizontalPodAutoscaler" not in lag and "ScaledObject" not in load


def test_the_scaler_looks_at_the_group_and_topic_that_the_service_reads() -> None:
    made = objects("keda", "--set", "params.stream.group=soc", "--set", "params.stream.input=netflow")
    metadata = made["ScaledObject"]["spec"]["triggers"][0]["metadata"]
    assert (metadata["consumerGroup"], metadata["topic"]) == ("soc", "netflow")
    assert metadata["bootstrapServers"] == "kafka-1:9093,kafka-2:9093"


def test_a_secret_is_a_file_and_never_a_value() -> None:
    made = objects("secured")
    pod = made["StatefulSet"]["spec"]["template"]["spec"]
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "kafka")
    assert volume["secret"]["secretName"] == "flowsentry-kafka"
    mount = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "kafka")
    kafka = yaml.safe_load(made["ConfigMap"]["data"]["params.yaml"])["kafka"]
    assert kafka["sasl.password_file"].startswith(f"{mount['mountPath']}/")
    assert "Secret" not in made


def test_only_kafka_and_names_can_be_reached() -> None:
    policy = objects("secured")["NetworkPolicy"]["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [53, 53, 9093]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["metrics"]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("params.stream.bootstrap_servers=", "bootstrap_servers"),
        (r"params.kafka.sasl\.password=hunter2", "sasl.password"),
        ("params.stream.workers=2", "workers"),
        ("autoscaling.mode=both", "mode"),
        ("replica=3", "replica"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(option: str, told: str) -> None:
    values = CHART / "ci/default-values.yaml"
    command = [tool("helm"), "template", "soc", str(CHART), "--kube-version", KUBERNETES]
    done = subprocess.run([*command, "--values", str(values), "--set", option], capture_output=True, text=True)
    assert done.returncode != 0 and told in done.stderr
