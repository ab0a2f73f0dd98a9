"""Tiny bundles for tests of the detector and of what runs it."""

from pathlib import Path

import pytest

from export.detector import Detector, load
from schemas.datasets import SCHEMAS
from tests.bundles import make_bundle


@pytest.fixture(scope="session")
def tiny_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny bundle of every data set, by name. Not to be changed: copy one first."""
    folder = tmp_path_factory.mktemp("bundles")
    return {name: make_bundle(folder / name, name) for name in SCHEMAS}


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundles: dict[str, Path]) -> Path:
    """The tiny bundle of unsw-nb15, which has numeric features and categorical ones. Not to be changed."""
    return tiny_bundles["unsw-nb15"]


@pytest.fixture(scope="session")
def detector(tiny_bundle: Path) -> Detector:
    """The tiny bundle, loaded."""
    return load(tiny_bundle)
