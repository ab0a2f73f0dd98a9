"""What several pages and viewers share: bundles that were opened and files that were read, until they change on the disk."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from export.bundle import stamp
from export.detector import Detector, load
from export.thresholds import Policy
from schemas.errors import FlowsentryError
from trainer.dashboard.look import problem
from trainer.dashboard.rows import Rows, read_rows, schema_of
from trainer.dashboard.settings import given

__all__ = ["MOST_ROWS", "detectors", "file_picked", "policy_of", "rows_of"]

MOST_ROWS = 4000


def detectors(bundles: Sequence[Path]) -> dict[Path, Detector]:
    """Those that can be opened; of the others the page says why not."""
    found = {}
    for path in bundles:
        try:
            found[path] = _detector(path, stamp(path))
        except FlowsentryError as error:
            problem(error)
    return found


def policy_of(detector: Detector) -> Policy:
    """What the service would alert on."""
    stream = given().params.stream
    return detector.manifest.policy_of(stream.target_fpr, stream.threshold, novel=stream.novel_alerts)


def rows_of(path: Path) -> Rows:
    """Some of a file's rows.

    Raises:
        FlowsentryError: the file is of no data set that is known, or has a label that is not.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise FlowsentryError(f"{path}: {error.strerror}") from None
    return _rows(path, (status.st_mtime_ns, status.st_size))


def file_picked(label: str, key: str) -> Path | None:
    """A choice among the files of --data; None, and what to do, where there are none."""
    files = given().data
    if not files:
        st.info("No data: start the dashboard with `--data FILE`, a CSV of flows.", icon=":material/info:")
        return None
    return st.selectbox(label, files, format_func=lambda path: path.name, key=key)


@st.cache_resource(max_entries=16, show_spinner="opening the bundle …")
def _detector(path: Path, stamped: tuple[object, ...]) -> Detector:
    return load(path, trust=given().trust)


@st.cache_resource(max_entries=16, show_spinner="reading the file …")
def _rows(path: Path, changed: tuple[int, int]) -> Rows:
    return read_rows(
        path, schema_of(path), most=MOST_ROWS, min_feature_coverage=given().params.stream.min_feature_coverage
    )
