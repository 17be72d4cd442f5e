"""Where older pickles look for matrix_powers and power_norms."""

from rnnbptt.engine.powers import matrix_powers as matrix_powers
from rnnbptt.engine.powers import power_norms as power_norms
