"""A spectral report in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .numbers import number, power_of_two, rounding, steps

if TYPE_CHECKING:
    from .report import SpectralReport


def in_words(report: SpectralReport, normal: bool) -> str:
    """Return the verdict: the long run first, then the way there."""
    rho, sigma = number(report.spectral_radius), number(report.largest_singular_value)
    peak, lag = power_of_two(report.log2_transient_growth), report.transient_lag
    eigenvalue_rule = "all there is to it, for W_hh is normal"
    if report.growth == "nilpotent":
        said = [
            "Gradients vanish altogether: W_hh is nilpotent, and nothing reaches back "
            f"{steps(report.nilpotency_index or 0)} or more."
        ]
    elif report.growth == "decaying":
        said = [
            f"Gradients vanish in the long run: the spectral radius {rho} is below 1, and they end up "
            f"shrinking by it at every step back in time, to 1/e in {steps(float(report.decay_times[0]))}."
        ]
        if normal:
            said.append(f"That is {eigenvalue_rule}: no gradient grows on the way.")
    elif report.growth == "growing":
        outside = int(np.sum(report.unit_circle_distances < 0))
        said = [
            f"Gradients explode: the spectral radius {rho} is above 1, and the norm of W_hh^k ends up "
            f"growing by it at every step, by e in {steps(-float(report.decay_times[0]))}. Of {report.size} "
            f"eigenvalues, {outside} lie{'s' if outside == 1 else ''} outside the unit circle; a gradient "
            "without any component along these directions of W_hh^T does not explode."
        ]
        said.append(
            f"That is {eigenvalue_rule}."
            if normal
            else f"W_hh is not normal: at first the growth can be faster, up to {sigma} in one step."
        )
    elif report.growth == "bounded":
        orthogonal = normal and bool(
            np.all(np.abs(report.unit_circle_distances) <= rounding(report.size, report.dtype))
        )
        said = [
            "Gradients neither vanish nor explode: W_hh is orthogonal to rounding and keeps the length of "
            "every gradient, however far back."
            if orthogonal
            else "Some gradients neither vanish nor explode: the spectral radius is 1 to rounding. "
            "Components along eigenvalues on the unit circle stay, those along the others fade."
        ]
        if normal and not orthogonal:
            said.append(f"That is {eigenvalue_rule}.")
    elif report.growth == "polynomial":
        said = [
            "Gradients grow without bound, but not exponentially: the spectral radius is 1 to rounding "
            "with an eigenvalue on the unit circle that lacks eigenvectors, and the norm of W_hh^k grows "
            f"like k^{report.growth_degree:.2g}. The rule of eigenvalues below and above 1 does not see this."
        ]
    else:
        low, high = report.spectral_radius_bounds
        said = [
            "Rounding decides: changes of W_hh in its last digits move eigenvalues across the unit circle, "
            f"so whether gradients vanish or explode in the long run cannot be told (the computed radius is "
            f"{rho}; certain is only that it lies between {low:.4g} and {high:.4g}). What its powers show is "
            f"growth to {peak} by lag {lag}, which is what matters in practice."
        ]
    if not normal and lag is not None and report.growth != "undecided":
        said.append(_detour(report, sigma, peak, lag))
    return " ".join(said)


def _detour(report: SpectralReport, sigma: str, peak: str, lag: int) -> str:
    if lag == 0:
        return f"W_hh is not normal, but no gradient grows on the way: {sigma} is the most in one step."
    text = (
        f"But W_hh is not normal, and eigenvalues do not tell the way there: a gradient can first grow "
        f"{peak}-fold over {steps(lag)}"
    )
    if report.contraction_lag is None and report.growth == "decaying":
        return f"{text}, or more: powers beyond are lost in rounding."
    if report.growth == "bounded":
        return f"{text}, and stays below that."
    return f"{text}; from lag {report.contraction_lag} on, if not before, it is shorter than at first."
