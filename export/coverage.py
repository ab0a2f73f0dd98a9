"""The rule for how much of a record must be there before it is scored."""

from collections.abc import Iterator, Mapping

import numpy as np

from schemas.dead_letter import Reason
from schemas.flow import FlowSchema

__all__ = ["check_coverage", "feature_counts"]


def feature_counts(columns: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    """How many features each row has a value for: int64[B]."""
    counts = np.zeros(rows, dtype=np.int64)
    for values in columns.values():
        counts += values != None if values.dtype == object else ~np.isnan(values)  # noqa: E711  (elementwise)
    return counts


def check_coverage(
    columns: Mapping[str, np.ndarray], rows: int, schema: FlowSchema, min_feature_coverage: float
) -> Iterator[tuple[int, tuple[Reason, str]]]:
    """The rows whose share of features with a value is below the minimum, and why."""
    counts = feature_counts(columns, rows)
    width = len(schema.features)
    for index in np.flatnonzero((counts == 0) | (counts < min_feature_coverage * width)).tolist():
        count = int(counts[index])
        if count == 0:
            yield index, (Reason.NO_KNOWN_FIELD, f"no feature of {schema.name} has a value")
        else:
            yield (
                index,
                (
                    Reason.TOO_FEW_FEATURES,
                    f"{count} of {width} features of {schema.name} have a value, "
                    f"at least {min_feature_coverage:.0%} are needed",
                ),
            )
