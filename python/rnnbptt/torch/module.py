"""A linear RNN as a module with parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch._subclasses import FakeTensor

from .. import _validate
from ..engine.params import KINDS, PARAMETERS, Params
from .functional import linear_rnn

if TYPE_CHECKING:
    from .._validate import FloatArray
    from ..engine.params import Kind


class LinearRNN(torch.nn.Module):  # type: ignore[misc]  # torch is not looked into
    r"""Linear recurrent network with exact gradients by the engine of `rnnbptt`.

    .. math::

        h_t = W_{hx} x_t + W_{hh} h_{t-1} \; [+\, b_h], \qquad
        o_t = W_{qh} h_t \; [+\, W_{qx} x_t + b_q]

    Parameters
    ----------
    d, h, q : int
        Sizes of inputs, hidden state and outputs.
    bias : bool
        Whether there are ``b_h`` and ``b_q``.
    direct : bool
        Whether there is ``W_qx``.
    batch_first : bool
        Whether batched tensors are laid out (B, T, ...).
    dtype : torch.dtype, optional
        torch.float32 or torch.float64; `torch.get_default_dtype` when absent.
    spectral_radius : float
        Largest modulus of an eigenvalue of the initial ``W_hh``.
    kind : {"gaussian", "orthogonal", "symmetric", "identity"}
        Family of the initial ``W_hh``, as in `rnnbptt.Params.random`. Draws follow `torch.manual_seed`.
    num_threads : int, optional
        Threads to use; `rnnbptt.get_num_threads` when absent.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    Examples
    --------
    >>> import torch, rnnbptt.torch
    >>> model = rnnbptt.torch.LinearRNN(d=4, h=16, q=2)
    >>> model(torch.zeros(100, 8, 4)).shape
    torch.Size([100, 8, 2])
    """

    W_hx: torch.Tensor
    W_hh: torch.Tensor
    W_qh: torch.Tensor
    b_h: torch.Tensor | None
    b_q: torch.Tensor | None
    W_qx: torch.Tensor | None

    def __init__(
        self,
        d: int,
        h: int,
        q: int,
        *,
        bias: bool = True,
        direct: bool = False,
        batch_first: bool = False,
        dtype: torch.dtype | None = None,
        spectral_radius: float = 0.95,
        kind: Kind = "gaussian",
        num_threads: int | None = None,
    ) -> None:
        super().__init__()
        self.d, self.h, self.q = (_validate.size(n, v) for n, v in (("d", d), ("h", h), ("q", q)))
        self.batch_first = _validate.boolean("batch_first", batch_first)
        self.spectral_radius = _validate.nonnegative("spectral_radius", spectral_radius)
        _validate.choice("kind", kind, KINDS)
        self.kind = kind
        self.num_threads = num_threads
        _validate.num_threads(num_threads)
        absent = set() if _validate.boolean("bias", bias) else {"b_h", "b_q"}
        absent |= set() if _validate.boolean("direct", direct) else {"W_qx"}
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
            came = dtype if isinstance(dtype, torch.dtype) else _validate.describe(dtype)
            raise TypeError(f"dtype must be torch.float32 or torch.float64, not {came}")
        # Where new tensors hold no numbers, as under torch.device("meta"), parameters are of that kind.
        if _holds_numbers(torch.empty(())):
            drawn = self._draw(dtype)
            for name in PARAMETERS:
                self._register(name, None if name in absent else getattr(drawn, name))
            return
        shapes = {"W_hx": (h, d), "W_hh": (h, h), "W_qh": (q, h), "b_h": (h,), "b_q": (q,), "W_qx": (q, d)}
        for name, shape in shapes.items():
            empty = None if name in absent else torch.nn.Parameter(torch.empty(shape, dtype=dtype))
            self.register_parameter(name, empty)

    def forward(
        self, x: torch.Tensor, h0: torch.Tensor | None = None, *, return_state: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Run the network.

        Parameters
        ----------
        x : Tensor, shape (T, B, d) or (T, d)
            Inputs, of the dtype of the parameters.
        h0 : Tensor, shape (B, h) or (h,), optional
            Initial state; zero when absent.
        return_state : bool
            Whether to return the last state as well.

        Returns
        -------
        o : Tensor, shape (T, B, q) or (T, q)
            Outputs.
        h_T : Tensor, shape (B, h) or (h,)
            Last state, if `return_state`.
        """
        return linear_rnn(
            x,
            self.W_hx,
            self.W_hh,
            self.W_qh,
            self.b_h,
            self.b_q,
            self.W_qx,
            h0,
            batch_first=self.batch_first,
            return_state=return_state,
            num_threads=self.num_threads,
        )

    def reset_parameters(self) -> None:
        """Draw the parameters anew, in place; of those that hold no numbers there is nothing to draw."""
        if not _holds_numbers(self.W_hh):
            return
        drawn = self._draw(self.W_hh.dtype)
        with torch.no_grad():
            for name, parameter in self.named_parameters(recurse=False):
                parameter.copy_(torch.from_numpy(getattr(drawn, name)))

    def to_params(self) -> Params:
        """Return a copy of the parameters as `rnnbptt.Params`, for the NumPy side of the package."""
        tensors = (getattr(self, name) for name in PARAMETERS)
        return Params(*(None if t is None else t.numpy(force=True).copy() for t in tensors))  # type: ignore[arg-type]

    @classmethod
    def from_params(
        cls, params: Params, *, batch_first: bool = False, num_threads: int | None = None
    ) -> Self:
        """Return a module with a copy of the parameters, their dtype and their optional terms.

        Parameters
        ----------
        params : rnnbptt.Params
            If it has one of ``b_h`` and ``b_q``, the module has that one alone.
        batch_first, num_threads
            As for the class.

        Returns
        -------
        LinearRNN
        """
        if not isinstance(params, Params):
            raise TypeError(f"params must be rnnbptt.Params, not {type(params).__name__}")
        module = cls.__new__(cls)
        torch.nn.Module.__init__(module)
        module.d, module.h, module.q = params.shape
        module.batch_first = _validate.boolean("batch_first", batch_first)
        _validate.num_threads(num_threads)
        module.num_threads = num_threads
        module.spectral_radius, module.kind = 0.95, "gaussian"
        for name in PARAMETERS:
            module._register(name, getattr(params, name))
        return module

    def extra_repr(self) -> str:
        """Return what `repr` says of the module."""
        terms = [name for name in ("b_h", "b_q", "W_qx") if getattr(self, name) is not None]
        text = f"d={self.d}, h={self.h}, q={self.q}, terms={terms}"
        return text + (", batch_first=True" if self.batch_first else "")

    def _draw(self, dtype: torch.dtype) -> Params:
        return Params.random(
            self.d,
            self.h,
            self.q,
            spectral_radius=self.spectral_radius,
            kind=self.kind,
            biases=True,
            direct=True,
            rng=int(torch.randint(2**62, (), device="cpu").item()),
            dtype=np.float32 if dtype == torch.float32 else np.float64,
        )

    def _register(self, name: str, array: FloatArray | None) -> None:
        self.register_parameter(
            name, None if array is None else torch.nn.Parameter(torch.from_numpy(array.copy()))
        )


def _holds_numbers(tensor: torch.Tensor) -> bool:
    """Whether a tensor is more than a shape: not on the meta device, and not a fake one."""
    return not (tensor.is_meta or isinstance(tensor, FakeTensor))
