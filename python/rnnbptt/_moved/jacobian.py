"""Where older pickles look for output_jacobian."""

from rnnbptt.gradients.jacobian import output_jacobian as output_jacobian
