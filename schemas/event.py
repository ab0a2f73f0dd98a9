"""What leaves on the events topic: what the service tells of itself."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.alert import BundleRef

__all__ = ["DriftEvent", "DriftState"]


class DriftState(StrEnum):
    """What has happened."""

    DRIFTED = "drifted"  # the index has passed the bound
    RETURNED = "returned"  # it is below half of it again


class DriftEvent(BaseModel):
    """A feature of the flows, or the detector's score, is no longer spread as in training, or is so again. The message key is
    the feature's name. A worker sees the flows of its own partitions, and begins with an empty window when it starts and
    when it takes over a bundle: what drifts still is then told again."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)

    kind: Literal["drift"] = Field(default="drift", description="What the event is about.")
    state: DriftState = Field(description="drifted: psi has passed the bound; returned: it is below half of it again.")
    feature: str = Field(description="Name of the feature, or score or novelty, which the bundle tells of a flow.")
    psi: float = Field(ge=0, description="Population stability index of the window against the bundle's reference.")
    psi_bound: float = Field(gt=0, description="Index from which it counts as drift.")
    wasserstein: float = Field(
        ge=0,
        le=1,
        description="Distance of the two distributions: of a number on the scale of the reference's ranks, 0 to 0.5; of "
        "categories the total variation, 0 to 1.",
    )
    missing_share: float = Field(ge=0, le=1, description="Share of the window's flows without a value.")
    unknown_share: float | None = Field(
        default=None, ge=0, le=1, description="Share with a category that training did not have; null for a number."
    )
    out_of_range_share: float | None = Field(
        default=None, ge=0, le=1, description="Share below or above all of training; null for a category."
    )
    window_begin: datetime = Field(description="Begin of the window.")
    window_end: datetime = Field(description="Its end.")
    flows: int = Field(ge=1, description="Flows of the window that were counted.")
    attack_share: float = Field(
        ge=0,
        le=1,
        description="Share of them that were alerts, and so of attacks in what the window is held against; 0 where the "
        "bundle has no attacks to hold it against.",
    )
    bundle: BundleRef = Field(description="The detector whose reference it is held against.")
    worker: str = Field(description="Who saw it: group-instance-number.")
    schema_version: str = Field(default="1", description="Version of this contract.")
