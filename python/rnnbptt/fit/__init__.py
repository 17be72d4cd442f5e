"""Fitting linear RNNs to data: scikit-learn's interface, and the parts it is made of.

Needs the extra ``fit`` (scikit-learn, SciPy, joblib, threadpoolctl, tqdm), which
``import rnnbptt`` alone does not ask for.
"""

from .._extras import need as _need

# Those first that others import, so that the one which is at fault is named.
_need("rnnbptt.fit", "fit", "scipy", "joblib", "threadpoolctl", "sklearn")

from .multi_start import StartSummary  # noqa: E402
from .regressor import LinearRNNRegressor  # noqa: E402
from .state_space import StateSpace  # noqa: E402

__all__ = ["LinearRNNRegressor", "StartSummary", "StateSpace"]


def __dir__() -> list[str]:
    return __all__
