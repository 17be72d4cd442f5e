"""Where pickles of version 0.1 look for Backpropagated."""

from rnnbptt.reports.flow.alignment import Backpropagated as Backpropagated
