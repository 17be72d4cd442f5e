"""Where older pickles look for Scaled."""

from rnnbptt.reports.wide_range.scaled import Scaled as Scaled
