"""Where a worker begins and goes on in a partition, whatever has become of the partition meanwhile."""

import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, cast

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from stream.clients import consumer_properties, shares_step_by_step, start_offset
from stream.connection import Outage
from stream.metrics import Metrics
from stream.offsets import Offsets
from stream.ownership import Ownership
from stream.status import Status
from tests.stream.rig import Logs, Rig, commit, put


class Torn(Ownership):
    """Says that a partition has no owner."""

    def __init__(self) -> None: ...

    def is_whole(self) -> bool:
        return False


def test_a_partition_that_comes_back_while_its_offsets_are_held_up_is_not_read_from_its_beginning(
    rig: Callable[..., Rig],
) -> None:
    place = rig()
    put(place.servers, place.flows, {0: 10})
    commit(place, {0: 5})
    elsewhere = Consumer({"bootstrap.servers": place.servers, "group.id": place.flows})
    sleeper = place.producer()()
    sleeper.init_transactions(30)
    sleeper.begin_transaction()
    sleeper.send_offsets_to_transaction([TopicPartition(place.flows, 0, 7)], elsewhere.consumer_group_metadata(), 30)
    timer = threading.Timer(2.0, sleeper.abort_transaction, (30,))
    timer.start()
    source = place.source(ownership=Torn())  # it gives its partition up and gets it back while they are held up
    assert [each.offset for each in place.batch(source, 5).records] == [5, 6, 7, 8, 9]
    timer.join()
    elsewhere.close()


def test_records_that_were_deleted_before_they_were_read_are_told(rig: Callable[..., Rig], logs: Logs) -> None:
    place = rig()
    put(place.servers, place.flows, {0: 10})
    commit(place, {0: 2})
    admin = AdminClient({"bootstrap.servers": place.servers})
    for deleted in admin.delete_records([TopicPartition(place.flows, 0, 6)]).values():
        deleted.result(30)
    assert [each.offset for each in place.batch(place.source(), 4).records] == [6, 7, 8, 9]
    [told] = logs.of("records were deleted before they were read")
    assert (told["first"], told["next"], told["count"]) == (f"{place.flows}-0-2", 6, 4)
    assert place.metrics.registry.get_sample_value("flowsentry_expired_total") == 4


def test_a_partition_that_ends_before_what_is_committed_is_read_from_its_beginning_but_not_at_once(
    rig: Callable[..., Rig], logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.offsets._MADE_ANEW_AFTER_S", 2.0)
    place = rig()
    put(place.servers, place.flows, {0: 4})
    commit(place, {0: 50})
    began = time.monotonic()
    assert [each.offset for each in place.batch(place.source(), 4).records] == [0, 1, 2, 3]
    assert time.monotonic() - began > 2
    [told] = logs.of("partition was made anew, and is read from its beginning")
    assert (told["committed"], told["end"]) == (f"{place.flows}-0-50", 4)


@pytest.mark.parametrize(
    ("kafka", "start", "step_by_step"),
    [
        ({}, OFFSET_BEGINNING, False),
        ({"auto.offset.reset": "latest", "partition.assignment.strategy": "cooperative-sticky"}, OFFSET_END, True),
        ({"auto.offset.reset": "earliest", "group.protocol": "consumer"}, OFFSET_BEGINNING, True),
    ],
)
def test_where_to_begin_and_how_partitions_are_shared_can_be_chosen(
    rig: Callable[..., Rig], kafka: dict[str, str], start: int, step_by_step: bool
) -> None:
    params = rig().params.model_copy(update={"kafka": kafka})
    assert (start_offset(params), shares_step_by_step(params)) == (start, step_by_step)
    assert consumer_properties(params, "one")["auto.offset.reset"] == "error"


def test_a_batch_that_is_done_again_where_its_partition_has_lost_its_place(rig: Callable[..., Rig]) -> None:
    place = rig()
    put(place.servers, place.flows, {0: 10})
    commit(place, {0: 2})
    source = place.source()
    batch = place.batch(source, 8)
    admin = AdminClient({"bootstrap.servers": place.servers})
    for deleted in admin.delete_records([TopicPartition(place.flows, 0, 6)]).values():
        deleted.result(30)
    source.rewind(batch)
    while not source._displaced:
        assert len(source.poll()) == 0, "there is nothing where it was"
    source.rewind(batch)
    assert [each.offset for each in place.batch(source, 4).records] == [6, 7, 8, 9]


def test_a_coordinator_that_knows_of_less_than_was_committed_is_not_believed(
    rig: Callable[..., Rig], logs: Logs
) -> None:
    class Forgetful(Consumer):
        says: ClassVar[list[int]] = []

        def committed(self, *arguments: Any, **more: Any) -> list[TopicPartition]:
            found = super().committed(*arguments, **more)
            for place in found:
                place.offset = self.says.pop(0) if self.says else place.offset
            return found

    place = rig()
    put(place.servers, place.flows, {0: 3})
    consumer = Forgetful(consumer_properties(place.params, place.flows))
    source = place.source_of(consumer)
    place.run(place.service(source=source), 3)
    Forgetful.says += [OFFSET_INVALID, 2]
    assert [it.offset for it in source._offsets.to_begin_at([TopicPartition(place.flows, 0)])] == [3]
    told = [line["error"] for line in logs.of("committed offsets are asked for again")]
    assert [error.rpartition(": ")[2] for error in told] == [
        f"{said} is said to be committed, and 3 was" for said in (OFFSET_INVALID, 2)
    ]
    consumer.close()


def test_a_broker_that_does_not_say_where_to_go_on_calls_for_a_new_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unanswered:
        def committed(self, *_: Any, **__: Any) -> list[TopicPartition]:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "silence"))

    monkeypatch.setattr("stream.offsets._PATIENCE_S", 0.0)
    offsets = Offsets(
        cast(Consumer, Unanswered()), start=OFFSET_BEGINNING, status=Status(), metrics=Metrics(), clock=time.monotonic
    )
    with pytest.raises(Outage, match=r"Kafka was away: .*the committed offsets cannot be had: silence"):
        offsets.committed([TopicPartition("flows", 0)])
