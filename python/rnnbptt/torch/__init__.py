"""Linear RNNs in PyTorch, with the forward pass and the exact gradients of the engine: on the CPU.

`LinearRNN` is a module, `linear_rnn` a function of tensors. ``import rnnbptt`` alone does not import this.
"""

from .._extras import need as _need

_need("rnnbptt.torch", "torch", "torch")

from .functional import linear_rnn  # noqa: E402
from .module import LinearRNN  # noqa: E402

__all__ = ["LinearRNN", "linear_rnn"]


def __dir__() -> list[str]:
    return __all__
