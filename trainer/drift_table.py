"""Distances of a window from the reference, for the terminal."""

from collections.abc import Mapping

from rich.table import Table

from export.histograms import Distances

__all__ = ["drift_table"]

_SHOWN = 15


def drift_table(distances: Mapping[str, Distances], psi_bound: float) -> Table:
    """Those that have drifted, or the furthest ones."""
    drifted = sum(found.psi >= psi_bound for found in distances.values())
    title = f"{drifted} of {len(distances)} have drifted: a PSI of {psi_bound:g} or more"
    table = Table("feature", "PSI", "Wasserstein", "missing", "unknown", "out of range", title=title)
    for name, found in [*distances.items()][: max(_SHOWN, drifted)]:
        shares = (found.missing, found.unknown, found.out_of_range)
        cells = ("–" if share is None else f"{share:.1%}" for share in shares)
        style = "bold" if found.psi >= psi_bound else ""
        table.add_row(name, f"{found.psi:.3f}", f"{found.wasserstein:.3f}", *cells, style=style)
    return table
