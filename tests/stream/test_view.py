"""The live picture: what stands on the screen, at the sizes that terminals have."""

import io
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from schemas.alert import Alert, BundleRef, FlowRef, Reason, Severity
from stream.view import Picture, render, summary_line

LONG_V6 = "2001:db8:85a3:8d3:1319:8a2e:370:7348"
SIZES = [(80, 24), (140, 50)]


def alert(number: int = 0, **changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "id": f"flows-0-{number}",
        "event_time": datetime(2017, 7, 7, 12, 2, number % 60, tzinfo=UTC),
        "detection_time": datetime(2026, 1, 1, tzinfo=UTC),
        "score": 0.98765,
        "threshold": 0.5,
        "severity": Severity.CRITICAL,
        "family": "DDoS",
        "family_probability": 0.9,
        "flow": FlowRef(src_ip="172.16.0.1", src_port=44321, dst_ip="192.168.10.50", dst_port=80),
        "reasons": (Reason(feature="flow_packets_s", value=2e6, unit="packets/s", weight=1),),
        "bundle": BundleRef(name="test", version="1", hash="0" * 64),
    }
    return Alert(**(fields | changes))


def screen(picture: Picture, width: int, height: int, **options: Any) -> list[str]:
    """The lines that a terminal of that size shows."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None, **options)
    console.print(render(picture, console))
    return out.getvalue().splitlines()


def busy_picture(alerts: int = 100) -> Picture:
    picture = Picture("flowsentry · cicids2017-improved at 100 flows/s")
    picture.observe(7, 123_000, 5, 0)
    for number in range(alerts):
        picture.add(alert(number), float(number))
    picture.observe(12, 123_456, 1000, 777)
    return picture


def test_the_plain_line_has_every_figure() -> None:
    assert summary_line(busy_picture()) == (
        "  12.0 s  flows 123456 (91/s)  lag 1000  alerts 100 (20/s)  dead letters 777  produce→alert p50 50 ms p99 98 ms"
    )


def test_before_the_first_alert_there_is_no_latency() -> None:
    picture = Picture("nothing yet")
    assert all(math.isnan(value) for value in picture.latency_ms)
    assert picture.rates == (0.0, 0.0)
    assert summary_line(picture).endswith("alerts 0 (0/s)  dead letters 0  produce→alert p50 – p99 –")
    assert not any("nan" in line for line in screen(picture, 80, 24))


def test_rates_are_those_of_the_last_five_seconds() -> None:
    picture = Picture("rates")
    for second in range(20):
        picture.observe(second, 10 * second if second < 10 else 100 + 50 * (second - 10), 0, 0)
        if second > 10:
            picture.add(alert(second), 1.0)
    flows_s, alerts_s = picture.rates
    assert (flows_s, alerts_s) == (50.0, 1.0)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_picture_fits_the_terminal_with_no_line_wrapped(width: int, height: int) -> None:
    lines = screen(busy_picture(), width, height)
    assert len(lines) < height  # one is left for the cursor
    assert {len(line) for line in lines} == {width}
    assert "flowsentry · cicids2017-improved at 100 flows/s · 12 s" in lines[0]
    labels, values, notes = lines[1:4]
    for words, line in (
        (["flows/s", "lag", "alerts/s", "p50", "p99", "dead letters"], labels),
        (["91", "1000", "20", "50 ms", "98 ms", "777"], values),
        (["123456 in all", "waiting", "100 in all", "produce→alert", "produce→alert"], notes),
    ):
        assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_newest_alerts_stand_first_as_many_as_there_is_room_for(width: int, height: int) -> None:
    lines = screen(busy_picture(), width, height)
    rows = [line for line in lines if "DDoS" in line]
    assert len(rows) == height - 10
    assert rows[0].startswith("│ 12:02:39 critical 172.16.0.1:44321 → 192.168.10.50:80")
    assert rows[1].startswith("│ 12:02:38")
    assert all("0.988" in row for row in rows)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_long_addresses_and_names_hide_no_other_column(width: int, height: int) -> None:
    picture = Picture("long")
    long = FlowRef(src_ip=LONG_V6, src_port=65535, dst_ip=LONG_V6, dst_port=65535)
    picture.add(alert(1, flow=long, family="Web Attack - SQL Injection"), 1e6)
    lines = screen(picture, width, height)
    [row] = [line for line in lines if "12:02:01" in line]
    assert row.startswith(f"│ 12:02:01 critical [{LONG_V6[:20]}")
    assert "Web Attack - " in row and "0.988" in row
    assert {len(line) for line in lines} == {width}


def test_reasons_are_shown_where_there_is_room() -> None:
    wide, narrow = (screen(busy_picture(), width, 24) for width in (140, 80))
    assert any("flow_packets_s 2.0e6 packets/s" in line for line in wide)
    assert not any("why" in line for line in narrow)


def test_a_terminal_too_small_for_it_still_gets_a_picture() -> None:
    lines = screen(busy_picture(), 40, 5)
    assert {len(line) for line in lines} == {40}
    assert sum("0.988" in line for line in lines) == 3


def test_text_of_a_flow_cannot_command_the_terminal() -> None:
    picture = Picture("escapes")
    picture.add(alert(1, flow=FlowRef(src_ip="fe80::1", src_port=1, dst_ip="[/nothing]")), 1.0)
    picture.add(alert(flow=FlowRef(src_ip="\x1b[2J\n\x07evil", dst_ip="[red]b[/]"), family="\x1b]0;owned\x07"), 1.0)
    text = "\n".join(screen(picture, 140, 24))
    assert "\x1b" not in text and "\x07" not in text
    assert "[fe80::1]:1 → [/nothing]" in text
    assert "?[2J??evil → [red]b[/]" in text and "?]0;owned?" in text
