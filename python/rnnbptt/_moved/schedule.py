"""Where older pickles look for Schedule and explain."""

from rnnbptt.gradients.schedule import Schedule as Schedule
from rnnbptt.gradients.schedule import explain as explain
