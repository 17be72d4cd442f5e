"""How gradients flow back through a model on its own data."""

from .analysis import gradient_flow
from .report import GradientFlow, RangeExits

__all__ = ["GradientFlow", "RangeExits", "gradient_flow"]
