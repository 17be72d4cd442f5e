"""Where pickles of version 0.1 look for Scaled."""

from rnnbptt.reports.wide_range.scaled import Scaled as Scaled
