"""Where pickles of version 0.1 look for SpectralReport."""

from rnnbptt.reports.spectrum import SpectralReport as SpectralReport
