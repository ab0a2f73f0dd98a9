"""What the command line gave. The pages run in its process and read it here, so that no secret stands among arguments."""

from dataclasses import dataclass
from pathlib import Path

from export.signing import Trust
from schemas.params import Params

__all__ = ["Settings", "give", "given"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the pages find bundles, CSVs, reports (`DIR/NAME/report.html`), alerts (`params`) and the service's figures."""

    params: Params
    bundles: tuple[Path, ...] = ()
    data: tuple[Path, ...] = ()
    reports: Path = Path("reports")
    metrics_urls: tuple[str, ...] = ()

    @property
    def trust(self) -> Trust:
        """Whose bundles are opened: those that the service would take."""
        return Trust(self.params.stream.trusted_keys, self.params.stream.require_signature)


_given: list[Settings] = []


def give(settings: Settings) -> None:
    """Set what `given` returns from now on."""
    _given[:] = [settings]


def given() -> Settings:
    """The settings of this process."""
    return _given[0]
