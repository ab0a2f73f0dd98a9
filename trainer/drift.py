"""`drift`: a window of flows against what the bundle was trained on, feature by feature, as figures and as a report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.detector import Detector, Scores, load
from export.drift_reference import NOVELTY, SCORE, DriftReference, reference_of
from export.histograms import Categories, Distances, Numbers
from export.progress import track
from export.reading import read_flows
from schemas.errors import FlowsentryError
from schemas.flow import Kind
from schemas.params import StreamParams

__all__ = ["Comparison", "Window", "compare", "drawn", "drift", "read_window", "reference_of_rows"]

_MOST_ROWS = 10_000  # of a report; of more, some at random
_BATCH_ROWS = 8192
_WIDE = 10.0


@dataclass(frozen=True, slots=True)
class Window:
    """Flows as columns, f64[N] (NaN = missing) or object[N] (None = missing), with what the bundle says of them."""

    columns: Mapping[str, np.ndarray]
    scores: Scores

    def __len__(self) -> int:
        return len(self.scores)

    def told(self, name: str) -> np.ndarray:
        """A feature's values, or a score's."""
        if name == SCORE:
            return self.scores.score
        if name == NOVELTY and self.scores.novelty is not None:
            return self.scores.novelty
        return self.columns[name]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A window and what it is held against, as columns of at most 10,000 rows, f[N] (NaN = missing) or, of the `categorical`
    ones, object[N]; and how far each feature and score is, by all rows, the furthest first."""

    reference: Mapping[str, np.ndarray]
    window: Mapping[str, np.ndarray]
    categorical: tuple[str, ...]
    distances: Mapping[str, Distances]


def drift(
    bundle: Path,
    files: Sequence[Path],
    out: Path,
    *,
    reference: Sequence[Path] = (),
    stream: StreamParams,
    psi_bound: float,
    seed: int,
) -> Mapping[str, Distances]:
    """Write Evidently's report of `compare`; the distances.

    Args:
        psi_bound: from which population stability index the report calls a feature drifted.

    Raises:
        FlowsentryError: as `compare`, or the report cannot be written.
    """
    from trainer.evidently_report import write_report

    found = compare(bundle, files, reference=reference, stream=stream, seed=seed)
    write_report(found.reference, found.window, found.categorical, out, psi_bound=psi_bound)
    return found.distances


def compare(
    bundle: Path, files: Sequence[Path], *, reference: Sequence[Path] = (), stream: StreamParams, seed: int
) -> Comparison:
    """Hold a window of flows against what the bundle was trained on, with as many attacks as are alerts in the window.

    Args:
        files: the window, CSV or Parquet; labels are not needed.
        reference: flows to hold it against, as they are; none: those that the bundle's histograms are of. A report needs rows:
            they are drawn from the histograms then, each feature on its own.
        stream: how much of a row's features must be there, and what makes an alert, as in the service.

    Raises:
        FlowsentryError: the bundle cannot be read or has no reference, or a file does not fit it.
    """
    detector = load(bundle)
    rng = np.random.default_rng(seed)
    window = read_window(files, detector, stream.min_feature_coverage)
    given = read_window(reference, detector, stream.min_feature_coverage) if reference else None
    measured_by = detector.manifest.drift if given is None else reference_of_rows(detector, given.columns, given.scores)
    if measured_by is None:
        raise FlowsentryError(
            f"bundle {detector.manifest.name} was built before bundles had a reference: build it again, or give --reference FILE"
        )
    variables = (*measured_by.features, *measured_by.scores)
    policy = detector.manifest.policy_of(stream.target_fpr, stream.threshold, novel=stream.novel_alerts)
    attack_share = float(policy.alerts(window.scores.score, window.scores.novelty).mean())
    if given is None:
        expected = drawn(measured_by, attack_share, min(_MOST_ROWS, sum(measured_by.rows)), rng)
    else:
        expected = _some(given, [it.name for it in variables], rng)
    distances = {it.name: it.distances(it.count(window.told(it.name)), attack_share) for it in variables}
    return Comparison(
        reference=expected,
        window=_some(window, [it.name for it in variables], rng),
        categorical=tuple(it.name for it in variables if isinstance(it, Categories)),
        distances=dict(sorted(distances.items(), key=lambda item: -item[1].psi)),
    )


def _some(window: Window, names: Sequence[str], rng: np.random.Generator) -> dict[str, np.ndarray]:
    rows = rng.permutation(len(window))[:_MOST_ROWS]
    return {name: window.told(name)[rows] for name in names}


def read_window(files: Iterable[Path], detector: Detector, min_feature_coverage: float) -> Window:
    """The usable rows of files, scored.

    Raises:
        FlowsentryError: a file does not fit the bundle's data set, or no row can be used.
    """
    schema = detector.schema
    parts: dict[str, list[np.ndarray]] = {name: [] for name in schema.names}
    for path in track(list(files), "reading"):
        for batch in read_flows(path, schema, min_feature_coverage=min_feature_coverage, batch_rows=_BATCH_ROWS):
            for feature in schema.features:
                empty = np.full(len(batch.rows), np.nan if feature.kind is Kind.NUMERIC else None)
                parts[feature.name].append(batch.columns.get(feature.name, empty))
    columns = {name: np.concatenate(values) for name, values in parts.items() if values}
    if not columns or not len(columns[schema.names[0]]):
        raise FlowsentryError(f"no row of {', '.join(map(str, files))} can be used")
    return Window(columns, detector.score(columns))


def reference_of_rows(
    detector: Detector, columns: Mapping[str, np.ndarray], scores: Scores, y: np.ndarray | None = None
) -> DriftReference:
    """The reference that flows make, in place of training rows; a category that the bundle does not know is missing. `y`
    int[N] says which are attacks; None: they are not told apart, and whatever the window's alerts, it is held against all."""
    schema, manifest = detector.schema, detector.manifest
    vocabularies = {info.name: info.vocabulary for info in manifest.features if info.kind == Kind.CATEGORICAL}
    x = np.empty((len(scores), len(schema.features)), dtype=np.float32)
    for index, feature in enumerate(schema.features):
        values = columns[feature.name]
        if feature.kind is Kind.CATEGORICAL:
            codes = {name: code for code, name in enumerate(vocabularies[feature.name], start=1)}
            values = np.array([codes.get(value, 0) for value in values.tolist()])
        x[:, index] = values
    y = np.zeros(len(scores), dtype=np.int8) if y is None else y
    score = scores.score if manifest.classifies else None
    return reference_of(schema, vocabularies, x, y, score=score, novelty=scores.novelty, score_y=y)


def drawn(reference: DriftReference, attack_share: float, rows: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Rows that have the reference's histograms, with that share of attacks, each variable drawn on its own: f64[rows] or
    object[rows] columns.

    Within a bin values are spread evenly, or by their magnitude where it is wide; only its bounds are known.
    """
    columns = {}
    for variable in (*reference.features, *reference.scores):
        shares = variable.shares.expected(attack_share)
        cells = rng.choice(len(shares), rows, p=shares / shares.sum())
        if isinstance(variable, Categories):
            columns[variable.name] = np.array([*variable.vocabulary, None], dtype=object)[cells]
        elif isinstance(variable, Numbers):
            columns[variable.name] = _within(variable, cells, rng.random(rows))
    return columns


def _within(variable: Numbers, bins: np.ndarray, place: np.ndarray) -> np.ndarray:
    low, high = (np.nan, np.nan) if variable.low is None or variable.high is None else (variable.low, variable.high)
    uppers = np.concatenate([np.clip(variable.uppers.astype(np.float64), low, high), [high, np.nan]])
    lowers = np.concatenate([[low], uppers[:-1]])
    lowers[-1] = np.nan
    lower, upper = lowers[bins], uppers[bins]
    even = upper - place * (upper - lower)
    with np.errstate(divide="ignore", invalid="ignore"):
        wide = (lower > 0) & (upper > _WIDE * lower)
        by_magnitude = upper * (lower / upper) ** place
    alone = np.nextafter(upper.astype(np.float32), np.float32(-np.inf)) <= lower  # no other float32 is in the bin
    values: np.ndarray = np.where(alone, upper, np.where(wide, by_magnitude, even))
    return values
