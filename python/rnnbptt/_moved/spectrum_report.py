"""Where pickles of version 0.1 look for SpectralReport."""

from rnnbptt.reports.spectrum.spectral_report import SpectralReport as SpectralReport
