"""Where older pickles look for TruncationReport and truncation_report."""

from rnnbptt.reports.truncation import TruncationReport as TruncationReport
from rnnbptt.reports.truncation import truncation_report as truncation_report
