"""The data that methods of `LinearRNNRegressor` are given, checked by scikit-learn's rules."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, validate_data

from .. import _validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from .experiments import Real


def training_inputs(regressor: Any, X: ArrayLike, y: ArrayLike | None) -> Real:
    """Return X of `fit` as rows (n, d), and let the regressor remember its columns."""
    if y is None:
        validate_data(regressor, X, y)  # says that y is required
    return _inputs(regressor, X, "X", ensure_min_samples=2)


def inputs(regressor: Any, X: ArrayLike, name: str = "X") -> Real:
    """Return X as rows (n, d) with the columns of the training inputs."""
    return _inputs(regressor, X, name, reset=False)


def _inputs(regressor: Any, X: ArrayLike, name: str, **options: Any) -> Real:
    if getattr(X, "ndim", 2) == 1:
        hint = f"{name}.to_frame()" if hasattr(X, "to_frame") else f"{name}[:, None]"
        raise ValueError(f"{name} must have shape (n, d), not {np.shape(X)}. Reshape your data: pass {hint}")
    with _named(name):
        result: Real = validate_data(regressor, X, dtype=np.float64, ensure_all_finite=False, **options)
    finite = np.isfinite(result)
    if not finite.all():
        row, column = (int(index) for index in np.argwhere(~finite)[0])
        found = "NaN" if np.isnan(result[row, column]) else "inf"
        raise ValueError(
            f"{name} must be finite, not {found} in row {row} of column {column}: a target may be missing, "
            "but all later states depend on an input; fill it in, or begin another experiment after it"
        )
    return result


def targets(regressor: Any, y: ArrayLike) -> Real:
    """Return y of shape (n,) or (n, q), in which NaN stands for a missing target."""
    with _named("y"):
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


def same_rows(X: Real, y: Real) -> None:
    """Refuse targets that are not as many as inputs."""
    if len(X) != len(y):
        raise ValueError(f"y must have a row for each of the {len(X)} rows of X, not {len(y)}")


def random_source(random_state: Any) -> np.random.RandomState:
    """Return the source of randomness that a parameter `random_state` stands for."""
    try:
        source: np.random.RandomState = check_random_state(random_state)
    except Exception:  # of many types and words
        came = _validate.describe(random_state)
        expected = "an integer from 0 to 2^32 - 1, a numpy.random.RandomState or None"
        raise ValueError(f"random_state must be {expected}, not {came}") from None
    return source


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Let messages of scikit-learn name the argument where they do not."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if re.search(rf"\b{name}\b", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from None
    except Exception as error:  # of arrays of other libraries, which NumPy cannot read
        raise TypeError(f"{name} must be an array of numbers that NumPy can read: {error}") from error
