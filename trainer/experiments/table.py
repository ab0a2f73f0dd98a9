"""What an experiment found: a table for a terminal, a file and the report."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table as Shown

from schemas.datasets import SCHEMAS

__all__ = ["TABLES", "Table", "between_seeds", "read_tables"]

TABLES = ("compare", "unseen", "novelty", "novelty_scores", "pretraining", "shortcuts", "importance", "missing", "time",
          *(f"transfer-{name}" for name in SCHEMAS))  # fmt: skip
"""Those that the report shows, in its order."""

_FOLDER = "tables"

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class Table:
    """`name` is the file's, `note` says how it was measured; numbers are shown with four digits behind the point."""

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def write(self, directory: Path) -> Path:
        """Write tables/NAME.json into a report's directory."""
        path = directory / _FOLDER / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def show(self, console: Console) -> None:
        """Print it."""
        shown = Shown(*self.columns, title=self.title, title_justify="left", caption=self.note, caption_justify="left")
        for row in self.texts():
            shown.add_row(*row)
        console.print(shown)

    def texts(self) -> list[list[str]]:
        """The cells as they are shown."""
        return [[_text(cell) for cell in row] for row in self.rows]


def read_tables(directory: Path) -> list[Table]:
    """Those of `TABLES` that were written to a report's directory."""
    found = []
    for name in TABLES:
        path = directory / _FOLDER / f"{name}.json"
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            content["columns"] = tuple(content["columns"])
            content["rows"] = tuple(tuple(row) for row in content["rows"])
            found.append(Table(**content))
    return found


def between_seeds(values: Sequence[float]) -> str:
    """Mean, and the least and the most of several seeds."""
    mean = sum(values) / len(values)
    return f"{mean:.4f} ({min(values):.4f} – {max(values):.4f})" if len(values) > 1 else f"{mean:.4f}"


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return "–"
        case float():
            return f"{cell:.4f}"
        case int():
            return f"{cell:,}"
        case _:
            return cell
