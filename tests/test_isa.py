"""Every instruction set this machine has gives results within the same bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES, OTHER_FORMS, SCALARS, STEP_OPTIONS, Array, assert_same, build
from rnnbptt import Params
from tolerances import FORMS, gradient_bound, relative_error, sequential_bound

ISAS = ("v2", "v3", "v4")
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 23, 24, 25, 47, 48, 49)


def run(code: str, isa: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"RNNBPTT_ISA": isa},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def check(isa: str) -> None:
    """Compare with the reference, in a process that was told which instruction set to use."""
    assert rnnbptt.build_info()["isa"] == isa
    for dtype in SCALARS:
        for number, size in enumerate(WIDTHS):
            rng = np.random.default_rng(size)
            loss = LOSSES[number % len(LOSSES)]
            for T, B, d, h, q in ((40, 2, 3, size, 2), (7, size, size, 5, 3), (40, 1, 2, 4, size)):
                case = build(rng, dtype, (T, B, d, h, q), loss=loss, steps=STEP_OPTIONS[: number % 4])
                _, exact = case.oracle()
                _, by_steps = case.sequential()
                bound = gradient_bound(dtype, h, T, 0.9)
                for _, actual in (case.engine(), case.scheduled(lift=5, window=3, piece=4)):
                    for name, gradient in actual.items():
                        expected = getattr(exact, name)
                        own = relative_error(getattr(by_steps, name), expected)
                        error = relative_error(gradient, expected)
                        assert error <= sequential_bound(dtype, own), (name, size)
                        assert error <= bound or own > bound / 2, (name, size)
        check_whole_numbers(dtype)
        check_threads(dtype)
    check_hessian_products()


def check_whole_numbers(dtype: type[np.float32 | np.float64]) -> None:
    rng = np.random.default_rng(1)
    for h in WIDTHS:
        W_hh = np.zeros((h, h))
        W_hh[np.arange(h), rng.permutation(h)] = rng.choice([-1, 1], h)

        def whole(*shape: int) -> Array:
            return rng.integers(-2, 3, shape).astype(dtype)

        params = Params(whole(h, 3), W_hh.astype(dtype), whole(2, h), whole(h), whole(2), whole(2, 3))
        x, d_o, h0 = whole(30, 3, 3), whole(30, 3, 2), whole(3, h)
        wrt = [name for name, _ in params.items()] + ["h0", "x"]
        actual = rnnbptt.vjp(params, x, d_o, h0, wrt=wrt)
        assert_same(actual, rnnbptt.reference.vjp(params, x, d_o, h0, wrt=wrt, method=OTHER_FORMS[0]), 0.0)


def check_threads(dtype: type[np.float32 | np.float64]) -> None:
    for B in (1, 2, 9, 17):
        for h in WIDTHS:
            rng = np.random.default_rng(h)
            W = build(rng, dtype, (1, 1, 1, h, 1)).params.W_hh
            v = rng.standard_normal((40, B, h)).astype(dtype)
            expected = rnnbptt.linear_scan(W, v, num_threads=1)
            for threads in (2, 3):
                actual = rnnbptt.linear_scan(W, v, num_threads=threads)
                assert actual.tobytes() == expected.tobytes(), (B, h, threads)


def check_hessian_products() -> None:
    for size in WIDTHS:
        rng = np.random.default_rng(size)
        for sizes, lift in (((12, 2, 2, size, 2), 1), ((12, 1, 2, size, 3), 4), ((12, 1, 2, 3, size), 3)):
            case = build(rng, np.float64, sizes)
            actual, v = case.hessian_product(size, lift=lift, window=2)
            exact = rnnbptt.reference.hvp(case.params, case.x, case.y, v, wrt=case.wrt[:-1], **case.options)
            expected = np.concatenate([part.ravel() for _, part in exact.items()])
            assert relative_error(actual, expected) <= FORMS, (sizes, lift)


@pytest.mark.parametrize("isa", ISAS)
def test_instruction_set(isa: str) -> None:
    supported = rnnbptt.build_info()["supported_isas"]
    if isa not in supported:
        pytest.skip(f"this machine and build have {', '.join(supported)}")
    here = str(Path(__file__).parent)
    done = run(f"import sys; sys.path.insert(0, {here!r}); import test_isa; test_isa.check({isa!r})", isa)
    assert done.returncode == 0, done.stderr


def test_empty_means_the_best() -> None:
    done = run("import rnnbptt; print(rnnbptt.build_info()['isa'])", "")
    assert done.stdout.strip() == rnnbptt.build_info()["supported_isas"][-1], done.stderr


@pytest.mark.parametrize("isa", ["v5", "avx2", "V3", " "])
def test_unknown_instruction_set(isa: str) -> None:
    done = run("import rnnbptt", isa)
    assert done.returncode == 1
    assert f"ImportError: RNNBPTT_ISA={isa} is not an instruction set of this build" in done.stderr
    assert "is not built" not in done.stderr


@pytest.mark.parametrize("isa", ISAS)
def test_instruction_set_that_the_machine_lacks(isa: str) -> None:
    if isa in rnnbptt.build_info()["supported_isas"]:
        pytest.skip("this machine has it")
    done = run("import rnnbptt", isa)
    assert done.returncode == 1
    assert f"ImportError: RNNBPTT_ISA={isa}" in done.stderr
