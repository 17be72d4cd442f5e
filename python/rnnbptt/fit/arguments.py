"""The data that methods of `LinearRNNRegressor` are given, checked by scikit-learn's rules."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, validate_data

from .. import _validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from .._validate import IntArray
    from .experiments import Real


def training_inputs(regressor: Any, X: ArrayLike | None, y: ArrayLike | None) -> Real:
    """Return X of `fit` as rows (n, d), and let the regressor remember its columns."""
    if y is None:
        validate_data(regressor, X, y)  # says that y is required
    if X is None:
        regressor.n_features_in_ = 0
        if hasattr(regressor, "feature_names_in_"):
            del regressor.feature_names_in_
        rows: Real = np.zeros((0 if y is None else len(targets(regressor, y)), 0))
        return rows
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if len(shape) == 2 and shape[0] > 0 and shape[1] == 0:
        raise ValueError(
            f"Found array with 0 feature(s) (shape={shape}) while a minimum of 1 is required. "
            "Pass X=None to fit a network without inputs"
        )
    return _inputs(regressor, X, "X", ensure_min_samples=2)


def inputs(regressor: Any, X: ArrayLike | None, name: str = "X", rows: int | None = None) -> Real:
    """Return X as rows (n, d) with the columns of the training inputs; None are `rows` rows without any."""
    if regressor.n_features_in_ == 0:
        count = regressor._rows if rows is None else rows
        given = np.zeros((count, 0)) if X is None else _validate.numeric(name, X)
        if given.ndim != 2 or given.shape[1] != 0:
            raise ValueError(
                f"{name} must be None or have shape (n, 0), not {given.shape}: there are no inputs"
            )
        return np.zeros(given.shape)
    if X is None:
        raise ValueError(f"{name} must have shape (n, {regressor.n_features_in_}), not None")
    return _inputs(regressor, X, name, reset=False)


def _inputs(regressor: Any, X: ArrayLike, name: str, **options: Any) -> Real:
    if getattr(X, "ndim", 2) == 1:
        hint = f"{name}.to_frame()" if hasattr(X, "to_frame") else f"{name}[:, None]"
        raise ValueError(f"{name} must have shape (n, d), not {np.shape(X)}. Reshape your data: pass {hint}")
    _kind(name, X)
    with named(name):
        checked = validate_data(regressor, X, dtype=np.float64, ensure_all_finite=False, **options)
    result: Real = np.ascontiguousarray(checked)  # sums depend on the order, in the last digit
    finite = np.isfinite(result)
    if not finite.all():
        row, column = (int(index) for index in np.argwhere(~finite)[0])
        found = "NaN" if np.isnan(result[row, column]) else "inf"
        raise ValueError(
            f"{name} must be finite, not {found} in row {row} of column {column}: a target may be missing, "
            "but all later states depend on an input; fill it in, or begin another experiment after it"
        )
    return result


def warn_of_order(X: Any, y: Any, lengths: IntArray) -> None:
    """Warn where the index of a DataFrame or Series tells that rows are not successive steps."""
    index = getattr(X if hasattr(X, "index") and hasattr(X, "iloc") else y, "index", None)
    if index is None or callable(index):
        return
    for rows in np.split(np.arange(len(index)), np.cumsum(lengths)[:-1]):
        part = index[rows]
        if not part.is_monotonic_increasing:
            problem = "is not in order: a shuffled split?"
        elif np.asarray(part).dtype.kind in "iu" and np.unique(np.diff(np.asarray(part))).size > 1:
            problem = "has a gap: was a part cut out?"
        else:
            continue
        message = f"rows are taken for successive steps, but their index {problem}"
        warnings.warn(message, UserWarning, stacklevel=4)
        return


def targets(regressor: Any, y: ArrayLike) -> Real:
    """Return y of shape (n,) or (n, q), in which NaN stands for a missing target."""
    _kind("y", y)
    with named("y"):
        checked = check_array(
            y,
            ensure_2d=False,
            dtype=np.float64,
            ensure_all_finite="allow-nan",
            input_name="y",
            estimator=regressor,
        )
    result: Real = np.ascontiguousarray(checked)
    if result.ndim not in (1, 2):
        raise ValueError(f"y must have shape (n,) or (n, q), not {result.shape}")
    return result


def _kind(name: str, value: Any) -> None:
    """Refuse arrays that scikit-learn would read as something else than they are."""
    if isinstance(value, np.ma.MaskedArray):
        missing = "NaN is a missing target" if name == "y" else "fill it in"
        raise TypeError(f"{name} must not be a masked array: {missing}")
    if getattr(getattr(value, "dtype", None), "kind", "f") in "mM":
        raise TypeError(f"{name} must be an array of real numbers, not of dtype {value.dtype}")


def states(h0: ArrayLike, count: int, h: int) -> Real:
    """Return states to begin in, one of all sequences or one of each, as (count, h)."""
    given = _validate.numeric("h0", h0)
    if given.shape not in ((h,), (count, h)):
        raise ValueError(f"h0 must have shape ({h},) or ({count}, {h}), not {given.shape}")
    result: Real = _validate.array("h0", given, np.dtype(np.float64), given.shape)
    return np.broadcast_to(result, (count, h))


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
def named(name: str) -> Iterator[None]:
    """Let messages name the argument where they do not: scikit-learn's, or those of what is in it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if re.search(rf"\b{name}\b", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from None
    except Exception as error:  # of arrays of other libraries, which NumPy cannot read
        raise TypeError(f"{name} must be an array of numbers that NumPy can read: {error}") from error
