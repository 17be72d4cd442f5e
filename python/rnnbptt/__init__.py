"""Exact gradients through linear recurrent networks, at the speed of the hardware.

    h_t = W_hx x_t + W_hh h_{t-1}  [+ b_h]          o_t = W_qh h_t  [+ W_qx x_t + b_q]

`loss_and_grad` gives the loss and all gradients of one data set; `Objective` does so again and again for an
optimiser; `vjp` takes a loss of your own; `rnnbptt.reference` is the same in plain NumPy, as equations.
"""

try:
    from . import _core
except ImportError as error:  # pragma: no cover - only in a tree that was not built
    if "_core" not in str(error):
        raise
    raise ImportError(
        f"the extension rnnbptt._core is not built ({error}): run 'pip install .' in the source tree"
    ) from error

from . import reference
from .clipping import clip_by_global_norm
from .curvature import GaussNewton
from .flow import GradientFlow, gradient_flow
from .hessian import hvp
from .jacobian import output_jacobian
from .objective import Objective, loss_and_grad, vjp
from .params import Gradients, Params, Trajectory
from .powers import matrix_powers, power_norms
from .runtime import build_info, get_num_threads, set_num_threads
from .schedule import Schedule, explain
from .spectrum import spectral_report
from .spectrum_report import SpectralReport
from .tangents import jvp
from .trajectories import forward, linear_scan, state_gradients
from .truncation import Chunked, Randomized, Sliding
from .truncation_report import TruncationReport, truncation_report

__version__ = _core.__version__

__all__ = [
    "Chunked",
    "GaussNewton",
    "GradientFlow",
    "Gradients",
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


def __getattr__(name: str) -> object:
    # It needs scikit-learn and SciPy, which are no dependencies of the rest.
    if name == "LinearRNNRegressor":
        from .fit import LinearRNNRegressor

        return LinearRNNRegressor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "LinearRNNRegressor"])
