"""A real Kafka that lets nobody in unasked: certificates, users, access rules, and a listener for each way to log in."""

import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.cimpl import NewTopic
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from stream.broker import LocalBroker

__all__ = ["DOCUMENTED", "PASSWORDS", "Grant", "Names", "SecureKafka", "secure_kafka"]

ANSWER_S = 30.0
PASSWORDS = {user: f"{user}s-Kept+out.of_every=line" for user in ("detector", "probe", "siem", "operator")}
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=x;"
_GRANT = re.compile(
    r"--allow-principal User:(\w+) +--operation (\w+) +--(topic|group|transactional-id) (\S+)(?: .*-type (prefixed))?"
)
_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}

Grant = tuple[str, str, str, str, str]  # user, operation, resource, name, "prefixed" or nothing
DOCUMENTED: tuple[Grant, ...] = tuple(_GRANT.findall((Path(__file__).parents[2] / "docs" / "security.md").read_text()))
"""The least-privilege list, as users are told to grant it."""


class SecureKafka:
    """The broker, and what its clients need. ANONYMOUS, which may do all, gets in by the plain listener alone."""

    def __init__(self, local: LocalBroker, folder: Path) -> None:
        self.local, self.folder = local, folder
        self.admin = AdminClient({"bootstrap.servers": local.bootstrap_servers})

    def servers(self, listener: str) -> str:
        return self.local.servers_of(listener)

    def path(self, name: str) -> str:
        """A PEM file: ca, another-ca, NAME.cert or NAME.key of a client."""
        return str(self.folder / f"{name}.pem")

    def scram(self, user: str) -> dict[str, str]:
        """Client properties of a user with a password."""
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": self.path("ca"),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": PASSWORDS.get(user, "none"),
        }

    def mtls(self, user: str) -> dict[str, str]:
        """Client properties of a user with a certificate."""
        return {
            "security.protocol": "SSL",
            "ssl.ca.location": self.path("ca"),
            "ssl.certificate.location": self.path(f"{user}.cert"),
            "ssl.key.location": self.path(f"{user}.key"),
        }

    def oauth(self, user: str) -> dict[str, str]:
        """Client properties of a user with a token; one that nobody signed, which this broker believes."""
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": self.path("ca"),
            "sasl.mechanism": "OAUTHBEARER",
            "enable.sasl.oauthbearer.unsecure.jwt": "true",
            "sasl.oauthbearer.config": f"principal={user}",
        }

    @contextmanager
    def granted(self, grants: Iterable[Grant]) -> Iterator[None]:
        """Access rules for the while, seen by the broker when this begins."""
        bindings = [
            AclBinding(
                _RESOURCES[resource], name,
                ResourcePatternType.PREFIXED if pattern else ResourcePatternType.LITERAL,
                f"User:{user}", "*", AclOperation[operation.upper()], AclPermissionType.ALLOW,
            )
            for user, operation, resource, name, pattern in grants
        ]  # fmt: skip
        for created in self.admin.create_acls(bindings).values():
            created.result(ANSWER_S)
        try:
            yield
        finally:
            filters = [
                AclBindingFilter(
                    each.restype, each.name, each.resource_pattern_type, each.principal, each.host, each.operation,
                    each.permission_type,
                )
                for each in bindings
            ]  # fmt: skip
            for deleted in self.admin.delete_acls(filters).values() if filters else ():
                deleted.result(ANSWER_S)

    def topics(self, *names: str) -> None:
        """Make topics, and wait until they are seen."""
        for made in self.admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
            made.result(ANSWER_S)
        for name in names:
            while not self.admin.list_topics(name, timeout=ANSWER_S).topics[name].partitions:
                pass


class Names:
    """The documentation's names, made a test's own."""

    def __init__(self) -> None:
        self._unique = uuid.uuid4().hex[:8]

    def __call__(self, name: str) -> str:
        tail = next((tail for tail in ("-", ".replayed", ".replay") if name.endswith(tail)), "")
        return f"{name.removesuffix(tail)}.{self._unique}{tail}"

    def grants(self, *users: str, but: Grant | None = None) -> list[Grant]:
        """The documented list of some users, less one of its lines."""
        wanted = [grant for grant in DOCUMENTED if grant[0] in users and grant != but]
        return [(user, operation, kind, self(name), how) for user, operation, kind, name, how in wanted]


@contextmanager
def secure_kafka(folder: Path) -> Iterator[SecureKafka]:
    """A broker with an authorizer, and listeners SCRAM, MTLS and OAUTH; EXPIRED and ELSEWHERE have bad certificates."""
    ca, another_ca = trustme.CA(), trustme.CA()
    (folder / "ca.pem").write_bytes(ca.cert_pem.bytes())
    (folder / "another-ca.pem").write_bytes(another_ca.cert_pem.bytes())
    began, ended = datetime.now(UTC) - timedelta(days=9), datetime.now(UTC) - timedelta(days=2)
    good = ca.issue_cert("127.0.0.1")
    for user in PASSWORDS:
        _write(folder, user, ca.issue_cert(f"{user}@example.org", common_name=user))
    _write(folder, "stranger", another_ca.issue_cert("detector@example.org", common_name="detector"))
    _write(folder, "late", ca.issue_cert("x@example.org", common_name="detector", not_before=began, not_after=ended))
    certificates = {
        "SCRAM": good,
        "MTLS": good,
        "OAUTH": good,
        "EXPIRED": ca.issue_cert("127.0.0.1", not_before=began, not_after=ended),
        "ELSEWHERE": ca.issue_cert("kafka.example.org"),
    }
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": ca.cert_pem.bytes().decode(),
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": _OAUTH,
    }
    for name, certificate in certificates.items():
        prefix = f"listener.name.{name.lower()}"
        key, chain = _pem(certificate)
        settings |= {
            f"{prefix}.ssl.keystore.type": "PEM",
            f"{prefix}.ssl.keystore.key": key,
            f"{prefix}.ssl.keystore.certificate.chain": chain,
        }
        if name not in ("MTLS", "OAUTH"):
            settings |= {
                f"{prefix}.sasl.enabled.mechanisms": "SCRAM-SHA-512",
                f"{prefix}.scram-sha-512.sasl.jaas.config": _SCRAM,
            }
    listeners = {name: "SSL" if name == "MTLS" else "SASL_SSL" for name in certificates}
    with LocalBroker(listeners=listeners, scram=PASSWORDS, overrides=settings) as local:
        yield SecureKafka(local, folder)


def _write(folder: Path, name: str, certificate: trustme.LeafCert) -> None:
    key, chain = _pem(certificate)
    (folder / f"{name}.key.pem").write_text(key)
    (folder / f"{name}.cert.pem").write_text(chain)


def _pem(certificate: trustme.LeafCert) -> tuple[str, str]:
    """Private key (in the form that Java reads) and certificate chain."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    chain = "".join(part.bytes().decode() for part in certificate.cert_chain_pems)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(), chain
