"""Where older pickles look for SpectralReport."""

from rnnbptt.reports.spectrum import SpectralReport as SpectralReport
