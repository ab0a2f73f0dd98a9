"""Evidently's report of drift, with the population stability index that the service measures."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from export.histograms import categories_of, numbers_of
from schemas.errors import FlowsentryError

__all__ = ["write_report"]

_METHOD = "psi_of_ranks"


def write_report(
    reference: Mapping[str, np.ndarray],
    window: Mapping[str, np.ndarray],
    categorical: Sequence[str],
    out: Path,
    *,
    psi_bound: float,
) -> None:
    """Write an HTML page of columns, f[N] (NaN = missing) or object[N], that needs nothing from the network.

    Evidently's own index cuts a feature into bins of one width, which of a feature with a long tail hold next to nothing, all
    but the first. Here it has `export.histograms`' bins.

    Raises:
        FlowsentryError: the page cannot be written.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")  # read when Evidently is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it uses of pandas and numpy
        _stand_in_for_what_pandas_had()
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        _register(_psi)
        numeric = [name for name in window if name not in categorical]
        definition = DataDefinition(numerical_columns=numeric, categorical_columns=[*categorical])
        # A column that is empty on either side has no distribution to be plotted.
        shown = [name for name in window if all(pd.notna(side[name]).any() for side in (window, reference))]
        preset = DataDriftPreset(
            columns=shown, num_method=_METHOD, cat_method=_METHOD, num_threshold=psi_bound, cat_threshold=psi_bound
        )
        sides = [
            Dataset.from_pandas(_frame(side, categorical), data_definition=definition) for side in (window, reference)
        ]
        report = Report([preset]).run(*sides)
        try:
            report.save_html(str(out))
        except OSError as error:
            raise FlowsentryError(f"{out}: {error.strerror}") from None


def _frame(columns: Mapping[str, np.ndarray], categorical: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: values if name in categorical else values.astype(np.float64) for name, values in columns.items()}
    )


def _psi(reference: pd.Series, window: pd.Series, feature_type: Any, threshold: float) -> tuple[float, bool]:
    """As Evidently asks for it: the index, and whether it is drift."""
    if pd.api.types.is_numeric_dtype(reference):
        variable: Any = numbers_of("", [reference.to_numpy(dtype=np.float32)])
        values = window.to_numpy(dtype=np.float32)
    else:
        names = sorted(map(str, reference.dropna().unique()))
        codes = {name: code for code, name in enumerate(names, start=1)}
        variable = categories_of("", names, [np.array([codes.get(name, 0) for name in reference.astype(object)])])
        values = window.astype(object).where(window.notna(), None).to_numpy(dtype=object)
    psi = variable.distances(variable.count(values), 0.0).psi
    return psi, bool(psi >= threshold)


def _register(function: Callable[..., tuple[float, bool]]) -> None:
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    kinds = [ColumnType.Numerical, ColumnType.Categorical]
    register_stattest(StatTest(_METHOD, "PSI", kinds, default_threshold=0.2), function)


def _stand_in_for_what_pandas_had() -> None:
    """Evidently 0.7.23 cannot be imported beside pandas 3.1, which no longer has a function that only its tests of column
    types call. No such test is made here."""
    from pandas.core.dtypes import common

    if not hasattr(common, "infer_dtype_from_object"):
        common.infer_dtype_from_object = None
