"""Where older pickles look for forward, linear_scan and state_gradients."""

from rnnbptt.engine.trajectories import forward as forward
from rnnbptt.engine.trajectories import linear_scan as linear_scan
from rnnbptt.engine.trajectories import state_gradients as state_gradients
