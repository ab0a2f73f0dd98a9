"""What leaves on the alerts topic."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Alert", "BundleRef", "FlowRef", "Reason", "Severity", "Verdict"]


class Verdict(StrEnum):
    """Why a flow is an alert."""

    KNOWN = "known"  # the classifier takes it for an attack
    NOVEL = "novel"  # the classifier does not, but it is unlike benign flows


class Severity(StrEnum):
    """How far over its threshold the score is, or of a novel flow the novelty; the bounds are the bundle's."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class _Contract(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)


class FlowRef(_Contract):
    """Which flow it was: what the record says of it, and null for what it does not."""

    src_ip: str | None = Field(default=None, description="Source address.")
    src_port: int | None = Field(default=None, ge=0, le=65535, description="Source port.")
    dst_ip: str | None = Field(default=None, description="Destination address.")
    dst_port: int | None = Field(default=None, ge=0, le=65535, description="Destination port.")
    protocol: str | None = Field(default=None, description="Transport protocol, by IANA number or by name.")
    flow_id: str | None = Field(default=None, description="The producer's own id of the flow.")


class Reason(_Contract):
    """One feature that spoke for the alert."""

    feature: str = Field(description="Name of the feature.")
    value: float | str | None = Field(description="Its value in this flow; null when it was missing.")
    unit: str = Field(default="", description="Unit of the value.")
    benign_low: float | None = Field(default=None, description="1st percentile of benign training flows.")
    benign_high: float | None = Field(default=None, description="99th percentile of benign training flows.")
    benign_share: float | None = Field(
        default=None, ge=0, le=1, description="Share of benign training flows with this category."
    )
    weight: float = Field(ge=0, description="How much it spoke for the alert, relative to the other reasons.")


class BundleRef(_Contract):
    """Which detector judged."""

    name: str = Field(description="Name of the bundle.")
    version: str = Field(description="Version of the bundle.")
    hash: str = Field(description="sha256 of its bundle.json, which lists those of its other files.")


class Alert(_Contract):
    """One flow judged an attack, known or novel. The message key is the alert's id."""

    id: str = Field(
        pattern=r"^.+-\d+-\d+$", description="topic-partition-offset of the flow record: unique, and stable."
    )
    event_time: datetime = Field(description="When the flow was: its own timestamp (UTC assumed), else the record's.")
    detection_time: datetime = Field(description="When it was judged.")
    verdict: Verdict = Field(
        default=Verdict.KNOWN,
        description="known: the score reaches its threshold; novel: it does not, but the novelty does.",
    )
    score: float | None = Field(
        ge=0,
        le=1,
        description="Probability of an attack; null where the bundle knows no attacks, but what is novel alone.",
    )
    threshold: float | None = Field(
        ge=0, le=1, description="Score from which a flow is a known attack; null where none is."
    )
    novelty: float | None = Field(
        default=None,
        ge=0,
        description="How unlike benign flows it is, about 1 for the one benign flow in a hundred; null where the bundle does "
        "not tell.",
    )
    novelty_threshold: float | None = Field(
        default=None, description="Novelty from which a flow is novel; null where novel flows are no alerts."
    )
    severity: Severity = Field(description="How sure, in four steps.")
    family: str = Field(description="Most probable attack family; Unknown for a novel flow.")
    family_probability: float | None = Field(
        ge=0, le=1, description="Its probability among the attack families; null for a novel flow."
    )
    techniques: tuple[str, ...] = Field(default=(), description="MITRE ATT&CK technique ids of the family.")
    flow: FlowRef = Field(description="The flow's addresses, ports and protocol.")
    reasons: tuple[Reason, ...] = Field(description="The features that spoke most for it, strongest first.")
    bundle: BundleRef = Field(description="The detector that judged.")
    schema_version: str = Field(default="1", description="Version of this contract.")
