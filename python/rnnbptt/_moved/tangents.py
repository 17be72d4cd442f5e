"""Where pickles of version 0.1 look for jvp."""

from rnnbptt.gradients.jvp import jvp as jvp
