"""Where older pickles look for spectral_report."""

from rnnbptt.reports.spectrum import spectral_report as spectral_report
