"""Where older pickles look for Gradients, Params and Trajectory."""

from rnnbptt.engine.params import Gradients as Gradients
from rnnbptt.engine.params import Params as Params
from rnnbptt.engine.params import Trajectory as Trajectory
