"""What stands on the screen, at the sizes that terminals have."""

import io

import pytest
from rich.console import Console

from stream.top.figures import Figures
from stream.top.scrape import Labels, Scrape
from stream.top.view import render, summary_line

SIZES = [(80, 24), (140, 50)]


def worker(seconds: float, families: int = 3, partitions: int = 2, **changes: str) -> Scrape:
    """That has judged 100 flows a second, one in ten an attack."""
    bundle = {"name": "tiny", "version": "0.0.1", "hash": "9f" * 32, **changes}
    samples: dict[tuple[str, Labels], float] = {
        ("flowsentry_flows_total", ()): 100 * seconds,
        ("flowsentry_assigned_partitions", ()): partitions,
        ("flowsentry_worker_restarts", ()): 3,
        ("flowsentry_batch_retries_total", ()): 4,
        ("flowsentry_bundle_info", tuple(sorted(bundle.items()))): 1,
        ("flowsentry_dead_letters_total", (("reason", "too_few_features"),)): 2 * seconds,
        ("flowsentry_dead_letters_total", (("reason", "poison"),)): 0,
        ("flowsentry_stage_seconds_sum", (("stage", "score"),)): 0.25 * seconds,
        ("flowsentry_stage_seconds_count", (("stage", "score"),)): 20 * seconds,
        ("flowsentry_alert_latency_seconds_bucket", (("le", "0.1"),)): 10 * seconds,
        ("flowsentry_alert_latency_seconds_bucket", (("le", "+Inf"),)): 10 * seconds,
    }
    for number in range(families):
        labels = (("family", f"Family {number}"), ("severity", "critical"))
        samples[("flowsentry_alerts_total", labels)] = (families - number) * seconds
    for number in range(partitions):
        samples[("flowsentry_lag", (("partition", str(number)),))] = 1000 + number
    return Scrape(samples)


def watched(families: int = 3, partitions: int = 2, **changes: str) -> Figures:
    figures = Figures()
    for seconds in (10.0, 12.0):
        figures.observe(
            seconds,
            {
                "http://127.0.0.1:9108/metrics": worker(seconds, families, partitions, **changes),
                "http://127.0.0.1:9109/metrics": "does not answer (Connection refused)",
            },
        )
    return figures


def screen(figures: Figures, width: int, height: int | None) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height or 25, force_terminal=True, color_system=None)
    console.print(render(figures, width, height))
    return out.getvalue().splitlines()


def test_the_plain_line_has_every_figure() -> None:
    assert summary_line(watched()) == (
        "flows 1200 (100/s)  lag 2001  alerts 72 (6/s)  dead letters 24  flow→alert p50 50 ms p99 99 ms  ready 1 of 2"
    )


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("many", [1, 60])
def test_the_picture_fits_the_terminal_with_no_line_wrapped(width: int, height: int, many: int) -> None:
    lines = screen(watched(families=many, partitions=many), width, height)
    assert len(lines) <= height
    assert {len(line) for line in lines} == {width}


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_figure_stands_there(width: int, height: int) -> None:
    text = "\n".join(screen(watched(), width, height))
    for words in (
        "1 of 2 workers answer", "1200 in all", "2 partitions", "72 in all", "50 ms", "99 ms", "2.0% now",
        "Family 0", "36", "too_few_features", "24", "1001", "12 ms", "25% of time", "127.0.0.1:9108", "127.0.0.1:9109",
        "tiny 0.0.1", "ready", "does not",
    ):  # fmt: skip
        assert words in text, words
    assert "poison" not in text, "what never happened"


def test_tables_that_are_cut_say_so_and_a_printout_is_whole() -> None:
    cut = "\n".join(screen(watched(families=60, partitions=60), 80, 24))
    assert "and 55 more" in cut and "Family 59" not in cut
    whole = "\n".join(screen(watched(families=60, partitions=60), 80, None))
    assert "more" not in whole and "Family 59" in whole and "1059" in whole


def test_text_of_a_server_cannot_command_the_terminal() -> None:
    text = "\n".join(screen(watched(name="\x1b[2J[red]b[/]", version="\x07"), 140, 50))
    assert "\x1b" not in text and "\x07" not in text and "?[2J[red]b[/] ?" in text


def test_before_the_first_alert_there_is_no_latency() -> None:
    figures = Figures()
    figures.observe(0, {"http://h:1/metrics": Scrape({("flowsentry_flows_total", ()): 0})})
    assert "p50 – p99 –" in summary_line(figures)
    text = "\n".join(screen(figures, 80, 24))
    assert "nan" not in text and text.count("none") == 3
