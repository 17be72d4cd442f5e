"""Random parameters have the distributions that they are said to have."""

from __future__ import annotations

import numpy as np
import pytest

from problems import KINDS
from rnnbptt import Params
from rnnbptt.engine.params import Kind


def test_entries_have_a_variance_of_one_over_the_number_of_columns() -> None:
    params = Params.random(16, 400, 25, biases=True, direct=True, rng=0)
    for name, array in params.items():
        if name != "W_hh":
            # Of n squares the mean is off by sqrt(2 / n).
            square = float(np.mean(array**2)) * array.shape[-1]
            assert abs(square - 1) < 4 * np.sqrt(2 / array.size), name


def test_orthogonal_matrices_are_distributed_uniformly() -> None:
    # Then traces have the mean 0 and the variance 1.
    rng = np.random.default_rng(0)
    traces = [
        np.trace(Params.random(1, 3, 1, spectral_radius=1, kind="orthogonal", rng=rng).W_hh)
        for _ in range(1000)
    ]
    assert abs(np.mean(traces)) < 4 / np.sqrt(len(traces))
    assert abs(np.var(traces) - 1) < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_the_spectral_radius_is_what_was_asked_for(kind: Kind) -> None:
    W_hh = Params.random(1, 7, 1, spectral_radius=0.6, kind=kind, rng=0).W_hh
    assert abs(np.abs(np.linalg.eigvals(W_hh)).max() - 0.6) < 1e-12
