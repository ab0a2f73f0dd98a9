"""Whether every partition has an owner, and what a member does that is back under its name."""

import struct
import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from stream.ownership import Ownership, assigned
from tests.stream.rig import PATIENCE_S, Logs, Rig, put


def test_a_member_that_is_back_costs_the_group_no_rebalance_where_every_partition_has_an_owner(
    rig: Callable[..., Rig], logs: Logs
) -> None:
    place = rig(2)
    put(place.servers, place.flows, {0: 1, 1: 1})
    place.batch(first := place.source(), 2)
    first.close()
    place.sources.clear()
    before = len(logs.of("partitions assigned")), len(logs.of("partitions revoked"))
    second = place.source(ownership=place.ownership)
    until = time.monotonic() + 6.0
    while time.monotonic() < until:
        second.poll()
    assert (len(logs.of("partitions assigned")), len(logs.of("partitions revoked"))) == (before[0] + 1, before[1])
    assert second.lags() == {0: 0, 1: 0}


def test_who_owns_what_is_not_known_while_the_group_is_unsettled_or_not_there(rig: Callable[..., Rig]) -> None:
    place = rig()
    ownership = place.ownership

    def answer_of() -> bool | None:
        until = time.monotonic() + 3.0
        while time.monotonic() < until and ownership.is_whole() is None:
            time.sleep(0.05)
        return ownership.is_whole()

    assert answer_of() is None, "a group without members is not stable"
    source = place.source()
    deadline = time.monotonic() + PATIENCE_S
    while ownership.is_whole() is not True:
        assert time.monotonic() < deadline
        source.poll()
    away = Ownership(lambda: AdminClient({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}), "g", "t")
    assert away.is_whole() is None


def test_an_assignment_names_topics_and_partitions() -> None:
    assignment = struct.pack(">hi", 3, 2)
    assignment += struct.pack(">h5si3i", 5, b"flows", 3, 0, 4, 70_000) + struct.pack(">h3sii", 3, "ß!".encode(), 1, 2)
    assert list(assigned(assignment + struct.pack(">i", -1))) == [
        ("flows", 0),
        ("flows", 4),
        ("flows", 70_000),
        ("ß!", 2),
    ]
    assert list(assigned(struct.pack(">hi", 0, 0))) == list(assigned(b"")) == []
    for broken in (assignment[:-3], assignment.replace("ß!".encode(), b"\xff\xff\xff"), struct.pack(">hi", 0, 2)):
        with pytest.raises(ValueError, match=r"bytes are no assignment|can't decode"):
            list(assigned(broken))
