"""What the live page makes of alerts."""

from schemas.alert import FlowRef
from tests.stream.alerts import alert
from trainer.dashboard.live import endpoint, per_bin, rows_of
from trainer.dashboard.subscriber import Seen


def test_alerts_are_counted_in_steps_of_the_last_minutes() -> None:
    seen = Seen((), 4, 0, {(1000, "high"): 1, (1004, "high"): 2, (1005, "low"): 1, (400, "low"): 9}, "")
    assert per_bin(seen, 1010).rows() == [(-7.5 / 60, "high", 3), (-2.5 / 60, "low", 1)]


def test_a_line_for_each_alert_and_no_empty_column() -> None:
    frame = rows_of([alert(0, novelty=2.0), alert(1, score=None, reasons=())])
    assert frame["strongest reason"].to_list() == ["flow_packets_s", "–"]
    assert frame["novelty"].to_list() == [2.0, None] and frame["score"].null_count() == 1
    assert "novelty" not in rows_of([alert(0)]).columns


def test_an_endpoint_says_what_is_not_known() -> None:
    assert endpoint(FlowRef(src_ip="10.0.0.1", src_port=80, dst_ip="::1", dst_port=443)) == "10.0.0.1:80 → [::1]:443"
    assert endpoint(FlowRef(src_port=80)) == "–:80 → –"
