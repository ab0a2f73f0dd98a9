"""The detector: feature columns in, scores out. Needs numpy and onnxruntime alone."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.bundle import MODEL, Bundle, Manifest, read_bundle
from export.reasons import Reasoner, Reasons, Spoken
from export.runtime import ort
from export.signing import ANYONE, Trust
from schemas.errors import BundleError
from schemas.flow import Kind

__all__ = ["Detector", "Scores", "load", "open_detector"]

# Rows per run of the graph: large enough to keep the cores busy, small enough that memory stays flat.
_ROWS_PER_RUN = 32


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model says of B flows. `score` f32[B] is the attack probability, `family` i64[B] an index into the
    bundle's attack families, `family_probability` f32[B], `attention` f32[B, F] how the verdict looked at each feature.

    `novelty` f32[B] is how unlike benign flows a flow is, `surprise` f32[B, F] how far beyond a benign flow's each
    feature is, both in standard deviations, 0 or more; None where the bundle does not tell. Of a bundle that tells nothing
    else all other values are 0.
    """

    score: np.ndarray
    family: np.ndarray
    family_probability: np.ndarray
    attention: np.ndarray
    novelty: np.ndarray | None = None
    surprise: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.score)


class Detector:
    """A bundle, loaded and ready. Thread-safe: `score` keeps no state."""

    def __init__(self, manifest: Manifest, session: ort.InferenceSession) -> None:
        self.manifest = manifest
        self.schema = manifest.schema
        self._session = session
        self._inputs = {value.name for value in session.get_inputs()}
        self._numeric = [info for info in manifest.features if info.kind == Kind.NUMERIC]
        self._categorical = [info for info in manifest.features if info.kind == Kind.CATEGORICAL]
        self._codes: dict[str, dict[str | None, int]] = {
            info.name: {category: code for code, category in enumerate(info.vocabulary, start=1)}
            for info in self._categorical
        }
        for codes in self._codes.values():
            codes[None] = 0
        # A graph that does not tell novelty takes an unknown category for a missing one.
        self._unknown = [len(info.vocabulary) + 1 if manifest.tells_novelty else 0 for info in self._categorical]
        self._reasoner = Reasoner(self._numeric, self._categorical)

    def score(self, columns: Mapping[str, np.ndarray]) -> Scores:
        """Score B flows.

        Args:
            columns: feature name → numeric f[B] (NaN, or more than a float32 holds = missing) or categories object[B]
                (None = missing). A feature that is not there is missing in every row.

        Raises:
            ValueError: a name that is no feature, or columns of different lengths.
        """
        numeric, codes = self._matrices(columns)
        return self._run(numeric, codes)

    def score_matrix(self, numeric: np.ndarray, codes: np.ndarray) -> Scores:
        """Score rows that are encoded already: f32[B, N] raw values and i64[B, C] category codes, in graph order."""
        return self._run(numeric, codes)

    def reasons(
        self, columns: Mapping[str, np.ndarray], scores: Scores, row: int, *, novel: bool = False, top: int = 3
    ) -> list[Spoken]:
        """The features that spoke most for one flow's score, strongest first."""
        return self.reasons_of(columns, scores, np.array([row]), np.array([novel]), top=top).of(0)

    def reasons_of(
        self, columns: Mapping[str, np.ndarray], scores: Scores, rows: np.ndarray, novel: np.ndarray, *, top: int = 3
    ) -> Reasons:
        """The features that spoke most for the scores of n flows: `rows` i64[n] of the columns, `novel` bool[n].

        The weight is the attention that the verdict paid to a feature times how unusual its value is for a benign flow
        (1 within the benign range, more outside it). Those of a flow that is `novel` are weighed by their surprise.
        """
        return self._reasoner.reasons(
            {name: column[rows] for name, column in columns.items()},
            scores.attention[rows],
            None if scores.surprise is None else scores.surprise[rows],
            novel,
            top,
        )

    def severity(self, score: float, *, novel: bool = False) -> str:
        """low, medium, high or critical: the highest step whose bound the score reaches, or if `novel` the novelty."""
        return str(self.severities(np.array([score]), np.array([novel]))[0])

    def severities(self, scores: np.ndarray, novel: np.ndarray) -> np.ndarray:
        """The same of n flows: scores f64[n], or novelties where `novel` bool[n] → object[n] of str."""
        reached = np.full(len(scores), "low", dtype=object)
        for bounds, meant in ((self.manifest.severity, ~novel), (self.manifest.novelty_severity, novel)):
            for name, bound in bounds.items():
                reached[meant & (scores >= bound)] = name
        return reached

    def _matrices(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        unknown = columns.keys() - set(self.schema.names)
        if unknown:
            raise ValueError(f"{sorted(unknown)[0]!r} is not a feature of {self.schema.name}")
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"columns have different lengths: {sorted(lengths)}")
        rows = lengths.pop() if lengths else 0
        numeric = np.full((rows, len(self._numeric)), np.nan, dtype=np.float32)
        with np.errstate(over="ignore"):
            for index, info in enumerate(self._numeric):
                if info.name in columns:
                    numeric[:, index] = columns[info.name]
        numeric[np.isinf(numeric)] = np.nan
        codes = np.zeros((rows, len(self._categorical)), dtype=np.int64)
        for index, info in enumerate(self._categorical):
            if info.name in columns:
                known = self._codes[info.name]
                codes[:, index] = [known.get(value, self._unknown[index]) for value in columns[info.name]]
        return numeric, codes

    def _run(self, numeric: np.ndarray, codes: np.ndarray) -> Scores:
        rows = len(numeric)
        score = np.zeros(rows, dtype=np.float32)
        family = np.zeros(rows, dtype=np.int64)
        family_probability = np.zeros(rows, dtype=np.float32)
        attention = np.zeros((rows, len(self.manifest.features)), dtype=np.float32)
        novelty = np.empty(rows, dtype=np.float32)
        surprise = np.empty((rows, len(self.manifest.features)), dtype=np.float32)
        for start in range(0, rows, _ROWS_PER_RUN):
            part = slice(start, start + _ROWS_PER_RUN)
            feeds = {"numeric": numeric[part], "categories": codes[part]}
            told = self._session.run(None, {name: value for name, value in feeds.items() if name in self._inputs})
            if self.manifest.classifies:
                attack, families, attention[part], *told = told
                score[part] = attack
                family[part] = families.argmax(axis=1)
                family_probability[part] = families.max(axis=1)
            if told:
                novelty[part], surprise[part] = told
        of_novelty = (novelty, surprise) if self.manifest.tells_novelty else (None, None)
        return Scores(score, family, family_probability, attention, *of_novelty)


def load(directory: Path | str, *, threads: int | None = None, trust: Trust = ANYONE) -> Detector:
    """Open a bundle, after checking every hash.

    Args:
        threads: threads of one `score`; None leaves it to ONNX Runtime (one per core).
        trust: whose signatures count, and whether there must be one.

    Raises:
        BundleError: it is damaged, incomplete, not signed as it must be or of an unknown version.
    """
    return open_detector(read_bundle(Path(directory), trust), threads=threads)


def open_detector(bundle: Bundle, *, threads: int | None = None) -> Detector:
    """Make the detector of a bundle that was read: of the bytes that were checked, not of the file.

    Raises:
        BundleError: ONNX Runtime cannot load the graph, or it is not a graph of this data set.
    """
    path = bundle.directory / MODEL
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    # A plan of memory per input shape takes 100 MB more and saves no time where batches differ in size.
    options.enable_mem_pattern = False
    # A service shares its cores with the broker's client: waiting threads must sleep.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Tensors may name files that hold their data, and ONNX Runtime would look for them in the working directory. Below
    # a path that is no directory there are none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        session = ort.InferenceSession(bundle.files[MODEL], options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes, which share no public base
        raise BundleError(f"{path}: ONNX Runtime cannot load it: {error}") from error
    _check_graph(session, bundle.manifest, path)
    return Detector(bundle.manifest, session)


def _check_graph(session: ort.InferenceSession, manifest: Manifest, path: Path) -> None:
    schema = manifest.schema
    inputs = {"numeric": ("float", [len(schema.numeric)])}
    if schema.categorical or len(session.get_inputs()) > 1:  # of no features it is empty, and may be left out
        inputs["categories"] = ("int64", [len(schema.categorical)])
    outputs: dict[str, tuple[str, list[int]]] = {}
    if manifest.classifies:
        outputs = {
            "attack_probability": ("float", []),
            "family_probabilities": ("float", [len(manifest.families)]),
            "attention": ("float", [len(schema.features)]),
        }
    if manifest.tells_novelty:
        outputs |= {"novelty": ("float", []), "surprise": ("float", [len(schema.features)])}
    for given, expected in ((session.get_inputs(), inputs), (session.get_outputs(), outputs)):
        found = {value.name: value for value in given}
        for name, (kind, width) in expected.items():
            shape = found[name].shape if name in found else None
            if shape is None or isinstance(shape[0], int) or shape[1:] != width:
                raise BundleError(f"{path}: {name} has shape {shape}, expected {['batch', *width]}")
            if found[name].type != f"tensor({kind})":
                raise BundleError(f"{path}: {name} is a {found[name].type}, expected tensor({kind})")
        if list(found) != list(expected):
            raise BundleError(f"{path}: has {', '.join(found)}, expected {', '.join(expected)} in this order")
