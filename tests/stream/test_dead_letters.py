"""`python -m stream dead-letters` on a real Kafka: nothing put back is lost, doubled or put back for ever."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas.dead_letter import DeadLetter, Reason
from schemas.errors import FlowsentryError, ParamsError
from schemas.params import Params, StreamParams
from stream.__main__ import main, parser
from stream.batch import headers_of
from stream.dead_letters import replaying, showing
from stream.dead_letters.command import EXAMPLES
from stream.dead_letters.command import _progress as progress
from stream.dead_letters.letters import DeadLetters, Selection, parse_moment
from stream.dead_letters.reading import Reader, Span
from stream.dead_letters.replaying import Outcome, Replay
from tests.kafka import committed, end_offsets, produce, read_all, running_service
from tests.stream.rig import alerts_on, attack

ANSWER_S = 60.0
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

Headers = Sequence[tuple[str, bytes | None]]

pytestmark = pytest.mark.usefixtures("own_signals")


@dataclass(slots=True)
class Box:
    """A topic of flows, and one of dead letters for it."""

    servers: str
    flows: str
    dead: str
    capsys: pytest.CaptureFixture[str]

    def put(
        self, *values: bytes | None, key: bytes | None = None, own: Headers = (), partition: int = 0,
        time: datetime | None = None, **told: Any,
    ) -> None:  # fmt: skip
        """Set values aside, as if they came from offset 0 on of the same partition of the flows."""
        producer = Producer({"bootstrap.servers": self.servers})
        for offset, value in enumerate(values):
            fields = {"reason": "wrong_type", "detail": "wrong", "topic": self.flows, "partition": partition}
            letter = DeadLetter.model_validate({**fields, "offset": offset, **told})
            headers: Any = [*own, *letter.to_headers()]
            stamp = 0 if time is None else int(time.timestamp() * 1000)
            producer.produce(self.dead, value, key, partition, headers=headers, timestamp=stamp)
        assert producer.flush(ANSWER_S) == 0

    def run(self, *words: str | Path) -> tuple[int, str, str]:
        """A command's exit status and what it printed."""
        self.capsys.readouterr()
        action, *rest = map(str, words)
        status = main(["dead-letters", action, "--bootstrap-servers", self.servers, "--topic", self.dead, *rest])
        printed = self.capsys.readouterr()
        return status, printed.out, printed.err

    def counts(self, *words: str) -> list[dict[str, Any]]:
        """What `list` counts."""
        status, out, _ = self.run("list", "--format", "json", *words)
        assert status == 0
        return [json.loads(line) for line in out.splitlines()]

    def shown(self, *words: str) -> list[str]:
        """The ids of the letters that `show` shows, without the topic."""
        _, out, _ = self.run("show", *words)
        heads = [line for line in out.splitlines() if not line.startswith(" ")]
        return [line.split()[0].removeprefix(f"{self.dead}-") for line in heads]

    def back(self) -> list[bytes | None]:
        """The values on the flows' topic."""
        return [message.value() for message in read_all(self.servers, self.flows)]

    def wait_for(self, service: subprocess.Popen[bytes]) -> None:
        """Until the service is done with all flows. The end offset is no measure: a transaction's marker has one too."""
        last = read_all(self.servers, self.flows)[-1].offset() or 0
        deadline = time.monotonic() + 2 * ANSWER_S
        while committed(self.servers, self.flows, self.flows)[0] <= last:
            assert service.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)

    def replay_to_the_end(self) -> None:
        assert self.run("replay", "--yes")[0] == 0

    @property
    def params(self) -> Params:
        return Params(stream=StreamParams(bootstrap_servers=self.servers))


@pytest.fixture
def box(
    bootstrap_servers: str, topic: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Box]]:
    """Factory of boxes, `box(partitions=1) -> Box`; the receipts are deleted after the test, with the topics."""
    made: list[Box] = []

    def make(partitions: int = 1) -> Box:
        made.append(Box(bootstrap_servers, topic("flows", partitions), topic("dead", partitions), capsys))
        return made[-1]

    yield make
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    there = admin.list_topics(timeout=ANSWER_S).topics
    receipts = [name for each in made if (name := f"{each.dead}.replayed") in there]
    for deleted in (admin.delete_topics(receipts) if receipts else {}).values():
        deleted.result(ANSWER_S)


# list


def test_list_counts_by_reason_partition_and_hour(box: Callable[..., Box]) -> None:
    letters = box(2)
    letters.put(b"a", b"b", time=NOW)
    letters.put(b"c", time=NOW + timedelta(hours=1))
    letters.put(None, reason="empty", partition=1, time=NOW)
    assert [(it["reason"], it["letters"]) for it in letters.counts()] == [("empty", 1), ("wrong_type", 3)]
    finer = letters.counts("--by", "partition", "--by", "hour")
    assert [(it["reason"], it["partition"], it["hour"], it["letters"]) for it in finer] == [
        ("empty", 1, "2026-03-04T05", 1),
        ("wrong_type", 0, "2026-03-04T05", 2),
        ("wrong_type", 0, "2026-03-04T06", 1),
    ]
    first, last = letters.counts("--reason", "wrong_type")[0]["first"], letters.counts()[1]["last"]
    assert (first, last) == ("2026-03-04T05:06:07+00:00", "2026-03-04T06:06:07+00:00")


def test_list_counts_only_what_is_selected(box: Callable[..., Box]) -> None:
    letters = box(2)
    for hour in range(4):
        letters.put(b"x", time=NOW + timedelta(hours=hour), partition=hour % 2, topic="a" if hour else "b")
    letters.put(b"late", reason="too_long", time=datetime.now(UTC) - timedelta(minutes=5))

    def count(*words: str) -> int:
        return sum(it["letters"] for it in letters.counts(*words))

    assert count() == 5
    assert count("--reason", "too_long") == 1
    assert count("--reason", "too_long", "--reason", "wrong_type") == 5
    assert count("--since", "2026-03-04T06:06:07Z") == 4
    assert count("--until", "2026-03-04T06:06:07Z") == 1
    assert count("--since", "2026-03-04T07:00+01:00", "--until", "2026-03-04T07:30") == 2
    assert count("--since", "15m ago") == 1
    assert count("--since", "1m") == 0
    assert count("--partition", "1") == 2
    assert count("--source-topic", "a") == 3


def test_a_clock_that_jumped_back_hides_no_letter(box: Callable[..., Box]) -> None:
    letters = box()
    for hours in (0, 3, 1, 4):
        letters.put(b"x", time=NOW + timedelta(hours=hours))
    assert sum(it["letters"] for it in letters.counts("--until", "2026-03-04T07:00")) == 2
    assert sum(it["letters"] for it in letters.counts("--since", "2026-03-04T07:00")) == 2


def test_the_table_has_the_sum_and_what_is_no_dead_letter_is_counted(box: Callable[..., Box]) -> None:
    letters = box()
    letters.put(b"a", b"b")
    letters.put(None, reason="empty")
    produce(letters.servers, letters.dead, [b"stranger", b"stranger"])
    status, out, err = letters.run("list")
    heading, *rows = [line.split() for line in out.splitlines()]
    assert status == 0 and heading[:3] == ["reason", "letters", "put"]
    assert [row[:3] for row in rows] == [["empty", "1", "0"], ["wrong_type", "2", "0"], ["all", "3", "0"]]
    assert f"messages on '{letters.dead}' that were no dead letters: 2" in err


def test_a_topic_that_does_not_exist_has_no_dead_letters(box: Callable[..., Box]) -> None:
    letters = box()
    letters.dead = f"{letters.dead}.none"
    for words in (["list"], ["show"], ["replay", "--yes"], ["purge", "--all", "--yes"]):
        status, _, err = letters.run(*words)
        assert status == 0 and f"topic '{letters.dead}' does not exist" in err
    status, _, err = letters.run("show", "flows-0-0")
    assert status == 1 and "no dead letter flows-0-0" in err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["list", "--since", "yesterday"], "--since 'yesterday': expected a time in ISO 8601"),
        (["list", "--partition", "3"], "--partition 3: topic '.*' has partitions 0 to 0"),
        (["show", "flows"], "'flows' is no id: expected topic-partition-offset"),
        (["show", "--raw"], "--raw is for one letter"),
        (["show", "--output", "x"], "needs --raw"),
        (["replay"], "no terminal to ask at: give --yes"),
        (["purge", "--all"], "no terminal to ask at: give --yes"),
        (["replay", "--yes", "--to", "no-such-topic"], "--to no-such-topic: no such topic at"),
        (["list", "--set", "kafka.no.such=1"], r"kafka: .*no\.such"),
    ],
)
def test_what_makes_no_sense_is_refused_and_explained(
    box: Callable[..., Box], words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = box().run(*words)
    assert status == 2 and re.search(f"^error: .*{problem}", err), err


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-04", datetime(2026, 3, 4, tzinfo=UTC)),
        ("2026-03-04 05:06", datetime(2026, 3, 4, 5, 6, tzinfo=UTC)),
        ("2026-03-04T05:06:07+02:00", datetime(2026, 3, 4, 3, 6, 7, tzinfo=UTC)),
        ("90s", NOW - timedelta(seconds=90)),
        ("15m ago", NOW - timedelta(minutes=15)),
        (" 2h ", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("1w ago", NOW - timedelta(weeks=1)),
    ],
)
def test_times_as_the_help_says(text: str, time: datetime) -> None:
    assert parse_moment("--since", text, NOW) == time


@pytest.mark.parametrize(
    "text", ["", "noon", "15", "15 ago", "-1h", "2026-02-31", "999999999w", "0001-01-01T00:00+09:00"]
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ParamsError, match="--since"):
        parse_moment("--since", text, NOW)


def test_every_example_of_the_help_is_a_command() -> None:
    lines = [line.split() for line in EXAMPLES.splitlines() if line.startswith("  python -m stream ")]
    assert {words[4] for words in lines} == {"list", "show", "replay", "purge"}
    for words in lines:
        parser().parse_args(words[3:])


# show


def test_show_has_the_newest_first_or_the_oldest(box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "_FIRST_WINDOW", 2)
    letters = box(2)
    for hour in range(8):
        letters.put(b"x", time=NOW + timedelta(hours=hour), partition=int(hour in (2, 3)), reason=_reason(hour))
    assert letters.shown("--limit", "3") == ["0-5", "0-4", "0-3"]
    assert letters.shown("--limit", "3", "--oldest-first") == ["0-0", "0-1", "1-0"]
    assert letters.shown("--reason", "empty", "--limit", "2") == ["1-1", "0-0"]
    assert letters.shown() == ["0-5", "0-4", "0-3", "0-2", "1-1", "1-0", "0-1", "0-0"]
    assert letters.shown("--partition", "1") == ["1-1", "1-0"]


def _reason(hour: int) -> str:
    return "empty" if hour in (0, 3) else "wrong_type"


def test_show_tells_all_and_nothing_from_a_record_reaches_the_terminal_raw(box: Callable[..., Box]) -> None:
    evil = "\x1b[2J\n"
    letters = box()
    letters.put(
        f'{{"dur": "{evil}"}}'.encode(), key=b"\xff\x1b", own=[("origin", b"probe\x1b"), (f"x{evil}", None)],
        detail=f"is {evil}", field=f"dur{evil}", value=f'"{evil}"', hops=2,
    )  # fmt: skip
    status, out, _ = letters.run("show")
    assert status == 0 and out.replace("\n", "").isprintable()
    head, *lines = out.splitlines()
    assert head.startswith(f"{letters.dead}-0-0  2") and head.endswith("wrong_type  hops 2")
    assert [" ".join(line.split()) for line in lines] == [
        f"from {letters.flows}-0-0",
        "why is ?[2J?",
        'field dur?[2J? = "?[2J?"',
        "key �?",
        "header origin probe?",
        "header x?[2J? –",
        'value 16 bytes: {"dur": "?[2J?"}',
    ]


def test_letters_are_found_by_their_own_id_and_by_their_records(box: Callable[..., Box]) -> None:
    letters = box(2)
    letters.put(b"a", b"b", b"c")
    letters.put(b"d", partition=1)
    assert letters.shown(f"{letters.dead}-0-1") == ["0-1"]
    assert letters.shown(f"{letters.flows}-0-2", f"{letters.flows}-1-0", f"{letters.dead}-0-0") == ["1-0", "0-2", "0-0"]
    status, out, err = letters.run("show", f"{letters.dead}-0-1", f"{letters.dead}-0-7", f"{letters.flows}-1-9")
    assert status == 1 and f"{letters.dead}-0-1  " in out
    assert f"no dead letter {letters.dead}-0-7\nno dead letter {letters.flows}-1-9\n" in err


def test_raw_is_the_original_bytes_exactly(box: Callable[..., Box], tmp_path: Path) -> None:
    value = bytes(range(256)) + b"\r\n"
    letters = box()
    letters.put(value, b"")
    command = [sys.executable, "-m", "stream", "dead-letters", "show", "--bootstrap-servers", letters.servers]
    command += ["--topic", letters.dead, f"{letters.dead}-0-0", "--raw"]
    assert subprocess.run(command, check=True, capture_output=True, timeout=ANSWER_S).stdout == value
    for name, expected in ((f"{letters.flows}-0-0", value), (f"{letters.dead}-0-1", b"")):
        assert letters.run("show", name, "--raw", "--output", tmp_path / "record")[:2] == (0, "")
        assert (tmp_path / "record").read_bytes() == expected
    letters.put(b"again")
    status, _, err = letters.run("show", f"{letters.flows}-0-0", "--raw")
    assert status == 2 and f"choose {letters.dead}-0-0, {letters.dead}-0-2" in err


def test_a_reader_that_is_gone_ends_it_quietly(box: Callable[..., Box]) -> None:
    letters = box()
    letters.put(b"x")
    command = [sys.executable, "-m", "stream", "dead-letters", "show", "--bootstrap-servers", letters.servers]
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as out:
        done = subprocess.run(
            [*command, "--topic", letters.dead], stdout=out, stderr=subprocess.PIPE, timeout=ANSWER_S, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_long_topics_have_a_progress_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "100")):
        monkeypatch.setenv(name, value)
    for terminal, end, shown in ((True, 20_000, True), (True, 100, False), (False, 20_000, False)):
        err = Terminal() if terminal else io.StringIO()
        monkeypatch.setattr(sys, "stderr", err)
        with progress("counting", [Span("flows.dead", 0, 0, end)]) as advance:
            advance(end)
        assert ("counting" in err.getvalue() and "20000/20000" in err.getvalue()) == shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# replay


def test_replay_puts_back_bytes_key_and_headers_in_their_partition_with_a_hop_more(box: Callable[..., Box]) -> None:
    letters = box(2)
    value, key = b"\x00\xff garbage", b"\xfe"
    own: Headers = [("a", b"1"), ("flowsentry-reason", b"own"), ("b", None), ("a", b"\xff"), ("flowsentry-hops", b"1")]
    letters.put(value, key=key, own=own, partition=1, hops=1)
    letters.put(None, partition=0)
    status, out, _ = letters.run("replay", "--yes")
    assert status == 0 and "2  put back" in out
    first, second = sorted(read_all(letters.servers, letters.flows), key=lambda it: it.partition() or 0)
    assert (first.partition(), first.value(), first.key(), headers_of(first)) == (
        0, None, None, (("flowsentry-hops", b"1"),),
    )  # fmt: skip
    assert (second.partition(), second.value(), second.key()) == (1, value, key)
    assert headers_of(second) == (*own[:4], ("flowsentry-hops", b"2"))


def test_a_second_replay_does_nothing_unless_it_is_told_to(box: Callable[..., Box]) -> None:
    letters = box()
    letters.put(b"a", b"b")
    letters.replay_to_the_end()
    status, out, _ = letters.run("replay", "--yes")
    assert status == 0 and "2  put back before" in out
    letters.put(b"c")
    letters.replay_to_the_end()
    assert letters.back() == [b"a", b"b", b"c"]
    assert letters.counts()[0]["replayed"] == 3
    assert letters.run("replay", "--yes", "--again", f"{letters.dead}-0-1")[0] == 0
    assert letters.back() == [b"a", b"b", b"c", b"b"]


def test_only_selected_letters_are_put_back(box: Callable[..., Box]) -> None:
    letters = box()
    for number, reason in enumerate(("empty", "too_long", "poison", "empty")):
        letters.put(str(number).encode(), reason=reason, time=NOW + timedelta(hours=number), offset=number)
    assert letters.run("replay", "--yes", "--reason", "empty", "--until", "2026-03-04T07:00")[0] == 0
    assert letters.run("replay", "--yes", f"{letters.flows}-0-2")[0] == 0
    assert letters.back() == [b"0", b"2"]
    status, _, err = letters.run("replay", "--yes", f"{letters.flows}-0-7")
    assert status == 1 and f"no dead letter {letters.flows}-0-7" in err


def test_replay_to_another_topic_but_never_onto_the_dead_letters(
    box: Callable[..., Box], topic: Callable[..., str]
) -> None:
    letters = box(2)
    letters.put(b"a", partition=1)
    letters.put(b"b", topic=letters.dead)
    letters.put(b"c", topic="no-such-topic")
    other = topic("other")
    for name in (letters.dead, f"{letters.dead}.replayed"):
        status, _, err = letters.run("replay", "--yes", "--to", name)
        assert status == 2 and "that would be a loop" in err
    status, out, err = letters.run("replay", "--yes")
    assert status == 1 and "1  put back\n" in out
    assert f"{letters.dead}-0-0 of {letters.dead}-0-0 is left: of the dead letters' own topic" in err
    assert f"{letters.dead}-0-1 of no-such-topic-0-0 is left: the topic does not exist" in err
    assert letters.run("replay", "--yes", "--to", other, "--again")[0] == 0
    assert sorted(message.value() or b"" for message in read_all(letters.servers, other)) == [b"a", b"b", b"c"]


def test_dry_run_and_an_answer_of_no_change_nothing(box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch) -> None:
    letters = box()
    letters.put(b"a", b"b")
    letters.put(b"c", hops=3)
    before = end_offsets(letters.servers, letters.dead)
    status, out, _ = letters.run("replay", "--dry-run")
    assert status == 1
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [
        ["2", "to put back"],
        ["1", "left: put back as often as --max-hops lets it"],
        ["3", "dead letters in all"],
    ]
    assert letters.run("purge", "--all", "--dry-run")[0] == 0
    for action in (["replay"], ["purge", "--all"]):
        for answer in ("n\n", "", "\n"):
            monkeypatch.setattr(sys, "stdin", Terminal(answer))
            status, out, err = letters.run(*action)
            assert "[y/N]" in err and "deleted" not in out
    assert letters.back() == [] and len(letters.shown()) == 3
    assert end_offsets(letters.servers, letters.dead) == before
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert letters.run("replay")[0] == 1
    assert letters.back() == [b"a", b"b"]
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    assert letters.run("purge", "--all")[:2][1].endswith("deleted\n")
    assert letters.shown() == []


def test_letters_that_come_while_it_runs_are_not_read(box: Callable[..., Box]) -> None:
    letters = box()
    letters.put(b"a", b"b")
    with closing(Reader(letters.params)) as reader, closing(Reader(letters.params)) as sources:
        dead = DeadLetters(reader, letters.dead)
        replay = Replay(letters.params, reader, sources, dead, dead.spans(Selection()))
        letters.put(b"c")
        outcomes = [outcome for outcome, _ in replay.run(Selection(), lambda _: None)]
    assert outcomes == [Outcome.REPLAYED] * 2
    assert letters.back() == [b"a", b"b"]


# `_end` commits a chunk's transaction; a moment before, all of the chunk is at the broker.
KILLED = """
import os, signal, sys
from stream.__main__ import main
from stream.dead_letters import replaying

end, commits = replaying._end, 0

def killed(finish):
    global commits
    commits += 1
    if commits == 3 and WHEN == "before":
        finish.__self__.flush()
    else:
        end(finish)
    if commits == 3:
        os.kill(os.getpid(), signal.SIGKILL)

replaying._CHUNK, replaying._end = 10, killed
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("when", "back"), [("before", 20), ("after", 30)])
def test_killed_between_chunks_and_run_again_loses_nothing_and_doubles_nothing(
    box: Callable[..., Box], when: str, back: int
) -> None:
    letters = box()
    values = [str(number).encode() for number in range(45)]
    letters.put(*values)
    script = KILLED.replace("WHEN", repr(when))
    command = [sys.executable, "-c", script, "dead-letters", "replay", "--bootstrap-servers", letters.servers]
    killed = subprocess.run([*command, "--topic", letters.dead, "--yes"], timeout=2 * ANSWER_S, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert letters.back() == values[:back]
    status, out, _ = letters.run("replay", "--yes")
    assert status == 0 and f"{45 - back}  put back\n" in out and f"{back}  put back before\n" in out
    assert letters.back() == values


def test_interrupted_in_a_chunk_it_says_how_far_it_came_and_goes_on_from_there(
    box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = box()
    values = [str(number).encode() for number in range(25)]
    letters.put(*values)
    end, commits = replaying._end, list[object]()

    def interrupted(finish: Callable[[float], None]) -> None:
        commits.append(finish)
        if len(commits) == 2:
            raise KeyboardInterrupt
        end(finish)

    with monkeypatch.context() as patched:
        patched.setattr(replaying, "_CHUNK", 10)
        patched.setattr(replaying, "_end", interrupted)
        status, out, err = letters.run("replay", "--yes")
    assert (status, "10  put back\n" in out, "interrupted" in err) == (130, True, True)
    assert letters.back() == values[:10]
    letters.replay_to_the_end()
    assert letters.back() == values


def test_a_parallel_replay_ends_the_one_before_and_together_they_double_nothing(
    box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "_CHUNK", 2)
    letters = box()
    values = [str(number).encode() for number in range(9)]
    letters.put(*values)
    with closing(Reader(letters.params)) as reader, closing(Reader(letters.params)) as sources:
        dead = DeadLetters(reader, letters.dead)
        first = Replay(letters.params, reader, sources, dead, dead.spans(Selection())).run(Selection(), lambda _: None)
        assert [next(first)[0] for _ in range(2)] == [Outcome.REPLAYED] * 2
        status, out, _ = letters.run("replay", "--yes")
        assert status == 0 and "7  put back\n" in out
        with pytest.raises(FlowsentryError, match="another replay of these dead letters has taken over"):
            next(first)
    assert letters.back() == values


def test_a_letter_too_large_for_the_topic_costs_only_itself(box: Callable[..., Box]) -> None:
    letters = box()
    values = [b"a" * 300, b"b" * 2000, b"c" * 300, b"d" * 300]
    letters.put(*values)
    narrow = f"{letters.flows}.narrow"
    admin = AdminClient({"bootstrap.servers": letters.servers})
    admin.create_topics([NewTopic(narrow, 1, config={"max.message.bytes": "600"})])[narrow].result(ANSWER_S)
    try:
        status, out, err = letters.run("replay", "--yes", "--to", narrow, "--set", "kafka.compression.type=none")
        assert status == 1 and "3  put back\n" in out and "1  left: too large for the topic" in out
        assert f"{letters.dead}-0-1 of {letters.flows}-0-1 is left: too large for the topic" in err
        assert [message.value() for message in read_all(letters.servers, narrow)] == [values[0], *values[2:]]
    finally:
        admin.delete_topics([narrow])[narrow].result(ANSWER_S)


def test_a_letter_that_was_cut_is_fetched_from_where_it_came(box: Callable[..., Box], tmp_path: Path) -> None:
    letters = box()
    value = b"x" * 5000
    produce(letters.servers, letters.flows, [b"other", value], headers={"own": b"1"}, key=b"\xff")
    letters.put(None, cut=5005, reason="too_long", offset=1)  # with the key and the header
    letters.put(None, cut=5005, reason="too_long", offset=2)  # nothing stands there
    letters.put(None, cut=4999, reason="too_long", offset=1)  # something else does: the topic was made again
    assert letters.run("show", f"{letters.dead}-0-0", "--raw", "--output", tmp_path / "record")[0] == 0
    assert (tmp_path / "record").read_bytes() == value
    status, _, err = letters.run("show", f"{letters.flows}-0-2", "--raw")
    assert status == 2 and "gone from the topic" in err
    assert "5005 bytes, too large to be kept here" in letters.run("show")[1]
    status, out, err = letters.run("replay", "--yes")
    assert status == 1 and "1  put back\n" in out and "2  left: too large to be kept here, and gone" in out
    *_, last = read_all(letters.servers, letters.flows)
    assert (last.offset(), last.value(), last.key()) == (2, value, b"\xff")
    assert headers_of(last) == (("own", b"1"), ("flowsentry-hops", b"1"))


def test_a_record_that_could_not_be_read_is_not_put_back_empty(box: Callable[..., Box]) -> None:
    letters = box()
    letters.put(None, reason="undecodable")
    status, out, _ = letters.run("replay", "--yes")
    assert status == 1 and "1  left: never read" in out
    status, _, err = letters.run("show", f"{letters.dead}-0-0", "--raw")
    assert status == 2 and "never read" in err
    assert letters.back() == []


def test_receipts_are_not_taken_for_those_of_a_topic_made_again(box: Callable[..., Box]) -> None:
    letters = box()
    letters.put(b"a")
    letters.replay_to_the_end()
    admin = AdminClient({"bootstrap.servers": letters.servers})
    admin.delete_topics([letters.dead])[letters.dead].result(ANSWER_S)
    deadline = time.monotonic() + ANSWER_S
    while True:
        try:
            admin.create_topics([NewTopic(letters.dead, 1)])[letters.dead].result(ANSWER_S)
            break
        except KafkaException:  # a topic deleted is not at once a topic gone
            assert time.monotonic() < deadline
            time.sleep(0.1)
    letters.put(b"b")
    letters.replay_to_the_end()
    assert letters.back() == [b"a", b"b"]


def test_receipts_that_cannot_be_read_stop_it(box: Callable[..., Box]) -> None:
    letters = box()
    letters.put(b"a")
    letters.replay_to_the_end()
    produce(letters.servers, f"{letters.dead}.replayed", [b"{}"], key=b"x-0-0")
    status, _, err = letters.run("replay", "--yes", "--again")
    assert status == 2 and f"{letters.dead}.replayed-0-" in err and "is no receipt" in err
    assert letters.back() == [b"a"]


# from end to end


def test_from_garbage_to_alerts_and_never_in_a_loop(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    letters = Box(bootstrap_servers, topic("flows"), "", capsys)
    letters.dead = f"{letters.flows}.dead"
    value = attack(trans_depth=None)
    hostile: Headers = [
        ("flowsentry-reason", b"no such reason"), ("flowsentry-surplus", b"\xff"), ("flowsentry-offset", b"-1"),
        ("own", None), ("flowsentry-hops", b"9" * 30),
    ]  # fmt: skip
    producer = Producer({"bootstrap.servers": letters.servers})
    producer.produce(letters.flows, value, b"\xffkey", headers=list(hostile))
    producer.produce(letters.flows, b"garbage")
    assert producer.flush(ANSWER_S) == 0

    with running_service(
        letters.servers, tiny_bundle, letters.flows, "--set", "stream.min_feature_coverage=1.0"
    ) as service:
        letters.wait_for(service)
        for round in range(3):  # before the fix: it comes back, each time with a hop more, until the limit
            status, out, _ = letters.run("replay", "--yes", "--reason", "too_few_features")
            assert status == 0 and "1  put back\n" in out
            assert len(letters.back()) == 3 + round
            letters.wait_for(service)
        status, _, err = letters.run("replay", "--yes", "--reason", "too_few_features")
        assert status == 1 and "put back as often as --max-hops lets it" in err
    dead = read_all(letters.servers, letters.dead)
    told = [DeadLetter.from_headers(headers_of(message)) for message in dead if message.value() == value]
    assert [(it.hops, it.offset, it.reason) for it in told] == [
        (hops, offset, Reason.TOO_FEW_FEATURES) for hops, offset in enumerate((0, 2, 4, 6))
    ]
    assert alerts_on(letters.servers, f"{letters.flows}.alerts") == []

    with running_service(letters.servers, tiny_bundle, letters.flows) as service:  # the fix
        status, out, _ = letters.run("replay", "--yes", "--max-hops", "4")
        assert status == 0 and "2  put back\n" in out and "3  put back before\n" in out
        letters.wait_for(service)
    last = [message for message in read_all(letters.servers, letters.flows) if message.value() == value][-1]
    assert (last.key(), headers_of(last)) == (b"\xffkey", (*hostile[:4], ("flowsentry-hops", b"4")))
    assert [alert.id for alert in alerts_on(letters.servers, f"{letters.flows}.alerts")] == [
        f"{letters.flows}-0-{last.offset()}"
    ]
    assert Counter(letters.back()) == {value: 5, b"garbage": 2}


# purge


def test_purge_deletes_what_was_set_aside_before_and_says_what_was_never_put_back(box: Callable[..., Box]) -> None:
    letters = box(2)
    for hour in range(4):
        letters.put(b"a", time=NOW + timedelta(hours=hour), reason="empty" if hour else "poison")
    letters.put(b"b", time=NOW, partition=1)
    assert letters.run("replay", "--yes", f"{letters.dead}-0-1")[0] == 0
    status, out, _ = letters.run("purge", "--before", "2026-03-04T07:06:07Z", "--yes")
    assert status == 0
    assert [line.split() for line in out.splitlines()[1:-1]] == [
        ["empty", "1", "0"], ["poison", "1", "1"], ["wrong_type", "1", "1"], ["all", "3", "2"],
    ]  # fmt: skip
    assert letters.shown() == ["0-3", "0-2"]
    letters.replay_to_the_end()
    assert letters.back().count(b"a") == 3


def test_purge_of_one_partition_spares_the_others_and_what_comes_later(box: Callable[..., Box]) -> None:
    letters = box(2)
    letters.put(b"a", b"b")
    letters.put(b"c", partition=1)
    assert letters.run("purge", "--all", "--partition", "0", "--yes")[0] == 0
    letters.put(b"d")
    assert sorted(letters.shown()) == ["0-2", "1-0"]


@pytest.mark.parametrize(
    "words",
    [["--reason", "empty"], ["--since", "1h"], ["--until", "1h"], ["--source-topic", "x"], ["flows.dead-0-1"]],
    ids=lambda words: words[0],
)
def test_purge_refuses_what_kafka_cannot_do(box: Callable[..., Box], words: list[str]) -> None:
    letters = box()
    letters.put(b"a")
    status, _, err = letters.run("purge", "--all", "--yes", *words)
    assert status == 2 and "Kafka deletes from the beginning of a partition" in err
    assert letters.shown() == ["0-0"]


def test_purge_that_kafka_refuses_says_so(box: Callable[..., Box], topic: Callable[..., str]) -> None:
    letters = box()
    letters.dead = f"{letters.dead}.kept"
    admin = AdminClient({"bootstrap.servers": letters.servers})
    admin.create_topics([NewTopic(letters.dead, 1, config={"cleanup.policy": "compact"})])[letters.dead].result(
        ANSWER_S
    )
    try:
        letters.put(b"a", key=b"k")
        status, _, err = letters.run("purge", "--all", "--yes")
        assert status == 2 and f"partition 0 of '{letters.dead}' keeps its letters: " in err
    finally:
        admin.delete_topics([letters.dead])[letters.dead].result(ANSWER_S)
