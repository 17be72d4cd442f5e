"""Where pickles of version 0.1 look for GaussNewton and Layout."""

from rnnbptt.gradients.curvature import GaussNewton as GaussNewton
from rnnbptt.gradients.layout import Layout as Layout
