"""Where pickles of version 0.1 look for Backpropagated."""

from rnnbptt.reports.alignment import Backpropagated as Backpropagated
