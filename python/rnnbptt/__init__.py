"""Exact gradients through linear recurrent networks, at the speed of the hardware.

    h_t = W_hx x_t + W_hh h_{t-1}  [+ b_h]          o_t = W_qh h_t  [+ W_qx x_t + b_q]

`loss_and_grad` gives the loss and all gradients of one data set; `Objective` does so again and again for an
optimiser; `vjp` takes a loss of your own; `rnnbptt.reference` is the same in plain NumPy, as equations.
"""

import sys as _sys
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from os.path import join as _join
from typing import TYPE_CHECKING

try:
    from . import _core
except ImportError as error:  # pragma: no cover - only in a tree that was not built
    if "_core" not in str(error):
        raise
    raise ImportError(
        f"the extension rnnbptt._core is not built ({error}): run 'pip install .' in the source tree"
    ) from error

from .engine.params import Gradients, Params, Trajectory
from .engine.runtime import build_info, get_num_threads, set_num_threads
from .engine.trajectories import forward, linear_scan, state_gradients
from .engine.truncation import Chunked, Randomized, Sliding
from .gradients.loss_and_grad import loss_and_grad
from .gradients.objective import Objective
from .gradients.vjp import vjp

if TYPE_CHECKING:
    from . import reference
    from .engine.powers import matrix_powers, power_norms
    from .fit import LinearRNNRegressor
    from .gradients.clipping import clip_by_global_norm
    from .gradients.curvature import GaussNewton
    from .gradients.hvp import hvp
    from .gradients.jacobian import output_jacobian
    from .gradients.jvp import jvp
    from .gradients.schedule import Schedule, explain
    from .reports.flow import GradientFlow, gradient_flow
    from .reports.spectrum import SpectralReport, spectral_report
    from .reports.truncation import TruncationReport, truncation_report

# Pickles name modules. Modules that older pickles name are also found in this folder.
__path__.append(_join(__path__[0], "_moved"))

__version__ = _core.__version__

__all__ = [
    "Chunked",
    "GaussNewton",
    "GradientFlow",
    "Gradients",
    "LinearRNNRegressor",
    "Objective",
    "Params",
    "Randomized",
    "Schedule",
    "Sliding",
    "SpectralReport",
    "Trajectory",
    "TruncationReport",
    "build_info",
    "clip_by_global_norm",
    "explain",
    "forward",
    "get_num_threads",
    "gradient_flow",
    "hvp",
    "jvp",
    "linear_scan",
    "loss_and_grad",
    "matrix_powers",
    "output_jacobian",
    "power_norms",
    "reference",
    "set_num_threads",
    "spectral_report",
    "state_gradients",
    "truncation_report",
    "vjp",
]


# What is imported when first asked for, and from where, so that importing the package costs little beside
# NumPy. No module has the name of something in here, which it would hide once it is imported.
_ON_DEMAND = {
    "GaussNewton": "gradients.curvature",
    "GradientFlow": "reports.flow",
    "LinearRNNRegressor": "fit",  # needs scikit-learn and SciPy, which are no dependencies of the rest
    "Schedule": "gradients.schedule",
    "SpectralReport": "reports.spectrum",
    "TruncationReport": "reports.truncation",
    "clip_by_global_norm": "gradients.clipping",
    "explain": "gradients.schedule",
    "gradient_flow": "reports.flow",
    "hvp": "gradients.hvp",
    "jvp": "gradients.jvp",
    "matrix_powers": "engine.powers",
    "output_jacobian": "gradients.jacobian",
    "power_norms": "engine.powers",
    "spectral_report": "reports.spectrum",
    "truncation_report": "reports.truncation",
}
_MODULES = ("fit", "jax", "reference", "torch")

# Which names there are depends on an extra: `__all__` is made when it is first asked for.
_NAMES = __all__
if not TYPE_CHECKING:
    del __all__


def __getattr__(name: str) -> object:
    if name not in _ON_DEMAND and name not in (*_MODULES, "__all__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        if name in _MODULES:
            return _import_module(f".{name}", __name__)
        value = _available() if name == "__all__" else _on_demand(name)
    except ImportError as error:
        # hasattr() is told that it is not there. An import statement asks in the same way before it fails
        # without a reason: it is given the reason.
        if _sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap":
            raise
        raise AttributeError(str(error)) from error
    globals()[name] = value
    return value


def _on_demand(name: str) -> object:
    return getattr(_import_module(f".{_ON_DEMAND[name]}", __name__), name)


def _available() -> list[str]:
    """Return the public names without those that cannot be had here, so that ``import *`` never fails."""
    try:
        _import_module(".fit", __name__)
    except ImportError:
        return [name for name in _NAMES if _ON_DEMAND.get(name) != "fit"]
    return _NAMES


def __dir__() -> list[str]:
    # What a user of the package calls by name. Whoever asks for everything that is listed, as help() does,
    # must not fail where an extra is missing, nor wait for one that is there.
    there = globals()
    special = {name for name in there if name.startswith("__") and name.endswith("__")}
    listed = {*_NAMES, *special, *(name for name in _MODULES if name in there)}
    return sorted(listed if _find_spec("sklearn") else listed - {"LinearRNNRegressor"})
