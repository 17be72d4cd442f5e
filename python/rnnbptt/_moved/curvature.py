"""Where pickles of version 0.1 look for GaussNewton and Layout, and for methods of Objective."""

from rnnbptt.gradients.curvature import GaussNewton as GaussNewton
from rnnbptt.gradients.layout import Layout as Layout
from rnnbptt.gradients.objective import Objective as Curvature

__all__ = ["Curvature", "GaussNewton", "Layout"]
