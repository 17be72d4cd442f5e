"""Where pickles of version 0.1 look for jvp."""

from rnnbptt.gradients.tangents import jvp as jvp
