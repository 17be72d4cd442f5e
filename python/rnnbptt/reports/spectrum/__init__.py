"""What ``W_hh`` does to gradients on any data: its eigenvalues, and the norms of its powers."""

from .analysis import spectral_report
from .report import SpectralReport

__all__ = ["SpectralReport", "spectral_report"]
