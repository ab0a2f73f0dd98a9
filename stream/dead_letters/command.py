"""`python -m stream dead-letters`: its command line, and what it prints."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from schemas.cli import add_common, leave_unread
from schemas.dead_letter import Reason
from schemas.errors import FlowsentryError, ParamsError
from schemas.params import Params
from schemas.times import to_us
from stream.access import dead_letter_rights, is_secured
from stream.clients import admin_properties
from stream.dead_letters.letters import DeadLetters, Selection, original, parse_moment
from stream.dead_letters.purging import count_doomed, delete
from stream.dead_letters.reading import Advance, Reader, Span
from stream.dead_letters.receipts import Receipts
from stream.dead_letters.replaying import MAX_HOPS, Outcome, Replay
from stream.dead_letters.showing import By, columns, pick, tallies_as_json, tallies_as_table, tally
from stream.topics import TIMEOUT_S, Cluster
from stream.wording import printable

__all__ = ["EXAMPLES", "add_commands", "run"]

EXAMPLES = """examples:
  python -m stream dead-letters list   --by hour --since 24h
  python -m stream dead-letters show   --reason wrong_type --limit 5
  python -m stream dead-letters show   flows.dead-0-0 --raw --output record.json
  python -m stream dead-letters replay --reason too_few_features --dry-run
  python -m stream dead-letters replay --since 2h --yes
  python -m stream dead-letters purge  --before 30d --dry-run

TIME is ISO 8601 (2026-03-04, 2026-03-04T05:06; UTC unless it says otherwise) or how long ago (90s, 15m, 2h, 7d, 1w; '15m
ago' too), and is when a record was set aside. ID is topic-partition-offset, of a letter or of the record set aside.

exit status: 0 done; 1 some letters were left where they are, or there is no letter of an ID (the message says which); 2 it
could not be done (the message says why)
"""

_SHOWN = 20
_LEFT_SHOWN = 20
_LONG = 10_000


def add_commands(group: argparse.ArgumentParser, add_servers: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add list, show, replay and purge to the parser of `dead-letters`."""
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(
            name, help=text, description=text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add_common(action)
        add_servers(action)
        action.add_argument("--topic", help="dead letters (default: flows.dead)")
        action.add_argument("--partition", type=_at_least(0), action="append", default=[], metavar="N",
                            help="of the dead letters' topic; may be repeated")  # fmt: skip
        return action

    def add_filters(action: argparse.ArgumentParser, *, hidden: bool = False) -> None:
        def words(text: str) -> str:
            return argparse.SUPPRESS if hidden else text

        reasons = "one of " + ", ".join(Reason)
        action.add_argument("--reason", type=Reason, choices=list(Reason), action="append", default=[], metavar="R",
                            help=words(f"{reasons}; may be repeated"))  # fmt: skip
        action.add_argument("--since", metavar="TIME", help=words("set aside then or later"))
        action.add_argument("--until", metavar="TIME", help=words("set aside before then"))
        action.add_argument("--source-topic", metavar="TOPIC", help=words("records of this topic"))

    counts = add("list", "how many dead letters there are, by reason")
    add_filters(counts)
    counts.add_argument("--by", type=By, choices=list(By), action="append", default=[], metavar="WHAT",
                        help=f"count by this too: {' or '.join(By)}; may be repeated")  # fmt: skip
    counts.add_argument("--format", choices=("table", "json"), default="table", help="default: table")

    show = add("show", "the dead letters themselves, the newest first")
    show.add_argument("ids", nargs="*", metavar="ID", help="only these")
    add_filters(show)
    show.add_argument(
        "--limit", type=_at_least(1), metavar="N", help=f"at most so many (default: {_SHOWN}; of IDs, all)"
    )
    show.add_argument("--oldest-first", action="store_true", help="the oldest, oldest first")
    show.add_argument("--raw", action="store_true", help="only the original bytes of the one letter of ID, exactly")
    show.add_argument("--output", type=Path, metavar="FILE", help="write them there (default: stdout)")

    again = add("replay", "put records back on the topic that they came from, once; after a fix")
    again.add_argument("ids", nargs="*", metavar="ID", help="only these")
    add_filters(again)
    again.add_argument("--to", metavar="TOPIC", help="put them there instead")
    again.add_argument("--max-hops", type=_at_least(1), default=MAX_HOPS, metavar="N",
                       help=f"leave a record that was put back so often already (default: {MAX_HOPS})")  # fmt: skip
    again.add_argument("--again", action="store_true", help="those too that were put back before")

    purge = add("purge", "delete dead letters for good, from the beginning of each partition on")
    purge.add_argument("ids", nargs="*", metavar="ID", help=argparse.SUPPRESS)
    add_filters(purge, hidden=True)
    what = purge.add_mutually_exclusive_group(required=True)
    what.add_argument("--before", metavar="TIME", help="those before the first that was set aside at TIME or later")
    what.add_argument("--all", action="store_true", help="all there are now")
    for action in (again, purge):
        action.add_argument("--yes", action="store_true", help="do not ask")
        action.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {least}")
        return int(text)

    return number


def run(arguments: argparse.Namespace, params: Params) -> int:
    """Run one action; the exit status.

    Raises:
        FlowsentryError: an option makes no sense, Kafka does not answer or refuses.
    """
    selection = _selection(arguments)
    if arguments.action in ("replay", "purge") and not (arguments.yes or arguments.dry_run or sys.stdin.isatty()):
        raise ParamsError(
            f"dead-letters {arguments.action} asks before it goes on, and there is no terminal to ask at: give --yes to go "
            "on, or --dry-run to see what it would do"
        )
    _check_rights(arguments, params)
    with closing(Reader(params)) as reader:
        letters = DeadLetters(reader, arguments.topic or params.stream.dead_letters)
        spans = letters.spans(selection)
        if not reader.partitions(letters.topic):
            _tell(f"topic {letters.topic!r} does not exist at {reader.servers}: no dead letters")
            return _missing(selection, set())
        action = _Action(arguments, params, reader, letters, spans, selection)
        status = {"list": action.count, "show": action.show, "replay": action.replay, "purge": action.purge}[
            arguments.action
        ]()
    if letters.strangers:
        _tell(f"messages on {letters.topic!r} that were no dead letters: {letters.strangers}")
    return status


def _check_rights(arguments: argparse.Namespace, params: Params) -> None:
    """Where Kafka may have rules; a topic that the user may not see would seem not to exist."""
    properties = admin_properties(params)
    if not is_secured(properties):
        return
    topic = arguments.topic or params.stream.dead_letters
    target = getattr(arguments, "to", None) or params.stream.input
    Cluster(properties).missing([], dead_letter_rights(arguments.action, topic, target), TIMEOUT_S)


def _selection(arguments: argparse.Namespace) -> Selection:
    now = datetime.now(UTC)
    if arguments.action == "purge":
        given = {"--reason": arguments.reason, "--since": arguments.since, "--until": arguments.until,
                 "--source-topic": arguments.source_topic, "ID": arguments.ids}  # fmt: skip
        for option in (name for name, value in given.items() if value):
            raise ParamsError(
                f"purge cannot pick letters by {option}: Kafka deletes from the beginning of a partition up to a place, "
                "and nothing in between. Give --before TIME or --all, and --partition if need be"
            )
    return Selection(
        reasons=frozenset(arguments.reason),
        since=parse_moment("--since", arguments.since, now) if arguments.since else None,
        until=parse_moment("--until", arguments.until, now) if arguments.until else None,
        partitions=frozenset(arguments.partition),
        source_topic=arguments.source_topic,
        ids=frozenset(getattr(arguments, "ids", ())),
    )


@dataclass(frozen=True, slots=True)
class _Action:
    """What is asked for, and where it is."""

    arguments: argparse.Namespace
    params: Params
    reader: Reader
    letters: DeadLetters
    spans: list[Span]
    selection: Selection

    def count(self) -> int:
        receipts = self._receipts()
        by = self.arguments.by
        with _progress("counting", self.spans) as advance:
            tallies = tally(self.letters.read(self.spans, self.selection, advance), by, receipts)
        _print((tallies_as_json if self.arguments.format == "json" else tallies_as_table)(tallies, by))
        return 0

    def show(self) -> int:
        if self.arguments.raw:
            return self._show_raw()
        if self.arguments.output:
            raise ParamsError("--output is for the original bytes of one letter: it needs --raw")
        receipts = self._receipts()
        limit = self.arguments.limit or (sys.maxsize if self.selection.ids else _SHOWN)
        with _progress("looking", self.spans) as advance:
            shown = pick(self.letters, self.spans, self.selection, receipts, limit=limit,
                         oldest_first=self.arguments.oldest_first, advance=advance)  # fmt: skip
        _print(line for each in shown for line in each.lines)
        names = {name for each in shown for name in (each.id, each.source)}
        return _missing(self.selection, names) if len(shown) < limit else 0

    def _show_raw(self) -> int:
        if len(self.selection.ids) != 1:
            raise ParamsError("--raw is for one letter: give its ID")
        found = list(islice(self.letters.read(self.spans, self.selection), 2))
        if len(found) > 1:
            raise ParamsError(f"more than one letter: choose {found[0].id}, {found[1].id} or another")
        if not found:
            return _missing(self.selection, set())
        if found[0].told.reason is Reason.UNDECODABLE:
            raise FlowsentryError(f"{found[0].id} {Outcome.UNDECODABLE}: {found[0].told.detail}")
        record = original(found[0], self.reader)
        if record is None:
            raise FlowsentryError(f"{found[0].id} {Outcome.GONE}: {found[0].source}")
        if self.arguments.output:
            self.arguments.output.write_bytes(record.value or b"")
        else:
            sys.stdout.buffer.write(record.value or b"")
            sys.stdout.flush()
        return 0

    def replay(self) -> int:
        given = self.arguments
        with closing(Reader(self.params)) as sources:
            replay = Replay(self.params, self.reader, sources, self.letters, self.spans, to=given.to,
                            max_hops=given.max_hops, again=given.again)  # fmt: skip
            if not given.yes or given.dry_run:
                with _progress("counting", self.spans) as advance:
                    planned = replay.plan(self.selection, advance)
                _print(_outcomes(planned, "to put back"))
                if given.dry_run or not planned[Outcome.REPLAYED] or not _confirmed("Put them back?"):
                    return int(any(outcome.is_left for outcome in planned))
            return self._replay(replay)

    def _replay(self, replay: Replay) -> int:
        outcomes: Counter[Outcome] = Counter()
        names: set[str] = set()
        try:
            with _progress("putting back", self.spans) as advance:
                for outcome, letter in replay.run(self.selection, advance):
                    outcomes[outcome] += 1
                    names |= {letter.id, letter.source} & set(self.selection.ids)
                    if outcome.is_left and (left := sum(outcomes[it] for it in Outcome if it.is_left)) <= _LEFT_SHOWN:
                        _tell(f"{letter.id} of {letter.source} is left: {outcome}" if left < _LEFT_SHOWN else "…")
        finally:  # also when it is broken off: what was put back stays so
            _print(_outcomes(outcomes, str(Outcome.REPLAYED)))
        return _missing(self.selection, names) or int(any(outcome.is_left for outcome in outcomes))

    def purge(self) -> int:
        given = self.arguments
        spans = self.spans
        if given.before:
            before = parse_moment("--before", given.before, datetime.now(UTC))
            kept = self.reader.since(spans, to_us(before) // 1000)
            spans = [replace(span, end=rest.start) for span, rest in zip(spans, kept, strict=True)]
        with _progress("counting", spans) as advance:
            doomed = count_doomed(self.params, self.reader, self.letters, spans, advance)
        rows = [(reason.value, str(doomed.letters[reason]), str(doomed.never_replayed[reason]))
                for reason in sorted(doomed.letters)]  # fmt: skip
        rows.append(("all", str(doomed.letters.total()), str(doomed.never_replayed.total())))
        _print(columns(("reason", "letters", "never put back"), rows))
        if given.dry_run or not any(map(len, spans)) or not (given.yes or _confirmed("Delete them for good?")):
            return 0
        delete(self.params, spans)
        print("deleted")
        return 0

    def _receipts(self) -> Receipts:
        receipts = Receipts(self.params, self.letters.topic, self.spans)
        receipts.load(self.reader)
        return receipts


def _outcomes(outcomes: Counter[Outcome], done: str) -> Iterator[str]:
    """How many letters had each outcome, and how many there were."""
    for outcome in Outcome:
        if outcomes[outcome]:
            words = done if outcome is Outcome.REPLAYED else f"left: {outcome}" if outcome.is_left else str(outcome)
            yield f"{outcomes[outcome]:>10}  {words}"
    yield f"{outcomes.total():>10}  dead letters in all"


def _missing(selection: Selection, found: set[str]) -> int:
    """1, and told, if there is no letter for one of the IDs."""
    missing = sorted(set(selection.ids) - found)
    for name in missing:
        _tell(f"no dead letter {name}")
    return int(bool(missing))


def _confirmed(question: str) -> bool:
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tell(what: str) -> None:
    print(printable(what), file=sys.stderr, flush=True)


def _print(lines: Iterable[str]) -> None:
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        leave_unread(sys.stdout)


@contextmanager
def _progress(what: str, spans: Sequence[Span]) -> Iterator[Advance]:
    """A bar on a terminal, for topics that are long."""
    console = Console(file=sys.stderr)
    total = sum(map(len, spans))
    if not console.is_terminal or total < _LONG:
        yield lambda _: None
        return
    with Progress(
        SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
        transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task(what, total=total)
        yield lambda offsets: bar.advance(task, offsets)
