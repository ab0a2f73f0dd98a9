"""Workers that die, hang, are many or have a double: what `python -m stream run` makes of it."""

import multiprocessing.resource_tracker
import multiprocessing.util
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from export.bundle import MODEL, read_bundle
from schemas.params import Params
from stream.kept import KeptBundle
from stream.supervisor import _Worker
from tests.kafka import committed, produce, wait_until_consumed
from tests.stream.rig import PATIENCE_S, Command, alerts_on, attack, command, options, workers_of


def running(of: Command, count: int) -> None:
    """Wait until so many workers in all have begun."""
    of.until(lambda: sum(line["event"] == "running" for line in of.logs) == count, f"{count} workers")


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_worker_that_is_killed_is_started_again_and_the_others_go_on(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path
) -> None:
    flows = topic("flows", 2)
    with command(*options(bootstrap_servers, flows, tiny_bundle, "--create-topics", "--workers", "2")) as service:
        running(service, 2)
        produce(bootstrap_servers, flows, [attack()] * 4)
        wait_until_consumed(bootstrap_servers, flows, flows)
        killed, other = workers_of(service.process.pid)
        os.kill(killed, signal.SIGKILL)
        died = service.logged("worker died and is started again")
        assert (died["worker"], died["status"]) == (0, -9)
        running(service, 3)
        names = [line["name"] for line in service.logs if line["event"] == "running"]
        assert names[2] in names[:2], "the name, and with it the partitions, stay"
        assert other in workers_of(service.process.pid)
        produce(bootstrap_servers, flows, [attack()] * 4)
        wait_until_consumed(bootstrap_servers, flows, flows)
        assert service.stop() == 0
    assert len([alert.id for alert in alerts_on(bootstrap_servers, f"{flows}.alerts")]) == 8


def test_a_worker_that_is_killed_before_it_has_read_what_it_is_told_does_not_hold_up_the_supervisor(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(tiny_bundle)
    large = replace(bundle, files={**bundle.files, MODEL: bytes(8 << 20)})  # more than a pipe takes at once
    multiprocessing.resource_tracker.ensure_running()  # by the same call
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", killed_at_once(multiprocessing.util.spawnv_passfds))
    worker = _Worker(0)
    starting = threading.Thread(target=worker.start, args=(Params(), True, KeptBundle(large)), daemon=True)
    starting.start()
    starting.join(PATIENCE_S)
    assert not starting.is_alive(), "it waits for ever for a reader that is dead"
    assert worker.bury() == -signal.SIGKILL


def killed_at_once(spawn: Callable[..., int]) -> Callable[..., int]:
    def spawn_and_kill(*arguments: Any) -> int:
        pid = spawn(*arguments)
        os.kill(pid, signal.SIGKILL)
        return pid

    return spawn_and_kill


def test_what_is_kept_of_a_bundle_is_all_of_it_for_each_of_several_processes(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    kept = KeptBundle(bundle)
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    processes = [context.Process(target=_tell_kept, args=(kept, tell)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [told.recv() for _ in processes]
    for process in processes:
        process.join(PATIENCE_S)
    assert found == [(bundle.manifest.hash, bundle)] * 3


def _tell_kept(kept: KeptBundle, tell: Connection) -> None:
    tell.send((kept.hash, kept.bundle()))


def test_workers_that_keep_dying_end_the_service_with_a_status(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path
) -> None:
    flows = topic("flows")
    words = options(bootstrap_servers, flows, tiny_bundle, "--create-topics", "--set", "stream.max_restarts=2")
    with command(*words) as service:
        for death in (1, 2, 3):
            running(service, death)
            [pid] = workers_of(service.process.pid)
            os.kill(pid, signal.SIGKILL)
        assert service.ended() == 1
        last = service.logs[-1]
        assert last["event"] == "a worker keeps dying, all are stopped"
        assert (last["deaths"], last["status"]) == (3, -9)
        waits = [line["in_s"] for line in service.logs if line["event"] == "worker died and is started again"]
        assert len(waits) == 2 and waits[0] < waits[1]


def test_a_worker_that_gets_something_done_may_die_as_often_as_it_likes(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path
) -> None:
    flows = topic("flows")
    words = options(bootstrap_servers, flows, tiny_bundle, "--create-topics", "--set", "stream.max_restarts=0")
    with command(*words) as service:
        for death in (1, 2):
            produce(bootstrap_servers, flows, [attack()])
            running(service, death)
            wait_until_consumed(bootstrap_servers, flows, flows)
            [pid] = workers_of(service.process.pid)
            os.kill(pid, signal.SIGKILL)
        running(service, 3)
        assert service.stop() == 0
    assert len(alerts_on(bootstrap_servers, f"{flows}.alerts")) == 2


def test_a_worker_that_hangs_is_killed_when_the_service_is_to_stop(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path
) -> None:
    flows = topic("flows")
    words = options(bootstrap_servers, flows, tiny_bundle, "--create-topics", "--set", "stream.stop_timeout_s=1")
    with command(*words) as service:
        running(service, 1)
        [pid] = workers_of(service.process.pid)
        os.kill(pid, signal.SIGSTOP)
        assert service.stop() == 0
        assert service.logged("worker did not stop in time and is killed")["worker"] == 0
        assert gone(pid)


def test_workers_do_not_outlive_a_supervisor_that_is_killed(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path
) -> None:
    flows = topic("flows", 2)
    words = options(bootstrap_servers, flows, tiny_bundle, "--create-topics", "--workers", "2")
    with command(*words) as service:
        running(service, 2)
        workers = workers_of(service.process.pid)
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
        deadline = time.monotonic() + 30
        while not all(map(gone, workers)):
            assert time.monotonic() < deadline, "workers live on"
            time.sleep(0.05)
        with command(*words) as again:
            produce(bootstrap_servers, flows, [attack()] * 4)
            wait_until_consumed(bootstrap_servers, flows, flows)
            assert again.stop() == 0
    assert len(alerts_on(bootstrap_servers, f"{flows}.alerts")) == 4


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_of_two_instances_with_one_name_one_ends_and_says_why_and_the_other_goes_on(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path, delivery: str
) -> None:
    flows = topic("flows")
    words = options(
        bootstrap_servers, flows, tiny_bundle, "--create-topics", "--instance", "same", "--delivery", delivery
    )
    with command(*words) as older:
        produce(bootstrap_servers, flows, [attack()])
        wait_until_consumed(bootstrap_servers, flows, flows)
        with command(*words) as newer:
            ended, other = (older, newer) if ends(older, newer) else (newer, older)
            assert ended.ended() == 2
            assert ended.lines[-1].startswith("error: fenced: another worker of the group has this one's name")
            assert ended.lines[-1].endswith("Give each instance its own stream.instance")
            produce(bootstrap_servers, flows, [attack()])
            wait_until_consumed(bootstrap_servers, flows, flows)
            assert other.stop() == 0
    assert len(alerts_on(bootstrap_servers, f"{flows}.alerts")) == 2


def test_two_instances_with_one_name_while_flows_keep_coming(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path
) -> None:
    flows, sent, enough = topic("flows"), [0], threading.Event()

    def feed() -> None:
        while not enough.wait(0.01):
            produce(bootstrap_servers, flows, [attack()] * 10)
            sent[0] += 10

    words = options(bootstrap_servers, flows, tiny_bundle, "--create-topics", "--instance", "same")
    feeding = threading.Thread(target=feed)
    with command(*words) as older:
        feeding.start()
        try:
            older.until(lambda: committed(bootstrap_servers, flows, flows)[0] > 50, "flows that the older one judged")
            with command(*words) as newer:
                ended, other = (older, newer) if ends(older, newer) else (newer, older)
                assert ended.ended() == 2
                assert "fenced: another worker of the group has this one's name" in ended.lines[-1]
                enough.set()
                feeding.join()
                wait_until_consumed(bootstrap_servers, flows, flows)
                assert other.stop() == 0
        finally:
            enough.set()
            feeding.join()
    ids = [alert.id for alert in alerts_on(bootstrap_servers, f"{flows}.alerts")]
    assert sorted(ids) == sorted(f"{flows}-0-{offset}" for offset in range(sent[0]))


def ends(one: Command, other: Command) -> bool:
    """Wait for one of two to end: whether it is the first."""
    deadline = time.monotonic() + 2 * PATIENCE_S
    while one.process.poll() is None and other.process.poll() is None:
        assert time.monotonic() < deadline, "neither ends"
        time.sleep(0.05)
    return one.process.poll() is not None
