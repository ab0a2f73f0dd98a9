"""Alerts → JSON, all of a batch's at once: what they have in common is written once, and columns are put between.

Parsed, it is the `schemas.alert.Alert` whose fields stand here in their order.
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from json.encoder import encode_basestring

import numpy as np
import polars as pl

from export.bundle import FeatureInfo
from export.reasons import Reasons
from schemas.alert import Alert, Verdict
from stream.alerts import Alerts

__all__ = ["json_of"]

_VERDICTS = (Verdict.KNOWN.value, Verdict.NOVEL.value)
_SCHEMA_VERSION: str = Alert.model_fields["schema_version"].default


def json_of(alerts: Alerts) -> list[bytes]:
    """Each alert as it is sent, in their order."""
    found, flows = alerts.findings, alerts.flows
    families = [json.dumps(family.name) for family in found.families]
    techniques = [json.dumps(family.techniques) for family in found.families]
    columns = pl.DataFrame(
        {
            "id": _strings(alerts.ids),
            "event_time": pl.Series(flows.event_time_us, dtype=pl.Int64),
            "verdict": [_VERDICTS[novel] for novel in found.novel.tolist()],
            "score": _numbers(found.score, len(alerts)),
            "novelty": _numbers(found.novelty, len(alerts)),
            "severity": found.severity.tolist(),
            "family": [families[family] for family in found.family.tolist()],
            "family_probability": found.family_probability,
            "techniques": [techniques[family] for family in found.family.tolist()],
            "src_ip": _strings(flows.src_ip),
            "src_port": pl.Series(flows.src_port, dtype=pl.Int64),
            "dst_ip": _strings(flows.dst_ip),
            "dst_port": pl.Series(flows.dst_port, dtype=pl.Int64),
            "protocol": _strings(flows.protocol),
            "flow_id": _strings(flows.flow_id),
            **_reason_columns(found.reasons),
        },
        schema_overrides=dict.fromkeys(("verdict", "severity", "family", "techniques"), pl.String),
    )
    time = alerts.detection_time.isoformat().replace("+00:00", "Z")
    texts = columns.select(
        pl.concat_str(
            pl.lit('{"id":'), "id",
            pl.lit(',"event_time":"'), _time("event_time"),
            pl.lit(f'","detection_time":"{time}","verdict":"'),
            "verdict",
            pl.lit('","score":'), _number("score"),
            pl.lit(f',"threshold":{json.dumps(found.threshold)},"novelty":'), _number("novelty"),
            pl.lit(f',"novelty_threshold":{json.dumps(found.novelty_threshold)},"severity":"'), "severity",
            pl.lit('","family":'), "family",
            pl.lit(',"family_probability":'), _number("family_probability"),
            pl.lit(',"techniques":'), "techniques",
            pl.lit(',"flow":{"src_ip":'), "src_ip",
            pl.lit(',"src_port":'), _number("src_port"),
            pl.lit(',"dst_ip":'), "dst_ip",
            pl.lit(',"dst_port":'), _number("dst_port"),
            pl.lit(',"protocol":'), "protocol",
            pl.lit(',"flow_id":'), "flow_id",
            pl.lit('},"reasons":['), *_reasons(found.reasons.feature.shape[1]),
            pl.lit(f'],"bundle":{alerts.bundle.model_dump_json()},"schema_version":"{_SCHEMA_VERSION}"}}'),
        ).cast(pl.Binary)
    ).to_series()  # fmt: skip
    if texts.null_count():
        raise ValueError("an alert with a column that is null where nothing may be")
    return texts.to_list()


def _reason_columns(reasons: Reasons) -> dict[str, pl.Series]:
    """Of each place among the reasons: what stands before the value, the value, and what stands after it."""
    begins, middles = _reason_texts(reasons.order)
    columns: dict[str, pl.Series] = {}
    for place in range(reasons.feature.shape[1]):
        features = reasons.feature[:, place].tolist()
        categories = reasons.category[:, place].tolist()
        columns |= {
            f"begin {place}": pl.Series([begins[feature] for feature in features], dtype=pl.String),
            f"number {place}": pl.Series(reasons.number[:, place]),
            f"category {place}": pl.Series(
                [None if text is None else encode_basestring(text) for text in categories], dtype=pl.String
            ),
            f"middle {place}": pl.Series([middles[feature] for feature in features], dtype=pl.String),
            f"share {place}": pl.Series(reasons.benign_share[:, place]),
            f"weight {place}": pl.Series(reasons.weight[:, place]),
        }
    return columns


def _reasons(top: int) -> Iterator[str | pl.Expr]:
    for place in range(top):
        yield from (f"begin {place}", pl.coalesce(f"category {place}", _number(f"number {place}")))
        yield from (f"middle {place}", _number(f"share {place}"))
        yield from (pl.lit(',"weight":'), _number(f"weight {place}"), pl.lit("}," if place < top - 1 else "}"))


@lru_cache(maxsize=2)
def _reason_texts(order: tuple[FeatureInfo, ...]) -> tuple[list[str], list[str]]:
    """Of each feature what stands before its value, and between that and the share."""
    begins = [f'{{"feature":{json.dumps(info.name)},"value":' for info in order]
    middles = [
        f',"unit":{json.dumps(info.unit)},"benign_low":{json.dumps(info.benign_low)}'
        f',"benign_high":{json.dumps(info.benign_high)},"benign_share":'
        for info in order
    ]
    return begins, middles


def _time(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")


def _number(name: str) -> pl.Expr:
    """Every number as the shortest text that is read as the same; null for one that JSON does not have."""
    number = pl.col(name)
    return pl.when(number.is_finite()).then(number.cast(pl.String)).otherwise(pl.lit("null"))


def _strings(texts: Sequence[str | None]) -> pl.Series:
    return pl.Series(["null" if text is None else encode_basestring(text) for text in texts], dtype=pl.String)


def _numbers(values: np.ndarray | None, count: int) -> pl.Series:
    return pl.Series([None] * count if values is None else values, dtype=pl.Float64)
