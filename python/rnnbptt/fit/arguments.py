"""The data that methods of `LinearRNNRegressor` are given, checked by scikit-learn's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_array, validate_data

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .experiments import Real


def training_inputs(regressor: Any, X: ArrayLike, y: ArrayLike | None) -> Real:
    """Return X of `fit` as rows (n, d), and let the regressor remember its columns."""
    if y is None:
        validate_data(regressor, X, y)  # says that y is required
    result: Real = validate_data(regressor, X, dtype=np.float64, ensure_min_samples=2)
    return result


def inputs(regressor: Any, X: ArrayLike) -> Real:
    """Return X as rows (n, d) with the columns of the training inputs."""
    result: Real = validate_data(regressor, X, dtype=np.float64, reset=False)
    return result


def targets(regressor: Any, y: ArrayLike) -> Real:
    """Return y of shape (n,) or (n, q), in which NaN stands for a missing target."""
    result: Real = check_array(
        y,
        ensure_2d=False,
        dtype=np.float64,
        ensure_all_finite="allow-nan",
        input_name="y",
        estimator=regressor,
    )
    if result.ndim not in (1, 2):
        raise ValueError(f"y must have shape (n,) or (n, q), not {result.shape}")
    return result
