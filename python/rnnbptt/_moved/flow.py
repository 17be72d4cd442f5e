"""Where older pickles look for GradientFlow, RangeExits and gradient_flow."""

from rnnbptt.reports.flow import GradientFlow as GradientFlow
from rnnbptt.reports.flow import RangeExits as RangeExits
from rnnbptt.reports.flow import gradient_flow as gradient_flow
