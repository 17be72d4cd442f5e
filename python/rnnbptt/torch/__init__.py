"""Linear RNNs in PyTorch, with the forward pass and the exact gradients of the engine: on the CPU.

`LinearRNN` is a module, `linear_rnn` a function of tensors. ``import rnnbptt`` alone does not import this.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("rnnbptt.torch needs PyTorch: pip install 'rnnbptt[torch]'") from error

from .functional import linear_rnn
from .module import LinearRNN

__all__ = ["LinearRNN", "linear_rnn"]
