"""What tests of the service share: a tiny detector, a worker's parts around real topics, and what was logged."""

import io
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from export.detector import Detector, load
from stream.source import Source
from tests.bundles import make_bundle
from tests.kafka import produce
from tests.stream.rig import Logs, Rig


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small unsw-nb15 bundle."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny", "unsw-nb15")


@pytest.fixture(scope="session")
def tiny_detector(tiny_bundle: Path) -> Detector:
    return load(tiny_bundle, threads=1)


@pytest.fixture
def rig(bootstrap_servers: str, topic: Callable[..., str], tiny_detector: Detector) -> Iterator[Callable[..., Rig]]:
    """Factory of rigs, `rig(partitions=1) -> Rig`; their consumers leave the group after the test."""
    made: list[Rig] = []

    def make(partitions: int = 1) -> Rig:
        made.append(Rig(bootstrap_servers, topic("flows", partitions), topic("alerts"), topic("dead"), tiny_detector))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def place(rig: Callable[..., Rig]) -> Rig:
    """A rig with three flows waiting."""
    made = rig()
    produce(made.servers, made.flows, [b"0", b"1", b"2"])
    return made


@pytest.fixture
def source(place: Rig) -> Source:
    """The worker's consumer, which has read the three."""
    made = place.source()
    place.batch(made, 3)
    return made


@pytest.fixture
def logs() -> Iterator[Logs]:
    """The process's log, at the level that the service has by default."""
    yield Logs(io.StringIO())
    unconfigure()


def unconfigure() -> None:
    structlog.reset_defaults()
    logging.getLogger("librdkafka").handlers = []


@pytest.fixture
def own_signals() -> Iterator[None]:
    """A command run in this process leaves the signals, and the log, as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    unconfigure()
