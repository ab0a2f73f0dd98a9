"""Whether Kafka can be reached, and why not: what librdkafka says of it, what it leaves unsaid, and what to do about it."""

import json
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import FlowsentryError

__all__ = [
    "Connection",
    "Outage",
    "Properties",
    "brokers_are_forgotten",
    "brokers_are_up",
    "certificate_of",
    "error_text",
    "property_of",
]

Properties = Mapping[str, str | int | float | bool]

_HANDSHAKE_TIMEOUT_S = 2.0
_ALIASES = {"sasl.mechanism": "sasl.mechanisms", "bootstrap.servers": "metadata.broker.list"}
_WHERE = re.compile(r"^\w+://[^ ]+: ")
_AFTER = re.compile(r" \(after \d+ms in state .*\)$")


def error_text(error: KafkaError | KafkaException) -> str:
    """What went wrong, in Kafka's words."""
    inner = error.args[0] if isinstance(error, KafkaException) else error
    return inner.str() if isinstance(inner, KafkaError) else str(inner)


def property_of(properties: Properties, name: str) -> str:
    """A client property by its usual name or librdkafka's other one; '' if it is not set."""
    return str(properties.get(name) or properties.get(_ALIASES.get(name, name)) or "")


def certificate_of(properties: Properties) -> str:
    """Where a client's own certificate stands; '' if it has none."""
    inline = "kafka.ssl.certificate.pem" if properties.get("ssl.certificate.pem") else ""
    return (
        property_of(properties, "ssl.certificate.location")
        or property_of(properties, "ssl.keystore.location")
        or inline
    )


class Outage(Exception):
    """Kafka was away, and this worker cannot go on: one that is started anew can."""

    def __init__(self, what: str) -> None:
        super().__init__(f"Kafka was away: {what}")


class Connection:
    """What is known of one client's connections. Its `heard` is the client's `error_cb`."""

    def __init__(self, properties: Properties) -> None:
        self._properties = properties
        self._said, self._refusal = "", False
        self.refused = False
        """Whether every broker, as far as heard, refuses the login or is refused for its certificate."""

    def heard(self, error: KafkaError) -> None:
        """Keep what librdkafka says."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # which says nothing of the reason
            self.refused = self._refusal
        else:
            self._said = error.str()
            self._refusal = error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)

    def answered(self) -> None:
        """Kafka has answered: what was said before is of the past."""
        self._said, self._refusal, self.refused = "", False, False

    def no_answer(self, error: KafkaException) -> FlowsentryError:
        """The error for a Kafka that could not be asked: the reason and what to do, never a secret."""
        said = _AFTER.sub("", _WHERE.sub("", self._said))
        if not said:
            why, remedy = error_text(error), self._remedy_unsaid()
        elif "certificate verify failed" in said:
            # One text for whatever is wrong with it: ours tells.
            found = self._handshake(verify=True)
            why, remedy = f"the broker's certificate is refused: {found or said}", _remedy_of_certificate(found)
        else:
            why, remedy = said, self._remedy(said)
        servers = self._get("bootstrap.servers")
        return FlowsentryError(f"no answer from Kafka at {servers}: {why}{'; ' if remedy else ''}{remedy}")

    def _get(self, name: str) -> str:
        return property_of(self._properties, name)

    def _remedy(self, said: str) -> str:
        token = self._get("sasl.mechanism").upper() == "OAUTHBEARER"
        if "SASL authentication error" in said and token:
            return "the broker refuses the token: check its issuer, audience, subject and expiry"
        if "SASL authentication error" in said:
            return f"check kafka.sasl.username ({self._get('sasl.username')!r}), its password and kafka.sasl.mechanism"
        if "OAUTHBEARER token" in said:
            return "check kafka.sasl.oauthbearer.…: where the token comes from, the client's id and its secret"
        if "mechanism handshake failed" in said:
            return (
                "set kafka.sasl.mechanism to one of the broker's; if it has none there, kafka.security.protocol to SSL"
            )
        if re.search("alert .*(certificate|unknown ca)", said):
            if location := certificate_of(self._properties):
                return f"the broker refuses {location}: a CA that it trusts must have signed it, and it must not have expired"
            return "it asks for a client certificate: set kafka.ssl.certificate.location and kafka.ssl.key.location"
        hung_up = "SSL connection closed by peer" in said and self._handshake(verify=False)
        if "PLAINTEXT broker listener" in said or hung_up:
            return "it has no TLS there: use the port of its TLS listener, or another kafka.security.protocol"
        return ""

    def _remedy_unsaid(self) -> str:
        """For what librdkafka passes over: it only sees the broker hang up."""
        protocol = self._get("security.protocol").upper() or "PLAINTEXT"
        if (
            protocol.startswith("SASL")
            and self._get("sasl.mechanism").upper() == "OAUTHBEARER"
            and not self._has_tokens
        ):
            return "there is no token: set kafka.sasl.oauthbearer.method to oidc, and its token endpoint, client id and secret"
        if not protocol.endswith("PLAINTEXT") or self._handshake(verify=False):
            return "the broker hangs up: check kafka.security.protocol" if protocol == "SSL" else ""
        return "it expects TLS: set kafka.security.protocol to SASL_SSL, or SSL where there is no login"

    @property
    def _has_tokens(self) -> bool:
        unsecured = self._get("enable.sasl.oauthbearer.unsecure.jwt").lower() == "true"
        return unsecured or self._get("sasl.oauthbearer.method").lower() == "oidc"

    def _handshake(self, *, verify: bool) -> str:
        """Why a TLS handshake fails, in words that librdkafka does not give; '' if it does not fail."""
        host, _, port = self._place().rpartition(":")
        try:
            context = self._context(verify)
            with (
                socket.create_connection((host.strip("[]"), int(port)), _HANDSHAKE_TIMEOUT_S) as raw,
                context.wrap_socket(raw, server_hostname=host.strip("[]")),
            ):
                return ""
        except ssl.SSLCertVerificationError as error:
            return str(error.verify_message).rstrip(".")
        except (OSError, ValueError) as error:
            return str(error)

    def _place(self) -> str:
        """host:port of the broker that librdkafka spoke of, else of the first that is configured."""
        spoken = re.match(r"\w+://([^/ ]+:\d+)/", self._said)
        return spoken[1] if spoken else self._get("bootstrap.servers").split(",")[0].rpartition("://")[2]

    def _context(self, verify: bool) -> ssl.SSLContext:
        pem, location = self._get("ssl.ca.pem"), self._get("ssl.ca.location")
        context = ssl.create_default_context(cadata=pem or None)
        if location:
            context.load_verify_locations(**{"capath" if Path(location).is_dir() else "cafile": location})
        context.check_hostname = verify and self._get("ssl.endpoint.identification.algorithm") != "none"
        if not verify:
            context.verify_mode = ssl.CERT_NONE
        return context


def _remedy_of_certificate(found: str) -> str:
    if "expired" in found or "not yet valid" in found:
        return "it must be renewed at the broker, or a clock be set right"
    if "mismatch" in found:
        return "stream.bootstrap_servers and the broker's advertised.listeners must give a name that is in it"
    return "kafka.ssl.ca.location must name a file with the CA that signed it"


def brokers_are_up(statistics: str, within_s: float) -> bool:
    """Whether a broker has said something lately, by librdkafka's statistics (JSON, times in µs)."""
    brokers = json.loads(statistics)["brokers"].values()
    return any(it["state"] == "UP" and 0 <= it["rxidle"] < within_s * 1e6 for it in brokers)


def brokers_are_forgotten(statistics: str) -> bool:
    """Whether the client has no broker left to ask, by librdkafka's statistics.

    One that is told that the cluster has no brokers, as the last one says that shuts down, forgets those it had, and its
    bootstrap servers with them: it never finds them again, whatever `metadata.recovery.strategy` (librdkafka's issue
    5301).
    """
    brokers = json.loads(statistics)["brokers"].values()
    return all(it["source"] in ("logical", "internal") for it in brokers)
