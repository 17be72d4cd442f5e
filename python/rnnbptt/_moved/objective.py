"""Where older pickles look for Objective, loss_and_grad and vjp."""

from rnnbptt.gradients.loss_and_grad import loss_and_grad as loss_and_grad
from rnnbptt.gradients.objective import Objective as Objective
from rnnbptt.gradients.vjp import vjp as vjp
