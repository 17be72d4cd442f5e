"""Where older pickles look for Dataset."""

from rnnbptt.engine.dataset import Dataset as Dataset
