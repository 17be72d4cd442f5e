"""Linear RNNs in JAX, with the forward pass and the exact gradients of the engine: on the CPU.

``import rnnbptt`` alone does not import this. Importing it makes `rnnbptt.Params` a tree that JAX can take
apart.
"""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("rnnbptt.jax needs JAX: pip install 'rnnbptt[jax]'") from error

from .functional import linear_rnn

__all__ = ["linear_rnn"]
