"""A data set, a loss and a truncation as one: what is differentiated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _validate
from ..engine.dataset import Backflow, Dataset
from ..engine.losses import CallersLoss, Loss, answer_of
from ..engine.params import Gradients, Params
from ..engine.trajectories import outputs
from ..engine.truncation import Randomized, Truncation, backflow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .. import _core
    from .._validate import FloatArray


class Problem:
    """What is differentiated, checked and handed to the extension once.

    Parameters
    ----------
    dataset : Dataset
    loss : Loss, callable or None
        A loss that has a name, a function of the caller's, or None where `y` is dL/do itself.
    y : array_like
        Targets as the caller lays them out.
    truncate : Sliding, Chunked, Randomized or None
    d_hT : ndarray, shape (B, h), optional
        What later steps ask of the last states.
    schedule : mapping of str to int, optional
        What is prescribed of the schedule, as `Dataset.pose` takes it.

    Attributes
    ----------
    native : _core.Problem or None
        What the extension made of it; None for a function, whose dL/do is another at every call.
    """

    def __init__(
        self,
        dataset: Dataset,
        loss: Loss | CallersLoss | None,
        y: Any,
        truncate: Truncation | None = None,
        *,
        d_hT: FloatArray | None = None,
        schedule: Mapping[str, int] | None = None,
    ) -> None:
        self.dataset, self.loss, self._y = dataset, loss, y
        self._truncate, self._d_hT, self.schedule = truncate, d_hT, schedule or {}
        self.native: _core.Problem | None = None
        if loss is None or isinstance(loss, Loss):
            back = backflow(truncate, dataset) if d_hT is None else Backflow(d_hT=d_hT)
            self.native = dataset.pose(loss, self.targets(), back, **self.schedule)

    @property
    def posed(self) -> _core.Problem:
        """What the extension made of a problem whose loss is no function."""
        assert self.native is not None
        return self.native

    def targets(self) -> NDArray[Any]:
        """Return the targets, or dL/do, as the extension reads them."""
        if isinstance(self.loss, Loss):
            return self.dataset.targets(self.loss, self._y)
        return self.dataset.outputs_like("d_o", self._y)

    def starting_at(self, h0: FloatArray | None) -> Problem:
        """Return the same problem with another initial state, as the caller lays it out; None leaves it."""
        if h0 is None:
            return self
        dataset = self.dataset.starting_at(h0)
        return Problem(dataset, self.loss, self._y, self._truncate, d_hT=self._d_hT, schedule=self.schedule)

    def loss_and_gradients(self, params: Params, threads: int) -> tuple[float, Gradients]:
        """Compute the loss, 0 where dL/do is given, and the gradients that the data's `wrt` names."""
        if self.native is None:
            return self._with_callers_loss(params, threads)
        dataset, truncate = self.dataset, self._truncate
        if isinstance(truncate, Randomized):
            cuts = truncate.cuts(dataset.steps, dataset.batch).view(np.uint8)
            return self._gradients(params, threads, cuts=cuts)
        return self._gradients(params, threads)

    def _with_callers_loss(self, params: Params, threads: int) -> tuple[float, Gradients]:
        assert callable(self.loss)
        L, d_o = answer_of(self.loss, outputs(params, self.dataset, threads), self._y)
        given = Problem(self.dataset, None, d_o, self._truncate, schedule=self.schedule)
        return L, given.loss_and_gradients(params, threads)[1]

    def _gradients(
        self,
        params: Params,
        threads: int,
        cuts: NDArray[np.uint8] | None = None,
    ) -> tuple[float, Gradients]:
        """Compute loss and gradients in new arrays; nothing flows back to the state before a step of `cuts`.

        `cuts`, (T, B), are 1 there.
        """
        dataset = self.dataset
        d, h, _ = dataset.shape
        d_h0 = _validate.allocate("d_h0", (dataset.batch, h), dataset.dtype) if "h0" in dataset.wrt else None
        d_x = dataset.result("d_x", d) if "x" in dataset.wrt else None
        view = None if d_x is None else dataset.time_major(d_x)
        arguments = params._arrays, dataset.wanted, d_h0, view, cuts, threads
        loss, results = self.posed.gradient(*arguments)
        return loss, Gradients._make((*results, d_h0 if d_h0 is None or dataset.batched else d_h0[0], d_x))
