"""docker-compose.yml: it holds together, is hardened, and says nothing that the service or Kafka would refuse."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from schemas.settings import load_params
from stream.__main__ import parser
from stream.broker import kafka_command
from stream.topics import COMPACTED, LARGE_MESSAGES, UNPACKED
from tests.deploy.dockerfile import ROOT, read
from tests.deploy.tools import BIN, absent, linted, tool

FILE = ROOT / "docker-compose.yml"
PROFILES = ("demo", "train")
PATIENCE_S = 60.0
# Kafka's kafka-topics.sh is in a package of its own; this one takes the options that create-topics.sh gives it.
_KAFKA_TOPICS = """
import argparse
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
options = argparse.ArgumentParser(allow_abbrev=False)
options.add_argument("--bootstrap-server", required=True)
options.add_argument("--create", action="store_true", required=True)
options.add_argument("--if-not-exists", action="store_true", required=True)
options.add_argument("--topic", required=True)
options.add_argument("--partitions", type=int, required=True)
options.add_argument("--replication-factor", type=int, required=True)
options.add_argument("--config", action="append", default=[])
given = options.parse_args()
admin = AdminClient({"bootstrap.servers": given.bootstrap_server})
if given.topic not in admin.list_topics(timeout=10).topics:
    config = dict(each.split("=", 1) for each in given.config)
    topic = NewTopic(given.topic, given.partitions, given.replication_factor, config=config)
    admin.create_topics([topic])[given.topic].result(10)
"""


def _compose() -> list[str]:
    """Docker's plug-in, or the program that `make lint-deploy` builds; a docker-compose elsewhere may be the old one."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    built = shutil.which("docker-compose", path=str(BIN))
    if built is None:
        absent("docker compose")
    return [str(built)]


def _value(text: str) -> str:
    """${NAME:-default} → default."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)


def _values(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: _value(value) for name, value in environment.items()}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Every service, as YAML has it, with what it merges in."""
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]
    return loaded


@pytest.mark.parametrize("profiles", [(), ("demo",), ("train",), PROFILES])
def test_docker_compose_takes_it(profiles: tuple[str, ...]) -> None:
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    config = json.loads(linted(*_compose(), "--file", FILE, *chosen, "config", "--format", "json"))
    assert ("replay" in config["services"], "train" in config["services"]) == ("demo" in profiles, "train" in profiles)


def test_every_container_is_hardened_and_limited(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(_value(service["user"]).partition(":")[0]) > 0, f"{name} runs as root"
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert service["restart"] == ("no" if name in ("topics", "replay", "train") else "unless-stopped"), name


def test_what_keeps_running_has_a_health_check(services: dict[str, Any]) -> None:
    inherited = [step for step in read(ROOT / "deploy/docker/Dockerfile.service") if step.word == "HEALTHCHECK"]
    for name, service in services.items():
        if service["restart"] == "unless-stopped":
            assert "healthcheck" in service or (service["image"].startswith("flowsentry-service:") and inherited), name


def test_ports_are_open_to_this_machine_alone(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) >= 5 and all(port.startswith("127.0.0.1:") for port in ports)


def test_images_that_are_not_built_here_have_a_version(services: dict[str, Any]) -> None:
    foreign = [service["image"] for service in services.values() if "build" not in service]
    assert len(foreign) >= 5
    for image in foreign:
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)*:v?\d[\w.-]*(@sha256:[0-9a-f]{64})?", image), image


def test_no_secret_stands_in_it(services: dict[str, Any]) -> None:
    secrets = yaml.safe_load(FILE.read_text(encoding="utf-8"))["secrets"]
    assert secrets and all(set(secret) == {"file"} for secret in secrets.values())
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if any(word in name.upper() for word in ("PASSWORD", "SECRET", "TOKEN", "KEY")):
                assert name.endswith("_FILE") and str(value).startswith("/run/secrets/"), name


def test_make_secrets_draws_those_that_it_names_once(tmp_path: Path) -> None:
    wanted = [Path(secret["file"]) for secret in yaml.safe_load(FILE.read_text(encoding="utf-8"))["secrets"].values()]
    make = ["make", "--silent", "--file", str(ROOT / "Makefile"), "secrets"]
    subprocess.run(make, cwd=tmp_path, check=True)
    drawn = [(tmp_path / path).read_text() for path in wanted]
    assert all(len(each) == 48 for each in drawn) and len(set(drawn)) == len(drawn)
    assert (tmp_path / wanted[0]).parent.stat().st_mode & 0o777 == 0o700
    subprocess.run(make, cwd=tmp_path, check=True)
    assert [(tmp_path / path).read_text() for path in wanted] == drawn


def test_commands_and_settings_are_those_of_the_service(services: dict[str, Any], tmp_path: Path) -> None:
    for name in ("detector", "api", "replay"):
        parser().parse_args(services[name]["command"])
    key = tmp_path / "api_key"
    key.write_text("drawn")
    for name in ("detector", "api", "replay", "train"):
        environment = _values(services[name]["environment"])
        if name == "api":
            assert environment["FLOWSENTRY_API__KEY_FILE"] == "/run/secrets/api_key"
            environment["FLOWSENTRY_API__KEY_FILE"] = str(key)
        params = load_params(file=ROOT / "params.yaml", environment=environment)
        assert (ROOT / params.stream.bundle).is_dir()
    assert params.tracking.mlflow_uri == "http://mlflow:5000"


def test_the_detector_has_time_to_stop(services: dict[str, Any]) -> None:
    detector = services["detector"]
    params = load_params(file=ROOT / "params.yaml", environment=_values(detector["environment"]))
    assert float(detector["stop_grace_period"].removesuffix("s")) > params.stream.stop_timeout_s


def test_a_detector_that_is_made_anew_keeps_its_name(services: dict[str, Any]) -> None:
    assert services["detector"]["hostname"] == "detector"


def test_prometheus_and_grafana_look_where_the_services_are(services: dict[str, Any]) -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    targets = [
        target for job in scraped["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    ]
    assert "detector:9108" in targets and services["detector"]["ports"] == ["127.0.0.1:9108:9108"]
    assert "api:8080" in targets and services["api"]["ports"] == ["127.0.0.1:8080:8080"]
    sources = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8")
    )
    assert [source["url"] for source in sources["datasources"]] == ["http://prometheus:9090"]


def test_promtool_takes_the_configuration() -> None:
    linted(tool("promtool", "apt-get install prometheus"), "check", "config", ROOT / "deploy/prometheus/prometheus.yml")


@pytest.fixture(scope="module")
def kafka(services: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The compose file's Kafka, but for host names and ports: its servers, and a directory with bin/kafka-topics.sh.

    The class that reads the settings is the one by which the official image starts.
    """
    home = tmp_path_factory.mktemp("kafka")
    for name in ("default", "mounted", "final", "data", "bin"):
        (home / name).mkdir()
    for name in ("server.properties", "log4j2.yaml", "tools-log4j2.yaml"):  # which the image has
        (home / "default" / name).touch()
    environment = {**os.environ, **_values(services["kafka"]["environment"]), "KAFKA_LOG_DIRS": str(home / "data")}
    ports = _free_ports(3)
    for name in ("KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS", "KAFKA_CONTROLLER_QUORUM_VOTERS"):
        text = re.sub(r"//(kafka)?:", "//127.0.0.1:", environment[name])
        for said, free in zip(("19092", "9092", "9093"), ports, strict=True):
            text = text.replace(f":{said}", f":{free}")
        environment[name] = text
    java = kafka_command()
    folders = [word for name in ("default", "mounted", "final") for word in (f"--{name}-configs-dir", str(home / name))]
    setup = [*java, "kafka.docker.KafkaDockerWrapper", "setup", *folders]
    done = subprocess.run(setup, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    script = home / "bin/kafka-topics.sh"
    script.write_text(f"#!{sys.executable}\n{_KAFKA_TOPICS}")
    script.chmod(0o755)
    servers = f"127.0.0.1:{ports[0]}"
    process = subprocess.Popen([*java, "-Xmx256m", "kafka.Kafka", str(home / "final/server.properties")], cwd=home)
    try:
        _wait_for(servers, process)
        yield servers, home
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _wait_for(servers: str, process: "subprocess.Popen[bytes]") -> None:
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert process.poll() is None, "Kafka has ended"
        try:
            admin.list_topics(timeout=1)
        except KafkaException:
            assert time.monotonic() < deadline, "Kafka does not answer"
        else:
            return


def test_its_kafka_starts_and_gets_the_topics_as_the_service_would_make_them(
    services: dict[str, Any], kafka: tuple[str, Path]
) -> None:
    servers, home = kafka
    environment = {**os.environ, **_values(services["topics"]["environment"])}
    environment |= {"BOOTSTRAP_SERVERS": servers, "KAFKA_HOME": str(home), "PARTITIONS": "3"}
    for _ in range(2):  # topics that are there already are left alone
        linted("bash", ROOT / "deploy/kafka/create-topics.sh", environment=environment)
    admin = AdminClient({"bootstrap.servers": servers})
    topics = admin.list_topics(timeout=10).topics
    made = {name: len(topic.partitions) for name, topic in topics.items() if not name.startswith("_")}
    assert made == {"flows": 3, "alerts": 3, "flowsentry.events": 1, "flows.dead": 1, "flows.dead.replayed": 1}
    wanted = {"flows": UNPACKED, "flows.dead": LARGE_MESSAGES, "flows.dead.replayed": COMPACTED}
    for name, config in wanted.items():
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        told = admin.describe_configs([resource])[resource].result(10)
        assert {key: told[key].value for key in config} == dict(config)
