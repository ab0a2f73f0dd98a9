"""A bundle's model card: what it is for, what it was made of, what it is worth and where not to trust it.

Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

import json
import shutil
from pathlib import Path

from export.bundle import read_bundle
from schemas.errors import FlowsentryError
from trainer.evaluation.report import FIGURES, templates

__all__ = ["CARD", "REPORT", "write_card"]

CARD, REPORT = "MODEL_CARD.md", "report.html"
_FEW_ROWS = 100


def write_card(bundle: Path, evaluation: Path) -> Path:
    """Write MODEL_CARD.md into a bundle's directory and put the page of an evaluation beside it; the card's path.

    Args:
        evaluation: what `trainer evaluate --out` wrote: of this bundle, or of one that the same recipe made of fewer rows.

    Raises:
        BundleError: it is no bundle.
        FlowsentryError: there is no evaluation, or it is of another data set.
    """
    manifest = read_bundle(bundle).manifest
    try:
        metrics = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FlowsentryError(f"{error.filename}: missing. Run `python -m trainer evaluate --out` first") from None
    if metrics["bundle"]["dataset"] != manifest.schema.name:
        raise FlowsentryError(f"{evaluation} is of {metrics['bundle']['dataset']}, {bundle} of {manifest.schema.name}")
    environment = templates(autoescape=False)  # Markdown, of our own manifest
    card = environment.get_template("model_card.md").render(
        manifest=manifest,
        content=manifest.content,
        metrics=metrics,
        names=FIGURES,
        is_twin=metrics["bundle"]["hash"] != manifest.hash,
        few_rows=_FEW_ROWS,
    )
    (bundle / CARD).write_text(card, encoding="utf-8")
    shutil.copyfile(evaluation / REPORT, bundle / REPORT)
    return bundle / CARD
