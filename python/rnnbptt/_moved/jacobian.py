"""Where pickles of version 0.1 look for output_jacobian."""

from rnnbptt.gradients.jacobian import output_jacobian as output_jacobian
