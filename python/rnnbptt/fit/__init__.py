"""Fitting linear RNNs to data: scikit-learn's interface, and the parts it is made of.

Needs the extra ``fit`` (scikit-learn, SciPy, joblib, threadpoolctl, tqdm), which
``import rnnbptt`` alone does not ask for.
"""

try:
    from .regressor import LinearRNNRegressor
except ImportError as error:
    if (error.name or "").split(".")[0] not in ("sklearn", "scipy", "joblib", "threadpoolctl"):
        raise
    raise ModuleNotFoundError(
        f"rnnbptt.fit needs {error.name}, which is not installed: pip install 'rnnbptt[fit]'", name=error.name
    ) from error
from .multi_start import StartSummary
from .state_space import StateSpace

__all__ = ["LinearRNNRegressor", "StartSummary", "StateSpace"]
