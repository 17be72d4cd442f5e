"""A training step in PyTorch beside loops that autograd differentiates: ``python -m bench.training``.

A step is zero_grad, the network, mse_loss, backward and a step of SGD. The plain loop is what one writes
first; the hoisted one takes the products of inputs and outputs out of the loop and fuses what is left.
Gradients are asserted equal first. Steps run in turns, in bursts, so that whatever else the
machine does meets all of them; a figure is the median.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

from .processes import unslow

unslow()

import torch  # noqa: E402 - what slows NumPy must be gone before

import rnnbptt  # noqa: E402 - it imports NumPy
from rnnbptt.torch import LinearRNN  # noqa: E402 - so does this

if TYPE_CHECKING:
    from collections.abc import Callable

    Network = Callable[[LinearRNN, torch.Tensor], torch.Tensor]
    Step = Callable[[], None]

SHAPES = ["1000,32,16,64,8"]


def plain(model: LinearRNN, x: torch.Tensor) -> torch.Tensor:
    """Write the equations down."""
    state = torch.zeros(x.shape[1], model.h, dtype=x.dtype)
    outputs = []
    for step in x:
        state = step @ model.W_hx.T + state @ model.W_hh.T + model.b_h
        outputs.append(state @ model.W_qh.T + model.b_q)
    return torch.stack(outputs)


def hoisted(model: LinearRNN, x: torch.Tensor) -> torch.Tensor:
    """Leave one fused operation per step."""
    state = torch.zeros(x.shape[1], model.h, dtype=x.dtype)
    transposed = model.W_hh.T
    states = []
    for source in (x @ model.W_hx.T + model.b_h).unbind(0):
        state = torch.addmm(source, state, transposed)
        states.append(state)
    return torch.stack(states) @ model.W_qh.T + model.b_q


NETWORKS: dict[str, Network] = {"rnnbptt": lambda model, x: model(x), "plain": plain, "hoisted": hoisted}


def steps(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Step]:
    """Return a training step of each network, all from the same start."""
    T, B, d, h, q = shape
    torch.manual_seed(0)
    x, y = torch.randn(T, B, d, dtype=dtype), torch.randn(T, B, q, dtype=dtype)
    start = LinearRNN(d, h, q, dtype=dtype).to_params()
    made: dict[str, Step] = {}
    gradients: dict[str, list[torch.Tensor]] = {}
    for name, network in NETWORKS.items():
        model = LinearRNN.from_params(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

        def step(
            model: LinearRNN = model,
            optimizer: torch.optim.SGD = optimizer,
            network: Network = network,
        ) -> None:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(network(model, x), y)
            loss.backward()
            optimizer.step()

        step()
        gradients[name] = [p.grad for p in model.parameters()]
        made[name] = step
    tolerance = 1e4 * torch.finfo(dtype).eps
    for name, found in gradients.items():
        for a, b in zip(found, gradients["plain"], strict=True):
            error = float((a - b).norm() / b.norm())
            assert error <= tolerance, f"{name} is off by {error}"
    return made


def measure(made: dict[str, Step], turns: int) -> dict[str, float]:
    """Return milliseconds per step."""
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(turns):
        for name, step in made.items():
            step()  # finds its data in the caches again
            for _ in range(5 if name == "rnnbptt" else 1):
                before = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - before)
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    """Print a row for each shape and dtype."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("shapes", nargs="*", default=SHAPES, metavar="T,B,d,h,q")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rnnbptt.set_num_threads(arguments.threads)
    print("| T, B, d, h, q | dtype | rnnbptt | plain loop | hoisted loop | plain / ours | hoisted / ours |")
    print("|---|---|---|---|---|---|---|")
    for text in arguments.shapes:
        shape = tuple(map(int, text.split(",")))
        for dtype, short in ((torch.float64, "f64"), (torch.float32, "f32")):
            ms = measure(steps(shape, dtype), arguments.turns)
            ours, first, second = ms["rnnbptt"], ms["plain"], ms["hoisted"]
            times = f"{ours:.2f} | {first:.0f} | {second:.0f} | {first / ours:.1f}x | {second / ours:.1f}x"
            print(f"| {', '.join(map(str, shape))} | {short} | {times} |", flush=True)


if __name__ == "__main__":
    main()
