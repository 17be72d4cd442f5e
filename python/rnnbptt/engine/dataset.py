"""A data set, checked against the shapes and the dtype of parameters, in the form the extension reads."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from .. import _core, _validate
from .losses import check_weights
from .params import PARAMETERS, Params
from .params import checked as checked

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

    from .._validate import FloatArray
    from .losses import Loss

_PROBLEMS = {np.dtype(np.float32): _core.Problem32, np.dtype(np.float64): _core.Problem64}

#: What leaves every choice to the schedule.
_FREE = {"lift": 0, "window": 0, "splits": 0, "piece": -1, "keep_all_states": -1}


class Backflow(NamedTuple):
    """What flows backwards in time, where it is not simply ``W_hh^T g_{t+1}`` from a zero after the end."""

    d_hT: FloatArray | None = None
    """(B, h): what later steps ask of the last states."""
    block: int = 0
    """Nothing flows from steps block, 2 block, ... (counted from zero) to the state before; 0 for none."""
    factor: float = 1.0
    """What does flow is multiplied by this."""
    tau: int = 0
    """Each loss looks back at this many states; 0 for all."""


_NOT_TRUNCATED = Backflow()


class Dataset:
    """Inputs, initial state and weights of steps; and which gradients are wanted.

    Attributes
    ----------
    inputs : ndarray, shape (T, B, d)
    start : ndarray, shape (B, h), or None
    counting : StepWeights
        What counts in the loss, and how much.
    wrt : frozenset of str
    wanted : tuple of (str or None)
        The six parameters, None for those that `wrt` leaves out.
    tangent : bool
        Whether outputs are those of a model of states and tangents: o and o' side by side.
    """

    def __init__(
        self,
        params: Params,
        x: ArrayLike,
        h0: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        batch_first: bool = False,
        wrt: Collection[str] | None = None,
        memory_limit: int | None = None,
    ) -> None:
        self.kind = params._kind
        self.shape, self.dtype = params.shape, params.dtype
        self.terms = tuple(name for name, _ in params.items())
        d = self.shape[0]
        self.batch_first = _validate.boolean("batch_first", batch_first)
        self.inputs, self.batched = _validate.sequence("x", x, self.dtype, d, self.batch_first)
        self.steps, self.batch = self.inputs.shape[:2]
        self.start = self.state("h0", h0)
        outputs = (self.steps, self.batch, self.shape[2])
        self.counting = _validate.step_weights(
            weights, lengths, mask, self.dtype, outputs, self.batched, self.batch_first
        )
        self.tangent = False
        self.memory_limit = _validate.memory_limit(memory_limit)
        self.wrt = frozenset(self.terms)
        if wrt is not None:
            self.wrt = _validate.names("wrt", wrt, (*self.terms, "h0", "x"))
        self.wanted = tuple(name if name in self.wrt else None for name in PARAMETERS)

    @property
    def longest(self) -> int:
        """Steps of the longest sequence that matter."""
        lengths = self.counting.lengths
        return self.steps if lengths is None else int(lengths.max())

    @property
    def used(self) -> NDArray[np.bool_] | None:
        """Which (T, B) steps take part in the loss; None for all."""
        return self.counting.used(self.steps)

    @property
    def running(self) -> NDArray[np.bool_] | None:
        """Which (T, B) steps lie before the ends of their sequences; None for all."""
        return self.counting.running(self.steps)

    def counted(self, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Return which entries of an array (T, B, n) take part in the loss: as many as outputs, or all n."""
        weights = self.counting.weights
        if weights is None:
            running = self.running
            own = np.ones((1, 1, 1), bool) if running is None else running[..., np.newaxis]
        else:
            own = (weights if self.counting.by_output else weights[..., np.newaxis]) > 0
        return np.broadcast_to(own, shape)

    def shares(self) -> NDArray[np.float64]:
        """Return what of the loss is every step's, or every output's: (T, B, 1) or (T, B, q)."""
        total = self.counting.sum(self.steps, self.batch) or 1.0
        weights, running = self.counting.weights, self.running
        if weights is None:
            weights = np.ones((self.steps, self.batch)) if running is None else running.astype(np.float64)
        return (weights if weights.ndim == 3 else weights[..., np.newaxis]) / total

    @property
    def weight_sum(self) -> tuple[float, int]:
        """What the sum of weighted losses is divided by: mantissa and exponent."""
        return self.counting.true_sum(self.steps, self.batch)

    def fits(self, params: Params) -> bool:
        """Whether parameters have the shapes, the dtype and the terms the data were checked against."""
        return params._kind == self.kind

    def starting_at(self, h0: FloatArray | None) -> Self:
        """Return the same data with another initial state, as the caller lays it out; None leaves it."""
        if h0 is None:
            return self
        other = copy.copy(self)
        other.start = self.state("h0", h0)
        return other

    def leaving_out(self, missing: NDArray[np.bool_]) -> Self:
        """Return the same data without outputs that are missing, (T, B, q), or steps, (T, B)."""
        other = copy.copy(self)
        other.counting = self.counting.without(missing, self.steps)
        return other

    def for_model(
        self,
        shape: tuple[int, int, int],
        start: FloatArray | None,
        inputs: FloatArray | None = None,
        *,
        tangent: bool = False,
    ) -> Self:
        """Return the same data for another model with the same terms, of sizes `shape`.

        The initial state is `start`, (B, h), and so are the inputs, (T, B, d), where given.
        """
        other = copy.copy(self)
        other.shape, other.start, other.wrt, other.tangent = shape, start, self.wrt - {"x"}, tangent
        if inputs is not None:
            other.inputs = inputs
        return other

    def targets(self, loss: Loss, y: ArrayLike) -> NDArray[Any]:
        """Return the targets of a loss that has a name as the extension reads them."""
        check_weights(loss, self.counting)
        if loss.labels:
            shape = (self.steps, self.batch)
            layout = self.batched, self.batch_first
            with _validate.memory_for("y"):
                return _validate.labels(y, self.shape[2], shape, *layout, self.used, loss=loss.name)
        return self.outputs_like("y", y)

    def outputs_like(self, name: str, value: ArrayLike) -> FloatArray:
        """Return an array of the shape of the outputs as the extension reads it."""
        shape = (self.steps, self.batch, self.shape[2])
        return _validate.like_sequence(name, value, self.dtype, shape, self.batched, self.batch_first)

    def state(self, name: str, value: ArrayLike | None) -> FloatArray | None:
        """Return one state per sequence, (B, h), as the extension reads it."""
        return _validate.initial_state(value, self.dtype, self.batch, self.shape[1], self.batched, name)

    def pose(
        self,
        loss: Loss | None,
        targets: NDArray[Any] | None,
        back: Backflow = _NOT_TRUNCATED,
        goal: str = "gradients",
        /,
        **schedule: int,
    ) -> _core.Problem:
        """Hand the data over to the extension; `schedule` prescribes what it would choose by itself.

        Without a `loss`, `targets` are dL/do. The `goal` is "gradients", "outputs", or "states" for these
        and outputs.
        """
        if goal == "gradients" and "x" in self.wrt:
            goal = "input_gradients"
        return _PROBLEMS[self.dtype](
            shape=(self.steps, self.batch, *self.shape),
            loss="given" if loss is None else loss.name,
            loss_parameter=0.0 if loss is None or loss.parameter is None else loss.parameter,
            x=self.inputs,
            y=targets,
            h0=self.start,
            weights=self.counting.weights,
            lengths=self.counting.lengths,
            d_hT=back.d_hT,
            block=back.block,
            flow=back.factor,
            tau=back.tau,
            weight_sum=self.counting.sum(self.steps, self.batch) or 1.0,  # nothing counts: no share is taken
            bias="b_h" in self.terms,
            goal=goal,
            memory_limit=self.memory_limit,
            tangent=self.tangent,
            **(_FREE | schedule),
        )

    def time_major(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of an array in the caller's layout as (T, B, ...)."""
        return _validate.time_major(array, self.batched, self.batch_first)

    def result(
        self,
        name: str,
        features: int,
        out: NDArray[Any] | None = None,
        inputs: Collection[FloatArray | None] = (),
    ) -> FloatArray:
        """Return the array for a result of `features` values per step: the caller's `out`, or a new one."""
        shape = _validate.caller_shape((self.steps, self.batch, features), self.batched, self.batch_first)
        return _validate.out(name, out, self.dtype, shape, [array for array in inputs if array is not None])
