"""`stream sample` on a real Kafka: the flows that a decoder can read, committed ones, in a file that is always whole."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from export.reading import read_flows
from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError, ParamsError
from stream import sampling as module
from stream.__main__ import main
from stream.decode import Decoder
from stream.sampling import run_sampling
from tests.kafka import produce
from tests.stream.rig import benign

UNSW = SCHEMAS["unsw-nb15"]


def sampled(servers: str, topic: str, out: Path, **options: Any) -> tuple[int, int]:
    settings: dict[str, Any] = {"size": 5, "seconds": None, "from_beginning": True, "limit": None} | options
    return run_sampling(
        servers,
        topic,
        Decoder(UNSW, min_feature_coverage=0.5),
        UNSW,
        out,
        kafka={},
        stop=threading.Event(),
        report=lambda _: None,
        **settings,
    )


def test_the_command_keeps_some_of_the_flows_that_can_be_used(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path, tmp_path: Path,
    own_signals: None, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    flows, out = topic("flows", 2), tmp_path / "sample.parquet"
    given = [benign(dur=number, proto=None) for number in range(40)]
    produce(bootstrap_servers, flows, [*given, b"garbage", None])
    words = [
        "--bootstrap-servers",
        bootstrap_servers,
        "--bundle",
        str(tiny_bundle),
        "--input",
        flows,
        "--out",
        str(out),
    ]
    assert main(["sample", *words, "--size", "30", "--from-beginning", "--limit", "42"]) == 0
    assert f"30 of 42 flows in {out}" in capsys.readouterr().err
    frame = pl.read_parquet(out)
    assert frame.columns == [*UNSW.names] and frame["dur"].dtype == pl.Float32
    assert frame["dur"].n_unique() == frame.height == 30 and frame["dur"].is_between(0, 39).all()
    assert frame["proto"].null_count() == 30 and frame["service"].unique().to_list() == ["http"]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    [batch] = read_flows(out, UNSW, min_feature_coverage=0.5)
    assert sorted(batch.columns["dur"].tolist()) == sorted(frame["dur"].to_list())


def test_nothing_is_committed_and_what_was_aborted_is_not_seen(
    bootstrap_servers: str, topic: Callable[..., str], tmp_path: Path
) -> None:
    flows = topic("flows")
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": flows})
    producer.init_transactions(30)
    for number, end in ((1, producer.abort_transaction), (2, producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(flows, benign(dur=number))
        producer.flush(30)
        end(30)
    before = {
        group.group_id
        for group in AdminClient({"bootstrap.servers": bootstrap_servers}).list_consumer_groups().result().valid
    }
    assert sampled(bootstrap_servers, flows, tmp_path / "x.parquet", limit=1) == (1, 1)
    assert pl.read_parquet(tmp_path / "x.parquet")["dur"].to_list() == [2]
    after = {
        group.group_id
        for group in AdminClient({"bootstrap.servers": bootstrap_servers}).list_consumer_groups().result().valid
    }
    assert after == before


def test_the_file_is_written_again_and_again_until_it_is_stopped(
    bootstrap_servers: str, topic: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_EVERY_S", 0.1)
    flows, out, stop = topic("flows"), tmp_path / "sample.parquet", threading.Event()
    seen: list[int] = []

    def progress(came: int, _: float) -> None:
        produce(bootstrap_servers, flows, [benign(dur=came)])
        if out.exists():
            seen.append(pl.read_parquet(out).height)
        if len(set(seen)) > 2:
            stop.set()

    came, kept = run_sampling(
        bootstrap_servers, flows, Decoder(UNSW, min_feature_coverage=0.5), UNSW, out, kafka={}, size=100, seconds=None,
        from_beginning=True, limit=None, stop=stop, on_progress=progress, report=lambda _: None,
    )  # fmt: skip
    assert seen == sorted(seen) and kept == came == pl.read_parquet(out).height


def test_without_a_flow_nothing_is_written(bootstrap_servers: str, topic: Callable[..., str], tmp_path: Path) -> None:
    flows = topic("flows")
    produce(bootstrap_servers, flows, [b"garbage"])
    assert sampled(bootstrap_servers, flows, tmp_path / "x.parquet", limit=1) == (1, 0)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_refused(bootstrap_servers: str, topic: Callable[..., str], tmp_path: Path) -> None:
    flows = topic("flows")
    for wrong in ({"size": 0}, {"seconds": 0.0}, {"seconds": float("nan")}):
        with pytest.raises(ParamsError, match="expected a number above 0"):
            sampled(bootstrap_servers, flows, tmp_path / "x.parquet", **wrong)
    produce(bootstrap_servers, flows, [benign()])
    with pytest.raises(FlowsentryError, match=r"none/x\.parquet: "):
        sampled(bootstrap_servers, flows, tmp_path / "none" / "x.parquet", limit=1)
