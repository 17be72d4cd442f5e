"""Which way the engine computes a gradient, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import _validate
from ..engine.dataset import Dataset, checked
from ..engine.runtime import build_info, get_num_threads
from .problem import Problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike

    from ..engine.params import Params

#: Growth of powers that ends no chunk (cpp/core/algebra/powers.cpp).
_HARMLESS_GROWTH = 4.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of one gradient. ``print`` it for the reasons in words.

    Attributes
    ----------
    steps_per_chunk : int
        L: time steps that are one step of the lifted model; 1 is plain backpropagation through time.
    chunks : int
        Chunks of the longest sequence: steps of the recurrence that wait for one another.
    wanted_steps_per_chunk : int
        What L would be if powers of ``W_hh`` did not grow too large on the way.
    growth : float
        How much powers of ``W_hh`` grow on the way to that L, as far as they were built, before they decay:
        the largest norm of a row times that of a column, apart from what exploding states grow by
        themselves. Chunks end where it passes 16, or 4 where nothing decays: longer ones would magnify
        rounding errors. 0 where no power was wanted.
    piece : int
        Chunks of a piece of the scan; 0 where lanes are not cut.
    windows : int
        Parts of time that are worked on at once.
    forward_passes : int
        2 where the states of all windows do not fit into memory, and each window is run again; else 1.
    splits : int
        Partial sums the weight gradients are collected in: the tasks of a stage.
    threads : int
        Threads the call may use. No bit of the result depends on them.
    isa : str
        Instruction set of the kernels.
    workspace_bytes : int
        Memory for states, their gradients and copies of the data, roughly.
    """

    __module__ = "rnnbptt"

    steps_per_chunk: int
    chunks: int
    wanted_steps_per_chunk: int
    growth: float
    piece: int
    windows: int
    forward_passes: int
    splits: int
    threads: int
    isa: str
    workspace_bytes: int

    def _why_shorter(self) -> str:
        wanted = self.wanted_steps_per_chunk
        if self.growth > _HARMLESS_GROWTH:
            grown = f"Powers of W_hh grow {self.growth:,.3g}-fold on the way to L = {wanted}, as was wanted"
            return f"  {grown}: that would magnify rounding errors."
        return f"  Powers of W_hh beyond {self.steps_per_chunk} explode; L = {wanted} was wanted."

    def __str__(self) -> str:
        L = self.steps_per_chunk
        lines = []
        if L == 1:
            lines.append("Plain backpropagation through time, one step after the other (L = 1):")
            if self.wanted_steps_per_chunk > 1:
                lines.append(self._why_shorter())
            else:
                lines.append("  for these sizes, building powers of W_hh would cost more than it saves.")
        else:
            lines.append(f"Time in {self.chunks} chunks of L = {L} steps, joined by the power W_hh^{L}:")
            lines.append(
                f"  one product with W_hh^{L} replaces {L} with W_hh; all else is one large product."
            )
            if self.wanted_steps_per_chunk > L:
                lines.append(self._why_shorter())
        if self.piece:
            lines.append(f"The recurrence runs in pieces of {self.piece} chunks side by side, twice.")
        if self.windows == 1:
            lines.append("All of it at once.")
        elif self.forward_passes == 1:
            lines.append(
                f"{self.windows} windows that stay in the caches, three at a time; all states are kept."
            )
        else:
            lines.append(f"{self.windows} windows, to save memory: the forward pass runs twice.")
        lines.append(
            f"{self.splits} partial sums, {self.threads} threads at most, kernels {self.isa}, "
            f"{self.workspace_bytes / 2**20:.1f} MiB of workspace."
        )
        return "\n".join(lines)


def explain(
    params: Params,
    x: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    batch_first: bool = False,
    wrt: Collection[str] | None = None,
    num_threads: int | None = None,
    memory_limit: int | None = None,
) -> Schedule:
    """Tell which schedule a gradient takes, by computing one.

    Parameters
    ----------
    params : Params
        Weights: the growth of powers of ``W_hh`` takes part in the decision.
    x : array_like, shape (T, B, d) or (T, d)
        Inputs; only their shape matters.
    lengths, batch_first, wrt, num_threads, memory_limit
        As for `loss_and_grad`.

    Returns
    -------
    Schedule

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `loss_and_grad` does.

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params.random(d=2, h=32, q=2, rng=0)
    >>> rnnbptt.explain(params, np.zeros((10_000, 2))).windows
    1
    """
    dataset = Dataset(
        checked(params), x, lengths=lengths, batch_first=batch_first, wrt=wrt, memory_limit=memory_limit
    )
    threads = _validate.num_threads(num_threads)
    # The same zeros at every step: the schedule does not look at values.
    shape = (*np.shape(x)[:-1], params.shape[2])
    problem = Problem(dataset, None, np.broadcast_to(np.zeros((), params.dtype), shape))
    problem.loss_and_gradients(params, threads)
    used = problem.posed.used_schedule()
    L = used["L"]
    return Schedule(
        steps_per_chunk=L,
        chunks=-(-dataset.longest // L),
        wanted_steps_per_chunk=used["L_wanted"],
        growth=used["growth"],
        piece=used["piece"],
        windows=used["windows"],
        forward_passes=1 if used["windows"] == 1 or used["keep_all_states"] else 2,
        splits=used["splits"],
        threads=threads or get_num_threads(),
        isa=build_info()["isa"],
        workspace_bytes=int(used["bytes"]),
    )
