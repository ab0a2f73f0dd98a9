"""The detector bundle: how it is built, checked and run.

>>> detector = export.load("bundles/unsw-nb15")                    # doctest: +SKIP
>>> detector.score({"dur": dur, "proto": proto}).score             # doctest: +SKIP
"""

from export.detector import Detector, Scores, load

__all__ = ["Detector", "Scores", "load"]
