"""What the HTTP API takes and gives: the verdict on a flow, asked for instead of streamed."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from schemas.alert import BundleRef, Reason, Severity, Verdict

__all__ = ["Features", "PredictRequest", "Prediction", "Predictions"]

# What a value may be is the decoder's to say, so that a flow is refused here for what would make it a dead letter there.
Value = Annotated[Any, WithJsonSchema({"type": ["number", "string", "null"]})]

Features = Annotated[
    Annotated[dict[str, Value], Tag("by name")] | Annotated[list[Value], Tag("in order")],
    Discriminator(lambda given: "in order" if isinstance(given, list) else "by name"),
]
"""A flow: its features by name, in any release's spelling, or all of them in the order that `GET /schema` gives. A number, a
category, or null for what is missing."""


class _Contract(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PredictRequest(_Contract):
    """One flow or several."""

    features: Features | None = Field(default=None, description="One flow: features by name, or in the schema's order.")
    flows: list[Features] | None = Field(default=None, min_length=1, description="Several flows, each as `features`.")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "PredictRequest":
        if (self.features is None) == (self.flows is None):
            raise ValueError("give either features, for one flow, or flows, for several")
        return self


class Prediction(_Contract):
    """The verdict on one flow: that of the stream for the same flow."""

    prediction: Literal["attack", "normal"] = Field(description="attack where the stream would send an alert.")
    verdict: Verdict | None = Field(description="Why it is an attack: known or novel; null for a normal flow.")
    confidence: float | None = Field(
        ge=0,
        le=1,
        description="Probability of what is predicted; null for a novel flow, and where the bundle knows no attacks.",
    )
    score: float | None = Field(ge=0, le=1, description="Probability of an attack; null where it knows no attacks.")
    threshold: float | None = Field(
        ge=0, le=1, description="Score from which a flow is a known attack; null where none is."
    )
    novelty: float | None = Field(
        ge=0, description="How unlike benign flows it is; null where the bundle does not tell."
    )
    novelty_threshold: float | None = Field(
        description="Novelty from which a flow is novel; null where novel flows are no attacks."
    )
    severity: Severity | None = Field(description="How sure, in four steps; null for a normal flow.")
    family: str | None = Field(
        description="Most probable attack family; Unknown for a novel flow, null for a normal one."
    )
    family_probability: float | None = Field(ge=0, le=1, description="Its probability among the attack families.")
    techniques: tuple[str, ...] = Field(description="MITRE ATT&CK technique ids of the family.")
    reasons: tuple[Reason, ...] = Field(description="The features that spoke most for the score, strongest first.")
    bundle: BundleRef = Field(description="The detector that judged.")


class Predictions(_Contract):
    """The verdicts on several flows, in their order."""

    predictions: tuple[Prediction, ...] = Field(description="One for each flow.")
