"""Hot reload: a new bundle takes over between two batches, and a bad one never does."""

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from export.bundle import MANIFEST, MODEL, REFERENCE, Manifest, read_bundle, write_manifest, write_signature
from export.detector import Detector, load
from export.reference import load_checked
from export.signing import PRIVATE_KEY, PUBLIC_KEY, Trust, make_keys, sign
from export.thresholds import Policy
from schemas.errors import BundleError
from stream.batch import Batch, FlowRecord
from stream.decode import Decoder
from stream.reload import Reloader, Shadow, shadow
from tests.bundles import make_bundle
from tests.stream.rig import PATIENCE_S, THRESHOLD, Logs, attack, benign

DATASET = "unsw-nb15"


@dataclass(frozen=True, slots=True)
class Judge:
    """A bundle's detector and what goes with it."""

    detector: Detector
    decoder: Decoder
    policy: Policy


def judge_of(detector: Detector, target_fpr: float = 0.01) -> Judge:
    decoder = Decoder(detector.schema, min_feature_coverage=0.5)
    return Judge(detector, decoder, Policy(detector.manifest.threshold_for(target_fpr)))


def batch(*values: bytes) -> Batch:
    return Batch([FlowRecord("flows", 0, offset, None, value, (), 0) for offset, value in enumerate(values)])


class Watched:
    """A place with a bundle, the judge in use, its reloader (looked with by hand) and what it has told."""

    def __init__(self, place: Path, trust: Trust) -> None:
        self.place = place
        self.trust = trust
        self.judge = self.load(place)
        self.refusals = 0
        self.takeovers: list[str] = []
        self.loads = 0
        self.reloader = self.make()

    def make(self, every_s: float = 0.02) -> Reloader[Judge]:
        return Reloader(
            self.place,
            current=self.judge.detector.manifest,
            load_judge=self.load_counted,
            on_refusal=self.count,
            on_takeover=self.take,
            trust=self.trust,
            every_s=every_s,
        )

    def load(self, directory: Path) -> Judge:
        return judge_of(load_checked(read_bundle(directory, self.trust), threads=1))

    def load_counted(self, directory: Path) -> Judge:
        self.loads += 1
        assert not directory.is_symlink()
        return self.load(directory)

    def count(self) -> None:
        self.refusals += 1

    def take(self, manifest: Manifest) -> None:
        self.takeovers.append(manifest.version)

    @property
    def version(self) -> str:
        return self.judge.detector.manifest.version

    def look(self, times: int = 2) -> None:
        for _ in range(times):
            self.reloader.look()

    def run(self, *values: bytes) -> None:
        """A batch was judged and published."""
        self.judge = self.reloader.successor(self.judge, batch(*values or (attack(), benign())))


@pytest.fixture
def bundles(tmp_path: Path) -> Callable[..., Path]:
    """Factory of bundles: `bundles(version)`, at the place `tmp_path / version`."""

    def make(version: str, dataset: str = DATASET, **changes: object) -> Path:
        return make_bundle(tmp_path / version, dataset, version=version, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def watched(tmp_path: Path, bundles: Callable[..., Path]) -> Watched:
    """The place `live`, a link to the bundle of version 1, in use."""
    (tmp_path / "live").symlink_to(bundles("1"))
    return Watched(tmp_path / "live", Trust())


def point(link: Path, target: Path) -> None:
    """Switch a link in one step."""
    following = link.with_name("next")
    following.symlink_to(target)
    following.replace(link)


def test_a_link_that_is_switched_brings_the_new_bundle_between_two_batches(
    watched: Watched, bundles: Callable[..., Path], logs: Logs
) -> None:
    watched.look()
    watched.run()
    assert (watched.version, watched.loads) == ("1", 0)
    old = watched.judge.detector.manifest.hash
    point(watched.place, bundles("2", gain=-1.0))
    watched.look()
    assert watched.version == "1"
    watched.run(attack(), benign(), attack(), b"garbage")
    assert (watched.version, watched.takeovers, watched.refusals) == ("2", ["2"], 0)
    [line] = logs.of("bundle takes over")
    assert (line["rows"], line["verdicts_differing"]) == (3, 3)
    assert (line["old"], line["new"]) == (old[:12], watched.judge.detector.manifest.hash[:12])
    assert watched.reloader.candidate() is None
    watched.look()
    watched.run()
    assert (watched.loads, watched.takeovers) == (1, ["2"])


def test_a_directory_that_is_renamed_into_place_is_noticed(
    tmp_path: Path, bundles: Callable[..., Path], logs: Logs
) -> None:
    place = bundles("1")
    watched = Watched(place, Trust())
    watched.look()
    new = bundles("2")
    place.rename(tmp_path / "old")
    watched.look(1)  # just between the two renames
    new.rename(place)
    watched.look()
    watched.run()
    assert (watched.version, watched.refusals) == ("2", 0)


def test_back_to_the_bundle_in_use_before_the_new_one_was_tried_is_no_change(
    tmp_path: Path, watched: Watched, bundles: Callable[..., Path]
) -> None:
    point(watched.place, bundles("2"))
    watched.look()
    assert watched.reloader.candidate() is not None
    point(watched.place, tmp_path / "1")
    watched.look()
    watched.run()
    assert (watched.version, watched.takeovers, watched.refusals) == ("1", [], 0)


def test_a_bundle_that_is_replaced_while_it_is_tried_does_not_take_over(
    tmp_path: Path, watched: Watched, bundles: Callable[..., Path]
) -> None:
    point(watched.place, bundles("2"))
    watched.look()
    tried = watched.reloader.candidate()
    assert tried is not None
    point(watched.place, bundles("3"))
    watched.look()
    assert not watched.reloader.accept(tried)
    watched.reloader.refuse(tried, "too late to matter")
    watched.run()
    assert (watched.version, watched.takeovers, watched.refusals) == ("3", ["3"], 0)


def test_there_and_back_again_ends_with_what_is_there(
    tmp_path: Path, watched: Watched, bundles: Callable[..., Path]
) -> None:
    bundles("2")
    for version in ("2", "1", "2"):
        point(watched.place, tmp_path / version)
        watched.look()
        watched.run()
        assert watched.version == version
    assert watched.refusals == 0


def test_a_bad_bundle_is_refused_once_and_the_old_one_goes_on(
    tmp_path: Path, watched: Watched, bundles: Callable[..., Path], logs: Logs
) -> None:
    bad = bundles("2")
    (bad / MODEL).write_bytes(b"damaged")
    point(watched.place, bad)
    watched.look(5)
    watched.run()
    assert (watched.version, watched.refusals, watched.loads) == ("1", 1, 1)
    [line] = logs.of("bundle refused")
    assert line["why"].startswith(f"{bad / MODEL}: sha256 is ")
    assert line["goes_on_with"] == watched.judge.detector.manifest.hash[:12]
    shutil.rmtree(bad)
    bundles("2")
    watched.look()
    watched.run()
    assert (watched.version, watched.refusals) == ("2", 1)


def refusal(watched: Watched, logs: Logs, place: Path) -> str:
    """Why the bundle that is now at the place is refused."""
    point(watched.place, place)
    watched.look()
    watched.run()
    assert (watched.version, watched.refusals) == ("1", 1)
    [line] = logs.of("bundle refused")
    return str(line["why"])


def test_a_bundle_of_another_data_set_is_refused(watched: Watched, bundles: Callable[..., Path], logs: Logs) -> None:
    why = refusal(watched, logs, bundles("2", "cicids2017"))
    assert why.endswith("is of data set cicids2017, the service was started for unsw-nb15")


def test_a_bundle_without_the_threshold_in_use_is_refused(
    watched: Watched, bundles: Callable[..., Path], logs: Logs
) -> None:
    assert "no threshold for a false-positive rate of 0.01" in refusal(watched, logs, bundles("2", thresholds=[]))


def test_a_bundle_that_does_not_answer_as_torch_did_is_refused(
    tmp_path: Path, watched: Watched, bundles: Callable[..., Path], logs: Logs
) -> None:
    other, new = bundles("other", gain=2.0), bundles("2")
    shutil.copy(other / REFERENCE, new / REFERENCE)
    content = read_bundle(other).manifest.content
    write_manifest(new, {key: value for key, value in content.items() if key not in ("format", "files")})
    assert refusal(watched, logs, new).startswith("reference: torch and ONNX Runtime differ on 100 made-up rows")


def test_a_place_that_is_empty_or_gone_is_refused(watched: Watched, tmp_path: Path, logs: Logs) -> None:
    assert refusal(watched, logs, tmp_path / "gone") == f"{tmp_path / 'gone' / MANIFEST}: missing; the bundle is " + (
        "incomplete, build or fetch it again"
    )


def test_a_bug_in_loading_is_a_refusal_too(watched: Watched, bundles: Callable[..., Path], logs: Logs) -> None:
    def fail(directory: Path) -> Judge:
        raise RuntimeError("of another kind")

    watched.reloader._load_judge = fail
    assert refusal(watched, logs, bundles("2")) == "RuntimeError: of another kind"


def test_a_bundle_that_is_being_copied_is_taken_when_it_is_whole(tmp_path: Path, bundles: Callable[..., Path]) -> None:
    place = bundles("1")
    watched = Watched(place, Trust())
    new = bundles("2", gain=-1.0)
    for path in sorted(new.iterdir()):
        whole = path.read_bytes()
        for length in (0, len(whole) // 2, len(whole)):
            (place / path.name).write_bytes(whole[:length])
            watched.look()  # the copy pauses for long enough to be looked into
            watched.run()
    assert watched.version == "2"
    assert watched.takeovers == ["2"]
    assert watched.refusals > 0


def test_while_the_place_changes_at_every_look_nothing_is_loaded(
    watched: Watched, bundles: Callable[..., Path]
) -> None:
    new = bundles("2")
    point(watched.place, new)
    for _ in range(5):
        (new / MANIFEST).touch()
        watched.look(1)
    assert (watched.loads, watched.refusals) == (0, 0)
    watched.look(1)
    assert watched.loads == 1


def test_a_bundle_that_was_refused_for_its_signature_is_taken_when_the_key_is_trusted(
    tmp_path: Path, bundles: Callable[..., Path], logs: Logs
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make_keys(first)
    key = make_keys(second)
    trusted = tmp_path / "trusted.pem"
    shutil.copy(first / PUBLIC_KEY, trusted)
    for version, keys in (("1", first), ("2", second)):
        bundle = read_bundle(bundles(version))
        write_signature(bundle, sign(bundle.files[MANIFEST], keys / PRIVATE_KEY))
    (tmp_path / "live").symlink_to(tmp_path / "1")
    watched = Watched(tmp_path / "live", Trust(trusted, required=True))
    assert f"names key {key}, which is not among those of {trusted}" in refusal(watched, logs, tmp_path / "2")
    trusted.write_bytes((first / PUBLIC_KEY).read_bytes() + (second / PUBLIC_KEY).read_bytes())
    watched.look()
    watched.run()
    assert (watched.version, watched.refusals) == ("2", 1)
    assert logs.of("bundle takes over")[0]["signature"] == f"by trusted key {key}"


def test_a_batch_without_a_usable_record_tries_nothing(watched: Watched, bundles: Callable[..., Path]) -> None:
    point(watched.place, bundles("2"))
    watched.look()
    watched.run(b"garbage", b"")
    assert watched.version == "1"
    watched.run(b"garbage", benign())
    assert watched.version == "2"


def test_a_bundle_that_fails_on_the_next_batch_is_refused_and_not_tried_again(
    watched: Watched, bundles: Callable[..., Path], logs: Logs
) -> None:
    watched.reloader._load_judge = lambda directory: judge_of(load(directory, threads=1))  # no answers compared
    point(watched.place, bundles("2", gain=float("nan")))
    watched.look()
    for _ in range(3):
        watched.run()
        watched.look()
    assert (watched.version, watched.refusals, watched.takeovers) == ("1", 1, [])
    assert logs.of("bundle refused")[0]["why"] == "score of 2 rows of a batch: not 2 probabilities"


def test_the_thread_does_all_this_by_itself_and_the_loop_never_waits(
    watched: Watched, bundles: Callable[..., Path]
) -> None:
    loading, may_go_on = threading.Event(), threading.Event()

    def slow(directory: Path) -> Judge:
        loading.set()
        assert may_go_on.wait(PATIENCE_S)
        return watched.load(directory)

    reloader = watched.reloader
    reloader._load_judge = slow
    reloader.start()
    point(watched.place, bundles("2"))
    assert loading.wait(PATIENCE_S)
    watched.run()  # returns, though the load does not
    assert watched.version == "1"
    may_go_on.set()
    until = time.monotonic() + PATIENCE_S
    while watched.version == "1":
        assert time.monotonic() < until, "the new bundle did not take over"
        watched.run()
        time.sleep(0.01)
    reloader.close()
    assert not reloader._thread.is_alive()


def test_closing_does_not_wait_for_a_load_that_hangs(watched: Watched, bundles: Callable[..., Path]) -> None:
    loading, may_go_on = threading.Event(), threading.Event()

    def hang(directory: Path) -> Judge:
        loading.set()
        assert may_go_on.wait(PATIENCE_S)
        return watched.load(directory)

    watched.reloader._load_judge = hang
    watched.reloader.start()
    point(watched.place, bundles("2"))
    assert loading.wait(PATIENCE_S)
    watched.reloader.close()
    assert watched.reloader._thread.is_alive()
    may_go_on.set()
    watched.reloader._thread.join(PATIENCE_S)
    assert not watched.reloader._thread.is_alive()


class TestShadow:
    """A new judge is tried on a batch, and nothing of it is published."""

    def test_the_verdicts_that_differ_are_counted_each_by_its_own_threshold(
        self, tiny_detector: Detector, bundles: Callable[..., Path]
    ) -> None:
        old, stricter = judge_of(tiny_detector), judge_of(tiny_detector, 0.0001)
        values = [attack(), attack(sttl=60, dpkts=10), benign(), b"{"]
        scores = [float(tiny_detector.score(old.decoder.decode([value]).columns).score[0]) for value in values[:3]]
        differing = sum(THRESHOLD <= score < 0.98 for score in scores)
        assert 0 < differing < 3
        assert shadow(old, old, batch(*values)) == Shadow(3, 0)
        assert shadow(old, stricter, batch(*values)) == Shadow(3, differing)
        assert shadow(old, judge_of(load(bundles("2", gain=-1.0))), batch(attack(), benign())) == Shadow(2, 2)

    def test_scores_that_are_no_probabilities_fail(self, tiny_detector: Detector, bundles: Callable[..., Path]) -> None:
        new = judge_of(load(bundles("2", gain=float("nan"))))
        with pytest.raises(BundleError, match="score of 1 rows of a batch: not 1 probabilities"):
            shadow(judge_of(tiny_detector), new, batch(attack()))

    def test_a_bundle_that_cannot_score_the_columns_fails_without_quoting_them(
        self, tiny_detector: Detector, bundles: Callable[..., Path]
    ) -> None:
        new = judge_of(load(bundles("2", "cicids2017")))
        with pytest.raises(BundleError, match=r"cannot judge 1 rows of a batch: ValueError$"):
            shadow(judge_of(tiny_detector), new, batch(attack()))

    def test_what_the_old_judge_cannot_process_is_not_blamed_on_the_new_one(
        self, tiny_detector: Detector, bundles: Callable[..., Path]
    ) -> None:
        other = load(bundles("2", "cicids2017"))
        broken = Judge(other, Decoder(tiny_detector.schema, min_feature_coverage=0.5), Policy(THRESHOLD))
        assert shadow(broken, judge_of(tiny_detector), batch(attack())) == Shadow(0, 0)

    def test_a_batch_of_which_no_alert_can_be_made_fails(
        self, tiny_detector: Detector, bundles: Callable[..., Path]
    ) -> None:
        detector = load(bundles("2"))
        new = Judge(detector, Decoder(detector.schema, min_feature_coverage=0.5), Policy(-1.0))  # no alert's threshold
        with pytest.raises(BundleError, match=r"cannot judge 1 rows of a batch: ValueError$"):
            shadow(judge_of(tiny_detector), new, batch(attack()))
