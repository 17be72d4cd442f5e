"""Where pickles of version 0.1 look for spectral_report."""

from rnnbptt.reports.spectrum import spectral_report as spectral_report
