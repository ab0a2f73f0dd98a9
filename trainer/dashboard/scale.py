"""What spans many powers of ten, with 0 and negative values, on one axis."""

import numpy as np

__all__ = ["compressed", "expanded"]


def compressed(values: np.ndarray) -> np.ndarray:
    """±log10(1 + |x|): f64[N] → f64[N]."""
    return np.asarray(np.sign(values) * np.log10(1 + np.abs(values)))


def expanded(places: np.ndarray) -> np.ndarray:
    """The values at such places: f64[N] → f64[N]."""
    return np.asarray(np.sign(places) * (10 ** np.abs(places) - 1))
