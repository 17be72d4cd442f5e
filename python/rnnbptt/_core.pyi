from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Array: TypeAlias = NDArray[Any]
_Arrays: TypeAlias = tuple[_Array | None, ...]
_Shape: TypeAlias = tuple[int, int, int, int, int]
_Numbers: TypeAlias = tuple[_Array, NDArray[np.int64]]
_Terms: TypeAlias = tuple[bool, bool, bool, bool]

__version__: str
xla_handlers: dict[str, Any]

class Problem:
    def __init__(
        self,
        *,
        shape: _Shape,
        loss: str,
        loss_parameter: float,
        x: _Array,
        y: _Array | None,
        h0: _Array | None,
        weights: _Array | None,
        lengths: NDArray[np.int64] | None,
        d_hT: _Array | None,
        block: int,
        flow: float,
        tau: int,
        weight_sum: float,
        lift: int,
        window: int,
        splits: int,
        piece: int,
        keep_all_states: int,
        memory_limit: float,
        bias: bool,
        goal: str,
        tangent: bool,
    ) -> None: ...
    def gradient(
        self,
        params: _Arrays,
        wanted: tuple[str | None, ...],
        d_h0: _Array | None,
        d_x: _Array | None,
        cuts: _Array | None,
        threads: int,
    ) -> tuple[float, _Arrays]: ...
    def flat(self, theta: object, terms: _Terms, threads: int) -> tuple[float, _Array] | None: ...
    def hessian_product(self, theta: object, v: object, terms: _Terms, threads: int) -> _Array | None: ...
    def outputs(
        self, params: _Arrays, o: _Array, hidden: _Array | None, last: _Array | None, threads: int
    ) -> None: ...
    def residuals(self, theta: _Array, terms: _Terms, r: _Array, threads: int) -> None: ...
    def jacobian(
        self, theta: _Array, terms: _Terms, first: tuple[int, ...], total: int, J: _Array, threads: int
    ) -> None: ...
    def gauss_newton(
        self, theta: _Array, terms: _Terms, first: tuple[int, ...], total: int, matrix: _Array, threads: int
    ) -> None: ...
    def gauss_newton_blocks(
        self,
        theta: _Array,
        terms: _Terms,
        first: tuple[int, ...],
        total: int,
        states: _Array,
        outputs: _Array,
        starts: _Array | None,
        threads: int,
    ) -> None: ...
    def used_schedule(self) -> dict[str, Any]: ...

class Problem32(Problem): ...
class Problem64(Problem): ...

def linear_scan32(
    shape: tuple[int, int, int],
    W: _Array,
    v: _Array,
    s0: _Array | None,
    reverse: bool,
    transpose: bool,
    s: _Array,
    piece: int,
    threads: int,
) -> None: ...
def linear_scan64(
    shape: tuple[int, int, int],
    W: _Array,
    v: _Array,
    s0: _Array | None,
    reverse: bool,
    transpose: bool,
    s: _Array,
    piece: int,
    threads: int,
) -> None: ...
def matrix_powers32(h: int, n: int, W: _Array, powers: _Array, threads: int) -> None: ...
def matrix_powers64(h: int, n: int, W: _Array, powers: _Array, threads: int) -> None: ...
def scaled_powers(
    h: int,
    W: _Array,
    ks: NDArray[np.int64],
    mantissas: _Array,
    exponents: NDArray[np.float64] | NDArray[np.int64],
    threads: int,
    bits: int,
) -> None: ...
def scaled_scan(
    shape: tuple[int, int, int],
    M: _Array,
    exponent: int,
    v: _Array,
    v_exponents: NDArray[np.int64],
    s: _Array,
    s_exponents: NDArray[np.int64],
    zero: int,
    reverse: bool,
) -> None: ...
def multiply_entries(
    shape: tuple[int, int, int], A: _Numbers, B: _Numbers, C: _Numbers, zero: int, threads: int
) -> None: ...
def scan_entries(
    shape: tuple[int, int, int], M: _Numbers, v: _Numbers, s: _Numbers, zero: int, reverse: bool
) -> None: ...
def correlate_entries(
    shape: tuple[int, int, int, int, int],
    a: _Numbers,
    b: _Numbers,
    R: _Numbers,
    zero: int,
    threads: int,
) -> None: ...
def product(shape: tuple[int, int, int], A: _Array, B: _Array, C: _Array, threads: int) -> None: ...
def correlate(
    shape: tuple[int, int, int, int, int], a: _Array, b: _Array, R: _Array, length: int, threads: int
) -> None: ...
def row_sizes(rows: int, width: int, lanes: int, data: _Array, bits: int) -> tuple[bool, bool, bool]: ...
def outer_sum(shape: tuple[int, int, int], A: _Array, B: _Array, C: _Array, threads: int) -> None: ...
def inner_products(
    shape: tuple[int, int, int, int], P: _Array, G: _Array, Z: _Array, inner: _Array, threads: int
) -> None: ...
def gram_products(
    shape: tuple[int, int, int, int],
    P: _Array,
    Z: _Array | None,
    B: _Array | None,
    inner: _Array,
    largest: _Array,
    threads: int,
) -> None: ...
def log2_state_norms(
    shape: tuple[int, int, int, int],
    W: _Array,
    U: _Array,
    u: _Array,
    start: _Array,
    logs: _Array,
    threads: int,
) -> None: ...
def panel_product_rate(dtype: str, threads: int) -> float: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def set_openmp_team(threads: int) -> int: ...
def build() -> dict[str, Any]: ...
