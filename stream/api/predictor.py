"""Flow records → predictions, by the same steps as the stream's."""

from collections.abc import Sequence

import numpy as np

from export.detector import Detector
from export.thresholds import Policy
from schemas.alert import BundleRef
from schemas.dead_letter import Reject
from schemas.prediction import Prediction
from stream.decode import Decoder
from stream.findings import Finding, findings_of

__all__ = ["Predictor"]


class Predictor:
    """A detector with its decoder and policy. Not thread-safe: the decoder remembers what it has seen."""

    def __init__(self, detector: Detector, decoder: Decoder, policy: Policy) -> None:
        self.detector = detector
        self.policy = policy
        self._decoder = decoder
        manifest = detector.manifest
        self._bundle = BundleRef(name=manifest.name, version=manifest.version, hash=manifest.hash)

    def predict(self, records: Sequence[bytes]) -> list[Prediction | Reject]:
        """What becomes of each flow record, as it would stand on the input topic: N records → N answers."""
        decoded = self._decoder.decode(records)
        scores = self.detector.score(decoded.columns)
        answers: dict[int, Prediction | Reject] = {reject.row: reject for reject in decoded.rejects}
        known, alerts = self.policy.known(scores.score), self.policy.alerts(scores.score, scores.novelty)
        novel = (alerts & ~known) | (not self.detector.manifest.classifies)
        rows = np.arange(len(decoded.rows))
        findings = findings_of(rows, decoded.columns, scores, self.detector, self.policy, novel=novel)
        for row, place in enumerate(decoded.rows.tolist()):
            answers[place] = self._prediction(findings.of(row), is_alert=bool(alerts[row]), novel=bool(novel[row]))
        return [answers[place] for place in range(len(records))]

    def _prediction(self, found: Finding, *, is_alert: bool, novel: bool) -> Prediction:
        verdict = found.verdict if is_alert else None
        of_attack = {"severity": found.severity, "family": found.family, "family_probability": found.family_probability}
        return Prediction(
            prediction="attack" if verdict else "normal",
            verdict=verdict,
            confidence=None if novel or found.score is None else found.score if verdict else 1 - found.score,
            score=found.score,
            threshold=found.threshold,
            novelty=found.novelty,
            novelty_threshold=found.novelty_threshold,
            **(of_attack if verdict else dict.fromkeys(of_attack)),
            techniques=found.techniques if verdict else (),
            reasons=found.reasons,
            bundle=self._bundle,
        )
