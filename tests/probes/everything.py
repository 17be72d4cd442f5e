"""One call of every public function, on a problem that is large enough for threads and for a lift."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import rnnbptt
from rnnbptt import Chunked, Gradients, Objective, Params, Sliding

T, B, d, h, q = 700, 3, 2, 12, 2
_rng = np.random.default_rng(0)
params = Params.random(d, h, q, biases=True, direct=True, rng=1)
narrow = Params.random(d, h, q, rng=1, dtype=np.float32)
x, y, h0 = _rng.standard_normal((T, B, d)), _rng.standard_normal((T, B, q)), _rng.standard_normal((B, h))
v, weights, lengths = _rng.standard_normal((T, B, h)), _rng.uniform(0.1, 1, (T, B)), np.array([T, 5, 300])
every = [name for name, _ in params.items()]
tangent = Gradients(**{name: np.ones_like(a) for name, a in params.items()})
classes = _rng.integers(0, q, (T, B))
INPUTS = (params, narrow, x, y, h0, v, weights, lengths, tangent, classes)


def _objective(**options: Any) -> Objective:
    return Objective(x, y, like=params, num_threads=2, **options)


CALLS: dict[str, Callable[[], Any]] = {
    "forward": lambda: rnnbptt.forward(params, x, h0, num_threads=2),
    "linear_scan": lambda: rnnbptt.linear_scan(params.W_hh, v, num_threads=2),
    "linear_scan, strided": lambda: rnnbptt.linear_scan(params.W_hh.T, v[::-2], num_threads=2),
    "matrix_powers": lambda: rnnbptt.matrix_powers(params.W_hh, 50, num_threads=2),
    "power_norms": lambda: rnnbptt.power_norms(params.W_hh, [1, 7, 10**6], num_threads=2),
    "state_gradients": lambda: rnnbptt.state_gradients(params, y, num_threads=2),
    "closed form": lambda: rnnbptt.state_gradients(params, y[:50], method="closed_form", num_threads=2),
    "loss_and_grad": lambda: rnnbptt.loss_and_grad(
        params, x, y, h0=h0, weights=weights, lengths=lengths, wrt=[*every, "h0", "x"], num_threads=2
    ),
    "float32": lambda: rnnbptt.loss_and_grad(
        narrow, x.astype(np.float32), y.astype(np.float32), num_threads=2
    ),
    "cross_entropy": lambda: rnnbptt.loss_and_grad(params, x, classes, loss="cross_entropy", num_threads=2),
    "a caller's loss": lambda: rnnbptt.loss_and_grad(
        params, x, y, loss=lambda o, y: (float(np.sum(o * y)), y.copy()), num_threads=2
    ),
    "little memory": lambda: rnnbptt.loss_and_grad(params, x, y, memory_limit=200_000, num_threads=2),
    "Sliding": lambda: rnnbptt.loss_and_grad(params, x, y, truncate=Sliding(9), num_threads=2),
    "Chunked": lambda: rnnbptt.loss_and_grad(params, x, y, truncate=Chunked(9), num_threads=2),
    "vjp": lambda: rnnbptt.vjp(params, x, y, h0, d_hT=h0, wrt=[*every, "h0", "x"], num_threads=2),
    "jvp": lambda: rnnbptt.jvp(params, x, tangent, d_h0=h0, num_threads=2),
    "hvp": lambda: rnnbptt.hvp(params, x, y, tangent, num_threads=2),
    "output_jacobian": lambda: rnnbptt.output_jacobian(params, x[:20], num_threads=2),
    "explain": lambda: rnnbptt.explain(params, x, num_threads=2),
    "Objective": lambda: _objective(h0=h0)(params),
    "Objective.flat": lambda: _objective().flat(params.ravel()),
    "Objective.hessp": lambda: _objective().hessp(params.ravel(), params.ravel()),
    "Objective.jac": lambda: Objective(x[:20], y[:20], like=params, num_threads=2).jac(params.ravel()),
    "Objective.residuals": lambda: _objective().residuals(params.ravel()),
    "Objective.gauss_newton": lambda: _objective().gauss_newton(params.ravel()),
    "spectral_report": lambda: rnnbptt.spectral_report(params.W_hh, num_threads=2).to_dict(),
    "gradient_flow": lambda: rnnbptt.gradient_flow(params, x[:90], y[:90], num_threads=2).to_dict(),
    "truncation_report": lambda: rnnbptt.truncation_report(
        params, x[:90], y[:90], draws=3, num_threads=2
    ).to_dict(),
}
