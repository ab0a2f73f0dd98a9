"""The command: what is given by default, and what it refuses before it starts."""

import socket
from pathlib import Path

import pytest

from tests.bundles import make_bundle
from trainer.__main__ import main
from trainer.dashboard.settings import Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, str, int]]:
    """What would be served."""
    found: list[tuple[Settings, str, int]] = []

    def serve(settings: Settings, host: str, port: int) -> int:
        found.append((settings, host, port))
        return 0

    monkeypatch.setattr("trainer.dashboard.command.serve", serve)
    return found


def test_by_default_the_bundles_and_the_sample_at_hand_are_shown_to_this_machine_alone(
    served: list[tuple[Settings, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    assert main(["dashboard"]) == 0
    [(settings, host, port)] = served
    assert (host, port) == ("127.0.0.1", 8501)
    assert [path.name for path in settings.bundles] == ["cicids2017-improved", "cicids2017", "unsw-nb15"]
    assert [path.name for path in settings.data] == ["cicids2017-improved.csv.gz"]
    assert settings.params.stream.bootstrap_servers == "127.0.0.1:9092" and settings.metrics_urls == ()


def test_options_are_taken_over(
    served: list[tuple[Settings, str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    bundle = make_bundle(tmp_path / "tiny", "unsw-nb15")
    words = [
        "--bundle",
        str(bundle),
        "--alerts",
        "found",
        "--metrics-url",
        "http://h:1",
        "--host",
        "::1",
        "--port",
        "0",
    ]
    assert main(["dashboard", *words]) == 0
    [(settings, host, port)] = served
    assert (settings.bundles, settings.data, host, port) == ((bundle,), (), "::1", 0)
    assert settings.params.stream.alerts == "found" and settings.params.stream.bootstrap_servers == "kafka:9092"
    assert settings.metrics_urls == ("http://h:1/metrics",)


def test_a_port_in_use_and_a_wrong_address_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["dashboard", "--port", str(taken.getsockname()[1])]) == 2
    told = capsys.readouterr().err
    assert (
        "Address already in use" in told and "Choose another with --port, 0 for any" in told and told.count("\n") == 1
    )
    assert main(["dashboard", "--metrics-url", "9108"]) == 2
    assert "expected an address like http://127.0.0.1:9108" in capsys.readouterr().err
