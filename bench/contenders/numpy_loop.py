"""NumPy and BLAS: a loop over time, the rest as whole-array products, all buffers allocated beforehand.

Three ways to write the loop. `split` is the one found in textbooks: per step one product and one addition,
the inputs hoisted into a product over all steps. `joined` keeps [x_t, h_{t-1}] side by side, so that a step
is a single call: fastest where the interpreter dominates. `columns` stores a batch as columns, which BLAS
prefers for few sequences. In each, a weight gradient is one product over all steps.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat
from time import perf_counter

import numpy as np

from bench.contenders import Call, Prepare, Result
from bench.problems import Array, Problem, Shape


def version() -> str:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"NumPy {np.__version__} with {blas['name']} {blas['version']}"


def variants(shape: Shape, threads: int) -> dict[str, Prepare]:
    if shape.B == 1:
        return {"joined": joined, "split": split}
    return {"joined": joined, "split": split, "columns": columns}


def _mse(o: Array, y: Array, d_o: Array) -> float:
    """Loss; `o` is overwritten with the difference, `d_o` with the derivative."""
    np.subtract(o, y, out=o)
    np.multiply(o, 2 / o.size, out=d_o)
    return float(np.vdot(o, o)) / o.size


def split(problem: Problem) -> Call:
    W_hx, W_hh, W_qh, x, y = problem
    T, B, d = x.shape
    h, q = len(W_hh), len(W_qh)
    hidden, g = np.zeros((2, T + 1, B, h), W_hh.dtype)
    v = np.empty((T * B, h), W_hh.dtype)
    o, d_o = np.empty((2, T * B, q), W_hh.dtype)
    x, y = x.reshape(-1, d), y.reshape(-1, q)
    h_now, h_before, g_now = hidden[1:].reshape(-1, h), hidden[:-1].reshape(-1, h), g[:-1].reshape(-1, h)
    # The views of every step are made once; for a single sequence they are vectors.
    step = (h,) if B == 1 else (B, h)
    states, adjoints = list(hidden.reshape(-1, *step)), list(g.reshape(-1, *step))[::-1]
    sources = list(v.reshape(-1, *step))

    def call() -> Result:
        np.matmul(x, W_hx.T, out=v)
        transposed = np.ascontiguousarray(W_hh.T)
        for before, source, now in zip(states, sources, states[1:], strict=False):
            if B == 1:
                W_hh.dot(before, now)
            else:
                before.dot(transposed, now)
            np.add(now, source, now)
        np.matmul(h_now, W_qh.T, out=o)
        loss = _mse(o, y, d_o)
        np.matmul(d_o, W_qh, out=v)
        for after, source, now in zip(adjoints, reversed(sources), adjoints[1:], strict=False):
            after.dot(W_hh, now)
            np.add(now, source, now)
        return Result(loss, g_now.T @ x, g_now.T @ h_before, d_o.T @ h_now)

    return call


def joined(problem: Problem) -> Call:
    W_hx, W_hh, W_qh, x, y = problem
    T, B, d = x.shape
    h, q = len(W_hh), len(W_qh)
    z = np.zeros((T + 1, B, d + h), W_hh.dtype)  # row t is [x_{t+1}, h_t]
    z[:-1, :, :d] = x
    e = np.zeros((T + 1, B, q + h), W_hh.dtype)  # row t is [d_o_t, g_{t+1}]
    forward, adjoint = np.empty((h, d + h), W_hh.dtype), np.empty((h, q + h), W_hh.dtype)
    o = np.empty((T * B, q), W_hh.dtype)
    y = y.reshape(-1, q)
    z_rows, e_rows = z.reshape(-1, d + h), e.reshape(-1, q + h)
    h_now, g_now, d_o = z_rows[B:, d:], e_rows[: T * B, q:], e_rows[B:, :q]
    pick = 0 if B == 1 else slice(None)
    z_in, z_out = list(z[:-1, pick]), list(z[1:, pick, d:])
    e_in, e_out = list(e[:0:-1, pick]), list(e[-2::-1, pick, q:])

    def advance(matrix: Array, inputs: list[Array], outputs: list[Array]) -> None:
        # A deque of length 0 drains the map without a bytecode per step.
        if B == 1:
            deque(map(matrix.dot, inputs, outputs), maxlen=0)
        else:
            deque(map(np.matmul, inputs, repeat(matrix.T.copy()), outputs), maxlen=0)

    def call() -> Result:
        forward[:, :d], forward[:, d:] = W_hx, W_hh
        adjoint[:, :q], adjoint[:, q:] = W_qh.T, W_hh.T
        advance(forward, z_in, z_out)
        np.matmul(h_now, W_qh.T, out=o)
        loss = _mse(o, y, d_o)
        advance(adjoint, e_in, e_out)
        both = g_now.T @ z_rows[: T * B]
        return Result(loss, both[:, :d], both[:, d:], d_o.T @ h_now)

    return call


def columns(problem: Problem) -> Call:
    W_hx, W_hh, W_qh, x, y = problem
    T, B, d = x.shape
    h, q = len(W_hh), len(W_qh)
    z = np.zeros((T + 1, d + h, B), W_hh.dtype)
    z[:-1, :d] = x.transpose(0, 2, 1)
    e = np.zeros((T + 1, q + h, B), W_hh.dtype)
    rows = np.zeros(((T + 1) * B, d + h), W_hh.dtype)
    g_now = np.empty((T * B, h), W_hh.dtype)
    o, d_o = np.empty((2, T * B, q), W_hh.dtype)
    y = y.reshape(-1, q)
    forward, adjoint = np.empty((h, d + h), W_hh.dtype), np.empty((h, q + h), W_hh.dtype)
    z_in, z_out = list(z[:-1]), list(z[1:, d:])
    e_in, e_out = list(e[:0:-1]), list(e[-2::-1, q:])

    def call() -> Result:
        forward[:, :d], forward[:, d:] = W_hx, W_hh
        adjoint[:, :q], adjoint[:, q:] = W_qh.T, W_hh.T
        deque(map(forward.dot, z_in, z_out), maxlen=0)
        rows.reshape(T + 1, B, d + h)[:] = z.transpose(0, 2, 1)
        h_now = rows[B:, d:]
        np.matmul(h_now, W_qh.T, out=o)
        loss = _mse(o, y, d_o)
        e[1:, :q] = d_o.reshape(T, B, q).transpose(0, 2, 1)
        deque(map(adjoint.dot, e_in, e_out), maxlen=0)
        g_now.reshape(T, B, h)[:] = e[:-1, q:].transpose(0, 2, 1)
        both = g_now.T @ rows[: T * B]
        return Result(loss, both[:, :d], both[:, d:], d_o.T @ h_now)

    return call


def matmul_rate(dtype: np.dtype[np.floating], size: int = 2048, repeats: int = 3) -> float:
    """GF/s of a square product: the best of a few, after one to warm up."""
    a = np.random.default_rng(0).standard_normal((size, size)).astype(dtype)
    out = np.empty_like(a)
    np.matmul(a, a, out=out)
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        np.matmul(a, a, out=out)
        seconds.append(perf_counter() - start)
    return float(2 * size**3 / min(seconds) / 1e9)
