"""Where older pickles look for Curvature, GaussNewton and Layout."""

from rnnbptt.gradients.curvature import GaussNewton as GaussNewton
from rnnbptt.gradients.layout import Layout as Layout
from rnnbptt.gradients.objective import Objective as Curvature

__all__ = ["Curvature", "GaussNewton", "Layout"]
