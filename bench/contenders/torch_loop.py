"""PyTorch: an eager loop over time differentiated by autograd.

Inputs and outputs are products over all steps outside the loop; a step is one fused multiply-and-add call.
"""

from __future__ import annotations

import torch

from bench.contenders import Call, Prepare, Result
from bench.problems import Problem, Shape

# The graph of a longer loop takes gigabytes.
MOST_STEPS = 200_000


def version() -> str:
    return f"PyTorch {torch.__version__}"


def variants(shape: Shape, threads: int) -> dict[str, Prepare]:
    torch.set_num_threads(threads)
    return {"loop": _loop} if shape.T <= MOST_STEPS else {}


def _loop(problem: Problem) -> Call:
    weights = [torch.from_numpy(W).requires_grad_() for W in (problem.W_hx, problem.W_hh, problem.W_qh)]
    W_hx, W_hh, W_qh = weights
    single = problem.x.shape[1] == 1
    x, y = (torch.from_numpy(data[:, 0] if single else data) for data in (problem.x, problem.y))

    def call() -> Result:
        sources = torch.unbind(x @ W_hx.T)
        state = sources[0]
        hidden = [state]
        transposed = W_hh.T
        for source in sources[1:]:
            state = torch.addmv(source, W_hh, state) if single else torch.addmm(source, state, transposed)
            hidden.append(state)
        loss = torch.nn.functional.mse_loss(torch.stack(hidden) @ W_qh.T, y)
        gradients = torch.autograd.grad(loss, weights)
        return Result(loss.detach(), *gradients)

    return call
