"""A run: the service on a real Kafka, fed and watched, while faults happen; then every record is accounted for.

with FaultyKafka(folder) as kafka, Harness(kafka, folder, seed=1) as harness:
    harness.cause(Fault("kill worker"))
    report = harness.finish()
assert report.problems == []
"""

import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from stream.topics import ROOMY
from tests.faults.check import Topics, check, rebalances, unconsumed
from tests.faults.feed import Feed
from tests.faults.given import BUNDLE, THRESHOLD, Given, flows, malformed
from tests.faults.kafka import FaultyKafka
from tests.faults.report import Caused, Report
from tests.faults.running import Running
from tests.faults.samples import Sample, sample
from tests.faults.schedule import Fault
from tests.faults.watch import Watch
from tests.kafka import committed, end_offsets

__all__ = ["Harness", "run_faults"]

_TICK_S = 0.05
_PATIENCE_S = 90.0
_RECOVERY_S = 60.0
_SAMPLE_EVERY_S = 5.0
_ALERT_PARTITIONS = 2


class Harness:
    """Topics and a group of their own, a feed, a live subscriber and the instance `main` of the service.

    Args:
        options: more of `python -m stream run`.
        environment: more of the service's environment.
        session_timeout_s: what the service has; a worker that is stopped stays so for longer.
        more: records that the feed does not give by itself.
    """

    def __init__(
        self,
        kafka: FaultyKafka,
        folder: Path,
        *,
        seed: int,
        rate: float = 200.0,
        partitions: int = 4,
        workers: int = 2,
        bad_share: float = 0.05,
        most_waiting: int | None = 500,
        session_timeout_s: float = 6.0,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        more: Sequence[Given] = (),
        replay: str = "",
    ) -> None:
        self.kafka, self.seed = kafka, seed
        self.session_timeout_s = session_timeout_s
        self.topics = Topics(f"flows-{uuid.uuid4().hex[:8]}")
        self.began_s, self._began_wall_s = time.monotonic(), time.time()
        self.caused: list[Caused] = []
        self.samples: list[Sample] = []
        self.on_look: Callable[[], None] = lambda: None
        self._folder, self._replay = folder, replay
        self._environment = environment or {}
        self._options = [
            "--bundle", str(BUNDLE), "--bootstrap-servers", kafka.proxied, "--metrics-port", "0",
            "--input", self.topics.flows, "--alerts", self.topics.alerts, "--dead-letters", self.topics.dead,
            "--events", self.topics.events, "--group", self.topics.group, "--threshold", str(THRESHOLD), *options,
        ]  # fmt: skip
        kafka.create(self.topics.flows, partitions)
        kafka.create(self.topics.alerts, _ALERT_PARTITIONS)
        kafka.create(self.topics.dead, 1, **{"max.message.bytes": str(ROOMY)})
        kafka.create(self.topics.events, 1)
        self.given = [*flows(), *malformed(), *more]
        self.watch = Watch(kafka.direct, self.topics.alerts, _ALERT_PARTITIONS)
        self.feed = Feed(
            kafka.direct,
            self.topics.flows,
            self.given,
            seed=seed,
            partitions=partitions,
            rate=rate,
            bad_share=bad_share,
            waiting=lambda due: due - self.watch.alerts,
            most_waiting=most_waiting,
        )
        self.instances: list[Running] = []
        self._gone: list[Running] = []
        self._exits: list[int] = []
        self._sampled_s = 0.0
        self.main = self.add("main", workers)

    def __enter__(self) -> Self:
        self.watch.start()
        self.main.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kafka.proxy.resume()
        self.kafka.proxy.accept()
        self.kafka.proxy.name_brokers()
        self.watch.finish()
        for instance in [*self.instances, *self._gone]:
            instance.end()

    def add(self, name: str, workers: int, *options: str) -> Running:
        """One more instance, not started yet; `options`: more of its command."""
        options = (*self._options, "--workers", str(workers), *options)
        instance = Running(name, options, folder=self._folder, environment=self._environment)
        self.instances.append(instance)
        return instance

    def remove(self, instance: Running) -> None:
        """Stop an instance in order, for good."""
        self._exits.append(instance.stop())
        self.instances.remove(instance)
        self._gone.append(instance)

    # Waiting, with an eye on the service

    def look(self, seconds: float = _TICK_S) -> None:
        """Wait a moment; what has ended is started again, and memory is sampled now and then."""
        time.sleep(seconds)
        for instance in self.instances:
            instance.look()
        now_s = time.monotonic()
        if now_s - self._sampled_s > _SAMPLE_EVERY_S:
            self._sampled_s = now_s
            self.samples += sample(self.instances, self.began_s)
        self.on_look()

    def pause(self, seconds: float) -> None:
        """Wait."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self.look(min(_TICK_S, left_s))

    def until(self, condition: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S) -> None:
        """Wait for something, which must come."""
        deadline = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come within {patience_s:.0f} s (seed {self.seed})"
            self.look()

    def flowing(self) -> None:
        """Wait until alerts of every partition that is fed come, made from now on."""
        began_s, wall_s = time.monotonic(), time.time()
        wanted = self.feed.partitions
        self.until(lambda: len(self.watch.first_since(began_s, wall_s)) >= wanted, "alerts of every partition")

    def more(self, alerts: int = 100, patience_s: float = _PATIENCE_S) -> None:
        """Wait until so many more alerts have come."""
        wanted = self.watch.alerts + alerts
        self.until(lambda: self.watch.alerts >= wanted, f"{alerts} more alerts", patience_s)

    def overtaken(self) -> None:
        """Wait until all that is on the topic now is committed, by whoever has its partitions."""
        ends = end_offsets(self.kafka.direct, self.topics.flows)

        def done() -> bool:
            found = committed(self.kafka.direct, self.topics.group, self.topics.flows)
            return all(found[number] >= end for number, end in ends.items())

        self.until(done, "all that was on the topic")

    # Faults

    def cause(self, fault: Fault) -> None:
        """Wait as long as the fault says, then cause it; returns when it has ended, however long recovery takes."""
        if not fault.on_top:
            self._recover()
        self.pause(fault.after_s)
        if self.caused:
            self._measure(self.caused[-1])
            self.caused[-1].overlaid = fault.on_top
        caused = Caused(fault, time.monotonic() - self.began_s)
        self.caused.append(caused)
        getattr(self, "_" + fault.kind.replace(" ", "_"))(fault, caused)
        caused.ended_s = time.monotonic() - self.began_s

    def _recover(self) -> None:
        """Wait until alerts flow again after the last fault; not for ever: then the report tells how long it took."""
        last = self.caused[-1] if self.caused else None
        deadline = time.monotonic() + _RECOVERY_S
        while last and last.measured_from_s is not None and last.all_again_s is None and time.monotonic() < deadline:
            self.look()
            self._measure(last)

    def _measure(self, caused: Caused) -> None:
        """When alerts flowed again after a fault, if they do by now."""
        if caused.measured_from_s is None or caused.all_again_s is not None:
            return
        from_s = caused.measured_from_s + self.began_s
        wall_s = self._began_wall_s + caused.measured_from_s
        found = self.watch.first_since(from_s, wall_s)
        wanted = self.watch.partitions_before(from_s)
        if found:
            caused.first_again_s = min(found.values()) - from_s
        if wanted and wanted <= found.keys():
            caused.all_again_s = max(found[number] for number in wanted) - from_s

    def _from_now(self, caused: Caused) -> None:
        caused.measured_from_s = time.monotonic() - self.began_s

    def _victim(self, fault: Fault) -> int:
        self.until(lambda: bool(self.main.workers()), "a worker")
        workers = self.main.workers()
        return workers[int(fault.which * len(workers))]

    def _kill_worker(self, fault: Fault, caused: Caused) -> None:
        victim = self._victim(fault)
        self._from_now(caused)
        self.main.send(victim, signal.SIGKILL)

    def _kill_worker_before_commit(self, fault: Fault, caused: Caused) -> None:
        self.main.doom(self.sign("kill-before-commit"))
        self._from_now(caused)

    def _kill_worker_after_commit(self, fault: Fault, caused: Caused) -> None:
        self.main.doom(self.sign("kill-after-commit"))
        self._from_now(caused)

    def sign(self, name: str) -> int:
        """Give a sign to whichever worker comes to the place first; its process id, once it has."""
        (self.main.signs / name).touch()
        taken: list[Path] = []

        def look() -> bool:
            taken[:] = self.main.signs.glob(f"{name}.*")
            return bool(taken)

        self.until(look, f"a worker at the place of {name}")
        taken[0].unlink()
        return int(taken[0].suffix[1:])

    def _kill_supervisor(self, fault: Fault, caused: Caused) -> None:
        self._from_now(caused)
        self.main.send(self.main.pid, signal.SIGKILL)

    def _terminate_service(self, fault: Fault, caused: Caused) -> None:
        self._exits.append(self.main.stop())
        self._from_now(caused)
        self.main.start()

    def _stop_worker(self, fault: Fault, caused: Caused) -> None:
        victim = self._victim(fault)
        self._freeze(victim, self.session_timeout_s + fault.lasts_s)
        self._from_now(caused)

    def _stop_supervisor(self, fault: Fault, caused: Caused) -> None:
        self._freeze(self.main.pid, fault.lasts_s)

    def _freeze(self, pid: int, seconds: float) -> None:
        self.main.send(pid, signal.SIGSTOP)
        self.pause(seconds)
        self.thaw(pid)

    def thaw(self, pid: int) -> None:
        """Let a stopped worker go on, if it is still there."""
        if psutil.pid_exists(pid):
            self.main.send(pid, signal.SIGCONT)

    def _kill_broker(self, fault: Fault, caused: Caused) -> None:
        self.kafka.kill()
        self._broker_returns(fault, caused)

    def _restart_broker(self, fault: Fault, caused: Caused) -> None:
        self.kafka.terminate()
        self._broker_returns(fault, caused)

    def _broker_returns(self, fault: Fault, caused: Caused) -> None:
        self.pause(fault.lasts_s)
        self.kafka.start()
        self._from_now(caused)

    def _add_and_remove_an_instance(self, fault: Fault, caused: Caused) -> None:
        other = self.add(f"other{len(self._gone)}", 1)
        other.start()
        self.pause(fault.lasts_s)
        self.remove(other)
        self._from_now(caused)

    def _raise_partitions(self, fault: Fault, caused: Caused) -> None:
        wanted = self.feed.partitions + 1
        self.kafka.raise_partitions(self.topics.flows, wanted)
        self.feed.use(wanted)

    def _stall_network(self, fault: Fault, caused: Caused) -> None:
        self.kafka.proxy.stall()
        self.pause(fault.lasts_s)
        self.kafka.proxy.resume()
        self._from_now(caused)

    def _cut_network(self, fault: Fault, caused: Caused) -> None:
        self._from_now(caused)
        self.kafka.proxy.cut()

    def _delay_network(self, fault: Fault, caused: Caused) -> None:
        self.kafka.proxy.delay(0.02 + 0.3 * fault.which)
        self.pause(fault.lasts_s)
        self.kafka.proxy.resume()
        self._from_now(caused)

    def _refuse_connections(self, fault: Fault, caused: Caused) -> None:
        self.kafka.proxy.refuse()
        self.pause(fault.lasts_s)
        self.kafka.proxy.accept()
        self._from_now(caused)

    def _name_no_broker(self, fault: Fault, caused: Caused) -> None:
        self.kafka.proxy.name_no_broker()
        self.kafka.proxy.cut()  # whoever comes back asks
        self.pause(fault.lasts_s)
        self.kafka.proxy.name_brokers()
        self._from_now(caused)

    # The end

    def finish(self, patience_s: float = 120.0) -> Report:
        """No more faults and flows: wait until all is consumed, stop the service, and account for every record."""
        self._recover()
        self.feed.finish()
        self.drained(patience_s)
        for instance in list(self.instances):
            self.remove(instance)
        self._settle()
        self.watch.finish()
        for instance in self._gone:
            instance.end()
        outcome = check(self.kafka.direct, self.topics, self.feed, self.given, self.watch)
        return Report(
            seed=self.seed,
            replay=self._replay,
            began_wall_s=self._began_wall_s,
            seconds=time.monotonic() - self.began_s,
            outcome=outcome,
            caused=self.caused,
            gap_s=self.watch.gap_s,
            gap_until_s=self.watch.gap_until_s - self.began_s,
            rebalances=rebalances(self.kafka.direct, self.topics.group),
            by_itself=[
                f"{end.what} at {end.at_s - self.began_s:.1f} s" for each in self._gone for end in each.unexplained()
            ],
            told=sum((each.told() for each in self._gone), Counter()),
            unexpected=[f"{each.name}: {line}" for each in self._gone for line in each.unexpected()],
            left_behind=[what for each in self._gone for what in each.left_behind],
            exits=self._exits,
        )

    def drained(self, patience_s: float = 120.0) -> None:
        """Wait until the group has committed every record, or patience ends: then the check tells what is left."""
        deadline = time.monotonic() + patience_s
        while unconsumed(self.kafka.direct, self.topics) and time.monotonic() < deadline:
            self.look(0.5)

    def _settle(self) -> None:
        """Let the live subscriber see the last alerts: wait until none has come for a second."""
        seen, since_s = -1, time.monotonic()
        while time.monotonic() - since_s < 1.0:
            if (now := self.watch.alerts) != seen:
                seen, since_s = now, time.monotonic()
            time.sleep(0.05)


def run_faults(
    kafka: FaultyKafka, folder: Path, faults: Sequence[Fault], *, seed: int, rate: float = 200.0, replay: str
) -> Report:
    """Feed the service, cause the faults one after the other, and account for every record."""
    print(f"seed {seed}:", *faults, sep="\n  ", flush=True)
    with Harness(kafka, folder, seed=seed, rate=rate, replay=replay) as harness:
        harness.feed.start()
        harness.flowing()
        for fault in faults:
            harness.cause(fault)
        report = harness.finish()
    print(report, flush=True)
    return report
