"""The alerts of a batch: columns, and no object for each of them."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from schemas.alert import BundleRef
from stream.findings import Findings
from stream.flow_refs import FlowRefs

__all__ = ["Alerts"]


@dataclass(frozen=True, slots=True)
class Alerts:
    """n alerts in their batch's order. `ids` are those of the records, `sent_ms` i64[n] their Kafka timestamps; all alerts have
    one `detection_time` and one `bundle`."""

    ids: list[str]
    sent_ms: np.ndarray
    flows: FlowRefs
    findings: Findings
    detection_time: datetime
    bundle: BundleRef

    def __len__(self) -> int:
        return len(self.ids)

    def count(self) -> Counter[tuple[str, str]]:
        """How many there are of each family and severity."""
        found = self.findings
        of_family = Counter(zip(found.family.tolist(), found.severity.tolist(), strict=True))
        return Counter({(found.families[family].name, severity): n for (family, severity), n in of_family.items()})
