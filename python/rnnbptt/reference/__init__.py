"""The equations of backpropagation through time, in plain NumPy: the oracle, and the text to learn from.

A linear recurrent network reads inputs x_1 .. x_T, carries a hidden state from step to step, and answers at
every step; a loss compares its answers with targets:

====  ===============================================================  ==============================
(1)   h_t = W_hx x_t + W_hh h_{t-1}  [+ b_h]                            the state
(2)   o_t = W_qh h_t  [+ W_qx x_t + b_q]                                the output
(3)   L = (1 / sum w) * sum_{t,b} w_{t,b} l(y_{t,b}, o_{t,b})           the loss, one number
====  ===============================================================  ==============================

Where the outputs of a step have weights of their own, each weighs its share l_j of a squared loss, and L is
``sum w_{t,b,j} l_j / (sum w / q)``.

Backpropagation walks the same graph from the loss to the parameters. Write d_z for dL/dz, the column of
partial derivatives of L with respect to z; write g_t = d_h_t and e_t = W_qh^T d_o_t:

====  ===============================================================  ==============================
(4)   d_o_t = (w_t / sum w) * dl/do_t                                   outputs
(5)   d_W_qh = sum_t d_o_t h_t^T                                        output weights
(6)   g_t = e_t + W_hh^T g_{t+1},  g_{T+1} = 0                          states, one step from the next
(7)   g_t = sum_{i=t..T} (W_hh^T)^{T-i} W_qh^T d_o_{T+t-i}              states, solved for g_t
(8)   d_W_hx = sum_t g_t x_t^T                                          input weights
(9)   d_W_hh = sum_t g_t h_{t-1}^T                                      recurrent weights
(10)  d_h_0 = W_hh^T g_1                                                initial state
(11)  d_x_t = W_hx^T g_t  [+ W_qx^T d_o_t]                              inputs
(12)  d_b_h = sum_t g_t,  d_b_q = sum_t d_o_t,  d_W_qx = sum_t d_o_t x_t^T
====  ===============================================================  ==============================

Equation (7) holds the whole story of vanishing and exploding gradients: what happened k steps ago reaches
the loss through the k-th *power* of W_hh^T, and a power of a matrix shrinks or grows like the powers of its
eigenvalues.

The gradients come in three forms that share no line of arithmetic beyond (1) to (4), so that each is a
witness for the others:

``recursion``
    (6) as it stands, backwards in time. This is what everyone runs: its cost is that of the forward pass.
``closed_form``
    (7) as it stands, with explicit powers of W_hh^T.
``forward_mode``
    No backward pass at all: the derivative of the state by every parameter is carried *forward* beside the
    state. Slow, and the plainest demonstration that the other two are right.

`directional_derivative` and `numerical_gradient` add two witnesses that know no calculus: finite
differences, and the complex step; `jvp` and `hvp` take the complex step of the outputs and of the gradient
itself. `oracle` does the arithmetic in extended precision, to measure everyone else's rounding.

Truncated gradients (``truncate=``) keep some terms of (7) and leave out others: `truncation` says which.

The functions named like those of `rnnbptt` take the same arguments and return the same types, except that
there is no thread to choose (`num_threads`) and no buffer to reuse (`out`).
"""

from .closed_form import matrix_powers
from .gradients import loss_and_grad, oracle, state_gradients, vjp
from .model import forward
from .numerical import directional_derivative, numerical_gradient
from .scan import linear_scan
from .tangents import hvp, jvp

__all__ = [
    "directional_derivative",
    "forward",
    "hvp",
    "jvp",
    "linear_scan",
    "loss_and_grad",
    "matrix_powers",
    "numerical_gradient",
    "oracle",
    "state_gradients",
    "vjp",
]


def __dir__() -> list[str]:
    return __all__
