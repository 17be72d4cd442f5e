"""Where older pickles look for Backpropagated."""

from rnnbptt.reports.flow.alignment import Backpropagated as Backpropagated
