"""What Kafka's access rules (ACLs) must allow, and how a refusal is told: who, what, and the command that grants it."""

import shlex
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._group import ConsumerGroupDescription
from confluent_kafka.admin._topic import TopicDescription

from schemas.errors import FlowsentryError
from schemas.params import Params
from stream.connection import Properties, certificate_of, property_of

__all__ = [
    "AccessDenied",
    "Right",
    "access_denied",
    "check_access",
    "dead_letter_rights",
    "event_rights",
    "is_denial",
    "is_secured",
    "missing_rights",
    "receipts_of",
    "service_rights",
]

_ASK_S = 5.0
_RESOURCES: dict[int, Literal["topic", "group", "transactional-id"]] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional-id",
}


@dataclass(frozen=True, slots=True)
class Right:
    """One operation on one resource, both as Kafka's own tools name them. Read and Write imply Describe."""

    resource: Literal["topic", "group", "transactional-id"]
    name: str
    operation: AclOperation

    def __str__(self) -> str:
        return f"{self.operation.name.capitalize()} on {self.resource} {self.name!r}"


class AccessDenied(FlowsentryError):
    """Kafka refuses for want of rights; waiting does not help."""

    def __init__(self, properties: Properties, missing: Sequence[Right]) -> None:
        who = _principal(properties)
        named = shlex.quote(who) if who.startswith("User:") else "User:…"
        grants = [
            f"kafka-acls --bootstrap-server {property_of(properties, 'bootstrap.servers')} --add --allow-principal {named} "
            f"--operation {right.operation.name.capitalize()} --{right.resource} {shlex.quote(right.name)}"
            for right in missing
        ]
        told = ", ".join(map(str, missing))
        super().__init__("\n  ".join([f"Kafka denies {who}: {told}. An administrator can grant it:", *grants]))
        self.missing = tuple(missing)


def service_rights(params: Params, transactional_id: str | None = None) -> list[Right]:
    """All that `run` needs, where the topics exist; of the topic of events see `event_rights`."""
    stream = params.stream
    rights = [
        Right("topic", stream.input, AclOperation.READ),
        Right("group", stream.group, AclOperation.READ),
        Right("topic", stream.alerts, AclOperation.WRITE),
        Right("topic", stream.dead_letters, AclOperation.WRITE),
    ]
    return rights + ([Right("transactional-id", transactional_id, AclOperation.WRITE)] if transactional_id else [])


def event_rights(params: Params) -> list[Right]:
    """What `run` needs besides to publish events, which it can do without."""
    events = params.stream.events
    return [] if events is None else [Right("topic", events, AclOperation.WRITE)]


def dead_letter_rights(action: str, dead_letters: str, target: str) -> list[Right]:
    """All that `dead-letters list | show | replay | purge` needs; `target` is where records are put back.

    Of a record that was cut the original is read where it came from, which needs Read there.
    """
    receipts, transactional_id = receipts_of(dead_letters)
    rights = [Right("topic", dead_letters, AclOperation.READ), Right("topic", receipts, AclOperation.READ)]
    if action == "replay":
        rights += [Right("topic", name, AclOperation.WRITE) for name in (target, receipts)]
        rights.append(Right("transactional-id", transactional_id, AclOperation.WRITE))
    if action == "purge":
        rights.append(Right("topic", dead_letters, AclOperation.DELETE))
    return rights


def receipts_of(dead_letters: str) -> tuple[str, str]:
    """The topic of receipts for letters that were put back, and the transactional id that puts them back."""
    return f"{dead_letters}.replayed", f"{dead_letters}.replay"


def is_secured(properties: Properties) -> bool:
    """Whether Kafka knows who we are. If not it may well have no access rules, and is not asked for rights beforehand:
    the client library can crash when a broker dies while it is asked."""
    return property_of(properties, "security.protocol").upper() not in ("", "PLAINTEXT")


def is_denial(error: KafkaError) -> bool:
    """Whether Kafka refuses for want of a right."""
    return error.code() in _RESOURCES


def access_denied(error: KafkaError, properties: Properties, rights: Sequence[Right]) -> AccessDenied:
    """The error to raise for a denial, of whoever needs `rights`. Asks Kafka which are missing, as the denial may not."""
    concerned = [right for right in rights if right.resource == _RESOURCES.get(error.code())]
    if len(concerned) > 1:
        try:
            concerned = missing_rights(AdminClient(dict(properties)), concerned) or concerned
        except KafkaException:  # gone by now: then all that it may be is named
            return AccessDenied(properties, concerned)
    return AccessDenied(properties, concerned)


def check_access(admin: AdminClient, properties: Properties, rights: Sequence[Right]) -> None:
    """Ask Kafka which of `rights` its user lacks. A topic that does not exist lacks none.

    Raises:
        AccessDenied: some; all of them are named.
        KafkaException: Kafka does not answer.
    """
    if missing := missing_rights(admin, rights):
        raise AccessDenied(properties, missing)


def missing_rights(admin: AdminClient, rights: Sequence[Right]) -> list[Right]:
    """Those of `rights` on topics and groups that are not granted; of transactional ids Kafka does not tell."""
    topics = list(dict.fromkeys(right.name for right in rights if right.resource == "topic"))
    groups = list(dict.fromkeys(right.name for right in rights if right.resource == "group"))
    answers: dict[tuple[str, str], Future[TopicDescription] | Future[ConsumerGroupDescription]] = {}
    if topics:
        told = admin.describe_topics(
            TopicCollection(topics), include_authorized_operations=True, request_timeout=_ASK_S
        )
        answers |= {("topic", name): answer for name, answer in told.items()}
    if groups:
        of_groups = admin.describe_consumer_groups(groups, include_authorized_operations=True, request_timeout=_ASK_S)
        answers |= {("group", name): answer for name, answer in of_groups.items()}
    return [
        right
        for right in rights
        if (answer := answers.get((right.resource, right.name))) is not None and not _granted(answer, right.operation)
    ]


def _granted(answer: "Future[TopicDescription] | Future[ConsumerGroupDescription]", operation: AclOperation) -> bool:
    try:
        operations = answer.result().authorized_operations
    except KafkaException as exception:
        error: KafkaError = exception.args[0]
        if is_denial(error):
            return False
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return True
        raise
    return not operations or operation in operations  # a Kafka that knows no access rules may tell none


def _principal(properties: Properties) -> str:
    """Who Kafka takes us for, as far as the client knows."""
    protocol = property_of(properties, "security.protocol").upper()
    if protocol.startswith("SASL"):
        if property_of(properties, "sasl.mechanism").upper() == "OAUTHBEARER":
            return "the subject of the OAuth token"
        return f"User:{property_of(properties, 'sasl.username')}"
    if protocol == "SSL" and (certificate := certificate_of(properties)):
        return f"the subject of {certificate}"
    return "User:ANONYMOUS"
