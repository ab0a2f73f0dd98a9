"""Kafka that asks who we are and what we may: every way to log in, the documented rights, and what is told and never told."""

import base64
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation

from schemas.alert import Alert
from schemas.dead_letter import DeadLetter, Reason
from schemas.params import Params, StreamParams
from stream.__main__ import main
from stream.access import AccessDenied, Right, access_denied, is_denial, missing_rights, service_rights
from stream.clients import admin_properties
from stream.connection import Connection
from stream.topics import PLAIN, ensure_topic, wait_for_topics
from tests.kafka import read_all
from tests.stream.rig import PATIENCE_S, Command, Logs, command, flow
from tests.stream.secure import DOCUMENTED, PASSWORDS, Grant, Names, SecureKafka, secure_kafka

ATTACKS = 20


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with secure_kafka(tmp_path_factory.mktemp("secure")) as secure:
        yield secure


@pytest.fixture
def names(kafka: SecureKafka) -> Names:
    """The documentation's topics under names of the test's own; they exist."""
    own = Names()
    kafka.topics(*(own(name) for name in ("flows", "alerts", "flows.dead", "flows.dead.replayed", "flowsentry.events")))
    return own


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of attacks, and as many benign flows."""
    file = tmp_path / "flows.csv"
    flows = [flow(), flow(sttl=0, dpkts=1000)] * ATTACKS
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(flows[0]))
        writer.writeheader()
        writer.writerows(flows)
    return file


def as_environment(properties: dict[str, str], folder: Path) -> dict[str, str]:
    """Settings as a container has them: the password in a file of its own."""
    plain = dict(properties)
    environment = {}
    if password := plain.pop("sasl.password", None):
        file = folder / f"{properties['sasl.username']}.password"
        file.write_text(password + "\n")
        environment["FLOWSENTRY_KAFKA__SASL__PASSWORD_FILE"] = str(file)
    return environment | {"FLOWSENTRY_KAFKA": json.dumps(plain)}


def run_words(servers: str, names: Names, bundle: Path, *more: str) -> list[str]:
    """`run` with the documentation's names."""
    options = {
        "bundle": str(bundle), "bootstrap-servers": servers, "input": names("flows"), "alerts": names("alerts"),
        "dead-letters": names("flows.dead"), "events": names("flowsentry.events"), "group": names("flowsentry"),
        "instance": "box", "metrics-port": "0",
    }  # fmt: skip
    return ["run", *(word for name, value in options.items() for word in (f"--{name}", value)), *more]


def finished(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m stream …` at its end."""
    arguments = [sys.executable, "-m", "stream", *map(str, words)]
    return subprocess.run(
        arguments, capture_output=True, text=True, env={**os.environ, **environment}, timeout=PATIENCE_S, check=False
    )


def replay_words(servers: str, names: Names, rows: Path) -> list[str]:
    return ["replay", str(rows), "--dataset", "unsw-nb15", "--bootstrap-servers", servers, "--topic", names("flows")]


def alerts_words(servers: str, names: Names) -> list[str]:
    words = ["alerts", "--bootstrap-servers", servers, "--topic", names("alerts"), "--from-beginning"]
    return [*words, "--format", "json", "--limit", str(ATTACKS)]


def letters_words(servers: str, names: Names, action: str, *more: str) -> list[str]:
    words = ["dead-letters", action, "--bootstrap-servers", servers, "--topic", names("flows.dead")]
    return [*words, "--set", f"stream.input={names('flows')}", *more]


def set_aside(kafka: SecureKafka, names: Names) -> None:
    """A dead letter."""
    letter = DeadLetter(reason=Reason.NOT_JSON, detail="", topic=names("flows"), partition=0, offset=0)
    producer = Producer({"bootstrap.servers": kafka.local.bootstrap_servers})
    producer.produce(names("flows.dead"), b"garbage", headers=[*letter.to_headers()])
    assert producer.flush(30) == 0


def scrape(running: Command) -> str:
    """What Prometheus would see now; of this machine's addresses only 127.0.0.1 answers."""
    url = running.logged("running")["metrics"]
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(url.replace("127.0.0.1", "127.0.0.2"), timeout=10)
    return text


def told_secrets(*texts: str) -> list[str]:
    """Where a secret of these tests has got to."""
    return [text for text in texts if any(password in text for password in PASSWORDS.values())]


@pytest.mark.parametrize("way", ["SCRAM", "MTLS", "OAUTH"])
def test_flows_become_alerts_with_exactly_the_documented_rights(
    kafka: SecureKafka, names: Names, tiny_bundle: Path, rows: Path, tmp_path: Path, way: str
) -> None:
    login: Callable[[str], dict[str, str]] = {"SCRAM": kafka.scram, "MTLS": kafka.mtls, "OAUTH": kafka.oauth}[way]
    environments = {user: as_environment(login(user), tmp_path) for user in PASSWORDS}
    servers = kafka.servers(way)
    with kafka.granted(names.grants(*PASSWORDS)):
        replayed = finished(*replay_words(servers, names, rows), **environments["probe"])
        assert replayed.returncode == 0, replayed.stderr
        with command(*run_words(servers, names, tiny_bundle), **environments["detector"]) as running:
            shown = finished(*alerts_words(servers, names), **environments["siem"])
            assert shown.returncode == 0, shown.stderr
            metrics = scrape(running)
            assert running.stop() == 0
    assert not told_secrets(shown.stdout, shown.stderr, replayed.stderr, metrics, *running.lines)
    ids = {Alert.model_validate_json(line).id for line in shown.stdout.splitlines()}
    assert ids == {f"{names('flows')}-0-{2 * row}" for row in range(ATTACKS)}
    assert not read_all(kafka.local.bootstrap_servers, names("flows.dead"))


def test_dead_letters_are_handled_with_exactly_the_documented_rights(
    kafka: SecureKafka, names: Names, tmp_path: Path
) -> None:
    set_aside(kafka, names)
    environment, servers = as_environment(kafka.scram("operator"), tmp_path), kafka.servers("SCRAM")
    with kafka.granted(names.grants("operator")):
        for action, *more in (["list"], ["show"], ["replay", "--yes"], ["purge", "--all", "--yes"]):
            done = finished(*letters_words(servers, names, action, *more), **environment)
            assert done.returncode == 0, done.stderr
    assert [each.value() for each in read_all(kafka.local.bootstrap_servers, names("flows"))] == [b"garbage"]


@pytest.fixture
def ended(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], own_signals: None
) -> Callable[..., tuple[int, str]]:
    """`python -m stream …` in this process with these client properties → exit status, all that it wrote."""

    def run(words: list[str], properties: dict[str, str]) -> tuple[int, str]:
        monkeypatch.setenv("FLOWSENTRY_KAFKA", json.dumps(properties))
        status = main(words)
        return status, "".join(capfd.readouterr())

    return run


NEEDED = [grant for grant in DOCUMENTED if grant[3] != "flowsentry.events"]


@pytest.mark.parametrize("grant", NEEDED, ids=["-".join(grant[:4]) for grant in NEEDED])
def test_each_right_that_is_missing_is_named(
    kafka: SecureKafka,
    names: Names,
    tiny_bundle: Path,
    rows: Path,
    ended: Callable[..., tuple[int, str]],
    grant: Grant,
) -> None:
    user, operation, resource, name, pattern = grant
    servers = kafka.servers("SCRAM")
    words = {
        "detector": run_words(servers, names, tiny_bundle),
        "probe": replay_words(servers, names, rows),
        "siem": alerts_words(servers, names),
        "operator": letters_words(
            servers, names, *(["purge", "--all"] if operation == "Delete" else ["replay"]), "--yes"
        ),
    }[user]
    set_aside(kafka, names)
    with kafka.granted(names.grants(*PASSWORDS, but=grant)):
        status, written = ended(words, kafka.scram(user))
    assert status == 2, written
    told = names(name) + ("box-0" if pattern else "")
    assert written[written.index("error: ") :].splitlines()[:2] == [
        f"error: Kafka denies User:{user}: {operation} on {resource} {told!r}. An administrator can grant it:",
        f"  kafka-acls --bootstrap-server {servers} --add --allow-principal User:{user} --operation {operation} "
        f"--{resource} {told}",
    ]


def test_alerts_do_not_wait_for_the_right_to_tell_of_drift(
    kafka: SecureKafka, names: Names, tiny_bundle: Path, tmp_path: Path
) -> None:
    [grant] = [grant for grant in DOCUMENTED if grant not in NEEDED]
    servers = kafka.servers("SCRAM")
    with (
        kafka.granted(names.grants(*PASSWORDS, but=grant)),
        command(
            *run_words(servers, names, tiny_bundle), **as_environment(kafka.scram("detector"), tmp_path)
        ) as running,
    ):
        told = running.logged("events of drift are not published, and are told by metrics and log alone")
        assert told["why"].startswith(
            f"Kafka denies User:detector: Write on topic {names('flowsentry.events')!r}. An administrator can grant it:"
        )
        running.logged("running")
        assert running.stop(signal.SIGTERM) == 0


def service_params(servers: str, names: Names, properties: dict[str, str]) -> Params:
    stream = StreamParams(
        bootstrap_servers=servers, input=names("flows"), alerts=names("alerts"), dead_letters=names("flows.dead"),
        events=names("flowsentry.events"), group=names("flowsentry"),
    )  # fmt: skip
    return Params(stream=stream, kafka=dict(properties))


def test_all_missing_rights_are_named_at_once(kafka: SecureKafka, names: Names) -> None:
    params = service_params(kafka.servers("SCRAM"), names, kafka.scram("detector"))
    with pytest.raises(AccessDenied) as caught:
        wait_for_topics(
            admin_properties(params),
            {"flows": PLAIN},
            create=True,
            rights=service_rights(params),
            stopping=lambda: False,
        )
    assert caught.value.missing == tuple(service_rights(params))
    assert str(caught.value).count("kafka-acls --bootstrap-server") == 4


def test_a_topic_that_may_not_be_made_is_named(kafka: SecureKafka, tmp_path: Path) -> None:
    names, servers = Names(), kafka.servers("SCRAM")
    with kafka.granted(names.grants("probe")):
        with pytest.raises(AccessDenied) as caught:
            ensure_topic(servers, names("flows"), kafka=kafka.scram("probe"), create=True)
        assert caught.value.missing == (Right("topic", names("flows"), AclOperation.CREATE),)
        with kafka.granted([("probe", "create", "topic", names("flows"), "")]):
            ensure_topic(servers, names("flows"), kafka=kafka.scram("probe"), create=True)


def test_a_denial_that_names_no_topic_is_traced_to_the_right_that_is_missing(kafka: SecureKafka, names: Names) -> None:
    params = service_params(kafka.servers("SCRAM"), names, kafka.scram("detector"))
    properties, rights = admin_properties(params), service_rights(params, names("flowsentry-") + "box-0")
    refused: list[Right] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        assert error is not None and is_denial(error)
        refused.extend(access_denied(error, properties, rights).missing)

    with kafka.granted(names.grants("detector", but=("detector", "Write", "topic", "alerts", ""))):
        producer = Producer(dict(properties))
        producer.produce(names("alerts"), b"alert", on_delivery=delivered)
        assert producer.flush(PATIENCE_S) == 0
    assert refused == [Right("topic", names("alerts"), AclOperation.WRITE)]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_the_right_to_a_group_is_known_before_and_after_it_exists(
    kafka: SecureKafka, names: Names, tiny_bundle: Path, tmp_path: Path, protocol: str
) -> None:
    group = Right("group", names("flowsentry"), AclOperation.READ)
    admin = AdminClient({"bootstrap.servers": kafka.servers("SCRAM"), **kafka.scram("detector")})
    settings = {"group.id": group.name, "group.protocol": protocol, **kafka.scram("detector")}
    assert missing_rights(admin, [group]) == [group]
    with kafka.granted(names.grants("detector")):
        assert missing_rights(admin, [group]) == []
        consumer = Consumer({"bootstrap.servers": kafka.servers("SCRAM"), **settings})
        consumer.subscribe([names("flows")])
        deadline = time.monotonic() + PATIENCE_S
        while not consumer.assignment():
            consumer.poll(0.1)
            assert time.monotonic() < deadline
        assert missing_rights(admin, [group]) == []
        consumer.close()
    assert missing_rights(admin, [group]) == [group]


@pytest.mark.parametrize(
    ("way", "who"), [("MTLS", r"the subject of .*detector\.cert\.pem"), ("OAUTH", "the subject of the OAuth token")]
)
def test_who_is_denied_is_told_as_far_as_the_client_knows(kafka: SecureKafka, names: Names, way: str, who: str) -> None:
    login = {"MTLS": kafka.mtls, "OAUTH": kafka.oauth}[way]
    with pytest.raises(AccessDenied, match=rf"^Kafka denies {who}: Write on topic .*\n  .* --allow-principal User:… "):
        ensure_topic(kafka.servers(way), names("flows"), kafka=login("detector"), create=False)


Change = Callable[[SecureKafka], dict[str, str]]
WRONG: dict[str, tuple[str, Change, str]] = {
    "wrong password": (
        "SCRAM",
        lambda kafka: kafka.scram("detector") | {"sasl.password": "wrong"},
        r"Authentication failed .*SCRAM-SHA-512; check kafka.sasl.username \('detector'\), its password",
    ),
    "unknown user": (
        "SCRAM",
        lambda kafka: kafka.scram("nobody"),
        r"Authentication failed .*; check kafka.sasl.username \('nobody'\), its password",
    ),
    "another mechanism": (
        "SCRAM",
        lambda kafka: kafka.scram("detector") | {"sasl.mechanism": "PLAIN"},
        "broker's supported mechanisms: SCRAM-SHA-512; set kafka.sasl.mechanism to one of the broker's",
    ),
    "a login where there is none": (
        "MTLS",
        lambda kafka: kafka.scram("detector") | kafka.mtls("detector") | {"security.protocol": "SASL_SSL"},
        "if it has none there, kafka.security.protocol to SSL",
    ),
    "no login where there is one": (
        "SCRAM",
        lambda kafka: {"security.protocol": "SSL", "ssl.ca.location": kafka.path("ca")},
        "the broker hangs up: check kafka.security.protocol",
    ),
    "expired certificate": (
        "EXPIRED",
        lambda kafka: kafka.scram("detector"),
        "the broker's certificate is refused: certificate has expired; it must be renewed at the broker",
    ),
    "another host's certificate": (
        "ELSEWHERE",
        lambda kafka: kafka.scram("detector"),
        "the broker's certificate is refused: IP address mismatch.*; stream.bootstrap_servers .*must give a name that is in it",
    ),
    "untrusted authority": (
        "SCRAM",
        lambda kafka: kafka.scram("detector") | {"ssl.ca.location": kafka.path("another-ca")},
        "the broker's certificate is refused: unable to get local issuer.*; kafka.ssl.ca.location must name a file with the CA",
    ),
    "no authority": (
        "SCRAM",
        lambda kafka: {name: value for name, value in kafka.scram("detector").items() if name != "ssl.ca.location"},
        "the broker's certificate is refused: .*; kafka.ssl.ca.location must name a file with the CA that signed it",
    ),
    "no client certificate": (
        "MTLS",
        lambda kafka: {"security.protocol": "SSL", "ssl.ca.location": kafka.path("ca")},
        "it asks for a client certificate: set kafka.ssl.certificate.location and kafka.ssl.key.location",
    ),
    "a stranger's client certificate": (
        "MTLS",
        lambda kafka: kafka.mtls("stranger"),
        r"the broker refuses .*stranger\.cert\.pem: a CA that it trusts must have signed it",
    ),
    "an expired client certificate": (
        "MTLS",
        lambda kafka: kafka.mtls("late"),
        r"the broker refuses .*late\.cert\.pem: .*it must not have expired",
    ),
    "no TLS where there is": (
        "SCRAM",
        lambda kafka: {},
        "it expects TLS: set kafka.security.protocol to SASL_SSL, or SSL where there is no login",
    ),
    "SASL without TLS": (
        "SCRAM",
        lambda kafka: kafka.scram("detector") | {"security.protocol": "SASL_PLAINTEXT"},
        "it expects TLS: set kafka.security.protocol to SASL_SSL",
    ),
    "TLS where there is none": (
        "",
        lambda kafka: kafka.scram("detector"),
        "it has no TLS there: use the port of its TLS listener, or another kafka.security.protocol",
    ),
    "no token": (
        "OAUTH",
        lambda kafka: kafka.oauth("detector") | {"enable.sasl.oauthbearer.unsecure.jwt": "false"},
        "there is no token: set kafka.sasl.oauthbearer.method to oidc",
    ),
    "nobody gives tokens": (
        "OAUTH",
        lambda kafka: as_oidc(kafka, "http://127.0.0.1:1/token"),
        "Failed to acquire SASL OAUTHBEARER token: .*; check kafka.sasl.oauthbearer",
    ),
}


def as_oidc(kafka: SecureKafka, url: str, **more: str) -> dict[str, str]:
    """Client properties of a user whose tokens an OpenID Connect provider gives."""
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": kafka.path("ca"),
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": url,
        "sasl.oauthbearer.client.id": "detector",
        "sasl.oauthbearer.client.secret": PASSWORDS["detector"],
        **more,
    }


@pytest.mark.parametrize(
    "said",
    [
        "Disconnected: connecting to a PLAINTEXT broker listener?",
        "Disconnected: SSL connection closed by peer",
    ],
)
def test_a_port_without_tls_is_told_whatever_librdkafka_makes_of_it(kafka: SecureKafka, said: str) -> None:
    connection = Connection({"bootstrap.servers": kafka.local.bootstrap_servers, "security.protocol": "SSL"})
    connection.heard(KafkaError(KafkaError._SSL, said))
    assert "it has no TLS there" in str(connection.no_answer(KafkaException(KafkaError(KafkaError._TRANSPORT))))


@pytest.mark.parametrize("what", WRONG)
def test_what_keeps_a_client_out_is_named(kafka: SecureKafka, logs: Logs, what: str) -> None:
    listener, change, told = WRONG[what]
    servers = kafka.servers(listener) if listener else kafka.local.bootstrap_servers
    properties = {"bootstrap.servers": servers, **change(kafka)}
    assert not wait_for_topics(properties, {"flows": PLAIN}, create=False, stopping=lambda: bool(logs.of("waiting")))
    [line] = logs.of("waiting")
    assert re.search(rf"no answer from Kafka at {servers}: .*{told}", line["why"]), line["why"]
    assert not told_secrets(logs.text)


@contextmanager
def token_endpoint(lifetime_s: float, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """An OpenID Connect provider's address, and the logins that it is sent; it gives out tokens for `detector`."""
    logins: list[str] = []

    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    class Provider(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            logins.append(base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode())
            now = time.time()
            claims = {"sub": "detector", "iat": now + min(0, lifetime_s) - 60, "exp": now + lifetime_s}
            token = f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."
            answer = {"access_token": token, "token_type": "Bearer", "expires_in": int(lifetime_s)}
            content = json.dumps(answer if status == 200 else {"error": "invalid_client"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token", logins
        finally:
            server.shutdown()
            thread.join()


def test_tokens_come_from_an_openid_connect_endpoint(
    kafka: SecureKafka, names: Names, tiny_bundle: Path, rows: Path, tmp_path: Path
) -> None:
    servers = kafka.servers("OAUTH")
    with kafka.granted(names.grants(*PASSWORDS)), token_endpoint(lifetime_s=3600) as (url, logins):
        secret = tmp_path / "secret"
        secret.write_text(PASSWORDS["detector"] + "\n")
        plain = as_oidc(kafka, url)
        del plain["sasl.oauthbearer.client.secret"]
        environment = {
            "FLOWSENTRY_KAFKA": json.dumps(plain),
            "FLOWSENTRY_KAFKA__SASL__OAUTHBEARER__CLIENT__SECRET_FILE": str(secret),
        }
        replayed = finished(*replay_words(servers, names, rows), **as_environment(kafka.oauth("probe"), tmp_path))
        assert replayed.returncode == 0, replayed.stderr
        with command(*run_words(servers, names, tiny_bundle), **environment) as running:
            shown = finished(*alerts_words(servers, names), **as_environment(kafka.oauth("siem"), tmp_path))
            assert (shown.returncode, shown.stdout.count("\n")) == (0, ATTACKS), shown.stderr
            metrics = scrape(running)
            assert running.stop() == 0
    assert set(logins) == {f"detector:{PASSWORDS['detector']}"}
    assert not told_secrets(metrics, *running.lines)


@pytest.mark.parametrize(
    ("lifetime_s", "status", "told"),
    [
        (-60, 200, "expired"),
        (3600, 401, "invalid_client"),
    ],
)
def test_a_token_that_is_not_had_or_not_taken_is_told_with_the_reason(
    kafka: SecureKafka, logs: Logs, lifetime_s: float, status: int, told: str
) -> None:
    with token_endpoint(lifetime_s, status) as (url, _):
        properties = {"bootstrap.servers": kafka.servers("OAUTH"), **as_oidc(kafka, url)}
        assert not wait_for_topics(
            properties, {"flows": PLAIN}, create=False, stopping=lambda: bool(logs.of("waiting"))
        )
    [line] = logs.of("waiting")
    assert told in line["why"]
    assert not told_secrets(logs.text)


MISTAKES: dict[str, Callable[[SecureKafka, str], dict[str, str]]] = {
    "another user's password": lambda kafka, secret: kafka.scram("siem") | {"sasl.password": secret},
    "debug lines": lambda kafka, secret: kafka.scram("siem") | {"sasl.password": secret, "debug": "all"},
    "a property that is none": lambda kafka, secret: kafka.scram("siem") | {"sasl.passwort": secret},
    "a password for a mechanism": lambda kafka, secret: kafka.scram("siem") | {"sasl.jaas.config": secret},
    "a key that is none": lambda kafka, secret: kafka.mtls("siem") | {"ssl.key.pem": secret},
    "a key store that is none": lambda kafka, secret: {
        "security.protocol": "SSL",
        "ssl.keystore.location": kafka.path("ca"),
        "ssl.keystore.password": secret,
    },
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_secret_is_never_shown(
    kafka: SecureKafka, names: Names, rows: Path, ended: Callable[..., tuple[int, str]], mistake: str
) -> None:
    servers = kafka.servers("SCRAM")
    properties = MISTAKES[mistake](kafka, PASSWORDS["detector"])
    for words in (replay_words(servers, names, rows), alerts_words(servers, names)):
        status, written = ended(words, properties)
        assert status == 2, written
        assert "error: " in written
        assert not told_secrets(written)


def test_a_service_that_is_not_let_in_waits_and_shows_no_secret(
    kafka: SecureKafka, names: Names, tiny_bundle: Path, tmp_path: Path
) -> None:
    wrong = kafka.scram("siem") | {"sasl.password": PASSWORDS["detector"], "debug": "all"}
    with command(*run_words(kafka.servers("SCRAM"), names, tiny_bundle), **as_environment(wrong, tmp_path)) as running:
        running.until(lambda: any("check kafka.sasl.username ('siem')" in line for line in running.lines), "the reason")
        assert running.stop() == 0
    assert not told_secrets(*running.lines)


def test_the_documentation_names_tests_that_there_are() -> None:
    root = Path(__file__).parents[2]
    there = {
        name for file in (root / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    named = set(re.findall(r"\b(test_\w+)\b(?!\.py)", (root / "docs" / "security.md").read_text()))
    assert named and named <= there, named - there
