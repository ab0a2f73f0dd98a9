"""Ways to break each guarantee of the README: small changes of the source, and the test that must notice each."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MUTATIONS", "Change", "Mutation"]

_FAULTS = "tests/faults/test_faults.py::"
_KILLED = f"{_FAULTS}test_a_worker_killed_between_produce_and_commit"
_DONE_AGAIN = f"{_FAULTS}test_a_batch_that_could_not_be_published_is_done_again"
_STALLED = f"{_FAULTS}test_a_network_that_stalls_for_longer_than_requests_and_transactions_may_take"
_JOINING = f"{_FAULTS}test_instances_that_join_and_leave_while_batches_fill"
_PARTITIONS = f"{_FAULTS}test_partitions_that_are_added"
_POISON_ALONE = f"{_FAULTS}test_a_record_that_a_bug_meets_is_set_aside_alone_if_that_is_wanted"
_POISON_STOPS = f"{_FAULTS}test_a_record_that_a_bug_meets_stops_its_partition_there_until_the_bug_is_mended"
_TOO_LARGE = (
    "tests/stream/test_service.py::test_a_dead_letter_too_large_for_its_topic_is_cut_and_says_where_the_record_stands"
)
_BAD_RECORD = "tests/stream/test_end_to_end.py::test_one_bad_record_costs_only_itself_and_is_set_aside_byte_for_byte"
_HOSTILE = "tests/faults/test_hostile_messages.py::"


# As a consumer writes it that is in no group: generation -1, and neither a member's id nor its name.
_NO_MEMBER = (
    "stream/sink.py",
    "            metadata = self._consumer.consumer_group_metadata()\n",
    "            group = bytes(self._consumer.consumer_group_metadata())[11:].partition(b'\\0')[0]\n"
    "            metadata = b'CGMDv2:' + b'\\xff' * 4 + group + b'\\0\\0\\1'\n",
)


@dataclass(frozen=True, slots=True)
class Change:
    """Of a file: a text that must be in it exactly once, and what takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """A guarantee that is broken, in words, how, and the test that fails for it."""

    name: str
    test: str
    changes: Sequence[Change]


def _mutation(name: str, test: str, *changes: tuple[str, str, str]) -> Mutation:
    return Mutation(name, test, [Change(*change) for change in changes])


MUTATIONS = (
    _mutation(
        "offsets are committed before anything is produced",
        _KILLED,
        (
            "stream/sink.py",
            "            producer.begin_transaction()\n",
            "            self._consumer.commit(offsets=next_offsets, asynchronous=False)\n"
            "            producer.begin_transaction()\n",
        ),
    ),
    _mutation(
        "offsets are committed after the transaction, not in it",
        _KILLED,
        (
            "stream/sink.py",
            '            return self._insist("commit", producer.commit_transaction, until)\n',
            '            self._insist("commit", producer.commit_transaction, until)\n'
            "            return self._consumer.commit(offsets=next_offsets, asynchronous=False)\n",
        ),
        (
            "stream/sink.py",
            "            _bounded(partial(producer.send_offsets_to_transaction, next_offsets, metadata, _TIMEOUT_S))\n",
            "            _bounded(partial(producer.send_offsets_to_transaction, [], metadata, _TIMEOUT_S))\n",
        ),
    ),
    _mutation(
        "delivery is at least once by default",
        _KILLED,
        (
            "schemas/params.py",
            'delivery: Literal["exactly-once", "at-least-once"] = Field("exactly-once"',
            'delivery: Literal["exactly-once", "at-least-once"] = Field("at-least-once"',
        ),
        ("params.yaml", "  delivery: exactly-once", "  delivery: at-least-once"),
    ),
    _mutation(
        "a transaction that failed is not aborted",
        _TOO_LARGE,
        ("stream/sink.py", "or not self._abort(producer, until):", "or False:"),
    ),
    _mutation(
        "a batch that was not published is not read again",
        _DONE_AGAIN,
        (
            "stream/service.py",
            "        self._source.rewind(batch, maybe_committed=retry.maybe_committed)\n",
            "",
        ),
    ),
    _mutation(
        "a producer that cannot go on is kept",
        "tests/stream/test_transactional_sink.py::test_a_producer_that_cannot_go_on_is_replaced_by_one_that_ends_what_it_left_open",
        ("stream/sink.py", "        producer.purge()\n        self._producer = None\n", "        producer.purge()\n"),
    ),
    _mutation(
        "a worker names its transactions anew at each start",
        f"{_FAULTS}test_what_a_killed_worker_left_open_does_not_wait_for_its_time_out",
        (
            "stream/worker.py",
            "transactional_id=name if exactly_once else None",
            "transactional_id=f'{name}-{os.getpid()}' if exactly_once else None",
        ),
    ),
    _mutation(
        "what is in hand when partitions are revoked is acknowledged, not drained",
        _JOINING,
        (
            "stream/source.py",
            "            self.drain(in_hand)\n",
            "            self.consumer.commit(offsets=in_hand.next_offsets, asynchronous=False)\n",
        ),
    ),
    _mutation(
        "the group is not asked whether a worker is still its member",
        f"{_FAULTS}test_a_worker_that_sleeps_in_mid_batch_while_another_takes_its_partitions",
        _NO_MEMBER,
    ),
    _mutation(
        "what is in hand when partitions are lost is published all the same",
        f"{_FAULTS}test_a_worker_that_sleeps_while_its_batch_fills",
        _NO_MEMBER,
        (
            "stream/source.py",
            "            self._undone = in_hand, False\n",
            "            assert self.drain is not None\n            self.drain(in_hand)\n",
        ),
    ),
    _mutation(
        "workers outlive a supervisor that is killed",
        f"{_FAULTS}test_the_supervisor_killed_and_terminated",
        ("stream/supervisor.py", "    _die_with(supervisor)\n", ""),
    ),
    _mutation(
        "a dead worker is not started again",
        _KILLED,
        (
            "stream/supervisor.py",
            "        if worker.fruitless > self._params.stream.max_restarts:",
            "        if worker.fruitless >= 0:",
        ),
    ),
    _mutation(
        "Kafka that is away for a moment ends the worker",
        f"{_FAULTS}test_the_broker_killed_in_mid_stream",
        ("stream/service.py", "_GIVE_UP_AFTER_S = 300.0", "_GIVE_UP_AFTER_S = 0.0"),
    ),
    _mutation(
        "a network that stalls ends the worker",
        _STALLED,
        ("stream/service.py", "_GIVE_UP_AFTER_S = 300.0", "_GIVE_UP_AFTER_S = 0.0"),
    ),
    _mutation(
        "a producer that a full disk broke is kept",
        f"{_FAULTS}test_the_brokers_disk_full",
        ("stream/sink.py", "        producer.purge()\n        self._producer = None\n", "        producer.purge()\n"),
    ),
    _mutation(
        "a lost connection makes the client library hang",
        f"{_FAULTS}test_connections_that_are_cut_and_refused",
        ("stream/clients.py", '"metadata.recovery.strategy": "none"', '"metadata.recovery.strategy": "rebootstrap"'),
        ("stream/sink.py", "        thread.join(_GLANCE_S)\n", "        thread.join()\n"),
    ),
    _mutation(
        "a worker whose client has forgotten the brokers waits for them",
        f"{_FAULTS}test_clients_that_are_told_that_there_are_no_brokers",
        (
            "stream/worker.py",
            "        return stopping() or status.brokers_forgotten\n",
            "        return stopping()\n",
        ),
    ),
    _mutation(
        "a producer that nobody answers is kept",
        "tests/stream/test_transactional_sink.py::test_a_producer_that_no_broker_answers_is_given_up",
        ("stream/sink.py", "_LOST = (*_FENCED, KafkaError._TIMED_OUT)\n", "_LOST = _FENCED\n"),
    ),
    _mutation(
        "a batch waits by the wall clock",
        "tests/stream/test_source.py::test_waits_are_measured_by_a_clock_that_nobody_sets",
        (
            "stream/source.py",
            "clock: Callable[[], float] = time.monotonic,",
            "clock: Callable[[], float] = time.time,",
        ),
    ),
    _mutation(
        "a new partition is read from its end",
        _PARTITIONS,
        ("stream/clients.py", 'params.kafka.get("auto.offset.reset", "earliest")', '"latest"'),
    ),
    _mutation(
        "the client library decides where to begin",
        "tests/stream/test_offsets.py::"
        "test_a_partition_that_comes_back_while_its_offsets_are_held_up_is_not_read_from_its_beginning",
        ("stream/source.py", "            begin_at = self._offsets.to_begin_at(partitions)\n", "            return\n"),
        ("stream/clients.py", '"auto.offset.reset": "error"', '"auto.offset.reset": "earliest"'),
    ),
    _mutation(
        "a new partition is not looked for",
        _PARTITIONS,
        (
            "stream/clients.py",
            '"topic.metadata.refresh.interval.ms": 2_000',
            '"topic.metadata.refresh.interval.ms": -1',
        ),
    ),
    _mutation(
        "a new bundle takes over in the middle of a batch, which it judges again",
        "tests/stream/test_hot_reload.py::test_a_link_is_switched_under_load_and_every_flow_is_judged_once_by_one_of_the_two",
        (
            "stream/service.py",
            "            self._judge = self._succession.successor(self._judge, batch)\n",
            "            before, self._judge = self._judge, self._succession.successor(self._judge, batch)\n"
            "            if self._judge is not before:\n"
            "                self.process(batch)\n",
        ),
    ),
    _mutation(
        "a dead letter is put back without a receipt",
        "tests/stream/test_dead_letters.py::test_killed_between_chunks_and_run_again_loses_nothing_and_doubles_nothing",
        (
            "stream/dead_letters/replaying.py",
            "                self._produce(self._receipts.topic, receipt, each.letter.id.encode(), -1, [], delivered)\n",
            "                del receipt\n",
        ),
    ),
    _mutation(
        "the last dead letter of a batch is dropped",
        _BAD_RECORD,
        (
            "stream/encode.py",
            "for record, reject in judged.rejects\n    ]",
            "for record, reject in judged.rejects[:-1]\n    ]",
        ),
    ),
    _mutation(
        "a dead letter's bytes are altered",
        _BAD_RECORD,
        (
            "stream/encode.py",
            "    return Outgoing(record.id, topic, record.key, record.value, [",
            "    return Outgoing(record.id, topic, record.key, record.value and record.value.strip(), [",
        ),
    ),
    _mutation(
        "one bad record takes its whole batch with it",
        _BAD_RECORD,
        (
            "stream/judge.py",
            "        return Judged(alerts, [_rejected(",
            "        return Judged(alerts if not decoded.rejects else [], [_rejected(",
        ),
    ),
    _mutation(
        "the fast way of reading takes what the slow one refuses",
        "tests/faults/test_decoder_fuzz.py::test_fast_and_slow_agree_on_mutants_of_flows",
        (
            "stream/decode.py",
            "        if not proven.all():\n",
            "        proven |= True\n        if not proven.all():\n",
        ),
    ),
    _mutation(
        "a record that a bug meets stops nothing",
        _POISON_STOPS,
        ("stream/judge.py", '        if on_poison == "stop":\n', '        if on_poison == "never":\n'),
    ),
    _mutation(
        "a batch is acknowledged although a bug met it",
        _POISON_STOPS,
        (
            "stream/service.py",
            "        judged, messages = judge_or_bisect(self._judge, batch, self._on_poison, self._encode)\n",
            "        try:\n"
            "            judged, messages = judge_or_bisect(self._judge, batch, self._on_poison, self._encode)\n"
            "        except BatchFailed:\n"
            "            self._sink.publish([], batch.next_offsets)\n"
            "            raise\n",
        ),
    ),
    _mutation(
        "a record that a bug meets is skipped in silence",
        _POISON_ALONE,
        (
            "stream/judge.py",
            "judged = Judged([], [(record, Reject(0, Reason.POISON, what))])",
            "judged = Judged([], [])",
        ),
    ),
    _mutation(
        "a bug sets the whole batch aside",
        _POISON_ALONE,
        (
            "stream/judge.py",
            "        if len(batch) > 1:\n",
            '        if len(batch) > 1 and on_poison == "dead-letter":\n'
            "            judged = Judged([], [(each, Reject(0, Reason.POISON, '')) for each in batch.records])\n"
            "            return judged, encode(judged)\n"
            "        if len(batch) > 1:\n",
        ),
    ),
    _mutation(
        "a coordinator that has lost what was committed is believed",
        "tests/stream/test_offsets.py::test_a_coordinator_that_knows_of_less_than_was_committed_is_not_believed",
        ("stream/offsets.py", "        if done is not None and place.offset < done:\n", "        if done == -2:\n"),
    ),
    _mutation(
        "nobody notes what was committed",
        "tests/stream/test_offsets.py::test_a_coordinator_that_knows_of_less_than_was_committed_is_not_believed",
        ("stream/service.py", "        self._source.done(batch)\n", ""),
    ),
    _mutation(
        "a batch's bytes are not counted",
        "tests/stream/test_source.py::test_a_batch_ends_where_it_has_enough_bytes",
        ("stream/source.py", " and size < self._max_batch_bytes:", ":"),
    ),
    _mutation(
        "large fetches are unpacked whole",
        f"{_HOSTILE}test_what_expands_when_it_is_unpacked_costs_only_itself",
        ("stream/clients.py", '"receive.message.max.bytes": 16 << 20', '"receive.message.max.bytes": 512 << 20'),
    ),
    _mutation(
        "what cannot be unpacked is tried for ever",
        f"{_HOSTILE}test_all_of_it_while_flows_keep_coming",
        ("stream/source.py", "if error.code() in UNDECODABLE and", "if error.code() in () and"),
    ),
    _mutation(
        "a batch that cannot be unpacked is not seen where it begins its partition",
        "tests/stream/test_source.py::test_a_batch_that_cannot_be_unpacked_may_be_all_that_there_is",
        (
            "stream/source.py",
            "(offset := message.offset()) is not None and offset >= 0:",
            "(message.offset() or -1) >= 0:",
        ),
    ),
    _mutation(
        "the time of messages follows a clock that is set",
        f"{_FAULTS}test_a_clock_that_jumps",
        (
            "stream/sink.py",
            "    return round((_BEGAN_S + time.monotonic()) * 1000)\n",
            "    return round(time.time() * 1000)\n",
        ),
    ),
    _mutation(
        "being fenced is taken for an outage",
        "tests/stream/test_supervisor.py::test_two_instances_with_one_name_while_flows_keep_coming",
        ("stream/service.py", "        if not retry.fenced:", "        if retry is not None:"),
    ),
    _mutation(
        "the bundle that is kept is handed to a worker through a pipe",
        "tests/stream/test_supervisor.py::"
        "test_a_worker_that_is_killed_before_it_has_read_what_it_is_told_does_not_hold_up_the_supervisor",
        (
            "stream/kept.py",
            '        return {"hash": self.hash, "descriptor": reduction.DupFd(self._descriptor)}\n',
            '        return {"hash": self.hash, "content": self.bundle()}\n',
        ),
    ),
    _mutation(
        "a worker that is started again has only the bundle at its place",
        "tests/stream/test_hot_reload.py::test_a_worker_that_dies_while_a_bad_bundle_is_there_goes_on_with_the_good_one",
        ("stream/supervisor.py", "self._quiet, self._kept)", "self._quiet, None)"),
    ),
    _mutation(
        "what was judged is never published",
        "tests/stream/test_service.py::test_a_bug_that_encoding_meets_costs_its_record_too",
        (
            "stream/judge.py",
            "        return judged, encode(judged)\n    except",
            "        return judged, []\n    except",
        ),
    ),
    _mutation(
        "a member that is back is content with what it had",
        "tests/stream/test_source.py::test_partitions_that_were_added_while_a_member_was_away_are_shared_out",
        ("stream/source.py", "        if self._rejoin:\n", "        if False:\n"),
    ),
)
