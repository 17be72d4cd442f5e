"""Linear RNNs in JAX, with the forward pass and the exact gradients of the engine: on the CPU.

``import rnnbptt`` alone does not import this. Importing it makes `rnnbptt.Params` a tree that JAX can take
apart.
"""

from .._extras import need as _need

_need("rnnbptt.jax", "jax", "jax")

from .functional import linear_rnn  # noqa: E402

__all__ = ["linear_rnn"]


def __dir__() -> list[str]:
    return __all__
